package edge_test

import (
	"context"
	"fmt"
	"runtime/debug"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/bench/guests"
	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// level is the i-th Rego policy, about 130 KB of Wasm that no other one equals.
func level(b testing.TB, i int) *bundle.Package {
	b.Helper()
	source := fmt.Sprintf("package p\n\nimport rego.v1\n\ndefault allow := false\n\nallow if input.level >= %d\n", i)
	built, err := rego.Compile(context.Background(), fstest.MapFS{"p.rego": {Data: []byte(source)}}, rego.Options{Entrypoints: []string{"p/allow"}})
	if err != nil {
		b.Fatal(err)
	}
	return &bundle.Package{
		Manifest: bundle.Manifest{Name: fmt.Sprintf("level-%d", i), ABI: string(abi.OPA1), Class: bundle.ClassPolicy, Entrypoint: "p/allow"},
		Module:   built.Wasm,
		Vectors: []bundle.Vector{{
			Name: "at the level", Point: policy.PointCustom, Request: fmt.Appendf(nil, `{"document":{"level":%d}}`, i), Expect: bundle.Expect{Verdict: policy.Allow},
		}},
	}
}

// levels is a release of so many Rego policies, ten to a point.
func (w *world) levels(epoch uint64, first, count int) *bundle.Release {
	r := w.release(epoch, bundle.PackageRef{})
	r.Points = nil
	for i := range count {
		if i%10 == 0 {
			r.Points = append(r.Points, bundle.Point{Name: fmt.Sprintf("custom.p%d", i/10), Durability: policy.Written})
		}
		p := &r.Points[len(r.Points)-1]
		p.Packages = append(p.Packages, w.publish(level(w.t, first+i)))
	}
	return r
}

func compiled(c *edge.Config) { c.Worker = engine.Self() }

// BenchmarkColdStart is a node that starts alone in its folder with a hundred
// policies whose code is compiled, from Open until it is ready.
func BenchmarkColdStart(b *testing.B) {
	w := newWorld(b)
	w.put(w.levels(1, 0, 100))
	n := w.start(compiled)
	n.waitEpoch(1)
	n.stop()
	for b.Loop() {
		n := w.start(func(c *edge.Config) { compiled(c); alone(c) })
		b.StopTimer()
		if !n.Status().Ready {
			b.Fatal(n.Status())
		}
		n.stop()
		b.StartTimer()
	}
}

// BenchmarkStepBack is a step back from twenty policies to twenty others, kept
// warm, from the order until they decide.
func BenchmarkStepBack(b *testing.B) {
	w := newWorld(b)
	w.put(w.levels(1, 0, 20))
	n := w.start(compiled)
	n.waitEpoch(1)
	var took time.Duration
	epoch, steps := uint64(1), 0
	for b.Loop() {
		b.StopTimer()
		epoch++
		r := w.levels(epoch, 100+20*int(epoch), 20)
		r.Rings = ringOf("all")
		w.put(r)
		n.Deliver(w.orderOf(r, 1, bundle.RolloutRunning, bundle.PhaseActive))
		n.waitEpoch(epoch)
		b.StartTimer()
		begin := time.Now()
		n.Deliver(w.orderOf(r, 2, bundle.RolloutHalted))
		n.waitFallback(epoch)
		took += time.Since(begin)
		steps++
	}
	b.ReportMetric(float64(took.Microseconds())/1000/float64(steps), "ms/step")
}

// resident is what the process occupies without garbage, in MiB. A sync.Pool keeps
// what it is part of for two collections more.
func resident() float64 {
	for range 3 {
		debug.FreeOSMemory()
	}
	return float64(guests.Resident()) / (1 << 20)
}

// BenchmarkMemory is what a node occupies beyond this process: with a hundred
// Rego policies in force, when all were asked, with a way back that differs in ten of them, and with
// what the second engine keeps. It is measured once.
func BenchmarkMemory(b *testing.B) {
	w := newWorld(b)
	first, second := w.levels(1, 0, 100), w.levels(2, 10, 100)
	second.LivePerMillion = 1_000_000
	before := resident()
	w.put(first)
	n := w.start(compiled)
	n.waitEpoch(1)
	inForce := resident() - before
	for i := range 100 {
		n.askAt(fmt.Sprintf("custom.p%d", i%10), `{"document":{"level":50}}`)
	}
	asked := resident() - before
	second.Previous = w.previous
	w.put(second)
	n.waitEpoch(2)
	withBack := resident() - before
	for i := range 100 {
		have := n.Metrics()
		n.askAt(fmt.Sprintf("custom.p%d", i%10), `{"document":{"level":50}}`)
		n.wait("second", func() bool {
			m := n.Metrics()
			return m.Second+m.SecondSkipped > have.Second+have.SecondSkipped
		})
		w.advance(time.Second)
	}
	if m := n.Metrics(); m.SecondDisagreed != 0 || m.SecondFailed != 0 || m.Second == 0 {
		b.Fatalf("%+v", m)
	}
	withSecond := resident() - before
	for b.Loop() {
	}
	b.ReportMetric(inForce, "MiB-in-force")
	b.ReportMetric(asked, "MiB-all-asked")
	b.ReportMetric(withBack, "MiB-with-way-back")
	b.ReportMetric(withSecond, "MiB-with-second-engine")
}

// BenchmarkDecide is a whole decision of one small policy, with and without kills.
func BenchmarkDecide(b *testing.B) {
	for _, kills := range []int{0, 1000} {
		b.Run(fmt.Sprintf("kills=%d", kills), func(b *testing.B) {
			w := newWorld(b)
			w.put(w.release(1, w.publish(says(policy.Allow, 1))))
			n := w.start(nil)
			n.waitEpoch(1)
			for i := range kills {
				env, _ := w.killOf(fmt.Sprintf([]string{"subject:s%d", "resource:r%d", "point:p%d"}[i%3], i))
				n.Deliver(env)
			}
			req, err := policy.ParseRequest(policy.PointCustom, []byte(`{"subject":{"type":"agent","id":"a7"},"action":{"name":"x"},"resource":{"type":"tool","id":"pay"}}`))
			w.must(err)
			b.ReportAllocs()
			for b.Loop() {
				if a, err := n.Decide(context.Background(), req); err != nil || a.Verdict != policy.Allow {
					b.Fatal(a, err)
				}
			}
		})
	}
}
