package regiontest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

// A World is two regions of hub servers with everything that they run for
// transport: streams, gates, copies.
type World struct {
	*Fleet
	t       testing.TB
	mu      sync.Mutex
	stop    map[string]context.CancelFunc // by server and tenant
	running map[string]*sync.WaitGroup
	regions map[string]jetstream.Region // by server and tenant
}

// StartWorld starts both regions, each of so many servers, for the tenants.
func StartWorld(t testing.TB, servers int, tenants ...string) *World {
	t.Helper()
	w := &World{Fleet: Start(t, servers, tenants...), t: t,
		stop: map[string]context.CancelFunc{}, running: map[string]*sync.WaitGroup{}, regions: map[string]jetstream.Region{}}
	var starting sync.WaitGroup
	for _, r := range []*Region{w.A, w.B} {
		for _, tenant := range tenants {
			for i := range servers {
				w.regions[key(r, i, tenant)] = jetstream.Region{Conn: w.Hub(t, r, i, tenant), Tenant: tenant, Name: r.Name, Replicas: servers}
			}
			starting.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				if err := w.Region(r, 0, tenant).Create(ctx); err != nil {
					t.Error(err)
				}
			})
		}
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, r := range []*Region{w.A, w.B} {
		for _, tenant := range tenants {
			for i := range servers {
				w.run(r, i, tenant)
			}
		}
	}
	return w
}

func key(r *Region, i int, tenant string) string { return fmt.Sprint(r.Name, i, tenant) }

// Region is the tenant's part of a region, seen from its i-th server.
func (w *World) Region(r *Region, i int, tenant string) jetstream.Region {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.regions[key(r, i, tenant)]
}

// run runs what a hub server runs for a tenant.
func (w *World) run(r *Region, i int, tenant string) {
	ctx, cancel := context.WithCancel(context.Background())
	region, log := w.Region(r, i, tenant), Log(w.t)
	other := region
	if other.Name = "ra"; r.Name == "ra" {
		other.Name = "rb"
	}
	running := &sync.WaitGroup{}
	running.Go(func() { jetstream.NewGate(region, log).Run(ctx) })
	running.Go(func() { region.Copy(ctx, other, log) })
	running.Go(func() {
		region.Accounts(ctx, func(token string) error { return r.Servers[i].UpdateAccount(token) })
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop[key(r, i, tenant)], w.running[key(r, i, tenant)] = cancel, running
	w.t.Cleanup(func() { cancel(); running.Wait() })
}

// A Node is an edge whose signed objects are counted.
type Node struct {
	*jetstream.Source
	Name   string
	Server *embed.Server
	mu     sync.Mutex
	got    map[string]int
	at     map[string]time.Time
	order  []string
}

// Node starts an edge at home in the first region given, and watches.
func (w *World) Node(tenant, name string, home ...*Region) *Node {
	w.t.Helper()
	server, conn := w.Edge(w.t, tenant, name, home...)
	var regions []string
	for _, r := range home {
		regions = append(regions, r.Name)
	}
	return w.Watch(w.t, &Node{Name: name, Server: server, Source: &jetstream.Source{Conn: conn, Tenant: tenant, Node: name, Regions: regions}})
}

// Watch counts what comes to n until the test ends.
func (w *World) Watch(t testing.TB, n *Node) *Node {
	n.got, n.at = map[string]int{}, map[string]time.Time{}
	n.Log = slog.New(slog.DiscardHandler)
	Background(t, func(ctx context.Context) {
		n.Watch(ctx, func(env []byte) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.got[string(env)]++; n.got[string(env)] == 1 {
				n.at[string(env)] = time.Now()
				n.order = append(n.order, string(env))
			}
		})
	})
	return n
}

// Has is when an envelope came first.
func (n *Node) Has(env string) (time.Time, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, ok := n.at[env]
	return at, ok
}

// Expect fails the test unless the envelopes have come in time.
func (n *Node) Expect(t testing.TB, within time.Duration, envs ...string) {
	t.Helper()
	for _, env := range envs {
		Until(t, fmt.Sprintf("%s gets %q", n.Name, env), within, func() bool { _, ok := n.Has(env); return ok })
	}
}

// Times is how often an envelope came.
func (n *Node) Times(env string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.got[env]
}

// All is every envelope that came, in the order in which each came first.
func (n *Node) All() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.order)
}

// Background runs f until the test ends and waits for it.
func Background(t testing.TB, f func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}
