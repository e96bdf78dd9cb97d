// Package vectors runs the golden vectors of a package against its module. It
// is pure: the compiler uses it before it writes a package, nodes before they
// put one in force.
package vectors

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Now is what a guest's clock shows while a vector runs, in nanoseconds since
// 1970: the first instant of 2026, UTC.
const Now int64 = 1_767_225_600_000_000_000

// A VectorResult is what became of one vector.
type VectorResult struct {
	Name string
	// Diff says line by line what differs from what the vector expects; it is
	// empty when the vector passed.
	Diff string
	Fuel uint64 // units used
}

// Passed reports whether the module did what the vector expects.
func (r VectorResult) Passed() bool { return r.Diff == "" }

// ByParams returns the package once for each different set of parameters that
// its vectors want, with those parameters as the manifest's and with only the
// vectors that want them. Each needs a module of its own.
func ByParams(pkg *bundle.Package) ([]*bundle.Package, error) {
	var out []*bundle.Package
	at := map[wire.Digest]*bundle.Package{}
	for _, v := range pkg.Vectors {
		params := pkg.Merged(v.Params)
		key, err := wire.Marshal(params)
		if err != nil {
			return nil, fmt.Errorf("vector %s: parameters: %w", v.Name, err)
		}
		p := at[wire.Sum(key)]
		if p == nil {
			c := *pkg
			c.Params, c.Vectors = params, nil
			p = &c
			at[wire.Sum(key)] = p
			out = append(out, p)
		}
		p.Vectors = append(p.Vectors, v)
	}
	return out, nil
}

// RunVectors runs every vector of the package, in order, on a module that was
// initialised with the package's data and parameters; a vector's own parameters
// are for ByParams to see to.
func RunVectors(pkg *bundle.Package, module abi.Module, entrypoint int32, c codec.Codec) []VectorResult {
	results := make([]VectorResult, len(pkg.Vectors))
	for i := range pkg.Vectors {
		results[i] = run(&pkg.Vectors[i], module, abi.Call{Entrypoint: entrypoint, Fuel: pkg.Fuel, Now: Now}, c)
	}
	return results
}

// Failed returns an error that names every vector that did not pass and how it
// differs, or nil.
func Failed(results []VectorResult) error {
	var errs []error
	for _, r := range results {
		if !r.Passed() {
			errs = append(errs, fmt.Errorf("vector %s:\n%s", r.Name, r.Diff))
		}
	}
	return errors.Join(errs...)
}

func run(v *bundle.Vector, module abi.Module, call abi.Call, c codec.Codec) VectorResult {
	out := VectorResult{Name: v.Name}
	req, err := policy.ParseRequest(v.Point, v.Request)
	if err == nil {
		call.Input, err = c.Encode(req)
	}
	if err != nil {
		out.Diff = "  request: " + err.Error()
		return out
	}
	var got policy.Decision
	res, err := module.Call(call)
	out.Fuel = res.Fuel
	if err == nil {
		if got, err = c.Decode(res.Output); err != nil {
			err = &abi.Trap{Code: abi.TrapOutput, Detail: err.Error(), Fuel: res.Fuel}
		}
	}
	var trap *abi.Trap
	if errors.As(err, &trap) {
		out.Fuel = trap.Fuel
	}
	out.Diff = diff(&v.Expect, &got, err)
	return out
}

// diff compares what came, a decision or an error, with what the vector expects.
func diff(want *bundle.Expect, got *policy.Decision, err error) string {
	if err != nil || want.Trap != "" {
		return trapDiff(want, got, err)
	}
	var lines []string
	differs := func(what string, want, got any) {
		lines = append(lines, fmt.Sprintf("  %s: want %v, got %v", what, want, got))
	}
	if got.Verdict != want.Verdict {
		differs("verdict", want.Verdict, got.Verdict)
	}
	var codes, obligations []string
	for _, r := range got.Reasons {
		codes = append(codes, r.Code)
	}
	for _, o := range got.Obligations {
		obligations = append(obligations, o.Type)
	}
	if !slices.Equal(codes, want.Codes) {
		differs("reason codes", want.Codes, codes)
	}
	if !slices.Equal(obligations, want.Obligations) {
		differs("obligations", want.Obligations, obligations)
	}
	if want.HasValue && !reflect.DeepEqual(got.Value, want.Value) {
		differs("value", text(want.Value), text(got.Value))
	}
	return strings.Join(lines, "\n")
}

func trapDiff(want *bundle.Expect, got *policy.Decision, err error) string {
	if err == nil {
		return fmt.Sprintf("  trap: want %s, got the verdict %s", want.Trap, got.Verdict)
	}
	code := abi.TrapHost
	var trap *abi.Trap
	if errors.As(err, &trap) {
		code = trap.Code
	}
	switch {
	case string(code) == want.Trap:
		return ""
	case want.Trap == "":
		return fmt.Sprintf("  trap: want the verdict %s, got %v", want.Verdict, err)
	}
	return fmt.Sprintf("  trap: want %s, got %v", want.Trap, err)
}

// text writes a value as JSON, so that numbers and texts can be told apart.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
