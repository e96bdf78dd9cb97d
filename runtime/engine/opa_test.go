package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/compile"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
)

const rbacPolicy = `package rbac

default allow := false

allow if {
	some binding in data.bindings
	binding.user == input.user
	some permission in data.roles[binding.role]
	permission.action == input.action
	permission.resource == input.resource
}
`

// rbacData has 100 bindings and 10 roles of 5 permissions.
func rbacData() map[string]any {
	var bindings []any
	roles := map[string]any{}
	for i := range 100 {
		bindings = append(bindings, map[string]any{"user": fmt.Sprintf("user%d", i), "role": fmt.Sprintf("role%d", i%10)})
	}
	for r := range 10 {
		var permissions []any
		for p := range 5 {
			permissions = append(permissions, map[string]any{"action": fmt.Sprintf("action%d", p), "resource": fmt.Sprintf("resource%d", r)})
		}
		roles[fmt.Sprintf("role%d", r)] = permissions
	}
	return map[string]any{"bindings": bindings, "roles": roles}
}

func rbacInput(user, action, resource string) map[string]any {
	return map[string]any{"user": user, "action": action, "resource": resource}
}

// compileRego returns the Wasm module that OPA makes of a policy.
func compileRego(tb testing.TB, source string, entrypoints ...string) []byte {
	tb.Helper()
	c := compile.New().
		WithTarget(compile.TargetWasm).
		WithEntrypoints(entrypoints...).
		WithFS(fstest.MapFS{"policy.rego": {Data: []byte(source)}}).
		WithPaths("policy.rego").
		WithRegoVersion(ast.RegoV1)
	if err := c.Build(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return c.Bundle().WasmModules[0].Raw
}

func marshal(tb testing.TB, v any) []byte {
	tb.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func newEngine(tb testing.TB, config engine.Config) *engine.Engine {
	tb.Helper()
	e, err := engine.New(context.Background(), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close(context.Background()) })
	return e
}

func load(tb testing.TB, e *engine.Engine, spec engine.Spec) *engine.Module {
	tb.Helper()
	m, err := e.Load(context.Background(), spec)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return m
}

func TestOPARBAC(t *testing.T) {
	e := newEngine(t, engine.Config{})
	m := load(t, e, engine.Spec{Name: "rbac", Wasm: compileRego(t, rbacPolicy, "rbac/allow"), ABI: abi.OPA1, Init: marshal(t, rbacData())})
	if got := m.Entrypoints(); len(got) != 1 {
		t.Fatalf("entry points: %v", got)
	}
	for _, c := range []struct{ user, action, resource, want string }{
		{"user57", "action3", "resource7", `[{"result":true}]`},
		{"user57", "action3", "resource8", `[{"result":false}]`},
		{"nobody", "action3", "resource7", `[{"result":false}]`},
	} {
		r, err := m.Call(abi.Call{Input: marshal(t, rbacInput(c.user, c.action, c.resource)), Entrypoint: m.Entrypoints()["rbac/allow"]})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(string(r.Output), r.Fuel, m.Stats())
		if !bytes.Equal(r.Output, []byte(c.want)) {
			t.Errorf("%v: got %s", c, r.Output)
		}
	}
}

func prepareTopdown(tb testing.TB) rego.PreparedEvalQuery {
	tb.Helper()
	q, err := rego.New(rego.Query("data.rbac.allow"), rego.Module("policy.rego", rbacPolicy), rego.Store(inmem.NewFromObject(rbacData()))).PrepareForEval(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return q
}

// canonical returns JSON with sorted keys.
func canonical(tb testing.TB, raw []byte) string {
	tb.Helper()
	var v any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		tb.Fatalf("%v in %s", err, raw)
	}
	return string(marshal(tb, v))
}

// Whatever the data's size, a call finds room and gives its instance back: one
// that grew the memory would cost a fresh instance, a few hundred allocations.
func TestCallsFindRoomBehindTheData(t *testing.T) {
	e := newEngine(t, engine.Config{})
	input := marshal(t, rbacInput("user99", "action4", "resource9"))
	module := compileRego(t, rbacPolicy, "rbac/allow")
	for size := 0; size < 64<<10; size += 1 << 10 {
		data := rbacData()
		data["padding"] = strings.Repeat("x", size)
		m := load(t, e, engine.Spec{Name: "rbac", Wasm: module, ABI: abi.OPA1, Init: marshal(t, data)})
		allocs := testing.AllocsPerRun(20, func() {
			if _, err := m.Call(abi.Call{Input: input}); err != nil {
				t.Error(err)
			}
		})
		if allocs > 20 {
			t.Errorf("with %d bytes more data a call makes %.0f allocations", size, allocs)
		}
	}
}
