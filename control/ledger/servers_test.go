package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
)

func leads(c *Config)   { c.Leading = func() bool { return true } }
func follows(c *Config) { c.Leading = func() bool { return false } }

// seen are the sizes of every receipt of a boot that the region stores.
func (p *place) seen(a *author) func() []uint64 {
	p.t.Helper()
	var mu sync.Mutex
	var sizes []uint64
	subject := "hf." + tenant + "." + p.name + ".rcpt." + a.node + "." + a.boot
	stop, err := p.region.Conn.Subscribe(p.t.Context(), "hf."+tenant+".stored."+p.name+"."+subject, func(m bus.Msg) {
		r, err := audit.OpenReceipt(m.Data, p.keys.Node(tenant, a.node), p.keys.Region(tenant, p.name))
		if err != nil {
			p.t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		sizes = append(sizes, r.Size)
	})
	must(p.t, err)
	p.t.Cleanup(stop)
	return func() []uint64 {
		mu.Lock()
		defer mu.Unlock()
		return append([]uint64(nil), sizes...)
	}
}

// Every server believes that it leads, and one is far behind: what the region
// has signed for only ever grows.
func TestNoReceiptGoesBackHoweverManyLead(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	sizes := p.seen(a)
	held := make(chan struct{})
	var ledgers []*Ledger
	for i := range 3 {
		l, _ := p.startServer(i, func(c *Config) {
			leads(c)
			if i == 2 {
				c.Input, c.Peers = slowInput{jetstream.Input{Region: p.region}, held}, nil
			}
		})
		ledgers = append(ledgers, l)
	}
	for n := 1; n <= 400; n += 4 {
		p.ship(a.node, a.boot, a.frame(n, n+3))
	}
	p.receipt(a, 400)
	for range 20 { // the one that is behind signs what it has, after the others did
		held <- struct{}{}
	}
	close(held)
	for _, l := range ledgers {
		p.cosigned(l, a, 400)
	}
	if got := sizes(); len(got) < 2 {
		t.Fatalf("receipts of sizes %v", got)
	} else {
		for i := 1; i < len(got); i++ {
			if got[i] <= got[i-1] {
				t.Fatalf("a receipt of %d records after one of %d: %v", got[i], got[i-1], got)
			}
		}
	}
	p.verifies(400, p.dirs...)
}

// slowInput gives out a batch only when it may.
type slowInput struct {
	jetstream.Input
	may chan struct{}
}

func (s slowInput) Records(ctx context.Context, position string, take func(node, boot string, frame []byte) error, settled func(position string) error) error {
	n := 0
	return s.Input.Records(ctx, position, func(node, boot string, frame []byte) error {
		select {
		case <-s.may:
		case <-ctx.Done():
			return ctx.Err()
		}
		n++
		if err := take(node, boot, frame); err != nil {
			return err
		}
		return settled(fmt.Sprint("held ", n))
	}, settled)
}

// A signed tree that contradicts the archive is never replaced in silence: both
// are kept, and what the region has signed for stays.
func TestContradictionOfTheRegionsOwnReceipt(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	a.batch(1, 20)
	lie := a.fork(15)
	receipt, err := audit.Cosign(lie.batch(11, 20).Checkpoint, p.keys.Node(tenant, a.node), p.key)
	must(t, err)
	must(t, p.region.Conn.Stream("ra", "RCPT_"+tenant).Put(t.Context(), "hf."+tenant+".ra.rcpt."+a.node+"."+a.boot, receipt))
	l, _ := p.startServer(0, leads)
	p.ship(a.node, a.boot, a.frame(1, 10), a.frame(11, 20), a.frame(21, 30))
	select {
	case alarm := <-p.alarms:
		if alarm.Reason != string(fork) || alarm.Boot != a.boot {
			t.Fatalf("%+v", alarm)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no alarm")
	}
	until(t, "evidence", func() bool { return strings.Contains(p.evidence(), "fork") })
	if r, ok := p.lastReceipt(a); !ok || r.Size != 20 || r.Root == mustRoot(a, 20) {
		t.Fatalf("%+v", r)
	}
	for _, b := range l.Status().Boots {
		if !b.Forked {
			t.Fatalf("%+v", b)
		}
	}
}

func mustRoot(a *author, size int) [32]byte {
	var tree audit.Frontier
	for _, e := range a.entries[:size] {
		tree.Append(e.Hash())
	}
	return tree.Root()
}

// A server with an empty folder leads, and the stream has no more than the last
// batch: it gets the rest from the others before it signs.
func TestReplacedServerFetchesBeforeItSigns(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a, b := newAuthor(t, p.keys, "e1"), newAuthor(t, p.keys, "e2")
	first, stopFirst := p.startServer(0, leads)
	for n := 1; n <= 300; n += 10 {
		p.ship(a.node, a.boot, a.frame(n, n+9))
		p.ship(b.node, b.boot, b.frame(n, n+9))
	}
	p.cosigned(first, a, 300)
	p.cosigned(first, b, 300)
	stopFirst()
	p.startServer(0, follows)
	p.purge(a, b)
	p.dir = p.dirs[2]
	third, _ := p.startServer(2, leads)
	p.ship(a.node, a.boot, a.frame(301, 310))
	p.receipt(a, 310)
	if missing := third.Status().Boots[0].Missing; len(missing) > 0 {
		t.Fatalf("signed while records %v were missing", missing)
	}
	p.cosigned(third, a, 310)
	p.cosigned(third, b, 300)
	for _, dir := range []string{p.dirs[0], p.dirs[2]} {
		until(t, "complete", func() bool { return p.reportOf(dir).Verdict == audit.VerdictComplete })
		if r := p.reportOf(dir); len(r.Nodes) != 2 || r.Nodes[0].Boots[0].To != 310 || r.Nodes[1].Boots[0].To != 300 {
			t.Fatalf("%+v", r)
		}
	}
}

// purge leaves the stream the last batch of each boot.
func (p *place) purge(authors ...*author) {
	p.t.Helper()
	for _, a := range authors {
		subject := "hf." + tenant + "." + p.name + ".rec." + a.node + "." + a.boot
		s := p.region.Conn.Stream(p.name, "REC_"+tenant)
		m, err := s.Last(p.t.Context(), subject)
		must(p.t, err)
		must(p.t, s.PurgeBefore(p.t.Context(), subject, m.Seq))
	}
}

// A node shipped all of its records to one region and some to the other, and
// died with its disk: both regions come to the same.
func TestRegionsReconcileWithoutTheNode(t *testing.T) {
	t.Parallel()
	ra, rb := twoPlaces(t)
	a := newAuthor(t, ra.keys, "e1")
	la, _ := ra.startServer(0, leads)
	lb, _ := rb.startServer(0, leads)
	for n := 1; n <= 1000; n += 20 {
		ra.ship(a.node, a.boot, a.frame(n, n+19))
		if n <= 400 {
			rb.ship(a.node, a.boot, a.frame(n, n+19))
		}
	}
	rb.purge(a)
	for l, p := range map[*Ledger]*place{la: ra, lb: rb} {
		p.cosigned(l, a, 1000)
		p.receipt(a, 1000)
		p.verifies(1000)
		until(t, "both regions' receipts", func() bool {
			b := l.Status().Boots[0]
			return b.Regions["ra"] == 1000 && b.Regions["rb"] == 1000
		})
		if got := l.Status().Boots[0].String(); got != "complete to 1000; after 1000 unknown" {
			t.Error(got)
		}
	}
}

// A node signed two histories, one for each region: both regions find out, keep
// both, and neither takes the other's.
func TestRegionsFindAForkBetweenThem(t *testing.T) {
	t.Parallel()
	ra, rb := twoPlaces(t)
	a := newAuthor(t, ra.keys, "e1")
	a.batch(1, 100)
	lie := a.fork(40)
	for _, p := range []*place{ra, rb} {
		p.startServer(0, leads)
	}
	ra.ship(a.node, a.boot, a.frame(1, 50), a.frame(51, 100))
	rb.ship(a.node, a.boot, lie.frame(1, 50), lie.frame(51, 100))
	for _, p := range []*place{ra, rb} {
		select {
		case alarm := <-p.alarms:
			if alarm.Reason != string(fork) {
				t.Fatalf("%s: %+v", p.name, alarm)
			}
		case <-time.After(15 * time.Second):
			t.Fatalf("%s does not see the fork", p.name)
		}
		until(t, "evidence", func() bool { return strings.Contains(p.evidence(), "fork") })
	}
	if ra.lastRoot(a) == rb.lastRoot(a) {
		t.Fatal("one region took the other's history")
	}
}

func (p *place) lastRoot(a *author) [32]byte {
	r, ok := p.lastReceipt(a)
	if !ok {
		p.t.Fatal("no receipt")
	}
	return r.Root
}

// Batches that were archived are damaged or gone, and the stream has them no
// more: they are found, named, and fetched from another server.
func TestDamagedArchiveIsRepairedFromPeers(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	keeps, _ := p.startServer(1, leads)
	l, stop := p.startServer(0, follows)
	for n := 1; n <= 100; n += 10 {
		p.ship(a.node, a.boot, a.frame(n, n+9))
	}
	p.cosigned(l, a, 100)
	p.cosigned(keeps, a, 100)
	p.purge(a)
	boot := filepath.Join(p.dir, nodesDir, a.node, a.boot)
	damage := func() {
		flip(t, filepath.Join(boot, span{11, 20}.file()))
		must(t, os.Remove(filepath.Join(boot, span{41, 50}.file())))
		must(t, os.Truncate(filepath.Join(boot, span{71, 80}.file()), 10))
		must(t, os.Remove(filepath.Join(boot, span{91, 100}.file())))
	}
	damage()
	l.Scrub(t.Context(), 0) // while it runs
	until(t, "whole again", func() bool { return p.report().Verdict == audit.VerdictComplete })
	stop()
	damage()
	must(t, os.Remove(filepath.Join(boot, receiptFile)))
	flip(t, filepath.Join(p.dir, positionFile))
	l, _ = p.startServer(0, follows) // while it is down
	l.Scrub(t.Context(), 0)
	until(t, "whole again", func() bool { return p.report().Verdict == audit.VerdictComplete })
	p.cosigned(l, a, 100)
	p.verifies(100)
}

// Nobody has what is gone: the ranges are named, and what comes after goes on.
// What only one of several servers has of a hole is fetched from it, also when
// nobody has the hole's beginning, or an earlier hole.
func TestLossIsOnlyWhatNobodyHas(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	other, _ := p.startServer(1, leads)
	l, _ := p.startServer(0, follows)
	for n := 1; n <= 80; n += 10 {
		p.ship(a.node, a.boot, a.frame(n, n+9))
	}
	p.cosigned(other, a, 80)
	p.cosigned(l, a, 80)
	p.purge(a)
	for server, lost := range [][]span{{{11, 20}, {21, 30}, {31, 40}, {61, 70}}, {{11, 20}}} {
		for _, s := range lost {
			must(t, os.Remove(filepath.Join(p.dirs[server], nodesDir, a.node, a.boot, s.file())))
		}
	}
	other.Scrub(t.Context(), 0)
	l.Scrub(t.Context(), 0)
	until(t, "named", func() bool {
		return l.Status().Boots[0].String() == "complete to 10; missing [[11,20]], which no server has; after 80 unknown"
	})
	if r := p.report(); r.Verdict != audit.VerdictGap || fmt.Sprint(r.Nodes[0].Boots[0].Gaps) != "[[11,20]]" {
		t.Fatalf("%+v", r)
	}
}

// A node that never rests has its holes filled and named as another one has, and
// its records counter-signed meanwhile.
func TestHolesOfABusyNode(t *testing.T) {
	t.Parallel()
	for name, has := range map[string]bool{"another server has it": true, "nobody has it": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			a := newAuthor(t, p.keys, "e1")
			other, _ := p.startServer(1, follows)
			l, stop := p.startServer(0, leads)
			for n := 1; n <= 50; n += 10 {
				p.ship(a.node, a.boot, a.frame(n, n+9))
			}
			p.cosigned(l, a, 50)
			p.cosigned(other, a, 50)
			p.purge(a)
			stop()
			lost := p.dirs
			if has {
				lost = p.dirs[:1]
			}
			for _, dir := range lost[:min(len(lost), 2)] {
				must(t, os.Remove(filepath.Join(dir, nodesDir, a.node, a.boot, span{21, 30}.file())))
			}
			ctx, cancel := context.WithCancel(t.Context())
			var shipping sync.WaitGroup
			shipping.Go(func() {
				for n := 51; ctx.Err() == nil; n++ {
					p.ship(a.node, a.boot, a.frame(n, n))
					time.Sleep(20 * time.Millisecond) // the pace of the node
				}
			})
			defer shipping.Wait()
			defer cancel()
			l, _ = p.startServer(0, leads)
			want := "[]"
			if !has {
				want = "[[21,30]]"
			}
			until(t, "signed and named", func() bool {
				b := l.Status().Boots[0]
				return b.Cosigned >= 250 && fmt.Sprint(b.Missing) == want
			})
		})
	}
}

func TestLossIsNamedAndDoesNotStopTheBoot(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, _ := p.startServer(0, leads)
	for n := 1; n <= 70; n += 10 {
		p.ship(a.node, a.boot, a.frame(n, n+9))
	}
	p.cosigned(l, a, 70)
	p.purge(a)
	for _, s := range []span{{11, 20}, {31, 40}, {41, 50}} {
		must(t, os.Remove(filepath.Join(p.dir, nodesDir, a.node, a.boot, s.file())))
	}
	l.Scrub(t.Context(), 0)
	p.ship(a.node, a.boot, a.frame(71, 80))
	p.receipt(a, 80)
	until(t, "named", func() bool {
		return l.Status().Boots[0].String() == "complete to 10; missing [[11,20] [31,50]], which no server has; after 80 unknown"
	})
	if r := p.report(); r.Verdict != audit.VerdictGap || fmt.Sprint(r.Nodes[0].Boots[0].Gaps) != "[[11,20] [31,50]]" {
		t.Fatalf("%+v", r)
	}
	held, lacking := l.Lacking(a.node, a.boot)
	if held != 10 || !lacking {
		t.Fatalf("%d, %v", held, lacking)
	}
	p.ship(a.node, a.boot, a.frame(5, 20), a.frame(25, 45), a.frame(41, 65)) // the node still had it
	until(t, "whole again", func() bool { return p.report().Verdict == audit.VerdictComplete })
	p.verifies(80)
	until(t, "nothing is missing", func() bool { return len(l.Status().Boots[0].Missing) == 0 })
	if got := l.Status(); got.Evidence > 0 {
		t.Fatalf("%+v", got)
	}
}

// What fills a hole must be what the region signed for.
func TestHoleIsNotFilledWithAnotherHistory(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]span{"begins otherwise": {5, 20}, "begins otherwise, a part": {5, 15}, "ends otherwise": {11, 20}, "goes on otherwise": {11, 25}, "at the end": {61, 70}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			a := newAuthor(t, p.keys, "e1")
			l, _ := p.startServer(0, leads)
			for n := 1; n <= 70; n += 10 {
				p.ship(a.node, a.boot, a.frame(n, n+9))
			}
			p.cosigned(l, a, 70)
			p.purge(a)
			hole := span{11, 20}
			lie := a.fork(15)
			if strings.HasPrefix(name, "begins") {
				lie = a.fork(8)
			}
			if name == "at the end" {
				hole, lie = span{61, 70}, a.fork(65)
				p.drop("REC_" + tenant)
			}
			must(t, os.Remove(filepath.Join(p.dir, nodesDir, a.node, a.boot, hole.file())))
			l.Scrub(t.Context(), 0)
			p.ship(a.node, a.boot, lie.frame(int(at.first), int(at.last)))
			until(t, "evidence", func() bool { return p.evidence() == string(fork) })
			if r := p.report(); r.Verdict != audit.VerdictGap {
				t.Fatalf("%+v", r)
			}
		})
	}
}

// drop deletes a stream and makes it anew.
func (p *place) drop(stream string) {
	p.t.Helper()
	a, err := p.region.Conn.Ask(p.t.Context(), "$JS."+p.name+".API.STREAM.DELETE."+stream, "", nil)
	if err != nil || !strings.Contains(string(a.Data), `"success":true`) {
		p.t.Fatalf("%v, %s", err, a.Data)
	}
	must(p.t, p.region.Create(p.t.Context()))
}

// The stream keeps what a server misses, and of everything else the last batch.
func TestSweepKeepsFencesAndWhatIsMissed(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a, b := newAuthor(t, p.keys, "e1"), newAuthor(t, p.keys, "e2")
	var servers []*Ledger
	for i := range 3 {
		l, stop := p.startServer(i, func(c *Config) { c.Leading = func() bool { return i == 0 } })
		servers = append(servers, l)
		if i == 2 {
			stop() // two of three suffice
		}
	}
	var swept atomic.Int64
	for i, l := range servers[:2] {
		s := &jetstream.Sweeper{
			Region: p.region, Server: fmt.Sprint("s", i), Servers: 3, Every: 20 * time.Millisecond, Leading: func() bool { return i == 0 }, Log: l.cfg.Log,
			Kept: func() (string, []string) {
				swept.Add(1)
				at, boots := l.Kept()
				var but []string
				for _, b := range boots {
					but = append(but, b.Node+"."+b.Boot)
				}
				return at, but
			},
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
	}
	for n := 1; n <= 100; n += 10 {
		p.ship(a.node, a.boot, a.frame(n, n+9))
		p.ship(b.node, b.boot, b.frame(n+10, n+19)) // its first batch never comes
	}
	messages := func(a *author) uint64 {
		all, err := p.region.Conn.Stream("ra", "REC_"+tenant).Subjects(t.Context(), "hf."+tenant+".ra.rec."+a.node+"."+a.boot)
		must(t, err)
		return all["hf."+tenant+".ra.rec."+a.node+"."+a.boot]
	}
	until(t, "swept", func() bool { return messages(a) == 1 })
	if n := messages(b); n != 10 {
		t.Fatalf("%d batches that were missed are left of 10", n)
	}
	p.ship(b.node, b.boot, b.frame(1, 10))
	p.cosigned(servers[0], b, 110)
	until(t, "swept", func() bool { return messages(b) == 1 })
	m, err := p.region.Conn.Stream("ra", "REC_"+tenant).Last(t.Context(), "hf."+tenant+".ra.rec."+a.node+"."+a.boot)
	must(t, err)
	if last, err := audit.DecodeBatch(m.Data); err != nil || last.Last() != 100 {
		t.Fatalf("the fence is %v, %v", last, err)
	}
}

// One of three is not most: what only the server that leads has archived stays.
func TestSweepWaitsForMostServers(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, _ := p.startServer(0, leads)
	var swept atomic.Int64
	s := &jetstream.Sweeper{
		Region: p.region, Server: "s0", Servers: 3, Every: 10 * time.Millisecond, Leading: func() bool { swept.Add(1); return true }, Log: l.cfg.Log,
		Kept: func() (string, []string) { at, _ := l.Kept(); return at, nil },
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	p.ship(a.node, a.boot, a.frame(1, 10), a.frame(11, 20), a.frame(21, 30))
	p.cosigned(l, a, 30)
	from := swept.Load()
	until(t, "ten sweeps", func() bool { return swept.Load() > from+10 })
	if _, err := p.region.Conn.Stream("ra", "REC_"+tenant).Next(t.Context(), 1, "hf."+tenant+".ra.rec."+a.node+"."+a.boot); err != nil {
		t.Fatal(err)
	}
	m, err := p.region.Conn.Stream("ra", "REC_"+tenant).Next(t.Context(), 1, "hf."+tenant+".ra.rec."+a.node+"."+a.boot)
	if err != nil || m.Seq != 1 {
		t.Fatalf("the first message left is %d, %v", m.Seq, err)
	}
}

// Receipts that somebody deleted come back, without any record coming.
func TestReceiptsComeBack(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, _ := p.startServer(0, leads)
	p.ship(a.node, a.boot, a.frame(1, 10))
	p.receipt(a, 10)
	p.cosigned(l, a, 10)
	p.drop("RCPT_" + tenant)
	if _, ok := p.lastReceipt(a); ok {
		t.Fatal("a receipt outlived its stream")
	}
	l.Resign() // as the hub does when it has made a stream anew
	p.receipt(a, 10)
}

// A region of one server has lost its folder, and its stream has the last batch
// only: its own receipt proves that what comes continues what it had. With a
// receipt of another history it takes nothing.
func TestBridgeOverWhatIsLost(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		t.Run(fmt.Sprint(same), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			a := newAuthor(t, p.keys, "e1")
			l, stop := p.start()
			p.ship(a.node, a.boot, a.frame(1, 10), a.frame(11, 20), a.frame(21, 30))
			p.cosigned(l, a, 30)
			p.purge(a)
			stop()
			must(t, os.RemoveAll(p.dir))
			if !same {
				receipt, err := audit.Cosign(a.fork(5).batch(1, 30).Checkpoint, p.keys.Node(tenant, a.node), p.key)
				must(t, err)
				must(t, p.region.Conn.Stream("ra", "RCPT_"+tenant).Put(t.Context(), "hf."+tenant+".ra.rcpt."+a.node+"."+a.boot, receipt))
			}
			l, _ = p.start()
			p.ship(a.node, a.boot, a.frame(31, 40))
			status := func() string { return fmt.Sprint(l.Status().Boots) }
			if !same {
				until(t, "named", func() bool {
					return status() == "[complete to 0; missing [[1,40]], which no server has; after 40 unknown]"
				})
				return
			}
			p.receipt(a, 40)
			until(t, "named", func() bool {
				return status() == "[complete to 0; missing [[1,20]], which no server has; after 40 unknown]"
			})
			p.ship(a.node, a.boot, a.frame(1, 20)) // the node still had it
			until(t, "whole again", func() bool { return p.report().Verdict == audit.VerdictComplete })
			p.verifies(40)
		})
	}
}

// Batches behind a gap that nothing vouches for stay where they are, and count
// again when the gap is closed.
func TestBatchesBehindAGapAreAdopted(t *testing.T) {
	t.Parallel()
	for name, again := range map[string][2]int{"the same": {11, 20}, "other boundaries": {8, 25}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			a := newAuthor(t, p.keys, "e1")
			l, stop := p.start()
			p.ship(a.node, a.boot, a.frame(1, 10), a.frame(11, 20), a.frame(21, 30), a.frame(31, 40))
			p.cosigned(l, a, 40)
			stop()
			boot := filepath.Join(p.dir, nodesDir, a.node, a.boot)
			must(t, os.Remove(filepath.Join(boot, span{11, 20}.file())))
			must(t, os.Remove(filepath.Join(boot, receiptFile)))
			p.drop("REC_" + tenant)
			p.drop("RCPT_" + tenant)
			l, _ = p.start()
			if got := l.Status().Boots[0].String(); got != "complete to 10; missing [[11,20]]; after 40 unknown" {
				t.Fatal(got)
			}
			p.ship(a.node, a.boot, a.frame(again[0], again[1]))
			p.cosigned(l, a, 40)
			p.verifies(40)
		})
	}
}

// Small batches are put together, and it is the same ledger: verified, given to
// others, read again after a restart, while it grows.
func TestSmallBatchesArePutTogether(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, stop := p.startServer(0, leads)
	for n := 1; n <= 2500; n += 25 {
		p.ship(a.node, a.boot, a.frame(n, n+24))
	}
	p.cosigned(l, a, 2500)
	if spans, err := l.archive.spans(a.node, a.boot); err != nil || len(spans) > 25 || spans[0] != (span{1, 1000}) {
		t.Fatalf("%d files, %v", len(spans), err)
	}
	p.verifies(2500)
	p.purge(a)
	other, _ := p.startServer(1, follows)
	until(t, "fetched", func() bool {
		s := other.Status().Boots
		return len(s) > 0 && s[0].Held == 2500 && len(s[0].Missing) == 0
	})
	p.verifies(2500, p.dirs[1])
	must(t, os.Remove(filepath.Join(p.dir, nodesDir, a.node, a.boot, span{1, 1000}.file())))
	l.Scrub(t.Context(), 0)
	until(t, "whole again", func() bool { return p.report().Verdict == audit.VerdictComplete })
	stop()
	l, _ = p.startServer(0, leads)
	p.ship(a.node, a.boot, a.frame(2501, 2510))
	p.cosigned(l, a, 2510)
	p.verifies(2510)
}

// An export that is made while batches are put together misses nothing.
func TestExportWhileBatchesArePutTogether(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := newAuthor(t, p.keys, "e1")
	l, err := Open(Config{Dir: p.dir, Tenant: tenant, Region: "ra", Key: p.key, Keys: p.keys, Input: jetstream.Input{Region: p.region}})
	must(t, err)
	const records, each = 800, 5
	var groups [][]span
	for n := 1; n <= records; n += each {
		must(t, l.archive.keep(a.batch(n, n+each-1)))
		if n%(4*each) == 1 {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], span{uint64(n), uint64(n + each - 1)})
	}
	merged := make(chan error, 1)
	go func() {
		var errs []error
		for _, g := range groups {
			errs = append(errs, l.merge(bootKey{a.node, a.boot}, g))
		}
		merged <- errors.Join(errs...)
	}()
	for done := false; !done; {
		select {
		case err := <-merged:
			must(t, err)
			done = true
		default:
		}
		p.verifies(records)
	}
	if spans, err := l.archive.files(a.node, a.boot); err != nil || len(spans) != len(groups) {
		t.Fatalf("%d files, %v", len(spans), err)
	}
}
