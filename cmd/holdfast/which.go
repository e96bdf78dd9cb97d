package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
)

// fleetFlags say which fleet a command talks to.
type fleetFlags struct{ dir, context string }

func (f *fleetFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "dir", "", "`folder` of a fleet: of a running \"holdfast up\", or of \"holdfast fleet new\"")
	c.Flags().StringVar(&f.context, "context", "", "name of a context (default: the one of holdfast context use)")
	c.MarkFlagsMutuallyExclusive("dir", "context")
}

// config is how the fleet is reached: that of --dir, of --context, or of the
// default context. assembly.ErrNoRegions for a fleet of one folder.
func (f *fleetFlags) config() (assembly.AdminConfig, error) {
	if f.dir != "" {
		return assembly.AdminOf(assembly.Layout{Dir: f.dir})
	}
	all, err := readContexts()
	if err != nil {
		return assembly.AdminConfig{}, err
	}
	entry, err := all.find(f.context)
	if err != nil {
		return assembly.AdminConfig{}, err
	}
	return entry.config()
}

// admin connects as the fleet's operator.
func (f *fleetFlags) admin(ctx context.Context) (*assembly.Admin, error) {
	cfg, err := f.config()
	if err != nil {
		return nil, err
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	admin, err := assembly.OpenAdmin(ctx, cfg)
	if err != nil {
		return nil, &exitError{code: exitCheck, err: err}
	}
	return admin, nil
}
