package engine_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// requestText is what the C guest is asked, about as long as a small request.
const requestText = "subject=spiffe://bank.example/agents/claims-7;role=agent;tenant=bank;action=call;resource=tool;name=transfer_funds;region=eu-central-1;session=0190f3c2-77aa;amount=1250;currency=EUR;"

// BenchmarkIsolation asks the same of the isolated call and of the module as its
// author compiled it on bare wazero, in turns of the same run.
func BenchmarkIsolation(b *testing.B) {
	b.Run("c", func(b *testing.B) {
		module := readFile(b, "testdata/cguest.wasm")
		compare(b, engine.Spec{Name: "c", Wasm: module, ABI: abi.HoldfastV1}, requestText, plainGuest(b, module, requestText))
	})
	b.Run("go", func(b *testing.B) {
		module := buildGo(b, "testdata/goguest")
		compare(b, engine.Spec{Name: "go", Wasm: module, ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime, Warm: [][]byte{[]byte("hello"), []byte("hello")}}, "hello", plainGuest(b, module, "hello"))
	})
	b.Run("opa", func(b *testing.B) {
		input := marshal(b, rbacInput("user57", "action3", "resource7"))
		spec := engine.Spec{Name: "rbac", Wasm: compileRego(b, rbacPolicy, "rbac/allow"), ABI: abi.OPA1, Init: marshal(b, rbacData())}
		compare(b, spec, string(input), plainOPA(b, input))
	})
}

// turns is how many times plain and isolated calls take turns.
const turns = 20

// compare reports the medians over the turns. Each turn runs b.N calls.
func compare(b *testing.B, spec engine.Spec, input string, plain func()) {
	m := load(b, newEngine(b, engine.Config{}), spec)
	call := abi.Call{Input: []byte(input)}
	isolated := func() {
		result, err := m.Call(call)
		if err != nil {
			b.Fatal(err)
		}
		call.Output = result.Output[:0]
	}
	var plainTook, isolatedTook []time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	for range turns {
		plainTook = append(plainTook, perCall(b.N/turns+1, plain))
		isolatedTook = append(isolatedTook, perCall(b.N/turns+1, isolated))
	}
	b.StopTimer()
	p, i := median(plainTook), median(isolatedTook)
	b.ReportMetric(float64(p), "plain-ns")
	b.ReportMetric(float64(i), "isolated-ns")
	b.ReportMetric(float64(i)/float64(p), "ratio")
	b.ReportMetric(0, "ns/op")
}

func perCall(n int, f func()) time.Duration {
	start := time.Now()
	for range n {
		f()
	}
	return time.Since(start) / time.Duration(n)
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// plainGuest calls a holdfast_v1 module on wazero without meters, limits and
// restore, and reads the answer.
func plainGuest(b *testing.B, module []byte, input string) func() {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	b.Cleanup(func() { r.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	m, err := r.InstantiateWithConfig(ctx, module, wazero.NewModuleConfig().WithStartFunctions("_initialize"))
	if err != nil {
		b.Fatal(err)
	}
	alloc, decide, memory := m.ExportedFunction(abi.ExportAlloc), m.ExportedFunction(abi.ExportDecide), m.Memory()
	stack := make([]uint64, 2)
	output := make([]byte, abi.MaxOutput)
	return func() {
		stack[0] = uint64(len(input))
		if err := alloc.CallWithStack(ctx, stack); err != nil {
			b.Fatal(err)
		}
		if uint32(stack[0]) == 0 {
			b.Fatal("the guest has no room")
		}
		memory.WriteString(uint32(stack[0]), input)
		stack[1] = uint64(len(input))
		if err := decide.CallWithStack(ctx, stack); err != nil {
			b.Fatal(err)
		}
		view, _ := memory.Read(uint32(stack[0]>>32), uint32(stack[0]))
		copy(output, view)
	}
}
