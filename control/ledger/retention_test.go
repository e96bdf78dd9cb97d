package ledger

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// kept is a writer whose points have classes: tool.pre_call keeps parts 30 days,
// custom for ever. Records 11 to 20 are of pre_call only, 21 to 30 of both.
func kept(t *testing.T, keys *audit.Keys) *writer {
	w := &writer{author: newAuthor(t, keys, "e1")}
	w.begin()
	w.add(&audit.Record{Kind: audit.KindActivation, Activation: &audit.ActivationRecord{Epoch: 1, Points: []audit.Point{
		{Name: "custom"}, {Name: "tool.pre_call", Retention: &audit.Retention{Class: "short", RecordsDays: 183, PartsDays: 30}},
	}}})
	for seq := 3; seq <= 40; seq++ {
		w.at("tool.pre_call", 2, words("old-"+strings.Repeat("x", seq), 100), declaration)
		if seq == 25 {
			w.entries = w.entries[:24]
			w.at("custom", 2, words("custom-25", 100))
		}
	}
	return w
}

func (w *writer) at(point string, activation uint64, parts ...[]byte) {
	w.decide("ada", parts...)
	e := &w.entries[len(w.entries)-1]
	var r audit.Record
	must(w.t, wire.Unmarshal(e.Leaf, &r))
	r.Decision.Point, r.Decision.Activation = point, activation
	body, err := r.Body()
	must(w.t, err)
	e.Leaf = audit.AppendLeaf(nil, body, r.Seq)
}

// Parts that are past their days go, with a statement that the region signed;
// what is not, or shares a batch with what is not, or is held, stays. What was
// deleted comes back from nowhere.
func TestExpire(t *testing.T) {
	keys := &audit.Keys{}
	key, vkey := signer(t, audit.RegionKeyName(tenant, "ra"))
	must(t, keys.AddRegion(vkey))
	w := kept(t, keys)
	dir := t.TempDir()
	frames := map[string]*audit.Batch{}
	for _, at := range [][2]int{{1, 10}, {11, 20}, {21, 30}, {31, 40}} {
		b := w.batch(at[0], at[1])
		must(t, archive(dir).keep(b))
		frames[span{b.First, b.Last()}.file()] = b
	}
	now := time.Now()
	aged := func(file string, days int) {
		old := now.Add(-time.Duration(days) * day)
		must(t, os.Chtimes(filepath.Join(archive(dir).boot(w.node, w.boot), file), old, old))
	}
	aged(span{1, 10}.file(), 200)
	aged(span{11, 20}.file(), 40)
	aged(span{21, 30}.file(), 40)
	aged(span{31, 40}.file(), 29)

	l, stop := offline(t, dir, keys, key, nil)
	hold := Document{Digest: wire.Sum([]byte("h")), Envelope: []byte("h"), Hold: &audit.Hold{ID: "case-7", From: 5, To: 5}}
	must(t, l.Take(hold))
	check := func(l *Ledger, want ...audit.Range) {
		t.Helper()
		r, records := verified(t, dir, keys)
		b := r.Nodes[0].Boots[0]
		if r.Verdict != audit.VerdictComplete || !slices.Equal(b.PartsExpired, want) || len(b.Missing)+len(b.Expired) > 0 {
			t.Errorf("%s: expired %v, missing %v, %v", r.Verdict, b.PartsExpired, b.Missing, r.Problems)
		}
		for seq, r := range records {
			if r.Decision != nil && (r.Decision.Request.Bytes == nil) != audit.Contains(want, seq) {
				t.Errorf("record %d: parts %v", seq, r.Decision.Request.Bytes != nil)
			}
		}
	}
	must(t, l.Expire(t.Context(), now))
	check(l, audit.Range{From: 11, To: 20})
	must(t, l.Expire(t.Context(), now))
	if files, _ := filepath.Glob(filepath.Join(dir, sweepsDir, "*.sweep")); len(files) != 1 {
		t.Errorf("sweeps: %v", files)
	}
	must(t, l.Take(Document{Digest: wire.Sum([]byte("r")), Envelope: []byte("r"), Release: []wire.Digest{hold.Digest}}))
	must(t, l.Expire(t.Context(), now))
	check(l, audit.Range{From: 3, To: 20})
	stop()

	// A crash between the statement and the deletion is made up for; what a peer
	// gives again comes without parts.
	b := frames[span{11, 20}.file()]
	must(t, archive(dir).remove(w.node, w.boot, span{11, 20}))
	must(t, archive(dir).keep(b))
	files, _ := filepath.Glob(filepath.Join(dir, sweepsDir, "*"+doneFile))
	for _, f := range files {
		must(t, os.Remove(f))
	}
	l, stop = offline(t, dir, keys, key, nil)
	defer stop()
	until(t, "deleted after the crash", func() bool {
		b, err := l.archive.read(w.node, w.boot, span{11, 20})
		return err == nil && len(b.Entries[0].Parts) == 0
	})
	check(l, audit.Range{From: 3, To: 20})
	if bare := l.withoutErased(b); len(bare.Entries[0].Parts) > 0 {
		t.Error("what was deleted is taken again")
	}

	// Who alters or forges a statement explains nothing by it.
	files, _ = filepath.Glob(filepath.Join(dir, sweepsDir, "*.sweep"))
	text, err := os.ReadFile(files[0])
	must(t, err)
	must(t, os.WriteFile(files[0], bytes.Replace(text, []byte(" 11 20\n"), []byte(" 11 40\n"), 1), 0o600))
	r, _ := verified(t, dir, keys)
	if r.Verdict != audit.VerdictDamaged {
		t.Errorf("with an altered statement: %s", r.Verdict)
	}
}
