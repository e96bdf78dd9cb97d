package replay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// maxSets is how many sets are open beside those that are in use.
const maxSets = 8

// A loaded is a release's set, open.
type loaded struct {
	*loader.Opened
	rel   *bundle.SignedRelease
	users atomic.Int64 // jobs that use it
}

func (l *loaded) leave() { l.users.Add(-1) }

// An activation is an activation leaf and, once it is needed, its set.
type activation struct {
	record *audit.ActivationRecord
	seq    uint64
	set    *loaded
	err    error // why there is no set
}

// sets keeps the sets that were used last. It belongs to one goroutine.
type sets struct {
	engine   *engine.Engine
	packages *Packages
	recent   []*loaded // the last used one last
	retired  []*loaded // to be closed when nobody uses them
}

// take gives an activation the set that its leaf names, by digest.
func (s *sets) take(ctx context.Context, a *activation) error {
	l := s.find(a.record.Release)
	if l == nil {
		rel, err := s.packages.Release(a.record.Release)
		if err != nil {
			return err
		}
		if l, err = s.open(ctx, rel); err != nil {
			return fmt.Errorf("release %s: %w", a.record.Release, err)
		}
	}
	s.keep(ctx, l)
	if err := same(a.record, l); err != nil {
		return err
	}
	l.users.Add(1)
	a.set = l
	return nil
}

func (s *sets) find(release wire.Digest) *loaded {
	for _, l := range s.recent {
		if l.rel.Digest == release {
			return l
		}
	}
	return nil
}

func (s *sets) open(ctx context.Context, rel *bundle.SignedRelease) (*loaded, error) {
	o, err := loader.OpenSet(ctx, s.engine, rel, s.packages.File)
	if err != nil {
		return nil, err
	}
	return &loaded{Opened: o, rel: rel}, nil
}

// keep puts a set behind the others and lets go of the one that waited longest.
func (s *sets) keep(ctx context.Context, l *loaded) {
	for i, other := range s.recent {
		if other == l {
			s.recent = append(s.recent[:i], s.recent[i+1:]...)
			break
		}
	}
	if s.recent = append(s.recent, l); len(s.recent) > maxSets {
		s.retired = append(s.retired, s.recent[0])
		s.recent = s.recent[1:]
	}
	for i := 0; i < len(s.retired); {
		if old := s.retired[i]; old.users.Load() == 0 {
			_ = old.Close(ctx) // what cannot be freed is freed with the engine
			s.retired = append(s.retired[:i], s.retired[i+1:]...)
			continue
		}
		i++
	}
}

func (s *sets) close(ctx context.Context) error {
	var errs []error
	for _, l := range append(s.retired, s.recent...) {
		errs = append(errs, l.Close(ctx))
	}
	return errors.Join(errs...)
}

// same holds a set against the digests that the activation leaf names.
func same(a *audit.ActivationRecord, l *loaded) error {
	if len(a.Points) != len(l.Set.Points) {
		return fmt.Errorf("release %s has %d points, its activation %d", a.Release, len(l.Set.Points), len(a.Points))
	}
	for _, named := range a.Points {
		p := l.Set.Points[named.Name]
		if p == nil || len(p.Modules) != len(named.Modules) {
			return fmt.Errorf("point %s is not what its activation names", named.Name)
		}
		for i, at := range named.Modules {
			if at >= uint64(len(a.Modules)) {
				return fmt.Errorf("point %s names module %d of %d", named.Name, at, len(a.Modules))
			}
			want, m := &a.Modules[at], &p.Modules[i]
			var params wire.Digest
			if want.Params != nil {
				params = *want.Params
			}
			if m.Digest != want.Package || m.Wasm != want.Module || m.Params != params {
				return fmt.Errorf("point %s: module %s is not what its activation names", named.Name, m.Name)
			}
		}
	}
	return nil
}
