package assembly

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
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
	Worker  string // as of EdgeConfig
	Journal EdgeJournal
	Log     *slog.Logger
}

// A Fleet is hubs and edges in one process. They share nothing but TCP: each
// has its own folder, servers and connections, and every link to a hub runs
// through a proxy that can be cut.
type Fleet struct {
	*Home
	hubs  []*hubHandle
	edges []*edgeHandle

	cancel  context.CancelFunc // ends the heartbeats of a fleet without regions
	beating sync.WaitGroup
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
	if len(f.hubs) == 0 {
		beating, cancel := context.WithCancel(context.Background())
		f.cancel = cancel
		f.beating.Go(func() { f.beatFolder(beating) })
	}
	for i := range cfg.Edges {
		if err := f.startEdge(ctx, i); err != nil {
			return nil, err
		}
	}
	return f, f.sayWhere()
}

// Where says where a running fleet answers.
type Where struct {
	Regions []RegionInfo `json:"regions"`
	Nodes   []NodeInfo   `json:"nodes"`
}

// sayWhere writes running.json, for commands in other processes.
func (f *Fleet) sayWhere() error {
	doc, err := json.MarshalIndent(Where{f.RegionInfos(), f.NodeInfos()}, "", "  ")
	if err != nil {
		return err
	}
	return writeNew(f.layout.Running(), append(doc, '\n'))
}

// ReadWhere says where the fleet kept in a folder answers. A fleet that was
// killed leaves its last answer behind.
func ReadWhere(l Layout) (w Where, err error) {
	doc, err := os.ReadFile(l.Running())
	if errors.Is(err, fs.ErrNotExist) {
		return w, fmt.Errorf("no fleet runs in %s: start it with `holdfast up --dir %s`", l.Dir, l.Dir)
	}
	if err != nil {
		return w, err
	}
	if err := json.Unmarshal(doc, &w); err != nil {
		return w, fmt.Errorf("%s: %w", l.Running(), err)
	}
	return w, nil
}

func (f *Fleet) startEdge(ctx context.Context, i int) error {
	cfg := EdgeConfig{
		Tenant: f.cfg.Tenant, Node: NodeName(i + 1), Dir: f.layout.Node(NodeName(i + 1)),
		Listen: "127.0.0.1:0", Worker: f.cfg.Worker, Root: f.root, Secret: f.layout.Secret(), Journal: f.cfg.Journal, Log: f.cfg.Log,
	}
	enrolment, err := os.ReadFile(f.layout.Enrolment(cfg.Node))
	if err != nil {
		return err
	}
	cfg.Enrolment = enrolment
	region := ""
	if len(f.hubs) == 0 {
		cfg.Folder = f.layout.Published()
	} else {
		home := i % len(f.hubs)
		region = f.hubs[home].name
		cfg.NATS = f.EdgeNATS(cfg.Node)
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
	if f.cancel != nil {
		f.cancel()
	}
	f.beating.Wait()
	var errs []error
	for _, e := range f.edges {
		errs = append(errs, e.Close())
	}
	for _, h := range f.hubs {
		errs = append(errs, h.close())
	}
	f.edges, f.hubs = nil, nil
	if err := os.Remove(f.layout.Running()); !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
