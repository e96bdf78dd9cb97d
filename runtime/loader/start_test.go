package loader_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/compile"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// TestMain lets the test binary be its own compile worker.
func TestMain(m *testing.M) {
	engine.Worker()
	os.Exit(m.Run())
}

// regoPackage is a package of about 130 KB whose module no other one equals.
func regoPackage(tb testing.TB, number int) *bundle.Package {
	tb.Helper()
	source := fmt.Sprintf("package p\n\ndefault allow := false\n\nallow if input.n == %d\n", number)
	c := compile.New().WithTarget(compile.TargetWasm).WithEntrypoints("p/allow").
		WithFS(fstest.MapFS{"p.rego": {Data: []byte(source)}}).WithPaths("p.rego").WithRegoVersion(ast.RegoV1)
	if err := c.Build(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return &bundle.Package{
		Manifest: bundle.Manifest{Name: fmt.Sprintf("rego-%d", number), ABI: string(abi.OPA1), Class: bundle.ClassPolicy, Entrypoint: "p/allow"},
		Module:   c.Bundle().WasmModules[0].Raw,
		Vectors: []bundle.Vector{
			{Name: "no", Point: policy.PointCustom, Request: []byte(`{"document":{"n":-1}}`), Expect: bundle.Expect{Verdict: policy.Deny}},
			{Name: "yes", Point: policy.PointCustom, Request: fmt.Appendf(nil, `{"document":{"n":%d}}`, number), Expect: bundle.Expect{Verdict: policy.Allow}},
		},
	}
}

// A machine that cannot start a worker now is no reason to give a release up.
func TestWorkerTriedAgain(t *testing.T) {
	w := newWorld(t)
	worker := filepath.Join(t.TempDir(), "worker")
	e, err := engine.New(context.Background(), engine.Config{Worker: worker})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	l := w.open(func(c *loader.Config) { c.Engine = e })
	var why *engine.CompileError
	if err := l.Offer(context.Background(), w.verdict(1, policy.Allow)); !errors.As(err, &why) || l.Set() != nil {
		t.Fatalf("without a worker: %v", err)
	}
	if err := os.Symlink(os.Args[0], worker); err != nil {
		t.Fatal(err)
	}
	w.run(l)
	<-w.recorded
}

// start brings the release in w's folder into force as a node does that starts.
func (w *world) start(b *testing.B, config engine.Config) {
	b.Helper()
	e, err := engine.New(context.Background(), config)
	if err != nil {
		b.Fatal(err)
	}
	c := w.config()
	c.Engine = e
	l, err := loader.New(context.Background(), c)
	if err != nil || l.Set() == nil {
		b.Fatalf("%v: %+v", err, l.Status())
	}
	b.StopTimer()
	if err := errors.Join(l.Close(context.Background()), e.Close(context.Background())); err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
}

// starts measures starts, and the CPU time of this process in them, which other
// work on the machine disturbs less.
func (w *world) starts(b *testing.B, config engine.Config, before func() error) {
	var cpu time.Duration
	for b.Loop() {
		if err := before(); err != nil {
			b.Fatal(err)
		}
		begin := cpuTime(b)
		w.start(b, config)
		cpu += cpuTime(b) - begin
	}
	b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkOwnFolder is a node that starts with its own folder, up to the set in
// force, vectors included: with nothing compiled before, and with everything.
func BenchmarkOwnFolder(b *testing.B) {
	for _, policies := range []int{1, 100} {
		w := newWorld(b)
		var refs []bundle.PackageRef
		for n := range policies {
			refs = append(refs, w.publish(regoPackage(b, n)))
		}
		l := w.open(nil)
		release := w.release(1)
		release.Points = nil
		for group := range slices.Chunk(refs, 10) {
			p := bundle.Point{Name: fmt.Sprintf("point_%d", len(release.Points)), Durability: policy.Synced, Packages: group}
			release.Points = append(release.Points, p)
		}
		w.offer(l, w.sign(release))
		config := engine.Config{Worker: engine.Self(), Cache: filepath.Join(b.TempDir(), "compiled")}
		nothing := func() error { return nil }
		w.start(b, config) // so that warm is warm when it runs alone
		b.Run(fmt.Sprintf("policies=%d/in-process", policies), func(b *testing.B) { w.starts(b, engine.Config{}, nothing) })
		b.Run(fmt.Sprintf("policies=%d/cold", policies), func(b *testing.B) {
			w.starts(b, config, func() error { return os.RemoveAll(config.Cache) })
		})
		b.Run(fmt.Sprintf("policies=%d/warm", policies), func(b *testing.B) { w.starts(b, config, nothing) })
	}
}

// A release that changes one of its policies opens one module; a module closes
// with the last set that asks it.
func TestModulesAreShared(t *testing.T) {
	w := newWorld(t)
	l := w.open(func(c *loader.Config) { c.Grace = time.Nanosecond })
	same, first, second := w.publish(says(t, policy.Allow)), w.publish(says(t, policy.Throttle)), w.publish(says(t, policy.RequireApproval))
	two := func(epoch uint64, ref bundle.PackageRef) []byte {
		r := w.release(epoch, same)
		r.Points = append(r.Points, bundle.Point{Name: "other", Durability: policy.Synced, Packages: []bundle.PackageRef{ref}})
		return w.sign(r)
	}
	module := func(point string) abi.Module { return l.Set().Points[point].Modules[0].Module }
	w.offer(l, two(1, first))
	kept, gone := module(policy.PointCustom), module("other")
	w.offer(l, two(2, second))
	if module(policy.PointCustom) != kept || module("other") == gone {
		t.Error("what did not change was opened again, or what changed was not")
	}
	w.set(func() { w.now = w.now.Add(time.Second) })
	w.run(l) // closes what is replaced
	trapped := func(m abi.Module) bool {
		_, err := m.Call(abi.Call{})
		return err != nil
	}
	for deadline := time.Now().Add(10 * time.Second); !trapped(gone); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the replaced module is still open")
		}
	}
	if trapped(kept) {
		t.Fatal("a module was closed that is in force")
	}
	w.expect(l, 2, policy.Allow)
}

// BenchmarkChangeOne is a release that changes one of a hundred policies, from the
// envelope until it is in force, its compiled module at hand.
func BenchmarkChangeOne(b *testing.B) {
	w := newWorld(b)
	e, err := engine.New(context.Background(), engine.Config{Worker: engine.Self(), Cache: filepath.Join(b.TempDir(), "compiled")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close(context.Background()) })
	var refs []bundle.PackageRef
	for n := range 102 {
		refs = append(refs, w.publish(regoPackage(b, n)))
	}
	release := func(epoch uint64, last bundle.PackageRef) []byte {
		r := w.release(epoch)
		r.Points = nil
		for i, group := range slices.Collect(slices.Chunk(append(slices.Clone(refs[:99]), last), 10)) {
			r.Points = append(r.Points, bundle.Point{Name: fmt.Sprintf("point_%d", i), Durability: policy.Synced, Packages: group})
		}
		return w.sign(r)
	}
	l := w.open(func(c *loader.Config) { c.Engine = e })
	w.offer(l, release(1, refs[100]))
	w.offer(l, release(2, refs[101]))
	epoch := uint64(2)
	for b.Loop() {
		b.StopTimer()
		epoch++
		env := release(epoch, refs[100+epoch%2])
		b.StartTimer()
		w.offer(l, env)
	}
}
