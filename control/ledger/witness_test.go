package ledger

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

// gate runs what witnesses and nodes ask.
func (p *place) gate(l *Ledger) {
	p.t.Helper()
	g := jetstream.NewGate(p.region, slog.New(slog.DiscardHandler))
	g.Beside(l)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx) }()
	p.ungate = func() { cancel(); <-done }
	p.t.Cleanup(p.ungate)
}

// regate puts the gate beside another ledger.
func (p *place) regate(l *Ledger) {
	p.t.Helper()
	p.ungate()
	p.gate(l)
}

// witness runs one that sees the places' regions until stop.
func witness(t *testing.T, dir string, key note.Signer, keys *audit.Keys, alarms chan Alarm, places ...*place) (w *Witness, stop func()) {
	t.Helper()
	conn, err := bus.Connect(t.Context(), bus.Config{Server: places[0].hub, User: "u", Password: "p", Inbox: auth.ReaderInbox("w")})
	must(t, err)
	see := jetstream.Regions{Conn: conn, Tenant: tenant, User: "w"}
	for _, p := range places {
		see.Names = append(see.Names, p.name)
	}
	w, err = NewWitness(WitnessConfig{Dir: dir, Tenant: tenant, Key: key, Keys: keys, Regions: see, Alarm: func(a Alarm) { alarms <- a }, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	stop = func() { cancel(); <-done; conn.Close() }
	t.Cleanup(stop)
	return w, stop
}

// A witness follows a region, also after it was away, and its word is in what
// the auditor verifies: a region that takes records back is found out.
func TestWitnessFollowsAndIsBelieved(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, stopLedger := p.start()
	p.gate(l)
	key, vkey := signer(t, audit.WitnessKeyName(tenant, "wanda"))
	dir, alarms := t.TempDir(), make(chan Alarm, 10)
	w, stop := witness(t, dir, key, p.keys, alarms, p)
	p.ship(a.node, a.boot, a.frame(1, 10), a.frame(11, 300))
	until(t, "witnessed", func() bool { return w.Size(a.node, a.boot) == 300 })
	stop()
	p.ship(a.node, a.boot, a.frame(301, 310), a.frame(311, 777))
	p.cosigned(l, a, 777)
	w, stop = witness(t, dir, key, p.keys, alarms, p)
	if got := w.Size(a.node, a.boot); got != 300 {
		t.Fatalf("it remembers %d", got)
	}
	until(t, "witnessed", func() bool { return w.Size(a.node, a.boot) == 777 })
	stop()
	stopLedger()
	must(t, p.keys.AddWitness(vkey))
	export := func() *audit.Report {
		out := filepath.Join(t.TempDir(), "export")
		e, err := audit.NewExportWriter(out)
		must(t, err)
		must(t, Export(p.dir, e))
		must(t, ExportWitness(dir, e))
		must(t, e.Close())
		keys, err := audit.ParseKeys(p.keys.File()) // as an auditor has them
		must(t, err)
		report, err := audit.Verify(os.DirFS(out), keys)
		must(t, err)
		return report
	}
	if r := export(); r.Verdict != audit.VerdictComplete || r.Nodes[0].Boots[0].Witnessed["wanda"] != 777 || r.Nodes[0].Boots[0].Cosigned["ra"] != 777 {
		t.Fatalf("%+v", r)
	}
	boot := filepath.Join(p.dir, nodesDir, a.node, a.boot)
	must(t, os.Remove(filepath.Join(boot, span{311, 777}.file())))
	must(t, os.Remove(filepath.Join(boot, receiptFile)))
	if r := export(); r.Verdict != audit.VerdictGap || r.Nodes[0].Boots[0].Gaps[0] != (audit.Range{From: 311, To: 777}) {
		t.Fatalf("%+v", r)
	}
	if len(alarms) > 0 {
		t.Fatalf("%+v", <-alarms)
	}
}

// A node and a region together show the witness one history and then another.
func TestWitnessSignsNoFork(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"of the same size": 100, "that goes on": 120} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ra := newPlace(t)
			a := newAuthor(t, ra.keys, "e1")
			l, _ := ra.start()
			ra.gate(l)
			key, _ := signer(t, audit.WitnessKeyName(tenant, "wanda"))
			dir, alarms := t.TempDir(), make(chan Alarm, 10)
			w, stop := witness(t, dir, key, ra.keys, alarms, ra)
			ra.ship(a.node, a.boot, a.frame(1, 100))
			until(t, "witnessed", func() bool { return w.Size(a.node, a.boot) == 100 })
			stop()
			lies := &place{t: t, name: "ra", keys: ra.keys, key: ra.key, dirs: []string{t.TempDir()}, alarms: make(chan Alarm, 10)}
			lies.dir = lies.dirs[0]
			lies.conf = embed.HubConfig{Region: "ra", Dir: t.TempDir(), Login: embed.Login{Tenant: tenant, User: "u", Password: "p"}}
			lies.startHub()
			other, _ := lies.start()
			lies.gate(other)
			lie := a.fork(40)
			lies.ship(a.node, a.boot, lie.frame(1, size))
			lies.cosigned(other, a, uint64(size))
			w, _ = witness(t, dir, key, ra.keys, alarms, lies)
			select {
			case alarm := <-alarms:
				if alarm.Reason != string(fork) {
					t.Fatalf("%+v", alarm)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("no alarm")
			}
			if got := w.Size(a.node, a.boot); got != 100 {
				t.Fatalf("signed %d", got)
			}
			entries, err := os.ReadDir(filepath.Join(dir, evidenceDir))
			if err != nil || len(entries) != 2 {
				t.Fatalf("%v, %v", entries, err)
			}
		})
	}
}

// A folder that was damaged is no reason to sign anew.
func TestWitnessDoesNotForget(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, _ := p.start()
	p.gate(l)
	key, _ := signer(t, audit.WitnessKeyName(tenant, "wanda"))
	dir := t.TempDir()
	w, stop := witness(t, dir, key, p.keys, make(chan Alarm, 10), p)
	p.ship(a.node, a.boot, a.frame(1, 100))
	until(t, "witnessed", func() bool { return w.Size(a.node, a.boot) == 100 })
	stop()
	flip(t, filepath.Join(dir, nodesDir, a.node, a.boot, treeFile))
	if _, err := NewWitness(WitnessConfig{Dir: dir, Tenant: tenant, Key: key, Keys: p.keys}); err == nil {
		t.Fatal("a damaged tree is believed")
	}
	if _, err := NewWitness(WitnessConfig{Dir: t.TempDir(), Tenant: tenant, Key: p.key, Keys: p.keys}); err == nil {
		t.Fatal("a region's key is a witness's")
	}
}
