package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/bench/guests"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// BenchmarkGuest asks the same policy in every language: as its author compiled
// it on bare wazero, and isolated - metered and restored after every call.
func BenchmarkGuest(b *testing.B) {
	e := newEngine(b, engine.Config{})
	specs := []engine.Spec{{Name: "go", Wasm: buildGo(b, "../../bench/guests/testdata/spendcap"), Class: wasm.LanguageRuntime}}
	for _, language := range guests.Languages() {
		specs = append(specs, engine.Spec{Name: language, Wasm: guest(b, language, "spendcap")})
	}
	for _, spec := range specs {
		spec.ABI, spec.Init = abi.HoldfastV1, []byte(spendCapInit)
		b.Run(spec.Name, func(b *testing.B) {
			bare, isolated := newPlain(b, spec.Wasm, spec.Init), load(b, e, spec)
			call := abi.Call{Input: []byte(spendCapRequest)}
			if got, err := isolated.Call(call); err != nil || !bytes.Equal(got.Output, bare.call(b, call.Input)) || !bytes.Contains(got.Output, []byte("allow")) {
				b.Fatalf("answered %q, %v", got.Output, err)
			}
			b.Run("plain", func(b *testing.B) { guests.Percentiles(b, func() { bare.call(b, call.Input) }) })
			b.Run("isolated", func(b *testing.B) { guests.Percentiles(b, calls(b, isolated, call)) })
		})
	}
}

// What the spend cap is told and asked, as sdk/codec writes it: cap 1000, tools
// pay and search; an agent that has spent 700 asks to pay 250.
const (
	spendCapInit    = "\xa1\x66params\xa2\x63cap\x19\x03\xe8\x65tools\x82\x66search\x63pay"
	spendCapRequest = "\xa6\x62id\x68req-0001\x65point\x6dtool.pre_call\x66action\xa1\x64name\x6atools/call" +
		"\x67context\xa4\x65spent\x19\x02\xbc\x65trace\x78\x2000112233445566778899aabbccddeeff" +
		"\x67session\xa2\x62id\x69session-7\x64turn\x0c\x69arguments\xa3\x62to\x78\x18DE00 1234 5678 9012 3456" +
		"\x66amount\x18\xfa\x68currency\x63EUR\x67subject\xa3\x62id\x67agent-7\x64type\x65agent\x6aproperties\xa2" +
		"\x64team\x68payments\x65level\x03\x68resource\xa2\x62id\x63pay\x64type\x64tool"
)

// calls makes the call and expects an answer.
func calls(b *testing.B, m *engine.Module, call abi.Call) func() {
	return func() {
		if _, err := m.Call(call); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOPARBAC asks the same question of the module as OPA wrote it on bare
// wazero, of the isolated call and of OPA's Go evaluator.
func BenchmarkOPARBAC(b *testing.B) {
	input := rbacInput("user57", "action3", "resource7")
	bare := plainOPA(b, marshal(b, input))
	isolated := load(b, newEngine(b, engine.Config{}), engine.Spec{Name: "rbac", Wasm: compileRego(b, rbacPolicy, "rbac/allow"), ABI: abi.OPA1, Init: marshal(b, rbacData())})
	call := abi.Call{Input: marshal(b, input)}
	q := prepareTopdown(b)
	b.Run("plain", func(b *testing.B) { guests.Percentiles(b, bare) })
	b.Run("isolated", func(b *testing.B) { guests.Percentiles(b, calls(b, isolated, call)) })
	b.Run("topdown", func(b *testing.B) {
		guests.Percentiles(b, func() {
			if rs, err := q.Eval(context.Background(), rego.EvalInput(input)); err != nil || !rs.Allowed() {
				b.Fatal(rs, err)
			}
		})
	})
}

// BenchmarkHostile is what a call costs that burns the default fuel, and what
// its dearest unit does.
func BenchmarkHostile(b *testing.B) {
	m := load(b, newEngine(b, engine.Config{}), probe(b))
	for _, c := range []struct {
		name, input string
		want        abi.TrapCode
	}{
		{"loop", "c", abi.TrapFuel}, {"recursion", "d", abi.TrapDepth}, {"tree", "e", abi.TrapFuel}, {"fill", "f", abi.TrapFuel},
		{"copy", "g", abi.TrapFuel}, {"grow", "h", abi.TrapFuel}, {"calls", "i", abi.TrapFuel}, {"logs", "j", abi.TrapFuel},
	} {
		b.Run(c.name, func(b *testing.B) {
			var units uint64
			for b.Loop() {
				_, err := m.Call(abi.Call{Input: []byte(c.input)})
				trap, ok := errors.AsType[*abi.Trap](err)
				if !ok || trap.Code != c.want {
					b.Fatal(err)
				}
				units += trap.Fuel
			}
			b.ReportMetric(float64(units)/float64(b.N), "units/op")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(units), "ns/unit")
		})
	}
}

// BenchmarkNeighbour is how long a small policy takes from its request's arrival
// while other guests burn the most fuel that there is, one call after another.
// A request arrives as one does from the network: as a goroutine that may run.
func BenchmarkNeighbour(b *testing.B) {
	e := newEngine(b, engine.Config{})
	burner := load(b, e, probe(b))
	small := load(b, e, engine.Spec{Name: "spendcap", Wasm: guest(b, "c", "spendcap"), ABI: abi.HoldfastV1, Init: []byte(spendCapInit)})
	for _, c := range []struct{ cores, burners int }{{2, 0}, {2, 1}, {2, 3}, {1, 0}, {1, 1}, {1, 3}} {
		b.Run(fmt.Sprintf("cores=%d/burners=%d", c.cores, c.burners), func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.cores))
			defer burn(burner, c.burners)()
			const arrivals = 100
			took := make([]time.Duration, 0, arrivals*b.N)
			ask := calls(b, small, abi.Call{Input: []byte(spendCapRequest)})
			for range cap(took) {
				start := time.Now()
				runtime.Gosched()
				ask()
				took = append(took, time.Since(start))
			}
			guests.Report(b, took)
		})
	}
}

// burn keeps burners calls in an endless loop until the function that it returns
// is called, which waits for them.
func burn(m *engine.Module, burners int) (end func()) {
	var done atomic.Bool
	var running sync.WaitGroup
	for range burners {
		running.Go(func() {
			for !done.Load() {
				m.Call(abi.Call{Input: []byte("c"), Fuel: abi.MaxFuel})
			}
		})
	}
	return func() {
		done.Store(true)
		running.Wait()
	}
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
