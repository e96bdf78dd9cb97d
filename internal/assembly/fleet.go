package assembly

import (
	"context"
	"errors"
	"log/slog"
)

// Bounds of a fleet on one machine.
const (
	MaxRegions = len(regionNames)
	MaxEdges   = 64
)

// FleetConfig describes a fleet on one machine.
type FleetConfig struct {
	Dir     string
	Tenant  string
	Regions int // 0: the nodes take releases from a folder and keep their records to themselves
	Edges   int
	Log     *slog.Logger
}

// A Fleet is hubs and edges in one process. They share nothing but TCP: each
// has its own folder, servers and connections, and every link to a hub runs
// through a proxy that can be cut.
type Fleet struct {
	*Home
	login Login
	hubs  []*hubHandle
	edges []*edgeHandle
}

type edgeHandle struct {
	name, region string
	*Edge
}

// StartFleet starts the fleet kept in Dir, or makes a new one there.
func StartFleet(ctx context.Context, cfg FleetConfig) (_ *Fleet, err error) {
	home, err := OpenHome(cfg)
	if err != nil {
		return nil, err
	}
	f := &Fleet{Home: home}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := f.startHubs(ctx); err != nil {
		return nil, err
	}
	for i := range cfg.Edges {
		if err := f.startEdge(ctx, i); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *Fleet) startEdge(ctx context.Context, i int) error {
	cfg := EdgeConfig{
		Tenant: f.cfg.Tenant, Node: NodeName(i + 1), Dir: f.layout.Node(NodeName(i + 1)),
		Listen: "127.0.0.1:0", Root: f.root, Log: f.cfg.Log,
	}
	region := ""
	if len(f.hubs) == 0 {
		cfg.Folder = f.layout.Published()
	} else {
		home := i % len(f.hubs)
		region = f.hubs[home].name
		cfg.Login = f.login
		for j := range f.hubs {
			cfg.Regions = append(cfg.Regions, f.hubs[(home+j)%len(f.hubs)].link())
		}
	}
	e, err := StartEdge(ctx, cfg)
	if err != nil {
		return err
	}
	f.edges = append(f.edges, &edgeHandle{name: cfg.Node, region: region, Edge: e})
	return nil
}

// Close stops the edges, which write their closing checkpoints, then the hubs.
func (f *Fleet) Close() error {
	var errs []error
	for _, e := range f.edges {
		errs = append(errs, e.Close())
	}
	for _, h := range f.hubs {
		errs = append(errs, h.close())
	}
	f.edges, f.hubs = nil, nil
	return errors.Join(errs...)
}
