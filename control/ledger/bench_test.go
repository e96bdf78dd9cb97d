package ledger

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// frames are a boot's batches of decisions with requests of about 900 bytes.
func frames(b *testing.B, key note.Signer, node string, records, each int) [][]byte {
	b.Helper()
	boot := audit.BootID(1, 1)
	var tree audit.Frontier
	var out [][]byte
	for first := 1; first <= records; first += each {
		batch := &audit.Batch{Tenant: tenant, Node: node, Boot: boot, First: uint64(first), Frontier: tree.Roots()}
		for seq := first; seq < first+each; seq++ {
			r := &audit.Record{Kind: audit.KindBoot, Boot: &audit.BootRecord{Tenant: tenant, Node: node, Boot: boot}}
			if seq > 1 {
				request := fmt.Appendf(nil, `{"subject":{"type":"user","id":"u%d"},"action":{"name":"tools/call"},"resource":{"type":"tool","id":"t%d"},"context":{"args":"%0800d"}}`, seq%977, seq%31, seq*7919)
				r = &audit.Record{Kind: audit.KindDecision, Time: int64(seq), Decision: &audit.DecisionRecord{
					Point: "tool-calls", RequestID: fmt.Sprint("r-", seq), Subject: audit.Entity{Type: "user", ID: fmt.Sprint("u", seq%977)}, Action: "tools/call",
					Request: audit.NewPart(nil, request), Verdict: policy.Allow, Activation: 2, Epoch: 7, Latency: 40_000,
				}}
			}
			body, err := r.Body()
			if err != nil {
				b.Fatal(err)
			}
			e := audit.Entry{Leaf: audit.AppendLeaf(nil, body, uint64(seq))}
			for _, p := range r.Parts() {
				e.Parts = append(e.Parts, bytes.Clone(p.Bytes))
			}
			batch.Entries = append(batch.Entries, e)
			tree.Append(e.Hash())
		}
		var err error
		batch.Checkpoint, err = audit.Checkpoint{Tenant: tenant, Node: node, Boot: boot, Size: tree.Size(), Root: tree.Root()}.Sign(key)
		if err != nil {
			b.Fatal(err)
		}
		frame, err := batch.Encode()
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, frame)
	}
	return out
}

// A yard is one hub server with the batches of many nodes in its stream.
type yard struct {
	region jetstream.Region
	keys   *audit.Keys
	key    note.Signer
	total  uint64
}

func newYard(b *testing.B, nodes, records, each int) *yard {
	b.Helper()
	hub, err := embed.Hub(b.Context(), embed.HubConfig{Region: "ra", Dir: b.TempDir(), Login: embed.Login{Tenant: tenant, User: "u", Password: "p"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(hub.Shutdown)
	conn, err := bus.Connect(b.Context(), bus.Config{Server: hub, User: "u", Password: "p"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	y := &yard{region: jetstream.Region{Conn: conn, Tenant: tenant, Name: "ra"}, keys: &audit.Keys{}}
	if err := y.region.Create(b.Context()); err != nil {
		b.Fatal(err)
	}
	y.key, _ = signer(b, audit.RegionKeyName(tenant, "ra"))
	all := make([][][]byte, nodes)
	for i := range nodes {
		key, vkey := signer(b, audit.NodeKeyName(tenant, fmt.Sprint("n", i)))
		if err := y.keys.AddNode(vkey); err != nil {
			b.Fatal(err)
		}
		all[i] = frames(b, key, fmt.Sprint("n", i), records/nodes, each)
		y.total += uint64(records / nodes)
	}
	var storing sync.WaitGroup
	for at := range all[0] {
		for i := range nodes {
			if i%16 == 0 {
				storing.Wait()
			}
			storing.Go(func() {
				if err := conn.Stream("ra", "REC_"+tenant).Put(b.Context(), fmt.Sprintf("hf.%s.ra.rec.n%d.%s", tenant, i, audit.BootID(1, 1)), all[i][at]); err != nil {
					b.Error(err)
				}
			})
		}
	}
	storing.Wait()
	return y
}

// run runs a ledger until it has counter-signed everything.
func (y *yard) run(b *testing.B, dir string, peers Peers, leading bool) (l *Ledger, took time.Duration) {
	b.Helper()
	l, err := Open(Config{Dir: dir, Tenant: tenant, Region: "ra", Key: y.key, Keys: y.keys, Input: jetstream.Input{Region: y.region}, Peers: peers, Leading: func() bool { return leading }})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	began := time.Now()
	go func() { defer close(done); l.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	for end := began.Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s := l.Status()
		var held uint64
		for _, boot := range s.Boots {
			held += boot.Held - missingIn(boot)
		}
		if leading && s.Records == y.total || !leading && held == y.total {
			return l, time.Since(began)
		}
		if time.Now().After(end) {
			b.Fatalf("%d of %d records, %d held, %v", s.Records, y.total, held, s.Err)
		}
	}
}

func missingIn(b BootStatus) (n uint64) {
	for _, r := range b.Missing {
		n += min(r.To, b.Held) + 1 - min(r.From, b.Held+1)
	}
	return n
}

// BenchmarkIngest is one server that verifies, archives and counter-signs what
// is in the region's stream: records/s.
func BenchmarkIngest(b *testing.B) {
	for _, c := range []struct{ nodes, records, each int }{{1, 100_000, 1000}, {1, 20_000, 50}, {50, 100_000, 100}, {500, 100_000, 100}, {500, 50_000, 10}} {
		b.Run(fmt.Sprintf("nodes=%d/batch=%d", c.nodes, c.each), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				y := newYard(b, c.nodes, c.records, c.each)
				b.StartTimer()
				_, took := y.run(b, b.TempDir(), nil, true)
				b.ReportMetric(float64(y.total)/took.Seconds(), "records/s")
				b.ReportMetric(float64(c.records/c.each)/took.Seconds(), "batches/s")
			}
		})
	}
}

// BenchmarkCatchUp is an empty server that gets everything from another one.
func BenchmarkCatchUp(b *testing.B) {
	for _, c := range []struct{ nodes, records, each int }{{1, 100_000, 1000}, {50, 100_000, 100}} {
		b.Run(fmt.Sprintf("nodes=%d/batch=%d", c.nodes, c.each), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				y := newYard(b, c.nodes, c.records, c.each)
				peers := jetstream.Peers{Region: y.region, Server: "s1", Log: slog.New(slog.DiscardHandler)}
				l, _ := y.run(b, b.TempDir(), nil, true)
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan struct{})
				go func() { defer close(done); peers.Serve(ctx, l) }()
				for i := range c.nodes {
					subject := fmt.Sprintf("hf.%s.ra.rec.n%d.%s", tenant, i, audit.BootID(1, 1))
					s := y.region.Conn.Stream("ra", "REC_"+tenant)
					m, err := s.Last(ctx, subject)
					if err == nil {
						err = s.PurgeBefore(ctx, subject, m.Seq)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				peers.Server = "s2"
				b.StartTimer()
				_, took := y.run(b, b.TempDir(), peers, false)
				b.ReportMetric(float64(y.total)/(took-patience).Seconds(), "records/s") // once it asks
				cancel()
				<-done
			}
		})
	}
}
