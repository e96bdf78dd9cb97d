package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/fleetkit"
	"github.com/holdfast-policy/holdfast/modules"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/guest"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// daemonBinary is the daemon that `make build` made.
const daemonBinary = "bin/holdfastd"

// fleet measures a fleet: three hub servers of one region, each a process of its
// own, and edges in this process, which share one folder of compiled modules.
// The clock is the hub's: from its storing of a release to its receipt of each
// node's first signed attestation. Then the kill switch, and the memory of an edge
// in a process of its own.
func (b *bench) fleet(ctx context.Context) error {
	if _, err := os.Stat(daemonBinary); err != nil {
		return fmt.Errorf("%w: make build first", err)
	}
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := fleetkit.New(fleetkit.Config{Dir: dir, Tenant: "bench", Regions: []string{"eu"}, Servers: 3, Daemon: []string{daemonBinary}})
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.StartHubs(ctx); err != nil {
		return err
	}
	m := &measuredFleet{bench: b, Fleet: f, compiled: filepath.Join(dir, "compiled")}
	defer m.stop()
	b.line("\nA fleet: 3 hub servers (processes), edges in one process with one folder of compiled modules; ms")
	for word := range strings.SplitSeq(b.edges, ",") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return err
		}
		if err := m.grow(ctx, n); err != nil {
			return fmt.Errorf("%d edges: %w", n, err)
		}
		if err := m.releases(ctx, n); err != nil {
			return fmt.Errorf("%d edges: %w", n, err)
		}
		if n == 50 {
			if err := m.kills(ctx, n); err != nil {
				return fmt.Errorf("kill: %w", err)
			}
		}
	}
	m.stop()
	return m.memory(ctx)
}

// measuredFleet is a fleet whose edges are in this process.
type measuredFleet struct {
	*bench
	*fleetkit.Fleet
	compiled string // the folder that all edges share
	edges    []*assembly.Edge
	variant  int
}

// grow starts edges until there are n.
func (m *measuredFleet) grow(ctx context.Context, n int) error {
	if err := os.MkdirAll(m.compiled, 0o700); err != nil {
		return err
	}
	first := len(m.edges)
	errs := make([]error, n)
	for i := first; i < n; i++ {
		if err := m.Enrol(ctx, fmt.Sprintf("edge-%d", i+1), "eu", nil); err != nil {
			return err
		}
	}
	for i := first; i < n; i++ {
		e, err := m.edge(ctx, fmt.Sprintf("edge-%d", i+1))
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		m.edges = append(m.edges, e)
	}
	return nil
}

func (m *measuredFleet) edge(ctx context.Context, node string) (*assembly.Edge, error) {
	cfg, err := assembly.ReadEdgeConfig(filepath.Join(m.Node(node), "edge.yaml"))
	if err != nil {
		return nil, err
	}
	cfg.Compiled, cfg.Worker = m.compiled, engine.Self()
	cfg.Log = slog.New(slog.DiscardHandler)
	return assembly.StartEdge(ctx, cfg)
}

func (m *measuredFleet) stop() {
	var stopping sync.WaitGroup
	for _, e := range m.edges {
		stopping.Go(func() { e.Close() })
	}
	stopping.Wait()
	m.edges = nil
}

// rego is a policy of about 130 KB of module whose bytes nobody has seen.
func (m *measuredFleet) rego(ctx context.Context) (fleetkit.Policy, error) {
	m.variant++
	return m.build(ctx, fstest.MapFS{"p.rego": {Data: fmt.Appendf(nil, "package p\n\n"+
		"allow if {\n\tinput.user == \"ada-%d\"\n}\n\nallow if input.user == \"ada\"\n", m.variant)}}, compiler.Options{})
}

func (m *measuredFleet) build(ctx context.Context, fsys fs.FS, opts compiler.Options) (fleetkit.Policy, error) {
	host, err := loader.NewHost(ctx)
	if err != nil {
		return fleetkit.Policy{}, err
	}
	defer host.Close(ctx)
	opts.Loader = host
	built, err := compiler.BuildFS(ctx, fsys, opts)
	if err != nil {
		return fleetkit.Policy{}, err
	}
	return fleetkit.Policy{Point: "custom", Name: "p", File: built.File}, nil
}

// releases publishes rounds of new modules and of changed parameters, and once a
// Go guest that no edge has compiled.
func (m *measuredFleet) releases(ctx context.Context, n int) error {
	rounds := m.rounds
	if n >= 200 {
		rounds = max(1, m.rounds/3)
	}
	var cold, warm propagated
	var p fleetkit.Policy
	for i := range rounds {
		var err error
		if p, err = m.rego(ctx); err != nil {
			return err
		}
		for _, into := range []*propagated{&cold, &warm} {
			p.Params = map[string]any{"round": int64(i), "warm": into == &warm}
			if err := m.measure(ctx, n, into, p); err != nil {
				return err
			}
		}
	}
	m.line("  %3d edges, new Rego module (%2d releases)  %s", n, rounds, cold.text())
	m.line("  %3d edges, changed parameters             %s", n, warm.text())
	argument, err := fs.Sub(modules.FS, "argument-guard")
	if err != nil {
		return err
	}
	if n > 10 {
		return nil
	}
	changed, err := m.unseen(argument)
	if err != nil {
		return err
	}
	guest, err := m.build(ctx, changed, compiler.Options{Prebuilt: true})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(m.compiled); err != nil {
		return err
	}
	if err := os.MkdirAll(m.compiled, 0o700); err != nil {
		return err
	}
	var went propagated
	if err := m.measure(ctx, n, &went, guest); err != nil {
		return err
	}
	m.line("  %3d edges, new Go module of 1.9 MB        %s", n, went.text())
	return nil
}

// unseen is a folder with a Go guest's module whose bytes no edge has compiled:
// the text of its Go version is another one.
func (m *measuredFleet) unseen(folder fs.FS) (fs.FS, error) {
	m.variant++
	out := fstest.MapFS{}
	err := fs.WalkDir(folder, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(folder, name)
		if strings.HasSuffix(name, ".wasm") {
			data = bytes.Replace(data, []byte("go1.26.8"), fmt.Appendf(nil, "go0.%04d", m.variant), 1)
		}
		out[name] = &fstest.MapFile{Data: data}
		return err
	})
	return out, err
}

// propagated is what attestations say of releases.
type propagated struct {
	sign                                    sample
	all, own, transport, fetch, admit, swap sample
	worst                                   sample // of each release
}

// measure publishes one release and waits until all n nodes have it in force.
func (m *measuredFleet) measure(ctx context.Context, n int, into *propagated, p fleetkit.Policy) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	began := time.Now()
	if _, _, err := m.Release([]fleetkit.Policy{p}, nil); err != nil {
		return err
	}
	into.sign = append(into.sign, time.Since(began))
	s, err := m.Publish(ctx, []fleetkit.Policy{p}, nil)
	if err != nil {
		return err
	}
	var v registry.View
	if err := m.WaitView(ctx, func(state *assembly.State) bool {
		v = state.View()
		return v.InForce.Epoch == s.Epoch && v.InForce.Nodes == n && known(v) == n
	}); err != nil {
		return fmt.Errorf("epoch %d: %w", s.Epoch, err)
	}
	worst := 0.0
	for _, node := range v.Nodes {
		into.all = append(into.all, millis(node.Propagation))
		into.own = append(into.own, millis(node.Timing.InForce))
		into.transport = append(into.transport, millis(node.Timing.Transport))
		into.fetch = append(into.fetch, millis(node.Timing.Fetch))
		into.admit = append(into.admit, millis(node.Timing.Admit))
		into.swap = append(into.swap, millis(node.Timing.Swap))
		worst = max(worst, node.Propagation)
	}
	into.worst = append(into.worst, millis(worst))
	return nil
}

// known counts the nodes whose first attestation of the release is stored.
func known(v registry.View) (n int) {
	for _, node := range v.Nodes {
		if node.Propagation >= 0 {
			n++
		}
	}
	return n
}

func millis(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }

func (p *propagated) text() string {
	q := func(s sample) string { return fmt.Sprintf("%.0f", us(s.q(0.5))/1000) }
	at := func(s sample, q float64) float64 { return us(s.q(q)) / 1000 }
	return fmt.Sprintf("p50 %5.0f  p90 %5.0f  p99 %5.0f  max %5.0f | by the nodes' clock p50 %.0f  p99 %.0f  max %.0f | p50 of: sign %.2f, transport %s, fetch %s, admit %s, swap %s",
		at(p.all, 0.5), at(p.all, 0.9), at(p.all, 0.99), at(p.all, 1), at(p.own, 0.5), at(p.own, 0.99), at(p.own, 1), us(p.sign.q(0.5))/1000, q(p.transport), q(p.fetch), q(p.admit), q(p.swap))
}

// While a kill is on its way some of the edges are asked this often: what the
// figure cannot be finer than. Two cores do not bear more.
const (
	askEvery = 25 * time.Millisecond
	askEdges = 10
)

// kills presses the kill switch while every edge is asked, and prints how long
// after the press each of them allowed for the last time.
func (m *measuredFleet) kills(ctx context.Context, n int) error {
	var all sample
	asks := min(n, askEdges)
	body := []byte(`{"document":{"user":"ada"}}`)
	for range m.rounds {
		asking, stop := context.WithCancel(ctx)
		last := make([]atomic.Int64, asks)
		denied := make([]atomic.Bool, asks)
		var asked sync.WaitGroup
		for i := range asks {
			e := m.edges[i*n/asks]
			asked.Go(func() {
				tick := time.NewTicker(askEvery)
				defer tick.Stop()
				for asking.Err() == nil {
					req, err := policy.ParseRequest("custom", body)
					if err != nil {
						return
					}
					a, err := e.Node().Decide(asking, req)
					switch {
					case err == nil && a.Verdict == policy.Allow:
						last[i].Store(time.Now().UnixNano())
						denied[i].Store(false)
					case err == nil && len(a.Reasons) > 0 && a.Reasons[0].Code == "killed":
						denied[i].Store(true)
					}
					<-tick.C
				}
			})
		}
		pressed, err := m.press(ctx, denied)
		stop()
		asked.Wait()
		if err != nil {
			return err
		}
		for i := range last {
			all = append(all, max(0, time.Duration(last[i].Load()-pressed.UnixNano())))
		}
	}
	m.line("  %3d edges, kill: press to last allowed     p50 %5.0f  p99 %5.0f  max %5.0f (%d presses, %d of the edges asked every %v)",
		n, us(all.q(0.5))/1000, us(all.q(0.99))/1000, us(all.q(1))/1000, len(all)/asks, asks, askEvery)
	return nil
}

// press kills the point, waits until every edge denies, and lifts the kill again.
func (m *measuredFleet) press(ctx context.Context, denied []atomic.Bool) (pressed time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	admin, err := m.Admin(ctx)
	if err != nil {
		return pressed, err
	}
	defer admin.Close()
	time.Sleep(500 * time.Millisecond) // let every edge answer first: a measurement, not a test
	pressed = time.Now()
	envelope, err := bundle.SignKill(&bundle.Kill{Tenant: "bench", Scope: "point:custom", Reason: "measured", Created: pressed.UnixNano()}, m.Keys[fleetkit.Killer])
	if err != nil {
		return pressed, err
	}
	digest, err := admin.Kill(ctx, envelope)
	if err != nil {
		return pressed, err
	}
	for {
		waiting := slices.IndexFunc(unbox(denied), func(done bool) bool { return !done })
		if waiting < 0 {
			break
		}
		select {
		case <-ctx.Done():
			return pressed, fmt.Errorf("edge %d still allows: %w", waiting+1, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	lift := &bundle.Lift{Tenant: "bench", Kills: []wire.Digest{digest}, Reason: "measured", Created: time.Now().UnixNano()}
	if envelope, err = bundle.SignLift(lift, m.Keys[fleetkit.Killer], m.Keys[fleetkit.Killer2]); err != nil {
		return pressed, err
	}
	_, err = admin.Kill(ctx, envelope)
	return pressed, err
}

func unbox(flags []atomic.Bool) []bool {
	out := make([]bool, len(flags))
	for i := range flags {
		out[i] = flags[i].Load()
	}
	return out
}

// memory starts an edge in a process of its own and reads what it occupies, idle
// and with a hundred policies.
func (m *measuredFleet) memory(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := m.Enrol(ctx, "memory", "eu", nil); err != nil {
		return err
	}
	if _, err := m.StartEdge("memory"); err != nil {
		return err
	}
	var policies []fleetkit.Policy
	for i := range 100 {
		p, err := m.rego(ctx)
		if err != nil {
			return err
		}
		p.Point = fmt.Sprintf("p%d", i)
		policies = append(policies, p)
	}
	one, err := m.Publish(ctx, policies[:1], nil)
	if err != nil {
		return err
	}
	if err := m.waitNode(ctx, "memory", one.Epoch); err != nil {
		return err
	}
	idle := m.restarted(ctx)
	hundred, err := m.Publish(ctx, policies, nil)
	if err != nil {
		return err
	}
	if err := m.waitNode(ctx, "memory", hundred.Epoch); err != nil {
		return err
	}
	began := time.Now()
	full := m.restarted(ctx)
	m.line("  an edge in a process of its own: %.0f MiB idle with one policy, %.0f MiB with 100 distinct Rego policies (Pss after a restart; ready again %.2f s after its start)",
		idle, full, time.Since(began).Seconds())
	mixed, err := m.mixed(policies[:10])
	if err != nil {
		return err
	}
	of100, err := m.Publish(ctx, mixed, nil)
	if err != nil {
		return err
	}
	if err := m.waitNode(ctx, "memory", of100.Epoch); err != nil {
		return err
	}
	m.line("  the same: %.0f MiB with 100 policies of 10 Rego modules and 9 in C, Rust and Zig, each with parameters of its own", m.restarted(ctx))
	return nil
}

// mixed is a hundred policies: ten Rego modules as they are, and the SDKs'
// examples in C, Rust and Zig ten times each with parameters of their own.
func (m *measuredFleet) mixed(rego []fleetkit.Policy) ([]fleetkit.Policy, error) {
	out := slices.Clone(rego)
	for i := range 10 {
		for _, language := range []string{"c", "rust", "zig"} {
			for _, example := range guest.Examples() {
				p, err := m.example(language, example)
				if err != nil {
					return nil, err
				}
				p.Point, p.Params = fmt.Sprintf("%s_%s_%d", language, strings.ReplaceAll(example, "-", "_"), i), vary(example, int64(i))
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// vary is one parameter of an example that its schema lets vary.
func vary(example string, i int64) map[string]any {
	switch example {
	case "spend-cap":
		return map[string]any{"cap": 1000 + i}
	case "tool-authz":
		return map[string]any{"max_delegation": i}
	}
	return map[string]any{"default_class": []string{"public", "personal", "health", "secret"}[i%4] + strings.Repeat("x", int(i/4))}
}

// example is an SDK's example, with its committed module.
func (m *measuredFleet) example(language, example string) (fleetkit.Policy, error) {
	l, ok := guest.Find(language)
	if !ok {
		return fleetkit.Policy{}, fmt.Errorf("no language %q", language)
	}
	project, err := l.Project(example, example)
	if err != nil {
		return fleetkit.Policy{}, err
	}
	module, err := os.ReadFile(filepath.Join("sdk", "guest", l.Module(example)))
	if err != nil {
		return fleetkit.Policy{}, err
	}
	fsys := fstest.MapFS{"policy.wasm": {Data: module}}
	for name, data := range project {
		fsys[name] = &fstest.MapFile{Data: data}
	}
	return m.build(context.Background(), fsys, compiler.Options{Prebuilt: true})
}

// waitNode waits until a node attests an epoch.
func (m *measuredFleet) waitNode(ctx context.Context, node string, epoch uint64) error {
	return m.WaitView(ctx, func(s *assembly.State) bool {
		for _, n := range s.View().Nodes {
			if n.Name == node && n.Epoch == epoch && n.Digest != "" {
				return true
			}
		}
		return false
	})
}

// restarted starts the edge anew and returns its memory in MiB once it is ready;
// NaN when it cannot be read.
func (m *measuredFleet) restarted(ctx context.Context) float64 {
	m.Process("memory").End(syscall.SIGTERM)
	url, err := m.StartEdge("memory")
	if err != nil {
		return math.NaN()
	}
	for ready(ctx, url) != nil && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond) // a measurement, not a test
	}
	return pss(m.Process("memory").Pid())
}

// ready asks an edge whether it is.
func ready(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// pss is a process's proportional share of memory in MiB.
func pss(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return math.NaN()
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "Pss: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	return math.NaN()
}
