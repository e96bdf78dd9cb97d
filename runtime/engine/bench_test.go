package engine_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// BenchmarkOPARBAC asks the same question of the isolated engine call and of
// OPA's Go evaluator.
func BenchmarkOPARBAC(b *testing.B) {
	input := rbacInput("user57", "action3", "resource7")
	b.Run("engine", func(b *testing.B) {
		m := load(b, newEngine(b, engine.Config{}), engine.Spec{Name: "rbac", Wasm: compileRego(b, rbacPolicy, "rbac/allow"), ABI: abi.OPA1, Init: marshal(b, rbacData())})
		call := abi.Call{Input: marshal(b, input)}
		percentiles(b, func() {
			if _, err := m.Call(call); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("plain", func(b *testing.B) { percentiles(b, plainOPA(b, marshal(b, input))) })
	b.Run("topdown", func(b *testing.B) {
		q := prepareTopdown(b)
		percentiles(b, func() {
			if rs, err := q.Eval(context.Background(), rego.EvalInput(input)); err != nil || !rs.Allowed() {
				b.Fatal(rs, err)
			}
		})
	})
}

// percentiles runs f b.N times and reports the median and the 99th percentile.
func percentiles(b *testing.B, f func()) {
	for range 100 {
		f()
	}
	took := make([]time.Duration, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range took {
		start := time.Now()
		f()
		took[i] = time.Since(start)
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

// plainOPA calls the module as OPA wrote it on wazero: no meter, no restore, no
// limit; only the heap pointer begins anew, as the ABI wants.
func plainOPA(b *testing.B, input []byte) func() {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	b.Cleanup(func() { r.Close(ctx) })
	env := r.NewHostModuleBuilder("opa")
	nothing := func(name string, params int, results ...api.ValueType) {
		types := make([]api.ValueType, params)
		for i := range types {
			types[i] = api.ValueTypeI32
		}
		env.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) { panic("not used here") }), types, results).Export(name)
	}
	nothing("opa_abort", 1)
	nothing("opa_println", 1)
	for n := range 5 {
		nothing("opa_builtin"+string(rune('0'+n)), 2+n, api.ValueTypeI32)
	}
	if _, err := env.Instantiate(ctx); err != nil {
		b.Fatal(err)
	}
	glue, err := os.ReadFile("testdata/env.wasm")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := r.InstantiateWithConfig(ctx, glue, wazero.NewModuleConfig().WithName("env")); err != nil {
		b.Fatal(err)
	}
	m, err := r.Instantiate(ctx, compileRego(b, rbacPolicy, "rbac/allow"))
	if err != nil {
		b.Fatal(err)
	}
	call := func(name string, params ...uint64) uint64 {
		result, err := m.ExportedFunction(name).Call(ctx, params...)
		if err != nil {
			b.Fatal(err)
		}
		return result[0]
	}
	data := marshal(b, rbacData())
	at := call("opa_malloc", uint64(len(data)))
	m.Memory().Write(uint32(at), data)
	parsed := call("opa_json_parse", at, uint64(len(data)))
	heap := call("opa_heap_ptr_get")
	m.Memory().Grow(1)
	eval := m.ExportedFunction("opa_eval")
	stack := make([]uint64, 8)
	return func() {
		m.Memory().Write(uint32(heap), input)
		copy(stack, []uint64{0, 0, parsed, heap, uint64(len(input)), heap + uint64(len(input)), 0})
		if err := eval.CallWithStack(ctx, stack); err != nil {
			b.Fatal(err)
		}
		out, _ := m.Memory().Read(uint32(stack[0]), 17)
		if string(out) != `[{"result":true}]` {
			b.Fatalf("answer %q", out)
		}
	}
}

// BenchmarkCall asks guests of several sizes for little.
func BenchmarkCall(b *testing.B) {
	for _, c := range []struct {
		name, input string
		spec        engine.Spec
	}{
		{"wat", "abc", probe(b)},
		{"go", "hello", engine.Spec{Name: "goguest", Wasm: buildGo(b, "testdata/goguest"), ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime}},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := load(b, newEngine(b, engine.Config{}), c.spec)
			call := abi.Call{Input: []byte(c.input)}
			percentiles(b, func() {
				if _, err := m.Call(call); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}
