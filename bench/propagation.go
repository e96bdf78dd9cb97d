package main

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// propagation publishes releases to three edges in two regions and prints how
// long it takes until each enforces them, by the clock that all share. The first
// one brings the module; the others change parameters only, so that the compiled
// module is used again.
func (b *bench) propagation(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fleet, err := assembly.StartFleet(ctx, assembly.FleetConfig{Dir: dir, Tenant: "bench", Regions: 2, Edges: 3, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer fleet.Close()
	points, files, err := rbacRelease(ctx)
	if err != nil {
		return err
	}
	var cold, warm sample
	for i := range b.rounds + 1 {
		points[0].Packages[0].Params = map[string]any{"round": int64(i)}
		p, err := fleet.Publish(ctx, points, files)
		if err != nil {
			return err
		}
		since, err := inForce(ctx, fleet.URLs(), p.Epoch)
		if err != nil {
			return err
		}
		for _, at := range since {
			if i == 0 {
				cold = append(cold, at.Sub(p.At))
			} else {
				warm = append(warm, at.Sub(p.At))
			}
		}
	}
	b.line("\nPropagation, publish to in force, 3 edges in 2 regions in one process")
	b.line("  new module (compiled on every edge)      p50 %6.1f ms  max %6.1f ms", us(cold.q(0.5))/1000, us(cold.q(1))/1000)
	b.line("  changed parameters, %2d releases          p50 %6.1f ms  max %6.1f ms", b.rounds, us(warm.q(0.5))/1000, us(warm.q(1))/1000)
	return nil
}

// rbacRelease builds the RBAC policy for one point.
func rbacRelease(ctx context.Context) ([]bundle.Point, map[wire.Digest][]byte, error) {
	host, err := loader.NewHost(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer host.Close(ctx)
	fsys, err := fs.Sub(testdata, "testdata/rbac")
	if err != nil {
		return nil, nil, err
	}
	built, err := compiler.BuildFS(ctx, fsys, compiler.Options{Loader: host})
	if err != nil {
		return nil, nil, err
	}
	return rbacPoint(built.File, built.Package.Name)
}

// inForce waits until every node enforces the epoch, and returns since when.
func inForce(ctx context.Context, urls []string, epoch uint64) ([]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return client.WaitInForce(ctx, urls, epoch)
}
