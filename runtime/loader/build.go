package loader

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/mask"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/schema"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// builder turns a release into a set. It opens every module once for each
// different set of parameters.
type builder struct {
	engine   *engine.Engine
	packages map[wire.Digest]*bundle.Package
	opened   modules // by points
	shelf    *shelf  // of modules that other sets use; nil: none is shared
	wrap     func(m abi.Module, second bool) abi.Module
	second   bool
}

func (b *builder) build(ctx context.Context, s *bundle.SignedRelease) (*decide.Set, error) {
	if err := b.checkParams(s); err != nil {
		return nil, err
	}
	if err := b.loadAll(ctx, s); err != nil {
		return nil, err
	}
	set := &decide.Set{Epoch: s.Epoch, Release: s.Digest, Points: make(map[string]*decide.Point, len(s.Points))}
	var masks []bundle.Mask
	for i := range s.Points {
		masks = append(masks, s.Points[i].Masks...)
		p, err := b.point(ctx, &s.Release, &s.Points[i])
		if err != nil {
			return nil, fmt.Errorf("point %s: %w", s.Points[i].Name, err)
		}
		set.Points[p.Name] = p
	}
	set.Masks = mask.Compile(masks)
	var err error
	set.Vectors, err = b.testAll(ctx, s)
	return set, err
}

// checkParams holds the parameters of the release against the packages' schemas:
// a policy may take for granted what its schema says.
func (b *builder) checkParams(s *bundle.SignedRelease) error {
	for _, p := range s.Points {
		for _, ref := range p.Packages {
			pkg := b.packages[ref.Digest]
			if err := schema.CheckParams(pkg, pkg.Merged(ref.Params)); err != nil {
				return fmt.Errorf("point %s: package %s %s: %w", p.Name, ref.Name, ref.Digest, err)
			}
		}
	}
	return nil
}

// loadAll opens the modules of all points, as many at once as there are threads.
func (b *builder) loadAll(ctx context.Context, s *bundle.SignedRelease) error {
	type opening struct {
		point string
		ref   *bundle.PackageRef
		key   moduleKey
		m     shared
	}
	var openings []opening
	seen := map[moduleKey]bool{}
	for _, p := range s.Points {
		for i := range p.Packages {
			ref := &p.Packages[i]
			key, err := keyOf(ref.Digest, b.packages[ref.Digest].Merged(ref.Params))
			if err != nil {
				return fmt.Errorf("point %s: package %s %s: %w", p.Name, ref.Name, ref.Digest, err)
			}
			if !seen[key] {
				openings = append(openings, opening{point: p.Name, ref: ref, key: key})
			}
			seen[key] = true
		}
	}
	err := each(len(openings), func(i int) (err error) {
		o := &openings[i]
		pkg := b.packages[o.ref.Digest]
		if o.m, err = b.take(ctx, o.key, pkg, pkg.Merged(o.ref.Params)); err != nil {
			return fmt.Errorf("point %s: package %s %s: %w", o.point, o.ref.Name, o.ref.Digest, err)
		}
		return nil
	})
	for _, o := range openings {
		if o.m.Module != nil {
			b.opened[o.key] = o.m
		}
	}
	return err
}

// testAll runs the golden vectors of each package and returns how many passed.
func (b *builder) testAll(ctx context.Context, s *bundle.SignedRelease) (int, error) {
	refs := distinct(s)
	var passed atomic.Int64
	err := each(len(refs), func(i int) error {
		n, err := b.test(ctx, refs[i])
		if err != nil {
			return fmt.Errorf("package %s %s: %w", refs[i].Name, refs[i].Digest, err)
		}
		passed.Add(int64(n))
		return nil
	})
	return int(passed.Load()), err
}

// each runs f for 0 to n-1, as many at once as there are threads, and returns
// the error of the lowest that failed; those after it may not have run.
func each(n int, f func(int) error) error {
	errs := make([]error, n)
	var next, failed atomic.Int64
	failed.Store(int64(n))
	var running sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		running.Go(func() {
			for i := next.Add(1) - 1; i < failed.Load(); i = next.Add(1) - 1 {
				if errs[i] = f(int(i)); errs[i] != nil {
					lower(&failed, i)
				}
			}
		})
	}
	running.Wait()
	if i := failed.Load(); i < int64(n) {
		return errs[i]
	}
	return nil
}

// lower sets n to i when that is less.
func lower(n *atomic.Int64, i int64) {
	for have := n.Load(); i < have && !n.CompareAndSwap(have, i); have = n.Load() {
	}
}

// smaller returns the stricter of two bounds, of which 0 is none.
func smaller(a, b uint64) uint64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func (b *builder) point(ctx context.Context, s *bundle.Release, p *bundle.Point) (*decide.Point, error) {
	out := &decide.Point{
		Name: p.Name, Durability: p.Durability, OnError: p.OnError, OnFuel: p.OnFuel,
		OnOverload: p.OnOverload, OnLogFailure: p.OnLogFailure, OnStale: p.OnStale, Lease: p.Lease(), Masks: mask.Compile(p.Masks),
		MaxInFlight: p.Limits.MaxInFlight, MaxRequestBytes: smaller(p.Limits.MaxRequestBytes, s.Limits.MaxRequestBytes),
	}
	maxFuel := smaller(p.Limits.MaxFuel, s.Limits.MaxFuel)
	for i := range p.Packages {
		out.Packages = append(out.Packages, p.Packages[i].Digest)
		m, err := b.module(ctx, &p.Packages[i], maxFuel)
		if err != nil {
			return nil, fmt.Errorf("package %s %s: %w", p.Packages[i].Name, p.Packages[i].Digest, err)
		}
		out.Modules = append(out.Modules, m)
	}
	return out, nil
}

func (b *builder) module(ctx context.Context, ref *bundle.PackageRef, maxFuel uint64) (decide.Module, error) {
	pkg := b.packages[ref.Digest]
	c, err := codec.For(abi.Kind(pkg.ABI))
	if err != nil {
		return decide.Module{}, err
	}
	params := pkg.Merged(ref.Params)
	m, key, err := b.load(ctx, ref.Digest, pkg, params, b.opened)
	if err != nil {
		return decide.Module{}, err
	}
	if len(params) == 0 {
		key.params = wire.Digest{}
	}
	entrypoint, err := findEntrypoint(pkg, m.Entrypoints(), ref.Entrypoint)
	if err != nil {
		return decide.Module{}, err
	}
	fuel := pkg.Fuel
	if ref.Fuel != 0 {
		fuel = ref.Fuel
	}
	if maxFuel != 0 {
		fuel = smaller(maxFuel, cmp.Or(fuel, abi.DefaultFuel))
	}
	var called abi.Module = m
	if b.wrap != nil {
		called = b.wrap(m, b.second)
	}
	return decide.Module{
		Name: pkg.Name, Digest: ref.Digest, Wasm: pkg.Manifest.Module, Params: key.params,
		Module: called, Codec: c, Entrypoint: entrypoint, Entrypoints: m.Entrypoints(), Fuel: fuel,
	}, nil
}

// load returns the package's module with params that is open in one of the sets,
// or opens it for the first of them.
func (b *builder) load(ctx context.Context, d wire.Digest, pkg *bundle.Package, params map[string]any, sets ...modules) (m *engine.Module, key moduleKey, err error) {
	if key, err = keyOf(d, params); err != nil {
		return nil, key, err
	}
	for _, set := range sets {
		if m := set[key].Module; m != nil {
			return m, key, nil
		}
	}
	if m, err = b.open(ctx, pkg, params); err == nil {
		sets[0][key] = shared{Module: m}
	}
	return m, key, err
}

// take returns a module that another set has open, or opens it for this one.
func (b *builder) take(ctx context.Context, key moduleKey, pkg *bundle.Package, params map[string]any) (shared, error) {
	if b.shelf == nil {
		m, err := b.open(ctx, pkg, params)
		return shared{Module: m}, err
	}
	if have, ok := b.shelf.take(key); ok {
		return have, nil
	}
	m, err := b.open(ctx, pkg, params)
	if err != nil {
		return shared{}, err
	}
	return b.shelf.put(key, m), nil
}

func keyOf(d wire.Digest, params map[string]any) (moduleKey, error) {
	raw, err := wire.Marshal(params)
	if err != nil {
		return moduleKey{}, fmt.Errorf("parameters: %w", err)
	}
	return moduleKey{pkg: d, params: wire.Sum(raw)}, nil
}

func (b *builder) open(ctx context.Context, pkg *bundle.Package, params map[string]any) (*engine.Module, error) {
	spec, err := newSpec(pkg, params)
	if err != nil {
		return nil, err
	}
	return b.engine.Load(ctx, spec)
}

// warmInputs returns what a package's module answers before its state is kept:
// its first vectors that expect an answer, twice. They are the package's own, so
// that every node, the compiler and replay keep the same state.
func warmInputs(c codec.Codec, pkg *bundle.Package) ([][]byte, error) {
	const most = 4
	var inputs [][]byte
	for i := 0; i < len(pkg.Vectors) && len(inputs) < most; i++ {
		v := &pkg.Vectors[i]
		req, err := policy.ParseRequest(v.Point, v.Request)
		if err != nil || v.Expect.Trap != "" {
			continue // the vector itself will say so
		}
		input, err := c.Encode(req)
		if err != nil {
			return nil, fmt.Errorf("vector %s: %w", v.Name, err)
		}
		inputs = append(inputs, input)
	}
	return append(inputs, inputs...), nil
}

// test fails unless the package's golden vectors pass, and returns how many there are.
func (b *builder) test(ctx context.Context, ref *bundle.PackageRef) (int, error) {
	results, err := b.run(ctx, ref, nil)
	if err != nil {
		return 0, err
	}
	if err := vectors.Failed(results); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrVectors, err)
	}
	return len(results), nil
}

// findEntrypoint returns the number of the entry point that override, or else
// the manifest, names. A module with a single one need not name it.
func findEntrypoint(pkg *bundle.Package, entrypoints map[string]int32, override string) (int32, error) {
	if pkg.ABI != string(abi.OPA1) {
		return 0, nil
	}
	path := pkg.Entrypoint
	if override != "" {
		path = override
	}
	if n, ok := entrypoints[path]; ok {
		return n, nil
	}
	names := slices.Sorted(maps.Keys(entrypoints))
	if path == "" && len(names) == 1 {
		return entrypoints[names[0]], nil
	}
	return 0, fmt.Errorf("entry point %.200q; the module has %.400q", path, names)
}

// newSpec describes a package's module to the engine, initialised with the
// package's data and with params, which are merged already.
func newSpec(pkg *bundle.Package, params map[string]any) (engine.Spec, error) {
	class, err := wasm.ParseClass(pkg.Class)
	if err != nil {
		return engine.Spec{}, err
	}
	c, err := codec.For(abi.Kind(pkg.ABI))
	if err != nil {
		return engine.Spec{}, err
	}
	spec := engine.Spec{Name: pkg.Name, Wasm: pkg.Module, ABI: abi.Kind(pkg.ABI), Class: class, Patterns: pkg.Patterns}
	if spec.Init, err = c.Init(params, pkg.Data); err == nil && class == wasm.LanguageRuntime {
		spec.Warm, err = warmInputs(c, pkg)
	}
	return spec, err
}
