package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
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
	for range rounds(4, 30) {
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
	d := newDrill(t)
	for _, server := range []string{"eu-1", "us-1"} {
		d.kill(server)
		if err := os.RemoveAll(assembly.LedgerDir(d.data(server))); err != nil {
			t.Fatal(err)
		}
		d.startHubs(server)
		d.whole("ledger of " + server + " deleted")
	}
	for range rounds(3, 30) {
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
