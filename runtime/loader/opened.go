package loader

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// An Opened is a release's set outside of a node, for those who decide again what
// a node decided.
type Opened struct {
	Set    *decide.Set
	opened modules
}

// OpenSet builds a release's set from the package files that find returns, as a
// node would, but asks neither who signed the release nor the golden vectors: who
// calls it knows by digest which release it is. Every file must hold the package
// that the release names.
func OpenSet(ctx context.Context, e *engine.Engine, rel *bundle.SignedRelease, find func(*bundle.PackageRef) ([]byte, error)) (*Opened, error) {
	b := builder{engine: e, packages: map[wire.Digest]*bundle.Package{}, opened: modules{}}
	for _, ref := range distinct(rel) {
		file, err := find(ref)
		if err == nil {
			b.packages[ref.Digest], err = openPackage(file, ref)
		}
		if err != nil {
			return nil, fmt.Errorf("package %s %s: %w", ref.Name, ref.Digest, err)
		}
	}
	o := &Opened{opened: b.opened, Set: &decide.Set{Epoch: rel.Epoch, Release: rel.Digest, Points: make(map[string]*decide.Point, len(rel.Points))}}
	if err := o.points(ctx, &b, rel); err != nil {
		return nil, errors.Join(err, o.Close(context.WithoutCancel(ctx)))
	}
	return o, nil
}

func (o *Opened) points(ctx context.Context, b *builder, rel *bundle.SignedRelease) error {
	if err := b.checkParams(rel); err != nil {
		return err
	}
	if err := b.loadAll(ctx, rel); err != nil {
		return err
	}
	for i := range rel.Points {
		p, err := b.point(ctx, &rel.Release, &rel.Points[i])
		if err != nil {
			return fmt.Errorf("point %s: %w", rel.Points[i].Name, err)
		}
		o.Set.Points[p.Name] = p
	}
	return nil
}

// Close frees the set's modules, after the calls that are in flight.
func (o *Opened) Close(ctx context.Context) error { return o.opened.close(ctx) }
