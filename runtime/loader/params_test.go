package loader_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/compile"

	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const limitPolicy = `package limit

within := input.n <= data.params.limit

beyond := input.n > data.params.limit
`

// limits is a Rego package whose default limit is 2.
func limits(t testing.TB) *bundle.Package {
	t.Helper()
	c := compile.New().WithTarget(compile.TargetWasm).WithEntrypoints("limit/within", "limit/beyond").
		WithFS(fstest.MapFS{"limit.rego": {Data: []byte(limitPolicy)}}).WithPaths("limit.rego").WithRegoVersion(ast.RegoV1)
	if err := c.Build(context.Background()); err != nil {
		t.Fatal(err)
	}
	vector := func(name, request string, v policy.Verdict, params map[string]any) bundle.Vector {
		return bundle.Vector{Name: name, Point: policy.PointCustom, Request: []byte(request), Params: params, Expect: bundle.Expect{Verdict: v}}
	}
	return &bundle.Package{
		Manifest: bundle.Manifest{
			Name: "limit", ABI: string(abi.OPA1), Class: bundle.ClassPolicy, Entrypoint: "limit/within",
			Params: map[string]any{"limit": int64(2)},
		},
		Module: c.Bundle().WasmModules[0].Raw,
		Data:   []byte(`{"unused":1.10}`),
		Vectors: []bundle.Vector{
			vector("at the limit", `{"document":{"n":2}}`, policy.Allow, nil),
			vector("beyond", `{"document":{"n":3}}`, policy.Deny, nil),
			vector("another limit", `{"document":{"n":3}}`, policy.Allow, map[string]any{"limit": int64(9)}),
		},
	}
}

// The vectors run with the package's parameters, the decisions with those of the
// release; one package at two points is two modules when the parameters differ.
func TestParams(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	ref := w.publish(limits(t))
	r := w.release(1, ref)
	second, third := r.Points[0], r.Points[0]
	second.Name, third.Name = "input", "output"
	second.Packages, third.Packages = []bundle.PackageRef{ref}, []bundle.PackageRef{ref}
	second.Packages[0].Params = map[string]any{"limit": int64(3)}
	third.Packages[0].Entrypoint = "limit/beyond"
	r.Points = append(r.Points, second, third)
	w.offer(l, w.sign(r))
	for name, want := range map[string]policy.Verdict{policy.PointCustom: policy.Deny, "input": policy.Allow, "output": policy.Allow} {
		out := l.Set().Points[name].Evaluate(request(t), 1) // n is 3
		if out.Decision.Verdict != want || out.Runs[0].Trap != "" {
			t.Errorf("%s: want %s, got %+v", name, want, out)
		}
	}
	custom, input, output := l.Set().Points[policy.PointCustom].Modules[0], l.Set().Points["input"].Modules[0], l.Set().Points["output"].Modules[0]
	raw, err := wire.Marshal(map[string]any{"limit": int64(3)})
	if err != nil {
		t.Fatal(err)
	}
	if custom.Module == input.Module || custom.Module != output.Module || input.Params != wire.Sum(raw) || custom.Params.IsZero() {
		t.Errorf("%+v\n%+v\n%+v", custom, input, output)
	}
}

// A Go guest gets the parameters of the release through holdfast_init.
func TestGoGuest(t *testing.T) {
	module, err := os.ReadFile("../../modules/argument-guard/argument-guard.wasm")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	l := w.open(nil)
	ref := w.publish(&bundle.Package{
		Manifest: bundle.Manifest{
			Name: "argument-guard", ABI: string(abi.HoldfastV1), Class: bundle.ClassLanguageRuntime,
			Params: map[string]any{"max_string": int64(64), "max_depth": int64(3), "max_items": int64(4), "text": []any{"user"}, "forbidden": []any{}},
		},
		Module: module,
	})
	strict := w.release(1, ref).Points[0]
	strict.Name, strict.Packages = "input", []bundle.PackageRef{ref}
	strict.Packages[0].Params = map[string]any{"forbidden": []any{"drop table"}}
	r := w.release(1, ref)
	r.Points = append(r.Points, strict)
	w.offer(l, w.sign(r))
	for point, want := range map[string]policy.Verdict{policy.PointCustom: policy.Allow, "input": policy.Deny} {
		req, err := policy.ParseRequest(point, []byte(`{"subject":{"type":"agent","id":"a"},"action":{"name":"call"},
			"resource":{"type":"tool","id":"t"},"context":{"arguments":{"text":"1; DROP TABLE users"},"user":"hello"}}`))
		if err != nil {
			t.Fatal(err)
		}
		if out := l.Set().Points[point].Evaluate(req, 1); out.Decision.Verdict != want || out.Runs[0].Trap != "" {
			t.Errorf("%s: want %s, got %+v", point, want, out)
		}
	}
}

func TestUnknownEntrypoint(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	ref := w.publish(limits(t))
	ref.Entrypoint = "limit/nothing"
	err := l.Offer(context.Background(), w.sign(w.release(1, ref)))
	if err == nil || !strings.Contains(err.Error(), `["limit/beyond" "limit/within"]`) || l.Set() != nil {
		t.Error(err)
	}
}

// Vectors run with the fuel that the release gives.
func TestVectorsRunWithTheReleasesFuel(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	ref := w.publish(limits(t))
	ref.Fuel = 10
	err := l.Offer(context.Background(), w.sign(w.release(1, ref)))
	if !errors.Is(err, loader.ErrVectors) || !strings.Contains(err.Error(), "fuel_exhausted") || l.Set() != nil {
		t.Error(err)
	}
}
