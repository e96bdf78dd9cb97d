package engine_test

import (
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// BenchmarkTwoGoroutines compares how calls scale from one goroutine to two with
// how arithmetic does, in turns of one run.
func BenchmarkTwoGoroutines(b *testing.B) {
	m := load(b, newEngine(b, engine.Config{}), engine.Spec{Name: "c", Wasm: readFile(b, "testdata/cguest.wasm"), ABI: abi.HoldfastV1})
	calls := func() {
		call := abi.Call{Input: []byte(requestText)}
		for range b.N / turns {
			result, err := m.Call(call)
			if err != nil {
				b.Error(err)
				return
			}
			call.Output = result.Output[:0]
		}
	}
	var kept [2][8]uint64
	arithmetic := func(g int) {
		x := uint64(g) + 1
		for range 500 * (b.N / turns) {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		kept[g][0] = x
	}
	var scaling, ideal []float64
	b.ResetTimer()
	for range turns {
		scaling = append(scaling, speedup(func(int) { calls() }))
		ideal = append(ideal, speedup(arithmetic))
	}
	b.StopTimer()
	s, i := middle(scaling), middle(ideal)
	b.ReportMetric(s, "calls-x")
	b.ReportMetric(i, "cpu-x")
	b.ReportMetric(s/i, "share")
	b.ReportMetric(0, "ns/op")
}

// speedup returns how much more work two goroutines do in the same time than one.
func speedup(work func(goroutine int)) float64 {
	start := time.Now()
	work(0)
	alone := time.Since(start)
	start = time.Now()
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() { work(g) })
	}
	wg.Wait()
	return 2 * float64(alone) / float64(time.Since(start))
}

func middle(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// occupied returns the process's proportional set in KiB, behind a collection.
func occupied(b *testing.B) int {
	debug.FreeOSMemory()
	raw, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kib); n == 1 {
			return kib
		}
	}
	b.Fatal("no Pss")
	return 0
}

// BenchmarkHundredPolicies loads a hundred different modules, calls each once,
// and reports what the process grew by.
func BenchmarkHundredPolicies(b *testing.B) {
	data, input := marshal(b, rbacData()), marshal(b, rbacInput("user57", "action3", "resource7"))
	var sources [100][]byte
	for n := range sources {
		condition := fmt.Sprintf("input.user != \"nobody %d\"\n\tsome binding in", n)
		sources[n] = compileRego(b, strings.Replace(rbacPolicy, "some binding in", condition, 1), "rbac/allow")
	}
	for b.Loop() {
		e := newEngine(b, engine.Config{})
		before := occupied(b)
		var private uint64
		for _, source := range sources {
			m := load(b, e, engine.Spec{Name: "rbac", Wasm: source, ABI: abi.OPA1, Init: data})
			if _, err := m.Call(abi.Call{Input: input}); err != nil {
				b.Fatal(err)
			}
			private += m.Stats().PrivateBytes
		}
		b.ReportMetric(float64(occupied(b)-before)/1024, "MiB")
		b.ReportMetric(float64(private)/100/1024, "private-KiB/policy")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLargeData asks the same of a module with 5 KB and with 5 MB of data.
func BenchmarkLargeData(b *testing.B) {
	module := compileRego(b, rbacPolicy, "rbac/allow")
	input := marshal(b, rbacInput("user57", "action3", "resource7"))
	e := newEngine(b, engine.Config{})
	var calls []func()
	for _, size := range []int{0, 5_000_000} {
		data := rbacData()
		var padding []any
		for n := 0; n < size; n += 50 {
			padding = append(padding, fmt.Sprintf("entry %041d", n))
		}
		data["padding"] = padding
		m := load(b, e, engine.Spec{Name: "rbac", Wasm: module, ABI: abi.OPA1, Class: wasm.Data, Init: marshal(b, data), Pool: 4})
		call := abi.Call{Input: input}
		calls = append(calls, func() {
			result, err := m.Call(call)
			if err != nil {
				b.Fatal(err)
			}
			call.Output = result.Output[:0]
		})
		calls[len(calls)-1]()
		s := m.Stats()
		b.Logf("%d bytes of padding: %d KiB of memory, %d KiB of it private to %d instance", size, s.MemoryBytes>>10, s.PrivateBytes>>10, s.Instances)
	}
	var small, large []time.Duration
	b.ResetTimer()
	for range turns {
		small = append(small, perCall(b.N/turns+1, calls[0]))
		large = append(large, perCall(b.N/turns+1, calls[1]))
	}
	b.StopTimer()
	b.ReportMetric(float64(median(small)), "5KB-ns")
	b.ReportMetric(float64(median(large)), "5MB-ns")
	b.ReportMetric(0, "ns/op")
}
