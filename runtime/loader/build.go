package loader

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// modules are open modules by package and parameters.
type modules map[moduleKey]*engine.Module

type moduleKey struct{ pkg, params wire.Digest }

func (m modules) close(ctx context.Context) error {
	var errs []error
	for _, module := range m {
		errs = append(errs, module.Close(ctx))
	}
	return errors.Join(errs...)
}

// builder turns a release into a set. It opens every module once for each
// different set of parameters.
type builder struct {
	engine   *engine.Engine
	packages map[wire.Digest]*bundle.Package
	open     modules
}

func (b *builder) build(ctx context.Context, s *bundle.SignedRelease) (*decide.Set, error) {
	set := &decide.Set{Epoch: s.Epoch, Release: s.Digest, Points: make(map[string]*decide.Point, len(s.Points))}
	for i := range s.Points {
		p, err := b.point(ctx, &s.Points[i])
		if err != nil {
			return nil, fmt.Errorf("point %s: %w", s.Points[i].Name, err)
		}
		set.Points[p.Name] = p
	}
	tested := map[wire.Digest]bool{}
	for _, p := range s.Points {
		for i := range p.Packages {
			ref := &p.Packages[i]
			if tested[ref.Digest] {
				continue
			}
			tested[ref.Digest] = true
			if err := b.test(ctx, ref); err != nil {
				return nil, fmt.Errorf("package %s %s: %w", ref.Name, ref.Digest, err)
			}
		}
	}
	return set, nil
}

func (b *builder) point(ctx context.Context, p *bundle.Point) (*decide.Point, error) {
	out := &decide.Point{
		Name: p.Name, Durability: p.Durability, OnError: p.OnError, OnFuel: p.OnFuel,
		OnOverload: p.OnOverload, OnLogFailure: p.OnLogFailure, OnStale: p.OnStale,
	}
	for i := range p.Packages {
		m, err := b.module(ctx, &p.Packages[i])
		if err != nil {
			return nil, fmt.Errorf("package %s %s: %w", p.Packages[i].Name, p.Packages[i].Digest, err)
		}
		out.Modules = append(out.Modules, m)
	}
	return out, nil
}

func (b *builder) module(ctx context.Context, ref *bundle.PackageRef) (decide.Module, error) {
	pkg := b.packages[ref.Digest]
	c, err := codec.For(abi.Kind(pkg.ABI))
	if err != nil {
		return decide.Module{}, err
	}
	params := pkg.Merged(ref.Params)
	m, key, err := b.load(ctx, ref.Digest, pkg, params, b.open)
	if err != nil {
		return decide.Module{}, err
	}
	if len(params) == 0 {
		key.params = wire.Digest{}
	}
	entrypoint, err := findEntrypoint(pkg, m, ref.Entrypoint)
	if err != nil {
		return decide.Module{}, err
	}
	fuel := pkg.Fuel
	if ref.Fuel != 0 {
		fuel = ref.Fuel
	}
	return decide.Module{
		Name: pkg.Name, Digest: ref.Digest, Wasm: pkg.Manifest.Module, Params: key.params,
		Module: m, Codec: c, Entrypoint: entrypoint, Entrypoints: m.Entrypoints(), Fuel: fuel,
	}, nil
}

// load opens the package's module with params, or returns the one that is open
// in one of the sets; a new one belongs to the first.
func (b *builder) load(ctx context.Context, d wire.Digest, pkg *bundle.Package, params map[string]any, sets ...modules) (m *engine.Module, key moduleKey, err error) {
	raw, err := wire.Marshal(params)
	if err != nil {
		return nil, key, fmt.Errorf("parameters: %w", err)
	}
	key = moduleKey{pkg: d, params: wire.Sum(raw)}
	for _, set := range sets {
		if m := set[key]; m != nil {
			return m, key, nil
		}
	}
	spec, err := newSpec(pkg, params)
	if err != nil {
		return nil, key, err
	}
	if m, err = b.engine.Load(ctx, spec); err != nil {
		return nil, key, err
	}
	sets[0][key] = m
	return m, key, nil
}

// test runs the package's golden vectors, with the package's own parameters and
// the fuel of ref. Modules that only a vector wanted are closed again.
func (b *builder) test(ctx context.Context, ref *bundle.PackageRef) (err error) {
	pkg := *b.packages[ref.Digest]
	if ref.Fuel != 0 {
		pkg.Fuel = ref.Fuel
	}
	c, err := codec.For(abi.Kind(pkg.ABI))
	if err != nil {
		return err
	}
	groups, err := vectors.ByParams(&pkg)
	if err != nil {
		return err
	}
	own := modules{}
	defer func() { err = errors.Join(err, own.close(ctx)) }()
	for _, group := range groups {
		m, _, err := b.load(ctx, ref.Digest, group, group.Params, own, b.open)
		if err != nil {
			return err
		}
		override := ""
		if pkg.Entrypoint == "" {
			override = ref.Entrypoint
		}
		entrypoint, err := findEntrypoint(group, m, override)
		if err != nil {
			return err
		}
		if err := vectors.Failed(vectors.RunVectors(group, m, entrypoint, c)); err != nil {
			return fmt.Errorf("%w: %w", ErrVectors, err)
		}
	}
	return nil
}

// findEntrypoint returns the number of the entry point that override, or else
// the manifest, names. A module with a single one need not name it.
func findEntrypoint(pkg *bundle.Package, m *engine.Module, override string) (int32, error) {
	if pkg.ABI != string(abi.OPA1) {
		return 0, nil
	}
	entrypoints := m.Entrypoints()
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
	init, err := c.Init(params, pkg.Data)
	return engine.Spec{Name: pkg.Name, Wasm: pkg.Module, ABI: abi.Kind(pkg.ABI), Class: class, Patterns: pkg.Patterns, Init: init}, err
}
