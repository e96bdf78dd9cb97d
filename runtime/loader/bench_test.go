package loader_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/bench/guests"
	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// BenchmarkMixedStart is a node's warm start with a hundred policies of as many modules in
// its folder, half of them in C and half in Rego: from the engine's making until
// the release is in force again, golden vectors included.
func BenchmarkMixedStart(b *testing.B) {
	const policies = 100
	w := newWorld(b)
	release := w.release(1)
	release.Points = nil
	for i := range policies / 2 {
		point := bundle.Point{Name: fmt.Sprintf("custom.p%d", i), Durability: policy.Synced}
		point.Packages = []bundle.PackageRef{w.publish(capOf(b, i)), w.publish(levelOf(b, i))}
		release.Points = append(release.Points, point)
	}
	config := engine.Config{Worker: engine.Self(), Cache: b.TempDir()}
	first := w.restart(config)
	w.offer(first, w.sign(release))
	w.stop(first)
	b.Run(fmt.Sprintf("policies=%d", policies), func(b *testing.B) {
		var held int64
		for b.Loop() {
			b.StopTimer()
			before := guests.Resident()
			b.StartTimer()
			l := w.restart(config)
			b.StopTimer()
			if set := l.Set(); set == nil || len(set.Points) != policies/2 {
				b.Fatal(w.refusals())
			}
			held = guests.Resident() - before
			w.stop(l)
			b.StartTimer()
		}
		b.ReportMetric(float64(held)/(1<<20), "MiB")
	})
}

// restart is what a node does that finds its folder.
func (w *world) restart(config engine.Config) *loader.Loader {
	w.t.Helper()
	var err error
	if w.engine, err = engine.New(context.Background(), config); err != nil {
		w.t.Fatal(err)
	}
	l, err := loader.New(context.Background(), w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// stop ends what restart began.
func (w *world) stop(l *loader.Loader) {
	<-w.recorded
	if err := errors.Join(l.Close(context.Background()), w.engine.Close(context.Background())); err != nil {
		w.t.Error(err)
	}
}

// capOf is the i-th spend cap: the same code in a module of its own.
func capOf(b *testing.B, i int) *bundle.Package {
	b.Helper()
	module, err := guests.FS.ReadFile("c/spendcap.wasm")
	if err != nil {
		b.Fatal(err)
	}
	return &bundle.Package{
		Manifest: bundle.Manifest{
			Name: fmt.Sprintf("cap-%d", i), ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy,
			Params: map[string]any{"cap": int64(i), "tools": []any{"pay"}},
		},
		Module: bytes.Replace(module, []byte("an allowed tool"), fmt.Appendf(nil, "an allowed t%03d", i), 1),
		Vectors: []bundle.Vector{{
			Name: "other tool", Point: policy.PointCustom, Request: []byte(`{"document":1}`),
			Expect: bundle.Expect{Verdict: policy.Deny, Codes: []string{"tool_denied"}},
		}},
	}
}

// levelOf is the i-th Rego policy.
func levelOf(b *testing.B, i int) *bundle.Package {
	b.Helper()
	source := fmt.Sprintf("package p\n\nimport rego.v1\n\ndefault allow := false\n\nallow if input.level >= %d\n", i)
	built, err := rego.Compile(b.Context(), fstest.MapFS{"p.rego": {Data: []byte(source)}}, rego.Options{Entrypoints: []string{"p/allow"}})
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
