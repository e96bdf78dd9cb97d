package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/audit"
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
	}{"the region's server": {false, apart, 3}, "the region's, larger": {false, together, 1}, "another region's": {true, together, 1}} {
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
			w.decide("eve", declaration, words("late", 5000))
			for _, s := range c.spans {
				p.ship(w.node, w.boot, w.frame(int(s.first), int(s.last)))
			}
			for _, l := range append(others, l) {
				until(t, "archived", func() bool { return l.Has(w.node, w.boot, 32) })
			}
			doc := erasure(w.node, w.boot, toldErased...)
			must(t, l.Take(doc))
			until(t, "erased", done(l, doc))
			p.purge(w.author)
			check := func(what string) {
				t.Helper()
				r, records := verified(t, p.dir, p.keys, doc)
				b := r.Nodes[0].Boots[0]
				if r.Verdict != audit.VerdictComplete || len(b.Missing) > 0 || len(b.NotErased) > 0 || records[32].Decision.Request.Bytes == nil {
					t.Errorf("%s: %s, missing %v, not erased %v, %v", what, r.Verdict, b.Missing, b.NotErased, r.Problems)
				}
				for _, secret := range []string{"secret-5", "secret-6", "secret-7"} {
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
					kept, err := filepath.Glob(filepath.Join(p.dir, evidenceDir, "damaged-*.blobs"))
					must(t, err)
					if (len(kept) > 0) != d.left {
						t.Errorf("%s: evidence %v", what, kept)
					}
					must(t, l.archive.dropDamaged([]audit.Records{{Node: w.node, Boot: w.boot}}))
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
