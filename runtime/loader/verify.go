package loader

import (
	"context"
	"errors"
	"fmt"
	"sync"

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

// A Twin opens the modules of a release once more, on another engine, each point
// when it is first asked for. It is safe for concurrent use.
type Twin struct {
	loader *Loader
	rel    *bundle.SignedRelease

	mu      sync.Mutex // guards what follows; held while a point is opened
	builder builder
	points  map[string]*decide.Point
	closed  bool
}

// Twin returns a twin of a release of the loader's folder.
func (l *Loader) Twin(rel *bundle.SignedRelease, e *engine.Engine) *Twin {
	return &Twin{loader: l, rel: rel, points: map[string]*decide.Point{}, builder: builder{
		engine: e, packages: map[wire.Digest]*bundle.Package{}, opened: modules{}, wrap: l.config.Wrap, second: true,
	}}
}

// Point opens a point of the release.
func (t *Twin) Point(ctx context.Context, name string) (*decide.Point, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.New("twin is closed")
	}
	if p := t.points[name]; p != nil {
		return p, nil
	}
	for i := range t.rel.Points {
		if t.rel.Points[i].Name == name {
			return t.open(ctx, &t.rel.Points[i])
		}
	}
	return nil, fmt.Errorf("no point %q", name)
}

func (t *Twin) open(ctx context.Context, p *bundle.Point) (*decide.Point, error) {
	for i := range p.Packages {
		ref := &p.Packages[i]
		pkg, err := t.loader.stored(ref)
		if err != nil {
			return nil, fmt.Errorf("package %s %s: %w", ref.Name, ref.Digest, err)
		}
		t.builder.packages[ref.Digest] = pkg
	}
	point, err := t.builder.point(ctx, &t.rel.Release, p)
	clear(t.builder.packages) // their modules are open; their bytes are on disk
	if err == nil {
		t.points[p.Name] = point
	}
	return point, err
}

// Close frees what was opened, after the calls that are in flight.
func (t *Twin) Close(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return t.builder.opened.close(ctx)
}

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
