package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A place is a region with its hub, its key and ledgers' folders, one for each of
// its servers.
type place struct {
	t      *testing.T
	name   string
	hub    *embed.Server
	conf   embed.HubConfig
	region jetstream.Region
	keys   *audit.Keys
	key    note.Signer
	dir    string // of the first server's ledger
	dirs   []string
	other  string // the other region's name; "" for none
	alarms chan Alarm
	ungate func()
}

func newPlace(t *testing.T) *place {
	t.Helper()
	return startPlace(t, &audit.Keys{}, "ra", "", "")
}

// startPlace starts a region whose hub is a leaf of another one's, if join is set.
func startPlace(t *testing.T, keys *audit.Keys, name, other, join string) *place {
	t.Helper()
	p := &place{t: t, name: name, keys: keys, other: other, alarms: make(chan Alarm, 100)}
	for range 3 {
		p.dirs = append(p.dirs, t.TempDir())
	}
	p.dir = p.dirs[0]
	var vkey string
	p.key, vkey = signer(t, audit.RegionKeyName(tenant, name))
	must(t, keys.AddRegion(vkey))
	p.conf = embed.HubConfig{Region: name, Dir: t.TempDir(), Join: join, Login: embed.Login{Tenant: tenant, User: "u", Password: "p"}}
	p.startHub()
	return p
}

// startHub starts the region's NATS server, again where it was before.
func (p *place) startHub() {
	p.t.Helper()
	var err error
	p.hub, err = embed.Hub(p.t.Context(), p.conf)
	must(p.t, err)
	p.t.Cleanup(p.hub.Shutdown)
	p.region = jetstream.Region{Conn: p.connect(), Tenant: tenant, Name: p.name}
	must(p.t, p.region.Create(p.t.Context()))
}

func (p *place) connect() *bus.Conn {
	p.t.Helper()
	c, err := bus.Connect(p.t.Context(), bus.Config{Server: p.hub, User: "u", Password: "p"})
	must(p.t, err)
	p.t.Cleanup(c.Close)
	return c
}

// twoPlaces are two linked regions.
func twoPlaces(t *testing.T) (ra, rb *place) {
	t.Helper()
	keys := &audit.Keys{}
	ra = startPlace(t, keys, "ra", "rb", "")
	return ra, startPlace(t, keys, "rb", "ra", ra.hub.LeafAddr())
}

// start opens the ledger of the first server and runs it until stop.
func (p *place) start() (l *Ledger, stop func()) {
	p.t.Helper()
	return p.startServer(0, nil)
}

// startServer opens the ledger of a server and runs it, with what it gives to
// others and learns from them, until stop.
func (p *place) startServer(i int, change func(*Config)) (l *Ledger, stop func()) {
	p.t.Helper()
	region := p.region
	region.Conn = p.connect()
	log := slog.New(slog.NewTextHandler(p.t.Output(), nil)).With("server", i)
	peers := jetstream.Peers{Region: region, Server: fmt.Sprint(p.name, "-", i), Log: log}
	if p.other != "" {
		peers.Others = []string{p.other}
	}
	cfg := Config{
		Dir: p.dirs[i], Tenant: tenant, Region: p.name, Key: p.key, Keys: p.keys, Input: jetstream.Input{Region: region}, Peers: peers, Log: log,
		Alarm: func(a Alarm) {
			select {
			case p.alarms <- a:
			default:
			}
		},
	}
	if change != nil {
		change(&cfg)
	}
	l, err := Open(cfg)
	must(p.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	running.Go(func() { peers.Serve(ctx, l) })
	stop = func() { cancel(); running.Wait() }
	p.t.Cleanup(stop)
	return l, stop
}

// ship puts frames on the subject of node and boot, as they are.
func (p *place) ship(node, boot string, frames ...[]byte) {
	p.t.Helper()
	for _, f := range frames {
		must(p.t, p.region.Conn.Stream(p.name, "REC_"+tenant).Put(p.t.Context(), "hf."+tenant+"."+p.name+".rec."+node+"."+boot, f))
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

func (p *place) cosigned(l *Ledger, a *author, size uint64) {
	p.t.Helper()
	until(p.t, "counter-signed", func() bool { return l.Status().Cosigned[a.node][a.boot] == size })
}

// receipt waits for the published receipt of a size and verifies it.
func (p *place) receipt(a *author, size uint64) {
	p.t.Helper()
	until(p.t, "receipt", func() bool {
		r, ok := p.lastReceipt(a)
		return ok && r.Size == size && r.Region == p.name
	})
}

// lastReceipt is what the region holds of a boot.
func (p *place) lastReceipt(a *author) (audit.Receipt, bool) {
	m, err := p.region.Conn.Stream(p.name, "RCPT_"+tenant).Last(context.Background(), "hf."+tenant+"."+p.name+".rcpt."+a.node+"."+a.boot)
	if err != nil {
		return audit.Receipt{}, false
	}
	r, err := audit.OpenReceipt(m.Data, p.keys.Node(tenant, a.node), p.keys.Region(tenant, p.name))
	return r, err == nil
}

// evidence lists what is kept, without digests.
func (p *place) evidence() string {
	p.t.Helper()
	entries, err := os.ReadDir(filepath.Join(p.dir, evidenceDir))
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if why, ok := isEvidence(e.Name()); ok {
			names = append(names, string(why))
		}
	}
	return strings.Join(names, " ")
}

func TestArchivesAndCountersigns(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, stop := p.start()
	p.ship(a.node, a.boot, a.frame(1, 10), a.frame(11, 11), a.frame(12, 300))
	p.cosigned(l, a, 300)
	p.receipt(a, 300)
	if s := l.Status(); s.Records != 300 || s.Evidence != 0 || s.Err != nil || s.Region != "ra" {
		t.Fatalf("%+v", s)
	}
	stop()

	l, _ = p.start() // rebuilt from its folder
	if got := l.Status().Cosigned[a.node][a.boot]; got != 300 {
		t.Fatalf("rebuilt to %d", got)
	}
	p.ship(a.node, a.boot, a.frame(301, 305))
	p.cosigned(l, a, 305)
	p.verifies(305)
}

// report exports the ledger's folder and lets audit say what it is.
func (p *place) report() *audit.Report {
	p.t.Helper()
	return p.reportOf(p.dir)
}

func (p *place) reportOf(ledger string) *audit.Report {
	p.t.Helper()
	dir := filepath.Join(p.t.TempDir(), "export")
	w, err := audit.NewExportWriter(dir)
	must(p.t, err)
	must(p.t, Export(ledger, w))
	must(p.t, w.Close())
	report, err := audit.Verify(os.DirFS(dir), p.keys)
	must(p.t, err)
	return report
}

// verifies demands one node with one boot, complete up to records, of every folder.
func (p *place) verifies(records uint64, dirs ...string) {
	p.t.Helper()
	if len(dirs) == 0 {
		dirs = []string{p.dir}
	}
	for _, dir := range dirs {
		report := p.reportOf(dir)
		if n := report.Nodes; report.Verdict != audit.VerdictComplete || len(n) != 1 || len(n[0].Boots) != 1 || n[0].Boots[0].To != records {
			p.t.Fatalf("%+v", report)
		}
	}
}

func TestRefusesAndKeepsAsEvidence(t *testing.T) {
	t.Parallel()
	stranger := newAuthor(t, &audit.Keys{}, "e9")
	for _, c := range []struct {
		name  string
		want  reason
		frame func(p *place, a *author) []byte
	}{
		{"garbage", malformed, func(*place, *author) []byte { return []byte("no frame") }},
		{"another node's batch", wrongNode, func(p *place, a *author) []byte { return newAuthor(p.t, p.keys, "e2").frame(1, 5) }},
		{"another tenant's", wrongTenant, func(p *place, a *author) []byte {
			b := a.batch(11, 12)
			b.Tenant = "other"
			return encode(p.t, b)
		}},
		{"beyond its bounds", oversize, func(*place, *author) []byte { return wire.Compress(make([]byte, audit.MaxBatchBytes+1)) }},
		{"another boot's batch", malformed, func(p *place, a *author) []byte {
			b := *a
			b.boot, b.entries = audit.BootID(9, 9), nil
			return b.frame(1, 2)
		}},
		{"a record altered", forged, func(p *place, a *author) []byte {
			b := a.batch(11, 20)
			b.Entries = append([]audit.Entry(nil), b.Entries...)
			b.Entries[3] = a.fork(10).batch(11, 20).Entries[3]
			return encode(p.t, b)
		}},
		{"a record removed", forged, func(p *place, a *author) []byte {
			b := a.batch(11, 20)
			b.Entries = b.Entries[:9]
			return encode(p.t, b)
		}},
		{"signed by another key", forged, func(p *place, a *author) []byte {
			key, _ := signer(p.t, audit.NodeKeyName(tenant, a.node))
			f := *a
			f.key = key
			return f.frame(11, 20)
		}},
		{"a gap", gap, func(p *place, a *author) []byte { return a.frame(12, 20) }},
		{"a sequence used again", fork, func(p *place, a *author) []byte { return a.fork(5).frame(6, 10) }},
		{"a fork that goes on", fork, func(p *place, a *author) []byte { return a.fork(5).frame(11, 20) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			a := newAuthor(t, p.keys, "e1")
			l, stop := p.start()
			p.ship(a.node, a.boot, a.frame(1, 10))
			p.cosigned(l, a, 10)
			p.ship(a.node, a.boot, c.frame(p, a))
			until(t, "evidence", func() bool { return l.Status().Evidence == 1 })
			if got := p.evidence(); got != string(c.want) {
				t.Fatalf("evidence %q, want %q", got, c.want)
			}
			stop()
			l, _ = p.start()
			p.ship(a.node, a.boot, a.frame(11, 20))
			if c.want == fork { // nothing more of that boot, not even after a restart
				until(t, "quarantine", func() bool { return l.Status().Evidence >= 2 })
				if got := p.evidence(); !strings.HasPrefix(got, "fork quarantined") || l.Status().Records != 10 {
					t.Fatalf("evidence %q, %d records", got, l.Status().Records)
				}
				return
			}
			p.cosigned(l, a, 20)
			p.verifies(20)
		})
	}
	t.Run("an unknown node", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		a := newAuthor(t, p.keys, "e1")
		l, _ := p.start()
		p.ship(stranger.node, stranger.boot, stranger.frame(1, 5))
		p.ship(a.node, a.boot, a.frame(1, 5))
		p.cosigned(l, a, 5)
		if got := p.evidence(); got != string(unknownNode) {
			t.Fatalf("evidence %q", got)
		}
	})
}

// next is another boot of an author's node, which says what it follows.
func (a *author) next(counter, random uint64, previous string, size int, root [32]byte) *author {
	n := *a
	n.boot, n.entries = audit.BootID(counter, random), nil
	hash := tlog.Hash(root)
	r := &audit.Record{Kind: audit.KindBoot, Boot: &audit.BootRecord{Tenant: tenant, Node: a.node, Boot: n.boot, Previous: previous, PreviousSize: uint64(size), PreviousRoot: &hash}}
	body, err := r.Body()
	must(a.t.(*testing.T), err)
	n.entries = []audit.Entry{{Leaf: audit.AppendLeaf(nil, body, 1)}}
	return &n
}

// A boot that does not follow what the region has of its node - its journal was
// set back, or two write in its name - is evidence, and another one goes on.
func TestFutureBootIsEvidence(t *testing.T) {
	t.Parallel()
	type boots = map[string]func(first *author) *author
	for name, bad := range (boots{
		"the boot before ended earlier": func(a *author) *author { return a.next(2, 1, a.boot, 15, mustRoot(a, 15)) },
		"it ended with another tree":    func(a *author) *author { return a.next(2, 1, a.boot, 20, mustRoot(a, 19)) },
		"it follows itself":             func(a *author) *author { return a.next(2, 1, audit.BootID(2, 1), 20, mustRoot(a, 20)) },
		"its counter is too low":        func(a *author) *author { return a.next(1, 1, a.boot, 20, mustRoot(a, 20)) },
		"it is a second first boot":     func(a *author) *author { return a.next(5, 1, "", 0, [32]byte{}) },
	}) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			a := newAuthor(t, p.keys, "e1")
			l, stop := p.start()
			p.ship(a.node, a.boot, a.frame(1, 20))
			p.cosigned(l, a, 20)
			b := bad(a)
			p.ship(b.node, b.boot, b.frame(1, 10), b.frame(11, 20))
			until(t, "evidence", func() bool { return l.Status().Evidence >= 2 })
			if got := p.evidence(); got != "future-boot quarantined" {
				t.Fatal(got)
			}
			stop()
			l, _ = p.start()
			p.ship(b.node, b.boot, b.frame(21, 30))
			until(t, "evidence", func() bool { return l.Status().Evidence >= 3 })
			good := a.next(3, 1, a.boot, 20, mustRoot(a, 20))
			p.ship(good.node, good.boot, good.frame(1, 10))
			p.cosigned(l, good, 10)
			if n := l.Status().Records; n != 30 {
				t.Fatalf("%d records", n)
			}
		})
	}
	t.Run("it grows after the next one began", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		a := newAuthor(t, p.keys, "e1")
		l, _ := p.start()
		p.ship(a.node, a.boot, a.frame(1, 20))
		b := a.next(2, 1, a.boot, 20, mustRoot(a, 20))
		p.ship(b.node, b.boot, b.frame(1, 10))
		p.cosigned(l, b, 10)
		p.ship(a.node, a.boot, a.frame(21, 30))
		until(t, "evidence", func() bool { return p.evidence() == string(fork) })
		for _, s := range l.Status().Boots {
			if s.Boot == a.boot && s.String() != "complete to 20; forked" {
				t.Fatal(s.String())
			}
		}
	})
}

// A node that sends nothing but junk fills no disk and keeps nobody back.
func TestFloodIsBounded(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a, mallory := newAuthor(t, p.keys, "e1"), newAuthor(t, p.keys, "mallory")
	l, _ := p.start()
	const flood = 3 * perNodeKept
	for i := range flood {
		p.ship(mallory.node, mallory.boot, fmt.Append(nil, "junk ", i))
	}
	p.ship(mallory.node, mallory.boot, make([]byte, 900<<10))
	p.ship(a.node, a.boot, a.frame(1, 10))
	p.cosigned(l, a, 10)
	until(t, "counted", func() bool { return l.Status().Evidence == flood+1 })
	if n := len(strings.Fields(p.evidence())); n != perNodeKept {
		t.Fatalf("%d pieces of evidence are kept", n)
	}
	p.ship(a.node, a.boot, make([]byte, 900<<10)) // another node's is still kept, not as long
	until(t, "counted", func() bool { return l.Status().Evidence == flood+2 })
	err := filepath.Walk(filepath.Join(p.dir, evidenceDir), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Size() > keptGarbage {
			t.Errorf("%s: %d bytes", path, info.Size())
		}
		return err
	})
	must(t, err)
	if n := len(strings.Fields(p.evidence())); n != perNodeKept+1 {
		t.Fatalf("%d pieces of evidence are kept", n)
	}
}

func TestShippedAgainChangesNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, _ := p.start()
	p.ship(a.node, a.boot, a.frame(1, 10), a.frame(11, 20), a.frame(1, 10), a.frame(5, 15), a.frame(15, 30), a.frame(11, 20))
	p.cosigned(l, a, 30)
	p.ship(a.node, a.boot, a.frame(1, 30), a.frame(31, 32))
	p.cosigned(l, a, 32)
	p.verifies(32)
	if got := p.evidence(); got != "" {
		t.Fatalf("evidence %q", got)
	}
}

func TestArchiveOutlivesTheStream(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, stop := p.start()
	p.ship(a.node, a.boot, a.frame(1, 10), a.frame(11, 20))
	p.cosigned(l, a, 20)
	stop()
	p.hub.Shutdown()
	must(t, os.RemoveAll(p.conf.Dir)) // JetStream is gone; the node ships again, with other boundaries
	p.startHub()
	l, _ = p.start()
	p.ship(a.node, a.boot, a.frame(1, 25))
	p.cosigned(l, a, 25)
	p.receipt(a, 25)
	p.verifies(25)
}

func TestNodeThatIsEnrolledLaterIsReadFromItsBeginning(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	enrolled := &audit.Keys{}
	a := newAuthor(t, enrolled, "e1")
	l, stop := p.start()
	p.ship(a.node, a.boot, a.frame(1, 10))
	until(t, "evidence", func() bool { return l.Status().Evidence == 1 })
	until(t, "position", func() bool { pos, _ := l.archive.position(); return pos != "" })
	stop()
	file, err := audit.ParseKeys(append(p.keys.File(), enrolled.File()...))
	must(t, err)
	p.keys = file
	l, _ = p.start()
	p.ship(a.node, a.boot, a.frame(11, 20))
	p.cosigned(l, a, 20)
	p.verifies(20)
}

// A hub that starts may hear of a node's key late: what it has archived of the
// node counts from then on, though nobody else has it.
func TestArchiveIsReadWhenItsNodeIsKnown(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	region, err := audit.ParseKeys(p.keys.File())
	must(t, err)
	a := newAuthor(t, p.keys, "e1")
	known := p.keys
	l, stop := p.start()
	p.ship(a.node, a.boot, a.frame(1, 20))
	p.cosigned(l, a, 20)
	stop()
	p.hub.Shutdown()
	must(t, os.RemoveAll(p.conf.Dir))
	p.startHub()
	p.keys = region
	l, _ = p.start()
	for line := range strings.Lines(string(known.File())) {
		if key, ok := strings.CutPrefix(strings.TrimSpace(line), "node "); ok {
			must(t, p.keys.AddNode(key))
		}
	}
	until(t, "the archive is read", func() bool { return l.Status().Records == 20 && len(l.Status().Boots[0].Missing) == 0 })
	p.ship(a.node, a.boot, a.frame(21, 30))
	p.cosigned(l, a, 30)
	p.receipt(a, 30)
	p.keys = known
	p.verifies(30)
}

func TestArchiveIsRepairedFromTheStream(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, file string){
		"lost": func(t *testing.T, file string) { must(t, os.Remove(file)) },
		"torn": func(t *testing.T, file string) { must(t, os.Truncate(file, 20)) },
		"flip": func(t *testing.T, file string) { flip(t, file) },
	} {
		for _, s := range []span{{1, 10}, {11, 20}, {21, 30}} {
			t.Run(name+" "+s.file(), func(t *testing.T) {
				t.Parallel()
				p := newPlace(t)
				a := newAuthor(t, p.keys, "e1")
				l, stop := p.start()
				p.ship(a.node, a.boot, a.frame(1, 10), a.frame(11, 20), a.frame(21, 30))
				p.cosigned(l, a, 30)
				stop()
				damage(t, filepath.Join(p.dir, nodesDir, a.node, a.boot, s.file()))
				l, _ = p.start()
				l.Scrub(t.Context(), 0)
				until(t, "whole again", func() bool { return p.report().Verdict == audit.VerdictComplete })
				p.cosigned(l, a, 30)
				p.verifies(30)
			})
		}
	}
}

// flip changes a bit in the middle of a file.
func flip(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(file, b, 0o600))
}

func TestDeletedBatchShowsInTheExport(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, _ := p.start()
	p.ship(a.node, a.boot, a.frame(1, 10), a.frame(11, 20), a.frame(21, 30))
	p.cosigned(l, a, 30)
	file := filepath.Join(p.dir, nodesDir, a.node, a.boot, span{11, 20}.file())
	for _, damage := range []func() error{
		func() error { return os.Truncate(file, 20) },
		func() error { return os.Remove(file) },
	} {
		must(t, damage())
		if report := p.report(); report.Verdict != audit.VerdictGap {
			t.Fatalf("%+v", report)
		}
	}
}

// Receipts are not synced: what a loss of power leaves of one counts as none.
func TestTornReceiptCountsAsNone(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, stop := p.start()
	p.ship(a.node, a.boot, a.frame(1, 10))
	p.cosigned(l, a, 10)
	stop()
	file := filepath.Join(p.dir, nodesDir, a.node, a.boot, receiptFile)
	whole, err := os.ReadFile(file)
	must(t, err)
	for n := range whole {
		must(t, os.WriteFile(file, whole[:n], 0o600))
		if r := p.report(); r.Verdict != audit.VerdictComplete || r.Nodes[0].Boots[0].Cosigned["ra"] != 0 {
			t.Fatalf("%d bytes: %+v", n, r)
		}
		must(t, os.WriteFile(file, append(make([]byte, n), whole[n:]...), 0o600))
		if r := p.report(); r.Verdict != audit.VerdictComplete {
			t.Fatalf("zeros up to %d: %+v", n, r)
		}
	}
}

func TestOpenRefusesAnotherRegionsKey(t *testing.T) {
	t.Parallel()
	key, _ := signer(t, audit.RegionKeyName(tenant, "rb"))
	if _, err := Open(Config{Dir: t.TempDir(), Tenant: tenant, Region: "ra", Key: key, Keys: &audit.Keys{}}); err == nil {
		t.Fatal("opened with the key of another region")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
