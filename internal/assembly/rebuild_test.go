package assembly_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/regiontest"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A pair is two regions of one hub server each, which can be stopped and started
// where they were, and a node that is asked all the time.
type pair struct {
	t     *testing.T
	home  *assembly.Home
	cfg   map[string]assembly.HubConfig
	hubs  map[string]*assembly.Hub
	edge  *assembly.Edge
	mu    sync.Mutex
	acked []policy.Answer // that have a record
}

func newPair(t *testing.T) *pair {
	t.Helper()
	home, err := assembly.OpenHome(assembly.FleetConfig{Dir: t.TempDir(), Tenant: "demo", Regions: 2, Edges: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, home: home, cfg: map[string]assembly.HubConfig{}, hubs: map[string]*assembly.Hub{}}
	ports := regiontest.Ports(t, 2)
	var links []assembly.RegionLink
	for i, name := range home.RegionNames() {
		cfg := home.HubConfig(name)
		cfg.LeafPort, cfg.Sweep, cfg.Log = ports[i], 200*time.Millisecond, slog.New(slog.DiscardHandler)
		if os.Getenv("HOLDFAST_TEST_LOG") != "" {
			cfg.Log = slog.Default()
		}
		if i > 0 {
			cfg.Links = []embed.Link{{Tenant: "demo", Creds: home.Layout().Creds("link"), URLs: []string{fmt.Sprint("127.0.0.1:", ports[0])}}}
		}
		p.cfg[name] = cfg
		p.startHub(name)
		links = append(links, assembly.RegionLink{Name: name, Leafs: []string{fmt.Sprint("127.0.0.1:", ports[i])}, Key: ledgerKey(t, home, name)})
	}
	enrolments, err := home.Enrolments()
	if err != nil {
		t.Fatal(err)
	}
	p.edge, err = assembly.StartEdge(context.Background(), assembly.EdgeConfig{
		Tenant: "demo", Node: "edge-1", Dir: home.Layout().Node("edge-1"), Listen: "127.0.0.1:0", Root: home.Root(), Enrolment: enrolments["edge-1"],
		NATS: home.EdgeNATS("edge-1"), Regions: links, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.edge.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() { p.ask(ctx) })
	}
	t.Cleanup(func() { cancel(); asking.Wait() })
	return p
}

// ask asks until ctx ends, and remembers what has a record.
func (p *pair) ask(ctx context.Context) {
	c, err := client.New(client.Config{Node: p.edge.URL()})
	if err != nil {
		p.t.Error(err)
		return
	}
	defer c.Close()
	for ctx.Err() == nil {
		a, err := c.Decide(ctx, "custom", []byte(`{"document":1}`))
		if err != nil || !a.Recorded {
			continue
		}
		p.mu.Lock()
		p.acked = append(p.acked, a)
		p.mu.Unlock()
		time.Sleep(5 * time.Millisecond) // a load that two cores bear
	}
}

func (p *pair) startHub(name string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), timeout)
	defer cancel()
	hub, err := assembly.StartHub(ctx, p.cfg[name])
	if err == nil {
		err = hub.WaitReady(ctx)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.hubs[name] = hub
	p.t.Cleanup(func() { hub.Close() })
}

func (p *pair) stopHub(name string) {
	p.t.Helper()
	if err := p.hubs[name].Close(); err != nil {
		p.t.Fatal(err)
	}
}

// drop deletes a region's stream as an operator could.
func (p *pair) drop(region, stream string) {
	p.t.Helper()
	conn, err := bus.Connect(p.t.Context(), bus.Config{URL: p.hubs[region].Server().ClientURL(), Creds: p.home.Layout().Creds("hub-" + region), CA: p.home.Layout().CAFile()})
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	a, err := conn.Ask(p.t.Context(), "$JS."+region+".API.STREAM.DELETE."+stream+"_demo", "", nil)
	var said struct{ Success bool }
	if err == nil {
		err = json.Unmarshal(a.Data, &said)
	}
	if err != nil || !said.Success {
		p.t.Fatalf("delete %s: %v, %s", stream, err, a.Data)
	}
}

// files are those of a stream's store.
func (p *pair) files(region, stream, pattern string) []string {
	p.t.Helper()
	root := filepath.Join(p.home.Layout().Region(region), "nats")
	var out []string
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if match, _ := filepath.Match(pattern, filepath.Base(path)); err == nil && match && strings.Contains(path, stream+"_demo") {
			out = append(out, path)
		}
		return err
	})
	if err != nil || len(out) == 0 {
		p.t.Fatalf("no %s of %s below %s: %v", pattern, stream, root, err)
	}
	return out
}

// whole demands of both regions every answer that has a record, once, in order.
func (p *pair) whole(after string) {
	p.t.Helper()
	began := time.Now()
	p.mu.Lock()
	from := len(p.acked)
	p.mu.Unlock()
	until := func(what string, ok func() bool) {
		p.t.Helper()
		regiontest.Until(p.t, after+": "+what, 40*time.Second, ok)
	}
	until("decisions go on", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.acked) >= from+20
	})
	p.mu.Lock()
	acked := slices.Clone(p.acked)
	p.mu.Unlock()
	sizes := map[string]uint64{}
	for _, b := range p.edge.Node().Journal().Boots() {
		sizes[b.ID] = b.Size
	}
	for region, hub := range p.hubs {
		until(region+" has everything", func() bool {
			s := hub.Ledger().Status()
			for boot, size := range sizes {
				if s.Cosigned["edge-1"][boot] < size {
					return false
				}
			}
			return s.Err == nil
		})
		p.compare(after, region, acked)
	}
	p.t.Logf("%s: %d answers are in both regions after %v", after, len(acked), time.Since(began).Round(time.Millisecond))
}

func (p *pair) compare(after, region string, acked []policy.Answer) {
	p.t.Helper()
	dir := filepath.Join(p.t.TempDir(), "export")
	if err := assembly.Export(p.home.Layout(), dir, region, ""); err != nil {
		p.t.Fatal(err)
	}
	have := map[audit.Ref]int{}
	var last audit.Ref
	report, err := audit.VerifyEach(os.DirFS(dir), p.home.Keys(), func(_, boot string, r *audit.Record, leaf tlog.Hash) {
		if boot == last.Boot && r.Seq <= last.Seq {
			p.t.Errorf("%s, %s: record %d after %d", after, region, r.Seq, last.Seq)
		}
		last = audit.Ref{Boot: boot, Seq: r.Seq, Leaf: leaf}
		have[last]++
	})
	if err != nil || report.Verdict != audit.VerdictComplete {
		p.t.Fatalf("%s, %s: %v, %+v", after, region, err, report)
	}
	for _, a := range acked {
		if n := have[audit.Ref{Boot: a.Boot, Seq: a.Seq, Leaf: leafOf(p.t, a.Leaf)}]; n != 1 {
			p.t.Fatalf("%s, %s: the record %s/%d of an answer is there %d times", after, region, a.Boot, a.Seq, n)
		}
	}
}

func leafOf(t *testing.T, text string) (h tlog.Hash) {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil || copy(h[:], b) != len(h) {
		t.Fatalf("leaf %q: %v", text, err)
	}
	return h
}

// flipAll changes a bit in the middle of each file.
func flipAll(t *testing.T, files []string) {
	t.Helper()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 0 {
			b[len(b)/2] ^= 4
		}
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever happens to a region's JetStream, every answered decision's record is
// in both ledgers, once and in order.
func TestLedgersOutliveJetStream(t *testing.T) {
	p := newPair(t)
	p.whole("at first")
	for _, stream := range []string{"REC", "RCPT"} {
		p.drop("eu", stream)
		p.whole(stream + " deleted while it ran")
	}
	for _, stream := range []string{"REC", "RCPT", "POL", "STATE"} {
		p.drop("eu", stream)
	}
	p.whole("every stream deleted while it ran")
	for _, c := range []struct {
		what   string
		damage func()
	}{
		{"records' blocks flipped", func() { flipAll(t, p.files("eu", "REC", "*.blk")) }},
		{"records' blocks cut", func() {
			for _, f := range p.files("eu", "REC", "*.blk") {
				if info, err := os.Stat(f); err != nil || os.Truncate(f, info.Size()/2) != nil {
					t.Fatal(err)
				}
			}
		}},
		{"meta file flipped", func() { flipAll(t, p.files("eu", "REC", "meta.inf")) }},
		{"receipts' meta file gone", func() {
			for _, f := range p.files("eu", "RCPT", "meta.inf") {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"whole store gone", func() {
			if err := os.RemoveAll(filepath.Join(p.home.Layout().Region("eu"), "nats")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		p.stopHub("eu")
		c.damage()
		p.startHub("eu")
		p.whole(c.what)
	}
	p.stopHub("us")
	p.stopHub("eu")
	p.startHub("eu")
	p.startHub("us")
	p.whole("both regions away")
}
