package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/hub"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/needs"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
)

// Fault drills over the whole product: real processes, files, signals. After each,
// every answer that was said to be recorded has its record in the ledgers of both
// regions, counter-signed, once, in order, with the leaf that the answer named;
// or the loss is named with its exact range.
//
// A clock that jumps is no drill: a process of its own cannot be given another
// clock without a library that stands between it and the kernel. Packages that
// read a clock take it as an argument and have their own tests.

// Nodes and hub servers are killed at random moments.
func TestRecordsOutliveKills(t *testing.T) {
	t.Parallel()
	d := newDrill(t)
	d.whole("at first")
	for range rounds(3, 20) {
		d.sometime(300 * time.Millisecond)
		d.kill("one")
		d.restart("one")
	}
	d.whole("node killed again and again")
	for _, server := range []string{"eu-1", "us-1"} {
		for range rounds(1, 5) {
			d.sometime(300 * time.Millisecond)
			d.kill(server)
			d.goesOn("one", 20)
			d.startHubs(server)
		}
		d.whole(server + " killed")
	}
	for range rounds(1, 5) {
		d.sometime(300 * time.Millisecond)
		d.kill("eu-1", "two")
		d.restart("two")
		d.startHubs("eu-1")
	}
	d.whole("node and hub killed together")
}

// Regions are away, one after the other and both, and come back in either order.
func TestRecordsOutliveRegions(t *testing.T) {
	t.Parallel()
	d := newDrill(t)
	for _, order := range [][]string{{"eu-1", "us-1"}, {"us-1", "eu-1"}} {
		d.sometime(200 * time.Millisecond)
		d.kill(order...)
		d.goesOn("one", 50)
		d.kill("one")
		d.restart("one") // while nobody hears it
		d.goesOn("one", 50)
		d.startHubs(order[0])
		d.goesOn("two", 50)
		d.startHubs(order[1])
		d.whole("both regions were away, " + order[0] + " came first")
	}
	for range rounds(2, 10) {
		for _, l := range d.second { // what is shipped arrives; that it did is not heard
			l.Mute()
		}
		d.sometime(time.Second)
		sever(d.second)
		d.goesOn("two", 20)
		heal(d.second)
	}
	d.whole("acknowledgements were lost")
	sever(d.between)
	sever(d.second[:1])
	d.goesOn("two", 50)
	d.kill("two")
	d.restart("two")
	heal(d.second)
	heal(d.between)
	d.whole("the regions did not hear one another")
}

// stores are the files below a folder whose names match one of the patterns.
func stores(t *testing.T, dir string, patterns ...string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		for _, p := range patterns {
			if match, _ := filepath.Match(p, filepath.Base(path)); match && err == nil && !e.IsDir() {
				out = append(out, path)
			}
		}
		return err
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("no %v below %s: %v", patterns, dir, err)
	}
	return out
}

// damage flips a bit of a file, cuts it, or removes it.
func (d *drill) damage(file string) {
	d.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		d.t.Fatal(err)
	}
	what := "removed"
	switch n := len(b); {
	case n > 0 && d.rnd.IntN(3) == 0:
		at := d.rnd.IntN(n)
		b[at] ^= 1 << d.rnd.IntN(8)
		what, err = fmt.Sprintf("flipped at %d of %d", at, n), os.WriteFile(file, b, 0o600)
	case n > 0 && d.rnd.IntN(2) == 0:
		at := d.rnd.IntN(n)
		what, err = fmt.Sprintf("cut at %d of %d", at, n), os.Truncate(file, int64(at))
	default:
		err = os.Remove(file)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Logf("%s %s", file[strings.Index(file, "hubs")+5:], what)
}

// drop deletes a region's stream, as its operator can.
func (d *drill) drop(server, stream string) {
	d.t.Helper()
	i := slices.IndexFunc(d.Servers, func(s assembly.ServerPlace) bool { return s.Name == server })
	cfg, err := assembly.AdminOf(d.Layout)
	if err != nil {
		d.t.Fatal(err)
	}
	conn, err := bus.Connect(d.ctx, bus.Config{URL: cfg.URLs[i], Creds: filepath.Join(d.Hub(server), "hub.creds"), CA: d.CAFile()})
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	a, err := conn.Ask(d.ctx, "$JS."+d.Servers[i].Region+".API.STREAM.DELETE."+stream+"_bank", "", nil)
	if err != nil || !strings.Contains(string(a.Data), `"success":true`) {
		d.t.Fatalf("delete %s: %v, %s", stream, err, a.Data)
	}
}

// Streams are deleted by an operator, their store is damaged or gone.
func TestRecordsOutliveJetStream(t *testing.T) {
	t.Parallel()
	d := newDrill(t)
	for _, stream := range []string{"REC", "RCPT"} {
		d.drop("eu-1", stream)
	}
	d.whole("REC and RCPT of eu deleted while it ran")
	store := filepath.Join(d.data("us-1"), "nats")
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	d.goesOn("one", 50)
	d.kill("us-1")
	d.startHubs("us-1")
	d.whole("store of us deleted while it ran, and the server killed")
	store = filepath.Join(d.data("eu-1"), "nats", "jetstream")
	for range rounds(2, 30) {
		d.kill("eu-1")
		files := stores(t, store, "*.blk", "meta.inf", "meta.sum", "index.db", "o.dat")
		for _, i := range d.rnd.Perm(len(files))[:min(len(files), 1+d.rnd.IntN(3))] {
			d.damage(files[i])
		}
		d.startHubs("eu-1")
		d.whole("store damaged")
	}
	d.kill("eu-1")
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	d.startHubs("eu-1")
	d.whole("store deleted while it was down")
}

// The archive of a region is damaged, or gone.
func TestRecordsOutliveArchives(t *testing.T) {
	t.Parallel()
	d := newDrill(t)
	for _, server := range []string{"eu-1", "us-1"} {
		d.kill(server)
		if err := os.RemoveAll(assembly.LedgerDir(d.data(server))); err != nil {
			t.Fatal(err)
		}
		d.startHubs(server)
		d.whole("ledger of " + server + " deleted")
	}
	for range rounds(2, 30) {
		server := d.Servers[d.rnd.IntN(2)].Name
		d.kill(server)
		files := stores(t, assembly.LedgerDir(d.data(server)), "*.batch", "*.blobs", "receipt", "position")
		for _, i := range d.rnd.Perm(len(files))[:min(len(files), 1+d.rnd.IntN(3))] {
			d.damage(files[i])
		}
		d.startHubs(server)
		d.whole("ledger damaged")
	}
}

// stop ends a node in order.
func (d *drill) stop(node string) {
	d.t.Helper()
	if code := d.Process(node).End(syscall.SIGTERM); code != 0 {
		d.t.Errorf("%s: exit code %d", node, code)
	}
}

// journal is a node's folder of it.
func (d *drill) journal(node string) string {
	return edge.JournalDir(filepath.Join(d.Node(node), "data"))
}

// keep copies a node's journal, and returns what puts the copy in its place.
func (d *drill) keep(node string) (restore func()) {
	d.t.Helper()
	backup := filepath.Join(d.t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(d.journal(node))); err != nil {
		d.t.Fatal(err)
	}
	return func() {
		d.t.Helper()
		if err := errors.Join(os.RemoveAll(d.journal(node)), os.CopyFS(d.journal(node), os.DirFS(backup))); err != nil {
			d.t.Fatal(err)
		}
	}
}

// boot is what a node runs.
func (d *drill) boot(node string) string {
	d.t.Helper()
	return status(d.t, *d.askers[node].url.Load()).Boot
}

// A node's journal is set back to an older copy of it. What it writes then follows
// what is not its past any more: no region merges it, both raise an alarm, the node
// goes on deciding. With its next start it follows on what the regions know of, and
// verification names the records of the boot between as missing from the ledgers;
// they are in the journal, and their beginning is kept as evidence.
func TestRestoredJournalIsAFork(t *testing.T) {
	t.Parallel()
	d := newDrill(t)
	lost := loss{}
	d.whole("at first")
	d.stop("one")
	restore := d.keep("one")
	d.restart("one")
	d.whole("one: copied between two boots")
	d.setBack("one", restore, lost)

	two := d.Process("two")
	err := two.Signal(syscall.SIGSTOP) // a snapshot of the disk while it runs
	restore = d.keep("two")
	if err := errors.Join(err, two.Signal(syscall.SIGCONT)); err != nil {
		t.Fatal(err)
	}
	d.goOn()
	d.holds("two: copied within a boot", audit.VerdictGap, lost)
	d.setBack("two", restore, lost)
	if ahead := admins(records(t, d.Fleet, "two"), "region_ahead_of_journal"); len(ahead) == 0 {
		t.Error("two does not record that the regions have more of it than it has")
	}
}

// setBack stops a node, restores its journal, and has the node run on it; what is
// lost by that is added to lost.
func (d *drill) setBack(node string, restore func(), lost loss) {
	d.t.Helper()
	d.stop(node)
	restore()
	d.restart(node)
	d.goesOn(node, 20)
	forked := d.boot(node)
	wait(d.t, "an alarm", func() bool { return d.hook.has(hub.AlarmLedger, node, 0, false) })
	for _, s := range d.Servers {
		wait(d.t, "evidence", func() bool {
			return slices.ContainsFunc(d.evidence(s.Name), func(name string) bool { return strings.HasPrefix(name, "future-boot-") })
		})
	}
	d.goesOn(node, 20)
	d.stop(node)
	d.restart(node)
	d.goOn()
	for _, r := range records(d.t, d.Fleet, node) {
		if r.Boot != nil && r.Boot.Previous == forked {
			lost[node+"/"+forked] = []lostRange{{audit.Range{From: 1, To: r.Boot.PreviousSize}, true}}
		}
	}
	d.t.Logf("%s: not in the ledgers: %v", node, lost)
	d.holds(node+" went on from an older copy", audit.VerdictGap, lost)
}

// A node dies with its disk: the regions have it up to the same record, and what it
// answered behind that is lost. Then both regions lose the same batch of it.
func TestNodeDiesWithItsDisk(t *testing.T) {
	t.Parallel()
	d := newDrill(t)
	d.whole("at first")
	two := d.askers["two"]
	sever(d.second[1:]) // its own region hears nothing more of it
	d.sometime(time.Second)
	d.goesOn("two", 30)
	boot := d.boot("two")
	d.kill("two")
	two.end()
	two.gone = true
	if err := os.RemoveAll(filepath.Join(d.Node("two"), "data")); err != nil {
		t.Fatal(err)
	}
	var last uint64
	same := 0
	wait(t, "both regions have the same of it", func() bool {
		eu, us := d.complete("eu-1", "two", boot), d.complete("us-1", "two", boot)
		if eu == us && eu == last {
			same++
		} else {
			last, same = eu, 0
		}
		return same > 20 // nothing is on its way any more
	})
	lost := loss{"two/" + boot: {{Range: audit.Range{From: last + 1, To: math.MaxUint64}}}}
	d.goOn()
	d.holds("node died with its disk", audit.VerdictComplete, lost)
	with, _ := two.known()
	t.Logf("complete to %d; %d answers have a record", last, with)

	d.kill("eu-1", "us-1")
	var gap audit.Range
	files := stores(t, filepath.Join(assembly.LedgerDir(d.data("eu-1")), "nodes", "two", boot), "*.batch")
	name := filepath.Base(files[len(files)/2])
	if _, err := fmt.Sscanf(name, "%020d-%020d.batch", &gap.From, &gap.To); err != nil {
		t.Fatal(err)
	}
	for _, s := range d.Servers {
		d.without(filepath.Join(assembly.LedgerDir(d.data(s.Name)), "nodes", "two", boot), gap)
		store, err := filepath.Glob(filepath.Join(d.data(s.Name), "nats", "jetstream", "*", "streams", "REC_bank"))
		if err != nil || len(store) != 1 || os.RemoveAll(store[0]) != nil {
			t.Fatal(store, err)
		}
	}
	d.startHubs("eu-1", "us-1")
	lost["two/"+boot] = append(lost["two/"+boot], lostRange{gap, true})
	d.goOn()
	d.holds("a batch is gone in both regions", audit.VerdictGap, lost)
	wait(t, "an alarm", func() bool { return d.hook.has(hub.AlarmLedger, "two", 0, false) })
}

// complete is up to where a region has a boot, counter-signed.
func (d *drill) complete(server, node, boot string) (to uint64) {
	d.t.Helper()
	dir := d.export(server)
	defer os.RemoveAll(dir)
	report, err := audit.Verify(os.DirFS(dir), d.keys)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, n := range report.Nodes {
		for _, b := range n.Boots {
			if n.Name == node && b.Boot == boot && b.Complete {
				to = b.To
			}
		}
	}
	return to
}

// without removes the batches of a boot's archive that hold any of the records.
func (d *drill) without(dir string, gone audit.Range) {
	d.t.Helper()
	for _, file := range stores(d.t, dir, "*.batch") {
		var has audit.Range
		if _, err := fmt.Sscanf(filepath.Base(file), "%020d-%020d.batch", &has.From, &has.To); err != nil {
			d.t.Fatal(err)
		}
		if has.From > gone.To || has.To < gone.From {
			continue
		}
		if err := os.Remove(file); err != nil {
			d.t.Fatal(err)
		}
		d.t.Logf("%s removed", file[strings.Index(file, "hubs")+5:])
	}
}

// The disk of a node is full: on_log_failure answers, the first record after there
// is room again counts those answers, and nothing else is lost or doubled.
func TestFullDiskIsCounted(t *testing.T) {
	t.Parallel()
	d := newDrill(t)
	// Only the journal's folder is small; it is the first that is there.
	if err := d.Enrol(d.ctx, "small", "eu", nil); err != nil {
		t.Fatal(err)
	}
	dir := d.journal("small")
	if err := mountTmpfs(dir, "160m"); err != nil {
		needs.Mounting(t, err)
	}
	t.Cleanup(func() { unmount(dir) })
	d.begin("small")
	a := d.askers["small"]
	a.start(t)
	d.goesOn("small", 20)
	ballast := filepath.Join(dir, "ballast")
	for range rounds(2, 6) {
		_, before := a.known()
		if err := fill(ballast); err != nil {
			t.Fatal(err)
		}
		a.pad.Store(200 << 10) // the segment that there is gets full
		wait(t, "answers without a record", func() bool { _, n := a.known(); return n >= before+20 })
		a.pad.Store(0)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		d.whole("disk full")
	}
	_, without := a.known()
	if a.allowed > 0 {
		t.Errorf("%d answers without a record permit", a.allowed)
	}
	t.Logf("%d answers had no record, and are counted", without)
}

// fill takes all room that there is.
func fill(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = nil
	}
	return errors.Join(err, f.Close())
}
