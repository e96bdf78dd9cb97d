package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Blobs that were archived are damaged or gone: they are found and fetched from
// another server, of the region or of another one, that does not know what was
// erased here. What was erased does not come back, what is held stays.
func TestDamagedBlobsAreFetchedAgain(t *testing.T) {
	t.Parallel()
	damages := []struct {
		name string
		do   func(t *testing.T, file string)
		left bool
	}{
		{"flipped", flip, true},
		{"truncated", func(t *testing.T, file string) { must(t, os.Truncate(file, 10)) }, true},
		{"deleted", func(t *testing.T, file string) { must(t, os.Remove(file)) }, false},
	}
	// In the second and third, what a later batch needs of an erased record is in a
	// file that was fetched for others' sake.
	apart, together := []span{{1, 10}, {11, 20}, {21, 32}}, []span{{1, 20}, {21, 32}}
	for name, c := range map[string]struct {
		far     bool
		spans   []span
		damages int
		held    bool // record 6
	}{"the region's server": {false, apart, 3, false}, "the region's, larger": {false, together, 1, true}, "another region's": {true, together, 1, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p *place
			var others []*Ledger
			if c.far {
				ra, rb := twoPlaces(t)
				l, _ := rb.startServer(0, leads)
				nothing, _ := ra.startServer(1, follows) // has the file, and nothing in it
				p, others = ra, append(others, l, nothing)
			} else {
				p = newPlace(t)
				l, _ := p.startServer(1, follows)
				others = append(others, l)
			}
			l, stop := p.startServer(0, leads)
			w := told(t, p.keys)
			w.answer()
			w.decide("eve", manyParts(declaration, words("late", 900))...)
			doc := erasure(w.node, w.boot, toldErased...)
			gone, kept := []string{"secret-5", "secret-6", "secret-7"}, []audit.Range(nil)
			if c.held {
				must(t, l.Take(doc))
				must(t, l.Take(Document{Digest: wire.Sum([]byte("h")), Envelope: []byte("h"), Hold: &audit.Hold{ID: "case-7", From: 6, To: 6}}))
				gone, kept = []string{"secret-5", "secret-7"}, []audit.Range{{From: 6, To: 6}}
			}
			for _, s := range c.spans {
				p.ship(w.node, w.boot, w.frame(int(s.first), int(s.last)))
			}
			for _, l := range append(others, l) {
				until(t, "archived", func() bool { return l.Has(w.node, w.boot, 32) })
			}
			must(t, l.Take(doc))
			until(t, "erased", done(l, doc))
			until(t, "dropped", func() bool { return len(found(t, "secret-7", p.dir)) == 0 })
			p.purge(w.author)
			check := func(what string) {
				t.Helper()
				r, records := verified(t, p.dir, p.keys, doc)
				b := r.Nodes[0].Boots[0]
				if r.Verdict != audit.VerdictComplete || len(b.Missing) > 0 || !slices.Equal(b.NotErased, kept) || records[32].Decision.Request.Bytes == nil {
					t.Errorf("%s: %s, missing %v, not erased %v, %v", what, r.Verdict, b.Missing, b.NotErased, r.Problems)
				}
				for _, secret := range gone {
					if files := found(t, secret, p.dir); len(files) > 0 {
						t.Errorf("%s: %s is back in %v", what, secret, files)
					}
				}
			}
			if c.far {
				for _, s := range c.spans {
					empty(t, beside(filepath.Join(archive(p.dirs[1]).boot(w.node, w.boot), s.file())))
				}
			}
			check("before")
			blobs := func(s span) string {
				return beside(filepath.Join(l.archive.boot(w.node, w.boot), s.file()))
			}
			for _, d := range damages[:c.damages] {
				for _, s := range c.spans {
					what := fmt.Sprint(d.name, " ", s)
					d.do(t, blobs(s))
					if r, _ := verified(t, p.dir, p.keys, doc); r.Verdict != audit.VerdictDamaged {
						t.Fatalf("%s: %s", what, r.Verdict)
					}
					l.Scrub(t.Context(), 0)
					check(what)
					if left := damagedBlobs(t, p.dir); (len(left) > 0) != d.left {
						t.Errorf("%s: evidence %v", what, left)
					}
					for _, file := range damagedBlobs(t, p.dir) {
						must(t, os.Remove(file))
					}
				}
			}
			stop()
			for _, s := range c.spans {
				must(t, os.Remove(blobs(s))) // while it is down, and all of them
			}
			l, _ = p.startServer(0, leads)
			l.Scrub(t.Context(), 0)
			check("all of them")
		})
	}
}

// empty takes everything out of a file of blobs.
func empty(t *testing.T, file string) {
	t.Helper()
	frame, err := os.ReadFile(file)
	must(t, err)
	side, err := audit.DecodeSide(frame)
	must(t, err)
	var all []audit.Drop
	for i, blobs := range side.Blobs {
		for at := range blobs {
			all = append(all, audit.Drop{Seq: side.First + i, At: at})
		}
	}
	side.Drop(all)
	frame, err = side.Encode()
	must(t, err)
	must(t, os.WriteFile(file, frame, 0o600))
}

// manyParts makes a request that is one blob, in which the parts given are others.
func manyParts(parts ...[]byte) [][]byte {
	for i := range 50 {
		parts = append(parts, words(fmt.Sprint("small-", i), 100))
	}
	return parts
}

func damagedBlobs(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, evidenceDir, "damaged-*.blobs"))
	must(t, err)
	return files
}

// Whether a blob is still used may be written in one that is not there: nothing is
// dropped before that is back. Damaged blobs do not outlive the erasure.
func TestEraseWaitsForBlobsThatAreLacking(t *testing.T) {
	t.Parallel()
	keys := &audit.Keys{}
	key, vkey := signer(t, audit.RegionKeyName(tenant, "ra"))
	must(t, keys.AddRegion(vkey))
	w := &writer{author: newAuthor(t, keys, "e1")}
	w.begin()
	w.decide("ada", declaration)
	w.decide("bob", manyParts(declaration)...)
	w.answer()
	dir := t.TempDir()
	must(t, archive(dir).keep(w.batch(1, 2)))
	must(t, archive(dir).keep(w.batch(3, 4)))
	file := beside(filepath.Join(archive(dir).boot(w.node, w.boot), span{3, 4}.file()))
	good, err := os.ReadFile(file)
	must(t, err)
	l, stop := offline(t, dir, keys, key, nil)
	defer stop()
	flip(t, file)
	l.Scrub(t.Context(), 0)
	if left := damagedBlobs(t, dir); len(left) != 1 {
		t.Fatalf("evidence: %v", left)
	}
	doc := erasure(w.node, w.boot, audit.Range{From: 2, To: 2})
	must(t, l.Take(doc))
	for _, k := range l.documents.undone() {
		if done, err := l.carryOut(t.Context(), k); done || err != nil {
			t.Errorf("carried out: %v, %v", done, err)
		}
	}
	if left := damagedBlobs(t, dir); len(left) > 0 {
		t.Errorf("evidence that may hold what was erased: %v", left)
	}
	must(t, os.WriteFile(file, good, 0o600))
	until(t, "done", done(l, doc))
	r, records := verified(t, dir, keys, doc)
	if r.Verdict != audit.VerdictComplete || records[2].Decision.Request.Bytes != nil || records[3].Decision.Request.Bytes == nil {
		t.Errorf("%s: %v", r.Verdict, r.Problems)
	}
}

// Records that come while an erasure of them is carried out, or after it, have it
// carried out again, also when the process ends in between.
func TestErasureIsOpenAgain(t *testing.T) {
	key, _ := signer(t, audit.RegionKeyName(tenant, "ra"))
	open := func(dir string) *Ledger {
		l, err := Open(Config{Dir: dir, Tenant: tenant, Region: "ra", Key: key, Keys: &audit.Keys{}, Input: quiet{}})
		must(t, err)
		return l
	}
	dir := t.TempDir()
	l, boot := open(dir), audit.BootID(1, 1)
	doc := erasure("e1", boot, audit.Range{From: 5, To: 7})
	must(t, l.Take(doc))
	k := l.documents.undone()[0]
	l.reopen(audit.Place{Node: "e1", Boot: boot}, 1, 5)
	l.finished(k)
	if done(l, doc)() || done(open(dir), doc)() {
		t.Error("done, although records came meanwhile")
	}
	l.documents.undone()
	l.finished(k)
	if !done(l, doc)() || !done(open(dir), doc)() {
		t.Error("not done")
	}
	l.reopen(audit.Place{Node: "e1", Boot: boot}, 7, 9)
	if done(l, doc)() || done(open(dir), doc)() {
		t.Error("done, although records came after it")
	}
}
