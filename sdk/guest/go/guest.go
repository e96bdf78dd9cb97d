// Package guest is what the author of a policy in Go imports. It speaks version
// 1 of the guest contract (holdfast_abi_v1): the host hands over a request as
// CBOR, the policy answers with a decision, and nothing is kept between two
// decisions because the host restores the module's memory after each.
//
//	package main
//
//	import guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
//
//	func init() { guest.Register(guest.Policy{Decide: decide}) }
//
//	func main() {}
//
//	func decide(r guest.Request) guest.Decision {
//		if r.Subject().ID() == "alice" {
//			return guest.Decision{Verdict: guest.Allow}
//		}
//		return guest.Denied("not_alice", "only alice may")
//	}
//
// It depends on nothing but a few packages of the standard library, and neither
// on fmt nor on reflect, which would double the size of a module. Built for
// another target than wasip1 it has no exports, so that a policy's functions can
// be tested with go test; Log, Now and Match then do nothing.
package guest

// A Verdict is the outcome of a decision. The zero value is Deny.
type Verdict uint8

// The verdicts, strongest first.
const (
	Deny Verdict = iota
	RequireApproval
	Throttle
	Transform
	Allow
)

func (v Verdict) String() string {
	switch v {
	case RequireApproval:
		return "require_approval"
	case Throttle:
		return "throttle"
	case Transform:
		return "transform"
	case Allow:
		return "allow"
	default:
		return "deny"
	}
}

// A Reason says why. Code is for machines and stable; Text is for people.
type Reason struct{ Code, Text string }

// An Obligation is something that the asker must do: redact, route, cap, label,
// notify. Properties hold what Decision.Value may hold.
type Obligation struct {
	ID, Type   string
	Properties map[string]any
}

// A Decision is what the policy says. The zero value is a denial.
type Decision struct {
	Verdict     Verdict
	Reasons     []Reason
	Obligations []Obligation
	// Value is any document: nil, bool, int, int64, float64, string, []any,
	// map[string]any or a Value of the request. Anything else makes the decision
	// a guest error, which the host answers with the point's fail mode.
	Value any
}

// Denied returns a denial with one reason.
func Denied(code, text string) Decision {
	return Decision{Reasons: []Reason{{code, text}}}
}

// A Policy is what a module registers.
type Policy struct {
	// Configure is called once, before the first decision, with the package's
	// parameters and data, either of which may be Absent. An error refuses to
	// load the module. The values are valid only during the call. Nil ignores them.
	Configure func(params, data Value) error
	// Decide answers one request. The request is valid only during the call.
	Decide func(Request) Decision
}

// registered is the module's policy. A guest is a program of its own whose only
// caller is the host: this is its main, and it is set once, before the snapshot.
var registered Policy

// Register makes p the module's policy. It is called from the init function of
// the policy's main package; a later call replaces an earlier one.
func Register(p Policy) { registered = p }

// configure reads the init document and hands it to the policy.
func configure(doc []byte) bool {
	v, ok := Parse(doc)
	if !ok {
		return false
	}
	if registered.Configure == nil {
		return true
	}
	if err := registered.Configure(v.Get("params"), v.Get("data")); err != nil {
		Log(LevelError, err.Error())
		return false
	}
	return true
}

// decide answers one request; nil is a guest error.
func decide(out, doc []byte) []byte {
	v, ok := Parse(doc)
	if !ok || registered.Decide == nil {
		return nil
	}
	return appendDecision(out, registered.Decide(Request{v}))
}

// Levels of Log.
const (
	LevelDebug int32 = iota
	LevelInfo
	LevelWarn
	LevelError
)
