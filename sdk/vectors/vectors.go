// Package vectors runs the golden vectors of a package against its module. It
// is pure: the compiler uses it before it writes a package, nodes before they
// put one in force.
package vectors

import (
	"errors"
	"fmt"
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
	Fuel uint64       // units used
	Trap abi.TrapCode // "" when the module answered

	want *bundle.Expect
	got  *policy.Decision
	err  error
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
		out.Fuel, out.Trap = trap.Fuel, trap.Code
	} else if err != nil {
		out.Trap = abi.TrapHost
	}
	out.want, out.got, out.err = &v.Expect, &got, err
	out.Diff = strings.Join(out.compare(), "\n")
	return out
}
