package guests_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/bench/guests"
	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// BenchmarkDecide is a node's decision in process, from the request to the
// decision with CBOR both ways, and the engine's part of it.
func BenchmarkDecide(b *testing.B) {
	body := asks("pay", `"arguments":{"amount":250},"spent":700`)
	req, err := policy.ParseRequest(policy.PointCustom, []byte(body))
	if err != nil {
		b.Fatal(err)
	}
	m := load(b, newEngine(b, engine.Config{}), spec(b, "c", "spendcap"))
	point := decide.Point{Modules: []decide.Module{{Module: m, Codec: newCodec(b, abi.HoldfastV1)}}}
	call := abi.Call{Input: ask(b, body), Output: make([]byte, 0, 1024)}
	b.Run("engine", func(b *testing.B) { guests.Percentiles(b, func() { answered(b, m, call) }) })
	b.Run("decide", func(b *testing.B) {
		guests.Percentiles(b, func() {
			if out := point.Evaluate(req, 1); out.Decision.Verdict != policy.Allow {
				b.Fatalf("%+v", out)
			}
		})
	})
}

func answered(b *testing.B, m *engine.Module, call abi.Call) {
	if _, err := m.Call(call); err != nil {
		b.Error(err)
	}
}

// BenchmarkScaling has one and two goroutines do the same work each: calls, and
// as the measure of what the machine allows, a loop that touches no memory.
func BenchmarkScaling(b *testing.B) {
	m := load(b, newEngine(b, engine.Config{}), spec(b, "c", "spendcap"))
	call := abi.Call{Input: ask(b, asks("pay", `"arguments":{"amount":250}`))}
	var kept [2]uint64
	for _, work := range []struct {
		name string
		do   func(goroutine int)
	}{
		{"loop", func(goroutine int) { kept[goroutine] += spin(uint64(goroutine)) }},
		{"engine", func(int) { answered(b, m, call) }},
	} {
		for _, goroutines := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/goroutines=%d", work.name, goroutines), func(b *testing.B) {
				var done sync.WaitGroup
				for goroutine := range goroutines {
					done.Go(func() {
						for range b.N {
							work.do(goroutine)
						}
					})
				}
				done.Wait()
			})
		}
	}
}

// spin computes for about as long as a call.
func spin(x uint64) uint64 {
	for range 400 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x<<17 + 1
	}
	return x
}

// lookup reads one entry of the data.
const lookup = `package lookup

import rego.v1

default allow := false

allow if data.users[input.user].level >= 3
`

// BenchmarkData is the same look-up in 5 KB and in 5 MB of data, and what an
// instance takes beside the first.
func BenchmarkData(b *testing.B) {
	e := newEngine(b, engine.Config{})
	built, err := rego.Compile(b.Context(), fstest.MapFS{"p.rego": {Data: []byte(lookup)}}, rego.Options{Entrypoints: []string{"lookup/allow"}})
	if err != nil {
		b.Fatal(err)
	}
	input := askRego(b, newCodec(b, abi.OPA1), "user42")
	for _, size := range []struct {
		name  string
		users int
	}{{"5KB", 100}, {"5MB", 100_000}} {
		b.Run(size.name, func(b *testing.B) {
			const instances = 4
			m := load(b, e, engine.Spec{Name: size.name, Wasm: built.Wasm, ABI: abi.OPA1, Class: wasm.Data, Init: usersOf(b, size.users), Pool: instances})
			call := abi.Call{Input: input, Entrypoint: m.Entrypoints()["lookup/allow"]}
			one, before := m.Stats().Instances, guests.Resident()
			crowd(b, m, call, instances)
			each := float64(guests.Resident()-before) / float64(m.Stats().Instances-one)
			b.Run("isolated", func(b *testing.B) {
				guests.Percentiles(b, func() { answered(b, m, call) })
				b.ReportMetric(each/1024, "KiB/instance")
				b.ReportMetric(float64(m.Stats().MemoryBytes)/1024, "KiB-memory")
			})
		})
	}
}

// usersOf is a data document with n users of about 50 bytes each.
func usersOf(b *testing.B, n int) []byte {
	b.Helper()
	users := map[string]any{}
	for i := range n {
		users[fmt.Sprintf("user%d", i)] = map[string]any{"level": i % 7, "team": "payments"}
	}
	data, err := json.Marshal(map[string]any{"users": users})
	if err != nil {
		b.Fatal(err)
	}
	return data
}

// crowd asks from more threads than there are cores until a thread was suspended
// in a call often enough that all instances of the pool exist.
func crowd(b *testing.B, m *engine.Module, call abi.Call, instances int) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(instances))
	var done sync.WaitGroup
	for range instances {
		done.Go(func() {
			for m.Stats().Instances < instances && !b.Failed() {
				answered(b, m, call)
			}
		})
	}
	done.Wait()
}

// TestMain lets the test binary be its own compile worker.
func TestMain(m *testing.M) {
	engine.Worker()
	os.Exit(m.Run())
}

// BenchmarkAdmit is the admission of a large language runtime by an engine that
// has not seen it, and how far the memory of this process rises.
func BenchmarkAdmit(b *testing.B) {
	module := buildGo(b, "./testdata/large")
	b.Run(fmt.Sprintf("MiB=%.1f", float64(len(module))/(1<<20)), func(b *testing.B) {
		var rise int64
		for b.Loop() {
			b.StopTimer()
			e, before := newEngine(b, engine.Config{Worker: engine.Self()}), guests.Resident()
			if err := guests.ResetPeak(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			m, err := e.Load(context.Background(), engine.Spec{Name: "large", Wasm: module, ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime})
			b.StopTimer()
			if err != nil {
				b.Fatal(err)
			}
			rise = max(rise, guests.Peak()-before)
			m.Close(context.Background())
			e.Close(context.Background())
			b.StartTimer()
		}
		b.ReportMetric(float64(rise)/(1<<20), "peak-MiB")
	})
}
