package ship_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/control/ledger"
	"github.com/holdfast-policy/holdfast/internal/cut"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/ship"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

const tenant, node = "acme", "e1"

var login = embed.Login{Tenant: tenant, User: "u", Password: "p"}

// A world is a journal, an edge's server, and regions with their ledgers. Only
// TCP, through the cuts, joins them.
type world struct {
	t       *testing.T
	dir     string
	keys    *audit.Keys
	logKey  note.Signer
	journal *journal.Journal
	edge    *embed.Server
	conn    *bus.Conn
	regions []*region
}

type region struct {
	name string
	join string
	port int
	key  note.Signer
	vkey string
	hub  *embed.Server
	link *cut.Proxy
	book *ledger.Ledger
	stop func()
	// stopBook stops the ledger alone.
	stopBook func()
}

func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), keys: &audit.Keys{}}
	key, vkey, err := journal.LoadOrCreateKey(filepath.Join(w.dir, "log.key"), audit.NodeKeyName(tenant, node))
	w.must(err)
	w.must(w.keys.AddNode(vkey))
	w.logKey = key
	for _, name := range names {
		r := &region{name: name}
		if len(w.regions) > 0 {
			r.join = w.regions[0].link.Addr()
		}
		skey, vkey, err := note.GenerateKey(rand.Reader, audit.RegionKeyName(tenant, name))
		w.must(err)
		r.vkey = vkey
		r.key, err = note.NewSigner(skey)
		w.must(err)
		w.must(w.keys.AddRegion(vkey))
		w.startHub(r)
		r.link, err = cut.New(r.hub.LeafAddr())
		w.must(err)
		t.Cleanup(func() { r.link.Close() })
		w.regions = append(w.regions, r)
	}
	w.startEdge()
	w.open()
	t.Cleanup(func() { w.journal.Close() })
	return w
}

// open opens the journal, which begins a new boot.
func (w *world) open() {
	w.t.Helper()
	var err error
	w.journal, err = journal.Open(journal.Config{Dir: filepath.Join(w.dir, "journal"), Tenant: tenant, Node: node, Key: w.logKey})
	w.must(err)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) connect(s *embed.Server) *bus.Conn {
	w.t.Helper()
	c, err := bus.Connect(w.t.Context(), bus.Config{Server: s, User: login.User, Password: login.Password})
	w.must(err)
	return c
}

// startHub starts a region's hub and ledger, always on the same leaf port.
func (w *world) startHub(r *region) {
	w.t.Helper()
	var err error
	r.hub, err = embed.Hub(w.t.Context(), embed.HubConfig{
		Region: r.name, Dir: filepath.Join(w.dir, r.name, "hub"), Login: login, LeafPort: r.port, Join: r.join})
	w.must(err)
	_, port, err := net.SplitHostPort(r.hub.LeafAddr())
	w.must(err)
	r.port, err = strconv.Atoi(port)
	w.must(err)
	here := jetstream.Region{Conn: w.connect(r.hub), Tenant: tenant, Name: r.name}
	w.must(here.Create(w.t.Context()))
	r.book, err = ledger.Open(ledger.Config{
		Dir: filepath.Join(w.dir, r.name, "ledger"), Tenant: tenant, Region: r.name, Key: r.key, Keys: w.keys, Input: jetstream.Input{Region: here}})
	w.must(err)
	stop := background(w.t, func(ctx context.Context) { r.book.Run(ctx) })
	r.stopBook = stop
	gate := jetstream.NewGate(here, slog.New(slog.DiscardHandler))
	shut := background(w.t, func(ctx context.Context) { gate.Run(ctx) })
	r.stop = func() {
		shut()
		stop()
		here.Conn.Close()
		r.hub.Shutdown()
	}
	w.t.Cleanup(func() { r.stop() })
}

func (w *world) startEdge() {
	w.t.Helper()
	var hubs []string
	for _, r := range w.regions {
		hubs = append(hubs, r.link.Addr())
	}
	var err error
	w.edge, err = embed.Leaf(w.t.Context(), embed.LeafConfig{Node: node, Login: login, Hubs: hubs})
	w.must(err)
	w.conn, err = bus.Connect(w.t.Context(), bus.Config{Server: w.edge})
	w.must(err)
	w.t.Cleanup(func() { w.conn.Close(); w.edge.Shutdown() })
}

// ship runs a shipper of the journal until stop.
func (w *world) ship(j ship.Journal, evidence func(ship.Evidence)) (s *ship.Shipper, stop func()) {
	w.t.Helper()
	return w.shipOver(j, evidence, func(s ship.Sink) ship.Sink { return s })
}

// shipOver is ship with something between the shipper and the regions.
func (w *world) shipOver(j ship.Journal, evidence func(ship.Evidence), over func(ship.Sink) ship.Sink) (s *ship.Shipper, stop func()) {
	w.t.Helper()
	c := ship.Config{Node: node, Key: w.keys.Node(tenant, node), Journal: j, OnEvidence: evidence, Log: slog.New(slog.DiscardHandler)}
	for _, r := range w.regions {
		c.Regions = append(c.Regions, ship.Region{Name: r.name, Key: w.keys.Region(tenant, r.name), Sink: over(jetstream.Sink{
			Region: jetstream.Region{Conn: w.conn, Tenant: tenant, Name: r.name}, Node: w.keys.Node(tenant, node), Ledger: w.keys.Region(tenant, r.name),
		})})
	}
	s, err := ship.New(c)
	w.must(err)
	return s, background(w.t, func(ctx context.Context) { s.Run(ctx) })
}

// background runs f until stop, at the latest until the test ends.
func background(t *testing.T, f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// write appends n synced records and returns the last seq.
func (w *world) write(n int) uint64 {
	w.t.Helper()
	const writers = 16
	var writing sync.WaitGroup
	var last atomic.Uint64
	for k := range writers {
		writing.Go(func() {
			for i := k; i < n; i += writers {
				ref, err := w.journal.Append(w.t.Context(), record(i), policy.Synced)
				if err != nil {
					w.t.Error(err)
					return
				}
				for old := last.Load(); ref.Seq > old && !last.CompareAndSwap(old, ref.Seq); old = last.Load() {
				}
			}
		})
	}
	writing.Wait()
	return last.Load()
}

func record(i int) *audit.Record {
	return &audit.Record{Kind: audit.KindDecision, Time: int64(i), Decision: &audit.DecisionRecord{
		Point: "tool.pre_call", RequestID: fmt.Sprint("r-", i), Subject: audit.Entity{Type: "user", ID: "alice"}, Action: "call",
		Request: audit.NewPart(nil, fmt.Appendf(nil, `{"action":{"name":"call"},"context":{"amount":%d,"to":"account %d"}}`, i, i*7919)),
		Verdict: policy.Allow, Epoch: 1, Durability: policy.Synced,
	}}
}

func (w *world) wait(s *ship.Shipper, size uint64) time.Duration {
	w.t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Wait(ctx, w.journal.Boot(), size, s.Everywhere()); err != nil {
		for _, r := range w.regions {
			w.t.Logf("%s: %+v", r.name, r.book.Status())
		}
		w.t.Fatalf("%d records: %v; %+v", size, err, s.Status())
	}
	return time.Since(start).Round(time.Millisecond)
}

// complete proves that every region has every record of every boot of the
// journal, once, and that the last boot has size of them.
func (w *world) complete(size uint64) {
	w.t.Helper()
	boots := w.journal.Boots()
	boots[len(boots)-1].Size = size
	for _, r := range w.regions {
		dir := filepath.Join(w.t.TempDir(), r.name)
		export, err := audit.NewExportWriter(dir)
		w.must(err)
		w.must(ledger.Export(filepath.Join(w.dir, r.name, "ledger"), export))
		w.must(export.Close())
		report, err := audit.Verify(os.DirFS(dir), w.keys)
		w.must(err)
		if report.Verdict != audit.VerdictComplete || len(report.Nodes) != 1 || len(report.Nodes[0].Boots) != len(boots) {
			w.t.Fatalf("%s: %+v", r.name, report)
		}
		for i, b := range report.Nodes[0].Boots {
			if b.To != boots[i].Size || len(b.Doubled) > 0 || b.Cosigned[r.name] != boots[i].Size {
				w.t.Fatalf("%s: %+v, the journal has %+v", r.name, b, boots[i])
			}
		}
		if got := r.book.Status(); got.Evidence != 0 {
			w.t.Fatalf("%s: %+v", r.name, got)
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func TestNothingIsLostOrDoubledOverCutsAndRestarts(t *testing.T) {
	w := newWorld(t, "ra", "rb")
	a, b := w.regions[0], w.regions[1]
	s, stop := w.ship(w.journal, nil)
	w.wait(s, w.write(100))

	a.link.Cut()
	during := w.write(100)
	until(t, "the other region goes on", func() bool { return s.Status()[1].Boots[w.journal.Boot()].Cosigned == during })
	if err := s.Status()[0]; err.Boots[w.journal.Boot()].Cosigned >= during {
		t.Fatalf("the cut region counter-signed: %+v", err)
	}
	time.Sleep(5 * time.Second) // the cut's length is what is tested
	a.link.Heal()
	resumed := w.wait(s, during)
	t.Logf("after a cut of 5 s, both regions have everything %v after the link", resumed)
	if resumed > 2*time.Second {
		t.Errorf("resumed after %v", resumed)
	}

	b.stop() // hub and ledger restart on their folders
	size := w.write(50)
	w.startHub(b)
	w.wait(s, size)

	stop() // the edge's server restarts, with it the shipper
	w.conn.Close()
	w.edge.Shutdown()
	size = w.write(50)
	w.startEdge()
	s, _ = w.ship(w.journal, nil)
	w.wait(s, size)

	a.link.Cut() // flapping
	w.write(20)
	a.link.Heal()
	w.write(20)
	b.link.Cut()
	size = w.write(20)
	b.link.Heal()
	w.wait(s, size)
	w.complete(size)
}

func TestTwoShippersRaceForTheFence(t *testing.T) {
	w := newWorld(t, "ra")
	one, _ := w.ship(w.journal, nil)
	two, _ := w.ship(w.journal, func(e ship.Evidence) { t.Errorf("%+v", e) })
	var size uint64
	for range 40 {
		size = w.write(25)
	}
	w.wait(one, size)
	w.wait(two, size)
	until(t, "both know", func() bool {
		return one.Status()[0].Boots[w.journal.Boot()].Shipped == size && two.Status()[0].Boots[w.journal.Boot()].Shipped == size
	})
	w.complete(size)
}

// A shortened journal is one that lost its tail.
type shortened struct {
	*journal.Journal
	size uint64
}

func (s shortened) Boots() []journal.Boot {
	boots := s.Journal.Boots()
	for i := range boots {
		boots[i].Size = min(boots[i].Size, s.size)
	}
	return boots
}

func TestRegionKnowsMoreThanTheJournal(t *testing.T) {
	w := newWorld(t, "ra")
	first, stop := w.ship(w.journal, nil)
	size := w.write(30)
	w.wait(first, size)
	stop()
	found := make(chan ship.Evidence, 10)
	s, stop := w.ship(shortened{w.journal, 10}, func(e ship.Evidence) { found <- e })
	select {
	case e := <-found:
		if want := (ship.Evidence{Region: "ra", Boot: w.journal.Boot(), RegionLast: size, JournalLast: 10}); e != want {
			t.Fatalf("%+v, want %+v", e, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no evidence")
	}
	w.write(5)
	if st := s.Status()[0]; !st.Boots[w.journal.Boot()].Stopped {
		t.Fatalf("%+v", st)
	}
	stop()
	if len(found) > 0 {
		t.Fatalf("reported again: %+v", <-found)
	}
	w.complete(size)
}

func TestForgedReceiptsDoNotCount(t *testing.T) {
	w := newWorld(t, "ra")
	w.regions[0].stop()
	w.regions[0].stop = func() {}
	hub, err := embed.Hub(t.Context(), embed.HubConfig{Region: "ra", Dir: t.TempDir(), Login: login, LeafPort: w.regions[0].port})
	w.must(err)
	t.Cleanup(hub.Shutdown)
	there := jetstream.Region{Conn: w.connect(hub), Tenant: tenant, Name: "ra"}
	w.must(there.Create(t.Context())) // a region without a ledger
	gate := jetstream.NewGate(there, slog.New(slog.DiscardHandler))
	defer background(t, func(ctx context.Context) { gate.Run(ctx) })()
	s, _ := w.ship(w.journal, nil)
	size := w.write(10)
	b, err := w.journal.ReadBatch(w.journal.Boot(), 1, 0, 0)
	w.must(err)
	skey, _, err := note.GenerateKey(rand.Reader, audit.RegionKeyName(tenant, "ra"))
	w.must(err)
	forger, err := note.NewSigner(skey)
	w.must(err)
	forged, err := audit.Cosign(b.Checkpoint, w.keys.Node(tenant, node), forger)
	w.must(err)
	in := jetstream.Input{Region: there}
	for i, msg := range [][]byte{forged, b.Checkpoint, []byte("garbage"), nil} {
		w.must(in.Receipt(t.Context(), node, audit.BootID(uint64(i+1), 1), func([]byte) ([]byte, error) { return msg, nil }))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := s.Wait(ctx, w.journal.Boot(), 1, s.Everywhere()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("counted: %v, %+v", err, s.Status())
	}
	true_, err := audit.Cosign(b.Checkpoint, w.keys.Node(tenant, node), w.regions[0].key)
	w.must(err)
	w.must(in.Receipt(t.Context(), node, w.journal.Boot(), func([]byte) ([]byte, error) { return true_, nil }))
	w.wait(s, min(size, b.Last()))
}

func TestBacklogDrains(t *testing.T) {
	w := newWorld(t, "ra", "rb")
	const n = 10_000
	size := w.write(n)
	start := time.Now()
	s, _ := w.ship(w.journal, nil)
	w.wait(s, size)
	d := time.Since(start)
	t.Logf("%d records into the ledgers of two regions in %v: %.0f/s", size, d.Round(time.Millisecond), float64(size)/d.Seconds())
	w.complete(size)
}

func TestNewRefusesHalfAConfig(t *testing.T) {
	_, vkey, err := note.GenerateKey(rand.Reader, audit.NodeKeyName(tenant, node))
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	whole := ship.Config{Node: node, Key: key, Journal: &journal.Journal{}}
	if _, err := ship.New(whole); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*ship.Config){
		"no name":       func(c *ship.Config) { c.Node = "" },
		"a bad name":    func(c *ship.Config) { c.Node = "a.b" },
		"no key":        func(c *ship.Config) { c.Key = nil },
		"no journal":    func(c *ship.Config) { c.Journal = nil },
		"a bare region": func(c *ship.Config) { c.Regions = []ship.Region{{Name: "ra"}} },
	} {
		c := whole
		spoil(&c)
		if _, err := ship.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Whoever may publish can write junk, or a batch that the node never signed, on
// a node's subject. It stops nothing: what the node signed is shipped behind it,
// and the junk is evidence.
func TestJunkOnTheSubjectStopsNothing(t *testing.T) {
	w := newWorld(t, "ra")
	first, stop := w.ship(w.journal, nil)
	w.wait(first, w.write(20))
	stop()
	forged, err := w.journal.ReadBatch(w.journal.Boot(), 1, 0, 0)
	w.must(err)
	stranger, err := (audit.Checkpoint{Tenant: tenant, Node: node, Boot: w.journal.Boot(), Size: 1 << 40}).Sign(w.regions[0].key)
	w.must(err)
	forged.First, forged.Frontier, forged.Entries, forged.Checkpoint = 1<<40, forged.Frontier[:0], forged.Entries[:1], stranger
	frames := [][]byte{[]byte("junk")}
	if frame, err := forged.Encode(); err == nil {
		frames = append(frames, frame)
	}
	anybody := jetstream.Sink{Region: jetstream.Region{Conn: w.conn, Tenant: tenant, Name: "ra"}, Node: w.keys.Node(tenant, node), Ledger: w.keys.Region(tenant, "ra")}
	for _, frame := range frames {
		_, fence, err := anybody.Head(t.Context(), node, w.journal.Boot())
		w.must(err)
		_, err = anybody.Publish(t.Context(), node, w.journal.Boot(), fence, frame)
		w.must(err)
		s, stop := w.ship(w.journal, func(e ship.Evidence) { t.Errorf("%+v", e) })
		size := w.write(10)
		w.wait(s, size)
		stop()
		until(t, "the junk to be evidence", func() bool { return w.regions[0].book.Status().Evidence > 0 })
	}
}
