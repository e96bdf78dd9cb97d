package engine_test

import (
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// TestNothingIsKept asks a guest a million times that tries to keep a count
// everywhere, and some thousand times on the interpreter. Now and then the call
// grows the memory or traps.
func TestNothingIsKept(t *testing.T) {
	module := readFile(t, "testdata/keeper.wasm")
	for name, c := range map[string]struct {
		config engine.Config
		class  wasm.Class
		calls  int
	}{
		"compiled":                     {calls: 1_000_000},
		"compiled with coarser blocks": {class: wasm.LanguageRuntime, calls: 100_000},
		"interpreted":                  {config: engine.Config{Interpreter: true}, calls: 50_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := load(t, newEngine(t, c.config), engine.Spec{Name: "keeper", Wasm: module, ABI: abi.HoldfastV1, Class: c.class, Pool: 2})
			var output []byte
			for n := range c.calls {
				input := "a"
				if n%1000 == 998 {
					input = "g"
				}
				result, err := m.Call(abi.Call{Input: []byte(input), Now: frozen, Output: output[:0]})
				if output = result.Output; err != nil || string(output) != number(0) {
					t.Fatalf("call %d: %x, %v", n, output, err)
				}
				if n%1000 == 999 {
					if _, err := m.Call(abi.Call{Input: []byte("t"), Now: frozen}); trapCode(t, err) != abi.TrapUnreachable {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

func TestCallsAllocateNothing(t *testing.T) {
	e := newEngine(t, engine.Config{})
	for _, c := range []struct {
		spec  engine.Spec
		input string
	}{
		{engine.Spec{Name: "keeper", Wasm: readFile(t, "testdata/keeper.wasm"), ABI: abi.HoldfastV1}, "a"},
		{engine.Spec{Name: "c", Wasm: readFile(t, "testdata/cguest.wasm"), ABI: abi.HoldfastV1}, requestText},
		{engine.Spec{Name: "rbac", Wasm: compileRego(t, rbacPolicy, "rbac/allow"), ABI: abi.OPA1, Init: marshal(t, rbacData())}, string(marshal(t, rbacInput("user57", "action3", "resource7")))},
	} {
		m := load(t, e, c.spec)
		call := abi.Call{Input: []byte(c.input), Output: make([]byte, 0, 256)}
		if allocs := testing.AllocsPerRun(1000, func() {
			if _, err := m.Call(call); err != nil {
				t.Error(err)
			}
		}); allocs != 0 {
			t.Errorf("%s: %v allocations per call", c.spec.Name, allocs)
		}
	}
}
