package loader

import (
	"context"
	"errors"
	"sync"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

type moduleKey struct{ pkg, params wire.Digest }

// modules are open modules by package and parameters.
type modules map[moduleKey]shared

// shared is a module that closes with the last set that uses it.
type shared struct {
	*engine.Module
	shelf *shelf // nil: nobody else uses it
	key   moduleKey
}

func (m modules) close(ctx context.Context) error {
	var errs []error
	for _, s := range m {
		errs = append(errs, s.close(ctx))
	}
	return errors.Join(errs...)
}

func (s shared) close(ctx context.Context) error {
	if s.shelf != nil && !s.shelf.last(s.key) {
		return nil
	}
	return s.Module.Close(ctx)
}

// shelf holds the modules of all sets of a loader, so that a release which
// changes one policy opens one module, and a way back occupies what differs.
type shelf struct {
	mu   sync.Mutex
	open map[moduleKey]*shelved
}

type shelved struct {
	module *engine.Module
	users  int
}

// take returns the module that is open, for one more user.
func (s *shelf) take(key moduleKey) (shared, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.open[key]
	if have == nil {
		return shared{}, false
	}
	have.users++
	return shared{have.module, s, key}, true
}

// put shelves a module. One that another builder has opened meanwhile stays, and
// the new one is nobody else's.
func (s *shelf) put(key moduleKey, m *engine.Module) shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[key] != nil {
		return shared{Module: m, key: key}
	}
	s.open[key] = &shelved{module: m, users: 1}
	return shared{m, s, key}
}

// last ends one use and reports whether it was the last.
func (s *shelf) last(key moduleKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.open[key]
	have.users--
	if have.users > 0 {
		return false
	}
	delete(s.open, key)
	return true
}
