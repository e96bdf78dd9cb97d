package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Packages returns the first reference to each package of a release.
func Packages(s *bundle.SignedRelease) []*bundle.PackageRef { return distinct(s) }

// RunVectors runs a package's golden vectors once more, on the modules of the set
// where they have the vectors' parameters, else on modules that are opened for
// it. Errors say that they could not be run.
func (l *Loader) RunVectors(ctx context.Context, set *decide.Set, rel *bundle.SignedRelease, ref *bundle.PackageRef) ([]vectors.VectorResult, error) {
	pkg, err := l.stored(ref)
	if err != nil {
		return nil, err
	}
	b := builder{engine: l.config.Engine, packages: map[wire.Digest]*bundle.Package{ref.Digest: pkg}, opened: modules{}}
	return b.run(ctx, ref, func(key moduleKey) abi.Module { return inSet(set, key) })
}

// inSet returns the set's module of a package with parameters, or nil.
func inSet(set *decide.Set, key moduleKey) abi.Module {
	for _, p := range set.Points {
		for i := range p.Modules {
			m := &p.Modules[i]
			params := m.Params
			if params.IsZero() {
				params = noParams
			}
			if m.Digest == key.pkg && params == key.params {
				return m.Module
			}
		}
	}
	return nil
}

// noParams is what keyOf makes of no parameters.
var noParams = wire.Sum([]byte{0xa0})

// A Twin is one module of a point, opened once more on another engine.
type Twin struct {
	// Point asks that module only.
	Point  *decide.Point
	opened modules
}

// Twin opens the i-th module of a point of a release of the loader's folder.
func (l *Loader) Twin(ctx context.Context, rel *bundle.SignedRelease, point string, i int, e *engine.Engine) (*Twin, error) {
	at := slices.IndexFunc(rel.Points, func(p bundle.Point) bool { return p.Name == point })
	if at < 0 || i >= len(rel.Points[at].Packages) {
		return nil, fmt.Errorf("no module %d at point %q", i, point)
	}
	one := rel.Points[at]
	one.Packages = one.Packages[i : i+1]
	ref := &one.Packages[0]
	pkg, err := l.stored(ref)
	if err != nil {
		return nil, fmt.Errorf("package %s %s: %w", ref.Name, ref.Digest, err)
	}
	b := builder{
		engine: e, packages: map[wire.Digest]*bundle.Package{ref.Digest: pkg}, opened: modules{}, wrap: l.config.Wrap, second: true,
	}
	t := &Twin{opened: b.opened}
	if t.Point, err = b.point(ctx, &rel.Release, &one); err != nil {
		return nil, errors.Join(err, t.Close(context.WithoutCancel(ctx)))
	}
	return t, nil
}

// Close frees what was opened, after the calls that are in flight.
func (t *Twin) Close(ctx context.Context) error { return t.opened.close(ctx) }

// run runs the package's golden vectors, with the package's own parameters and
// the fuel of ref. Modules that only a vector wanted are closed again.
func (b *builder) run(ctx context.Context, ref *bundle.PackageRef, live func(moduleKey) abi.Module) (results []vectors.VectorResult, err error) {
	pkg := *b.packages[ref.Digest]
	if ref.Fuel != 0 {
		pkg.Fuel = ref.Fuel
	}
	c, err := codec.For(abi.Kind(pkg.ABI))
	if err != nil {
		return nil, err
	}
	groups, err := vectors.ByParams(&pkg)
	if err != nil {
		return nil, err
	}
	own := modules{}
	defer func() { err = errors.Join(err, own.close(context.WithoutCancel(ctx))) }()
	for _, group := range groups {
		more, err := b.runGroup(ctx, ref, group, c, own, live)
		if err != nil {
			return nil, err
		}
		results = append(results, more...)
	}
	return results, nil
}

func (b *builder) runGroup(ctx context.Context, ref *bundle.PackageRef, group *bundle.Package, c codec.Codec, own modules, live func(moduleKey) abi.Module) ([]vectors.VectorResult, error) {
	key, err := keyOf(ref.Digest, group.Params)
	if err != nil {
		return nil, err
	}
	var m abi.Module
	if live != nil {
		m = live(key)
	}
	if m == nil {
		if m, _, err = b.load(ctx, ref.Digest, group, group.Params, own, b.opened); err != nil {
			return nil, err
		}
	}
	override := ""
	if b.packages[ref.Digest].Entrypoint == "" {
		override = ref.Entrypoint
	}
	entrypoint, err := findEntrypoint(group, entrypointsOf(m), override)
	if err != nil {
		return nil, err
	}
	return vectors.RunVectors(group, m, entrypoint, c), nil
}

// entrypointsOf returns OPA's entry points of a module, whatever stands before it.
func entrypointsOf(m abi.Module) map[string]int32 {
	if own, ok := m.(interface{ Entrypoints() map[string]int32 }); ok {
		return own.Entrypoints()
	}
	return nil
}
