package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
)

// fleetFlags say which fleet a command talks to.
type fleetFlags struct{ dir, context string }

func (f *fleetFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "dir", "", "folder of a fleet: of a running `holdfast up`, or of `holdfast fleet new`")
	c.Flags().StringVar(&f.context, "context", "", "name of a context (holdfast context list)")
	c.MarkFlagsMutuallyExclusive("dir", "context")
}

// config is how the fleet is reached.
func (f *fleetFlags) config() (assembly.AdminConfig, error) {
	if f.dir == "" {
		return assembly.AdminConfig{}, errors.New("which fleet? give --dir, the folder of a running `holdfast up` or of `holdfast fleet new`")
	}
	return assembly.AdminOf(assembly.Layout{Dir: f.dir})
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
