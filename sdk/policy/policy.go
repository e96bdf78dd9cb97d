// Package policy holds the words that every plane of Holdfast shares: what a
// workload asks (Request), what a policy says (Decision) and what the workload
// is told (Answer).
//
// The vocabulary follows OpenID AuthZEN 1.0 (subject, action, resource,
// context, decision) and XACML (obligation). Values of unknown shape hold nil,
// bool, int64, float64, string, []any and map[string]any, and nothing else.
package policy

import (
	"encoding/json"
	"fmt"
	"time"
)

// A Verdict is the outcome of a decision. The zero value is Deny, and a lower
// value is stronger: combining verdicts takes the lowest.
type Verdict uint8

// The verdicts, strongest first. This is also the combining order.
const (
	Deny Verdict = iota
	RequireApproval
	Throttle
	Transform
	Allow
)

var verdictNames = [...]string{"deny", "require_approval", "throttle", "transform", "allow"}

// Verdicts returns every verdict, strongest first.
func Verdicts() []Verdict { return []Verdict{Deny, RequireApproval, Throttle, Transform, Allow} }

// ParseVerdict returns the verdict named s.
func ParseVerdict(s string) (Verdict, error) {
	return parseName[Verdict]("verdict", s, verdictNames[:])
}

// Valid reports whether v is one of the five verdicts.
func (v Verdict) Valid() bool { return int(v) < len(verdictNames) }

// Permits reports AuthZEN's boolean: whether the workload may go on now.
// Transform permits, because its obligations are carried out by the asker;
// Throttle and RequireApproval do not.
func (v Verdict) Permits() bool { return v == Allow || v == Transform }

func (v Verdict) String() string { return nameOf(uint8(v), verdictNames[:]) }

// MarshalText writes the verdict's name.
func (v Verdict) MarshalText() ([]byte, error) { return marshalName(uint8(v), verdictNames[:]) }

// UnmarshalText reads a verdict's name; anything else is an error.
func (v *Verdict) UnmarshalText(b []byte) (err error) {
	*v, err = ParseVerdict(string(b))
	return err
}

// A Durability says where a record is before its answer is given.
type Durability uint8

// The durability classes, weakest first.
const (
	// NotRecorded: no record was written; such an answer says recorded: false.
	NotRecorded Durability = iota
	// Written: handed to the operating system; survives kill -9, not power loss.
	Written
	// Synced: fsynced on the node's disk. The default of a decision point.
	Synced
	// Region: acknowledged by a replicated stream of one region.
	Region
	// Regions: counter-signed by the ledgers of two regions.
	Regions
)

var durabilityNames = [...]string{"none", "written", "synced", "region", "regions"}

// Regions is in how many regions a record of the class is, beside the node's disk.
func (d Durability) Regions() int {
	switch d {
	case Region:
		return 1
	case Regions:
		return 2
	}
	return 0
}

// ParseDurability returns the class named s.
func ParseDurability(s string) (Durability, error) {
	return parseName[Durability]("durability", s, durabilityNames[:])
}

func (d Durability) String() string { return nameOf(uint8(d), durabilityNames[:]) }

// MarshalText writes the class's name.
func (d Durability) MarshalText() ([]byte, error) { return marshalName(uint8(d), durabilityNames[:]) }

// UnmarshalText reads a class's name; anything else is an error.
func (d *Durability) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDurability(string(b))
	return err
}

// A FailMode says what a decision point answers when it cannot decide or
// cannot record. The zero value is FailDeny.
type FailMode uint8

// The fail modes.
const (
	// FailDeny answers deny.
	FailDeny FailMode = iota
	// FailAllowFlagged answers allow with a reason that names the failure.
	FailAllowFlagged
	// FailEscalate answers require_approval.
	FailEscalate
)

var failModeNames = [...]string{"deny", "allow_flagged", "escalate"}

// ParseFailMode returns the fail mode named s.
func ParseFailMode(s string) (FailMode, error) {
	return parseName[FailMode]("fail mode", s, failModeNames[:])
}

// Verdict is what the fail mode answers.
func (f FailMode) Verdict() Verdict {
	switch f {
	case FailAllowFlagged:
		return Allow
	case FailEscalate:
		return RequireApproval
	default:
		return Deny
	}
}

func (f FailMode) String() string { return nameOf(uint8(f), failModeNames[:]) }

// MarshalText writes the fail mode's name.
func (f FailMode) MarshalText() ([]byte, error) { return marshalName(uint8(f), failModeNames[:]) }

// UnmarshalText reads a fail mode's name; anything else is an error.
func (f *FailMode) UnmarshalText(b []byte) (err error) {
	*f, err = ParseFailMode(string(b))
	return err
}

// A Reason says why. Code is for machines and stable; Text is for people.
type Reason struct {
	Code string `json:"code" cbor:"code"`
	Text string `json:"text" cbor:"text"`
}

// An Obligation is something that the asker must do for the decision to hold:
// redact, route, cap, label, notify. One of a type that the asker did not say
// it can perform turns the decision into a denial.
type Obligation struct {
	ID         string         `json:"id,omitempty" cbor:"id,omitempty"`
	Type       string         `json:"type" cbor:"type"`
	Properties map[string]any `json:"properties,omitempty" cbor:"properties,omitempty"`
}

// A Decision is what policies say of a request. The zero value is a denial.
type Decision struct {
	Verdict     Verdict      `json:"verdict" cbor:"verdict"`
	Reasons     []Reason     `json:"reasons" cbor:"reasons,omitempty"`
	Obligations []Obligation `json:"obligations" cbor:"obligations,omitempty"`
	// Value is any document that the policy returns; nil when it returns none.
	Value any `json:"value,omitempty" cbor:"value,omitempty"`
	// Epoch is that of the release which decided; 0 when none was in force.
	Epoch uint64 `json:"epoch" cbor:"epoch,omitempty"`
}

// An Answer is a decision together with the proof that it was recorded: the
// record's name (Node, Boot, Seq) and its RFC 6962 leaf hash, so that the asker
// can demand the inclusion proof later.
type Answer struct {
	Decision
	// Recorded is false when no record could be written; then Durability is
	// NotRecorded and Boot, Seq and Leaf are empty.
	Recorded bool
	// Durability is the class that was met, not the one that was asked for.
	Durability Durability
	Node, Boot string
	Seq        uint64
	// Leaf is 64 lower-case hexadecimal digits.
	Leaf string
	// Timing travels in the Server-Timing header, not in the answer's JSON.
	Timing Timing
}

// Timing says how long a node took, for those who measure.
type Timing struct {
	Decide time.Duration // running the policies
	Record time.Duration // until the record was as durable as the point demands
}

// answerJSON is the wire form of an Answer, as the command line page has it.
type answerJSON struct {
	Decision    bool         `json:"decision"`
	Verdict     Verdict      `json:"verdict"`
	Reasons     []Reason     `json:"reasons"`
	Obligations []Obligation `json:"obligations"`
	Value       any          `json:"value,omitempty"`
	Epoch       uint64       `json:"epoch"`
	Recorded    bool         `json:"recorded"`
	Durability  Durability   `json:"durability"`
	Node        string       `json:"node"`
	Boot        string       `json:"boot,omitempty"`
	Seq         uint64       `json:"seq,omitempty"`
	Leaf        string       `json:"leaf,omitempty"`
}

// MarshalJSON writes the answer as nodes give it; lists are never null.
func (a Answer) MarshalJSON() ([]byte, error) {
	w := answerJSON{
		Decision: a.Verdict.Permits(), Verdict: a.Verdict, Reasons: a.Reasons, Obligations: a.Obligations,
		Value: a.Value, Epoch: a.Epoch, Recorded: a.Recorded, Durability: a.Durability,
		Node: a.Node, Boot: a.Boot, Seq: a.Seq, Leaf: a.Leaf,
	}
	if w.Reasons == nil {
		w.Reasons = []Reason{}
	}
	if w.Obligations == nil {
		w.Obligations = []Obligation{}
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads an answer; one whose boolean contradicts its verdict is
// an error.
func (a *Answer) UnmarshalJSON(b []byte) error {
	var w answerJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	if w.Decision != w.Verdict.Permits() {
		return fmt.Errorf("answer: decision %t contradicts verdict %s", w.Decision, w.Verdict)
	}
	*a = Answer{
		Decision: Decision{Verdict: w.Verdict, Reasons: w.Reasons, Obligations: w.Obligations, Value: w.Value, Epoch: w.Epoch},
		Recorded: w.Recorded, Durability: w.Durability, Node: w.Node, Boot: w.Boot, Seq: w.Seq, Leaf: w.Leaf,
	}
	return nil
}

// Status is what a node says of itself. It is a claim, not a proof: the proof
// is the activation record in the ledger.
type Status struct {
	Node  string `json:"node"`
	Boot  string `json:"boot"`
	Ready bool   `json:"ready"`
	Epoch uint64 `json:"epoch"`
	// Release is the digest of the release in force, "" for none; Since is when
	// it was put in force, by the node's clock.
	Release string    `json:"release,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	// Points are the decision points of the release in force, sorted.
	Points []string `json:"points,omitempty"`
	// Refused is why the last release that was offered was not taken.
	Refused string `json:"refused,omitempty"`
	// Fallback says that the node stepped back from the release of Epoch, which
	// Release names; Enforced is the one that decides. Back is the way back from
	// what is in force, "" for none.
	Fallback bool   `json:"fallback,omitempty"`
	Enforced string `json:"enforced,omitempty"`
	Back     string `json:"back,omitempty"`
	// RootVersion is that of the trust root in use.
	RootVersion uint64 `json:"root_version,omitempty"`
	// Ring is the node's ring of the newest release that it knows, Candidate that
	// release while it is not in force; Shadow says that it is evaluated beside.
	Ring      string `json:"ring,omitempty"`
	Candidate string `json:"candidate,omitempty"`
	Shadow    bool   `json:"shadow,omitempty"`
	// Staleness is none (no heartbeats in this trust root), fresh, aging or stale;
	// HeartbeatAge is in seconds, -1 when none was ever heard.
	Staleness    string `json:"staleness,omitempty"`
	HeartbeatAge int64  `json:"heartbeat_age_s,omitempty"`
	// Kills are the kills in force.
	Kills int `json:"kills,omitempty"`
}

func nameOf(i uint8, names []string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return fmt.Sprintf("invalid(%d)", i)
}

func marshalName(i uint8, names []string) ([]byte, error) {
	if int(i) >= len(names) {
		return nil, fmt.Errorf("no name for value %d", i)
	}
	return []byte(names[i]), nil
}

func parseName[T ~uint8](what, s string, names []string) (T, error) {
	for i, n := range names {
		if n == s {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("unknown %s %q; one of %q", what, s, names)
}
