package assembly_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Under load, every answer without a record is counted, those too that were
// given while the journal was being opened again.
func TestEveryUnrecordedAnswerIsCounted(t *testing.T) {
	fs := &failingFS{FS: journal.OS()}
	o := newOne(t)
	o.cfg.JournalFS = fs
	o.start()
	o.publish(regoPackage(t, allowAda), nil)
	var unrecorded atomic.Uint64
	ctx, cancel := context.WithCancel(context.Background())
	var askers sync.WaitGroup
	t.Cleanup(func() { // before the node is closed, however the test ends
		cancel()
		askers.Wait()
	})
	for range 8 {
		askers.Go(func() {
			for ctx.Err() == nil {
				req, err := policy.ParseRequest("custom", []byte(`{"document":{"user":"ada"}}`))
				if err != nil {
					t.Error(err)
					return
				}
				if a, err := o.edge.Node().Decide(ctx, req); err == nil && !a.Recorded {
					unrecorded.Add(1)
				}
			}
		})
	}
	boot := o.edge.Node().Status().Boot
	for range 3 {
		// An answer of the last round may be counted only now: a write must fail too.
		before, failed := unrecorded.Load(), fs.failed.Load()
		fs.write.Store(true)
		o.waitFor("an answer without a record", func() bool { return fs.failed.Load() > failed && unrecorded.Load() > before })
		fs.write.Store(false)
		o.waitFor("another boot", func() bool { s := o.edge.Node().Status(); return s.Ready && s.Boot != boot })
		boot = o.edge.Node().Status().Boot
	}
	cancel()
	askers.Wait()
	counted := uint64(0)
	for _, r := range o.records() {
		if r.Kind == audit.KindAdmin && r.Admin.Event == "unrecorded_answers" {
			counted += r.Admin.Count
		}
	}
	if counted != unrecorded.Load() {
		t.Errorf("%d answers counted as unrecorded, not %d", counted, unrecorded.Load())
	}
}

// After a disk failure that outlasts the first attempt to repair it, the new
// boot's records reach the region.
func TestShipsAfterADiskFailure(t *testing.T) {
	home, err := assembly.OpenHome(assembly.FleetConfig{Dir: t.TempDir(), Tenant: "demo", Regions: 1, Edges: 1})
	if err != nil {
		t.Fatal(err)
	}
	cfg := home.HubConfig("eu")
	cfg.Log = slog.New(slog.DiscardHandler)
	hub, err := assembly.StartHub(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hub.Close() })
	fs := &failingFS{FS: journal.OS()}
	o := newOne(t)
	o.home = home
	o.cfg.Dir, o.cfg.Folder, o.cfg.JournalFS, o.cfg.NATS = home.Layout().Node("edge-1"), "", fs, home.EdgeNATS("edge-1")
	o.cfg.Root = home.Root()
	o.cfg.Regions = []assembly.RegionLink{{Name: "eu", Leafs: []string{hub.Server().LeafAddr()}, Key: regionKey(t, home)}}
	o.start()
	shipped := func() bool {
		boots := o.edge.Node().Journal().Boots()
		last := boots[len(boots)-1]
		return last.Size > 0 && hub.Ledger().Status().Cosigned["edge-1"][last.ID] >= last.Size
	}
	o.ask(`{"document":1}`)
	o.waitFor("the first boot in the region", shipped)
	fs.write.Store(true)
	if a := o.ask(`{"document":1}`); a.Recorded {
		t.Fatalf("%+v", a)
	}
	o.waitFor("a failed repair", func() bool { return fs.failed.Load() > 1 })
	fs.write.Store(false)
	o.waitFor("another boot", func() bool { return o.edge.Node().Journal().Poisoned() == nil })
	if a := o.ask(`{"document":1}`); !a.Recorded {
		t.Fatalf("%+v", a)
	}
	o.waitFor("the second boot in the region", shipped)
}

// regionKey is the verifier key of the home's only region.
func regionKey(t *testing.T, home *assembly.Home) string {
	t.Helper()
	for line := range strings.Lines(string(home.Keys().File())) {
		if vkey, ok := strings.CutPrefix(line, "region "); ok {
			return strings.TrimSpace(vkey)
		}
	}
	t.Fatal("no region")
	return ""
}
