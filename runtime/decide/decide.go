// Package decide is the hot path: it runs the modules of a decision point on a
// request and combines what they say. It is pure: no clock, disk, network or
// goroutine; time comes in as an argument and modules as abi.Module.
package decide

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/mask"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Reason codes that this package gives itself.
const (
	CodePolicyError  = "policy_error"
	CodeFuel         = "policy_fuel_exhausted"
	CodeValuesDiffer = "values_differ"
	CodeNotReady     = "not_ready"
	CodeTooLarge     = "decision_too_large"
)

// A Set is what a release becomes on a node. It is immutable once it is in
// force and replaced whole.
type Set struct {
	Epoch   uint64
	Release wire.Digest // that decides
	// Fallback: the node stepped back from the release of Epoch to Release.
	Fallback bool
	Points   map[string]*Point
	Vectors  int // golden vectors that passed before the set came into force
	// Masks are those of all points together, for what is asked at none of them.
	Masks *mask.Rules
}

// PointNames returns the names of the set's points, sorted.
func (s *Set) PointNames() []string { return slices.Sorted(maps.Keys(s.Points)) }

// A Point is one decision point: its modules in order and how it fails.
type Point struct {
	Name         string
	Modules      []Module
	Durability   policy.Durability
	OnError      policy.FailMode
	OnFuel       policy.FailMode
	OnOverload   policy.FailMode
	OnLogFailure policy.FailMode
	OnStale      policy.FailMode
	// Lease is how long the point decides while nothing is heard.
	Lease time.Duration
	// MaxInFlight and MaxRequestBytes bound what is asked; 0 is no bound.
	MaxInFlight     uint64
	MaxRequestBytes uint64
	// Masks are kept out of the point's records; nil for none.
	Masks *mask.Rules
	// Packages are the digests of the modules' packages.
	Packages []wire.Digest

	inFlight atomic.Int64
	buffers  sync.Pool // of *[]byte: outputs of calls
}

// Enter lets one more request in, or reports false: MaxInFlight are in.
func (p *Point) Enter() bool {
	if p.MaxInFlight == 0 {
		return true
	}
	if uint64(p.inFlight.Add(1)) > p.MaxInFlight {
		p.inFlight.Add(-1)
		return false
	}
	return true
}

// Leave ends what Enter let in.
func (p *Point) Leave() {
	if p.MaxInFlight != 0 {
		p.inFlight.Add(-1)
	}
}

// Only returns a point that asks only the i-th module, and fails as p does.
func (p *Point) Only(i int) *Point {
	return &Point{Name: p.Name, Modules: p.Modules[i : i+1 : i+1], OnError: p.OnError, OnFuel: p.OnFuel}
}

// A Module is one policy of a point, ready to be called.
type Module struct {
	Name   string
	Digest wire.Digest // of the package
	Wasm   wire.Digest // of the module as its compiler wrote it
	Params wire.Digest // of the merged parameters; zero for none
	// Index is the module's place in the activation record; the node sets it
	// before the set is in force.
	Index      uint64
	Module     abi.Module
	Codec      codec.Codec
	Entrypoint int32
	// Entrypoints are all of a Rego module, by path, for OPA's data API; nil for
	// other modules.
	Entrypoints map[string]int32
	Fuel        uint64 // 0 = abi.DefaultFuel
}

// A Run is what one module did.
type Run struct {
	Decision policy.Decision
	Fuel     uint64
	Trap     abi.TrapCode // "" when the module answered
	Detail   string
	Logs     []abi.Log
	FailMode policy.FailMode // what stood in for the answer when there is a Trap
}

// An Outcome is a decision and how it came about; Runs are in the order of the
// point's modules.
type Outcome struct {
	Decision policy.Decision
	Runs     []Run
}

// Evaluate asks every module of the point, each with the original request, and
// combines the answers: the strongest verdict wins, deny > require_approval >
// throttle > transform > allow. A module that traps is represented by the
// point's fail mode. now is what guests see as the time, in nanoseconds since
// 1970.
func (p *Point) Evaluate(req *policy.Request, now int64) Outcome {
	out := Outcome{Runs: make([]Run, len(p.Modules))}
	in := inputs{req: req}
	for i := range p.Modules {
		out.Runs[i] = p.run(&p.Modules[i], &in, now)
	}
	out.Decision = Combine(out.Runs)
	return out
}

// NotReady is the outcome while no release is in force.
func NotReady() Outcome {
	return Outcome{Decision: policy.Decision{Reasons: []policy.Reason{{
		Code: CodeNotReady, Text: "no verified release is in force on this node",
	}}}}
}

// Cause is what records call a run's trap.
func (r *Run) Cause() string {
	if r.Trap == abi.TrapFuel {
		return "fuel"
	}
	return "error"
}

// TooLarge is the denial that stands in for an outcome that no record can hold,
// whatever the point's fail modes: it keeps what the modules did, but not what
// they said, so that its own record always fits.
func TooLarge(out Outcome) Outcome {
	small := Outcome{Decision: policy.Decision{Epoch: out.Decision.Epoch, Reasons: []policy.Reason{{
		Code: CodeTooLarge, Text: "the policies said more than a record can hold",
	}}}}
	for _, r := range out.Runs {
		r.Logs = nil
		small.Runs = append(small.Runs, r)
	}
	return small
}

func (p *Point) run(m *Module, in *inputs, now int64) Run {
	input, err := in.encode(m.Codec)
	if err != nil {
		return p.failed(m, abi.TrapInput, err.Error(), 0, nil)
	}
	buffer, _ := p.buffers.Get().(*[]byte)
	if buffer == nil {
		buffer = new([]byte)
	}
	defer p.buffers.Put(buffer) // a decoded decision holds nothing of it
	res, err := m.Module.Call(abi.Call{Input: input, Entrypoint: m.Entrypoint, Fuel: m.Fuel, Now: now, Output: (*buffer)[:0]})
	*buffer = res.Output
	if err != nil {
		code, detail, fuel := abi.TrapHost, err.Error(), uint64(0)
		if trap, ok := errors.AsType[*abi.Trap](err); ok {
			code, detail, fuel = trap.Code, trap.Detail, trap.Fuel
		}
		return p.failed(m, code, detail, fuel, res.Logs)
	}
	d, err := m.Codec.Decode(res.Output)
	if err != nil {
		return p.failed(m, abi.TrapOutput, err.Error(), res.Fuel, res.Logs)
	}
	return Run{Decision: d, Fuel: res.Fuel, Logs: res.Logs}
}

func (p *Point) failed(m *Module, code abi.TrapCode, detail string, fuel uint64, logs []abi.Log) Run {
	mode, reason := p.OnError, CodePolicyError
	if code == abi.TrapFuel {
		mode, reason = p.OnFuel, CodeFuel
	}
	return Run{
		Decision: policy.Decision{Verdict: mode.Verdict(), Reasons: []policy.Reason{{
			Code: reason, Text: "policy " + m.Name + " did not answer: " + string(code),
		}}},
		Fuel: fuel, Trap: code, Detail: detail, Logs: logs, FailMode: mode,
	}
}

// Combine merges the answers of a point's modules. No answer at all is a
// denial. Reasons, obligations and the value come from the modules that agree
// with the combined verdict on whether the asker may go on; two different values
// of theirs deny.
func Combine(runs []Run) policy.Decision {
	if len(runs) == 0 {
		return policy.Decision{}
	}
	out := policy.Decision{Verdict: policy.Allow}
	for i := range runs {
		out.Verdict = min(out.Verdict, runs[i].Decision.Verdict)
	}
	for i := range runs {
		d := &runs[i].Decision
		if d.Verdict != out.Verdict && !(d.Verdict.Permits() && out.Verdict.Permits()) {
			continue
		}
		out.Reasons = join(out.Reasons, d.Reasons)
		out.Obligations = join(out.Obligations, d.Obligations)
		switch {
		case d.Value == nil:
		case out.Value == nil:
			out.Value = d.Value
		case !reflect.DeepEqual(out.Value, d.Value):
			return policy.Decision{Reasons: []policy.Reason{{
				Code: CodeValuesDiffer, Text: "two policies of this point returned different values",
			}}}
		}
	}
	return out
}

// join appends without writing into what another run holds.
func join[T any](all, more []T) []T {
	if len(all) == 0 {
		return slices.Clip(more)
	}
	return append(all, more...)
}

// inputs encodes a request once for each contract that a point's modules speak.
type inputs struct {
	req  *policy.Request
	done [2]struct {
		codec codec.Codec
		bytes []byte
		err   error
	}
	n int
}

func (in *inputs) encode(c codec.Codec) ([]byte, error) {
	for i := range in.n {
		if in.done[i].codec == c {
			return in.done[i].bytes, in.done[i].err
		}
	}
	b, err := c.Encode(in.req)
	if in.n < len(in.done) {
		d := &in.done[in.n]
		d.codec, d.bytes, d.err = c, b, err
		in.n++
	}
	return b, err
}
