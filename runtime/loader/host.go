package loader

import (
	"context"
	"errors"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// A Host opens single packages as nodes do, for tools that are no node: the
// compiler's golden vectors, the author's commands, the bench. It is not safe
// for concurrent use; the modules that it opens are.
type Host struct {
	engine *engine.Engine
	open   []*engine.Module
}

// NewHost makes a host with an engine of its own, which compiles in this process.
func NewHost(ctx context.Context) (*Host, error) { return OpenHost(ctx, engine.Config{}) }

// OpenHost makes a host with an engine of its own.
func OpenHost(ctx context.Context, config engine.Config) (*Host, error) {
	e, err := engine.New(ctx, config)
	if err != nil {
		return nil, err
	}
	return &Host{engine: e}, nil
}

// Open admits and initialises the package's module with the package's own
// parameters and data. It stays open until Close.
func (h *Host) Open(ctx context.Context, pkg *bundle.Package) (*engine.Module, error) {
	spec, err := newSpec(pkg, pkg.Params)
	if err != nil {
		return nil, err
	}
	m, err := h.engine.Load(ctx, spec)
	if err == nil {
		h.open = append(h.open, m)
	}
	return m, err
}

// Load is Open, and finds the manifest's entry point.
func (h *Host) Load(ctx context.Context, pkg *bundle.Package) (abi.Module, int32, error) {
	m, err := h.Open(ctx, pkg)
	if err != nil {
		return nil, 0, err
	}
	n, err := findEntrypoint(pkg, m.Entrypoints(), "")
	return m, n, err
}

// Close frees all that was opened.
func (h *Host) Close(ctx context.Context) error {
	var errs []error
	for _, m := range h.open {
		errs = append(errs, m.Close(ctx))
	}
	return errors.Join(append(errs, h.engine.Close(ctx))...)
}
