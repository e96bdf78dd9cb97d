package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const records, perBatch = 50, 10

var boot1, boot2 = BootID(1, 0xa), BootID(2, 0xb)

// story is a ledger of two boots: 50 records in 5 batches, then 20 in 2.
func story(t testing.TB) (l *ledger, batches []*Batch, notes [][]byte) {
	l = newLedger(t)
	one, end := l.boot(boot1, bootLeaf(boot1, "", 0, nil), records, perBatch)
	two, last := l.boot(boot2, bootLeaf(boot2, boot1, end.Size, &end.Root), 20, perBatch)
	return l, append(one, two...), [][]byte{l.receipt(end), l.sign(last)}
}

func TestVerifyComplete(t *testing.T) {
	l, batches, notes := story(t)
	r := l.verify(export(t, batches, notes...))
	if r.Verdict != VerdictComplete || r.Files != (FileReport{Checked: 10}) || len(r.Problems) != 0 {
		t.Fatalf("%+v", r)
	}
	b := r.Nodes[0].Boots
	if len(b) != 2 || b[0].To != records || !b[0].Complete || b[0].Cosigned["eu"] != records || b[1].Records["decision"] != 19 || b[1].Records["boot"] != 1 {
		t.Fatalf("%+v", b)
	}
	text, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(text), `{"boot":"`+boot1+`","from":1,"to":50,"complete":true,"gaps":[],"forks":[],"altered":[],`) ||
		!strings.Contains(string(text), `"files":{"checked":10,"damaged":0},"verdict":"complete"`) {
		t.Fatalf("%v %s", err, text)
	}
}

// remanifest makes the manifest fit what is there, as somebody does who knows
// the format.
func remanifest(t *testing.T, dir string) {
	t.Helper()
	var lines strings.Builder
	lines.WriteString(manifestTitle + "\n")
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == manifestName {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&lines, "%s %d %s\n", wire.Sum(content).Hex(), len(content), filepath.ToSlash(name))
		return err
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, manifestName), []byte(lines.String()), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func recode(t *testing.T, dir string, boot string, first uint64, change func(*Batch)) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(exportPath("edge-1", boot, first, batchSuffix)))
	frame, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := DecodeBatch(frame)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	doc, err := wire.Marshal(b)
	if err == nil {
		err = os.WriteFile(path, wire.Compress(doc), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	remanifest(t, dir)
}

// TestVerifyFindsEveryChange plants each thing that can be wrong with an
// export and says what the report must be, the manifest made to fit where the
// case says so.
func TestVerifyFindsEveryChange(t *testing.T) {
	file := func(boot string, first uint64) string { return exportPath("edge-1", boot, first, batchSuffix) }
	note := func(boot string, size uint64) string { return exportPath("edge-1", boot, size, checkpointSuffix) }
	type want struct {
		verdict                       string
		gaps, forks, altered, doubled []Range // of the boot
		missing                       []Range
		damaged                       int
	}
	type story2 struct {
		l       *ledger
		dir     string
		batches []*Batch
	}
	remove := func(names ...string) func(*testing.T, story2) {
		return func(t *testing.T, s story2) {
			for _, n := range names {
				if err := os.Remove(filepath.Join(s.dir, filepath.FromSlash(n))); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	fit := func(do func(*testing.T, story2)) func(*testing.T, story2) {
		return func(t *testing.T, s story2) { do(t, s); remanifest(t, s.dir) }
	}
	for name, c := range map[string]struct {
		boot string
		do   func(*testing.T, story2)
		want want
	}{
		"a batch is missing":          {boot1, remove(file(boot1, 11)), want{verdict: VerdictGap, gaps: []Range{{11, 20}}, damaged: 1}},
		"... and not listed":          {boot1, fit(remove(file(boot1, 11))), want{verdict: VerdictGap, gaps: []Range{{11, 20}}}},
		"the first batch":             {boot1, fit(remove(file(boot1, 1))), want{verdict: VerdictGap, gaps: []Range{{1, 10}}}},
		"two apart":                   {boot1, fit(remove(file(boot1, 11), file(boot1, 31))), want{verdict: VerdictGap, gaps: []Range{{11, 20}, {31, 40}}}},
		"the tail":                    {boot1, fit(remove(file(boot1, 41))), want{verdict: VerdictGap, gaps: []Range{{41, 50}}}},
		"the tail and its checkpoint": {boot1, fit(remove(file(boot1, 41), note(boot1, 50))), want{verdict: VerdictGap, gaps: []Range{{41, 50}}}},
		"the tail of the last boot":   {boot2, fit(remove(file(boot2, 11))), want{verdict: VerdictGap, gaps: []Range{{11, 20}}}},
		"a whole boot": {boot1, fit(remove(file(boot1, 1), file(boot1, 11), file(boot1, 21), file(boot1, 31), file(boot1, 41), note(boot1, 50))),
			want{verdict: VerdictGap, gaps: []Range{{1, 50}}}},
		"an unlisted file": {boot1, func(t *testing.T, s story2) { os.WriteFile(filepath.Join(s.dir, "nodes", "more"), nil, 0o644) },
			want{verdict: VerdictDamaged, damaged: 1}},
		"no manifest":    {boot1, remove(manifestName), want{verdict: VerdictDamaged, damaged: 10}},
		"a missing note": {boot1, remove(note(boot1, 50)), want{verdict: VerdictDamaged, damaged: 1}},
		"a flipped bit in a note": {boot1, func(t *testing.T, s story2) { // not what is listed, and malformed: one file
			path := filepath.Join(s.dir, filepath.FromSlash(note(boot1, 50)))
			b, _ := os.ReadFile(path)
			b[0] ^= 4
			os.WriteFile(path, b, 0o644)
		}, want{verdict: VerdictDamaged, damaged: 1}},
		"a flipped bit in a frame": {boot1, func(t *testing.T, s story2) {
			path := filepath.Join(s.dir, filepath.FromSlash(file(boot1, 21)))
			b, _ := os.ReadFile(path)
			b[len(b)/2] ^= 4
			os.WriteFile(path, b, 0o644)
		}, want{verdict: VerdictAltered, altered: []Range{{21, 30}}, damaged: 1}},
		"... in the last frame of the boot": {boot1, func(t *testing.T, s story2) {
			path := filepath.Join(s.dir, filepath.FromSlash(file(boot1, 41)))
			b, _ := os.ReadFile(path)
			b[len(b)/2] ^= 4
			os.WriteFile(path, b, 0o644)
			remanifest(t, s.dir)
		}, want{verdict: VerdictAltered, altered: []Range{{41, 50}}}},
		"an altered record": {boot1, func(t *testing.T, s story2) {
			recode(t, s.dir, boot1, 21, func(b *Batch) { b.Entries[3] = entryOf(t, decision(9024)) })
		}, want{verdict: VerdictAltered, altered: []Range{{21, 30}}}},
		"an altered part": {boot1, func(t *testing.T, s story2) {
			recode(t, s.dir, boot1, 21, func(b *Batch) { b.Entries[3].Parts[0] = []byte("other") })
		}, want{verdict: VerdictAltered, altered: []Range{{24, 24}}}},
		"swapped parts": {boot1, func(t *testing.T, s story2) {
			recode(t, s.dir, boot1, 21, func(b *Batch) { b.Entries[3].Parts, b.Entries[4].Parts = b.Entries[4].Parts, b.Entries[3].Parts })
		}, want{verdict: VerdictAltered, altered: []Range{{24, 25}}}},
		"a part taken away": {boot1, func(t *testing.T, s story2) {
			recode(t, s.dir, boot1, 21, func(b *Batch) { b.Entries[3].Parts[0] = nil })
		}, want{verdict: VerdictDamaged, missing: []Range{{24, 24}}}},
		"all parts taken away": {boot1, func(t *testing.T, s story2) {
			recode(t, s.dir, boot1, 21, func(b *Batch) { b.Entries[3].Parts = nil })
		}, want{verdict: VerdictDamaged, missing: []Range{{24, 24}}}},
		"a record taken out": {boot1, func(t *testing.T, s story2) {
			recode(t, s.dir, boot1, 21, func(b *Batch) { b.Entries = slices.Delete(b.Entries, 3, 4) })
		}, want{verdict: VerdictAltered, altered: []Range{{21, 29}}, gaps: []Range{{30, 30}}}},
		"another frontier": {boot1, func(t *testing.T, s story2) {
			recode(t, s.dir, boot1, 21, func(b *Batch) { b.Frontier[0][0] ^= 1 })
		}, want{verdict: VerdictAltered, altered: []Range{{21, 30}}}},
		"a checkpoint of another key": {boot1, func(t *testing.T, s story2) {
			recode(t, s.dir, boot1, 21, func(b *Batch) {
				c, _ := PeekCheckpoint(b.Checkpoint)
				b.Checkpoint, _ = c.Sign(newSigner(t, s.l.node.Name()))
			})
		}, want{verdict: VerdictAltered, altered: []Range{{21, 30}}}},
		"a forged note": {boot1, func(t *testing.T, s story2) {
			c := Checkpoint{Tenant: "acme", Node: "edge-1", Boot: boot1, Size: 60}
			msg, _ := c.Sign(newSigner(t, s.l.node.Name()))
			os.WriteFile(filepath.Join(s.dir, filepath.FromSlash(note(boot1, 60))), msg, 0o644)
			remanifest(t, s.dir)
		}, want{verdict: VerdictDamaged, damaged: 1}},
		"a forged counter-signature": {boot1, func(t *testing.T, s story2) {
			path := filepath.Join(s.dir, filepath.FromSlash(note(boot1, 50)))
			msg, _ := os.ReadFile(path)
			i := bytes.LastIndexByte(msg[:len(msg)-1], '\n')
			msg[i+60] ^= 1
			os.WriteFile(path, msg, 0o644)
			remanifest(t, s.dir)
		}, want{verdict: VerdictDamaged, damaged: 1}},
		"a note under another name": {boot1, func(t *testing.T, s story2) {
			os.Rename(filepath.Join(s.dir, filepath.FromSlash(note(boot1, 50))), filepath.Join(s.dir, filepath.FromSlash(note(boot1, 49))))
			remanifest(t, s.dir)
		}, want{verdict: VerdictDamaged, damaged: 1}},
		"two trees of one size": {boot1, func(t *testing.T, s story2) {
			msg := s.l.sign(Checkpoint{Tenant: "acme", Node: "edge-1", Boot: boot1, Size: 25, Root: tlog.RecordHash(nil)})
			os.WriteFile(filepath.Join(s.dir, filepath.FromSlash(note(boot1, 25))), msg, 0o644)
			remanifest(t, s.dir)
		}, want{verdict: VerdictFork, forks: []Range{{25, 25}}}},
		"a later checkpoint than there are records": {boot1, func(t *testing.T, s story2) {
			msg := s.l.sign(Checkpoint{Tenant: "acme", Node: "edge-1", Boot: boot1, Size: 55, Root: tlog.RecordHash(nil)})
			os.WriteFile(filepath.Join(s.dir, filepath.FromSlash(note(boot1, 55))), msg, 0o644)
			remanifest(t, s.dir)
		}, want{verdict: VerdictGap, gaps: []Range{{51, 55}}}},
		"a batch under another name": {boot1, func(t *testing.T, s story2) {
			from, to := filepath.Join(s.dir, filepath.FromSlash(file(boot1, 11))), filepath.Join(s.dir, filepath.FromSlash(file(boot1, 12)))
			os.Rename(from, to)
			remanifest(t, s.dir)
		}, want{verdict: VerdictAltered, gaps: []Range{{11, 11}}, altered: []Range{{12, 20}}}},
		"records twice": {boot1, func(t *testing.T, s story2) {
			b := *s.batches[1]
			var f Frontier
			for _, e := range s.batches[0].Entries {
				f.Append(e.Hash())
			}
			for _, e := range b.Entries[:4] {
				f.Append(e.Hash())
			}
			b.First, b.Frontier, b.Entries = 15, f.Roots(), b.Entries[4:]
			frame, err := b.Encode()
			if err != nil {
				t.Fatal(err)
			}
			os.WriteFile(filepath.Join(s.dir, filepath.FromSlash(file(boot1, 15))), frame, 0o644)
			remanifest(t, s.dir)
		}, want{verdict: VerdictDamaged, doubled: []Range{{15, 20}}}},
		"another history": {boot1, func(t *testing.T, s story2) {
			other, _ := s.l.boot(boot1, bootLeaf(boot1, "", 7, nil), records, perBatch)
			frame, _ := other[2].Encode()
			os.WriteFile(filepath.Join(s.dir, filepath.FromSlash(file(boot1, 21))), frame, 0o644)
			remanifest(t, s.dir)
		}, want{verdict: VerdictFork, forks: []Range{{21, 40}}}},
	} {
		t.Run(name, func(t *testing.T) {
			l, batches, notes := story(t)
			dir := export(t, batches, notes...)
			c.do(t, story2{l, dir, batches})
			r := l.verify(dir)
			var got BootReport
			for _, b := range r.Nodes[0].Boots {
				if b.Boot == c.boot {
					got = b
				}
			}
			have := want{r.Verdict, nonNil(got.Gaps), nonNil(got.Forks), nonNil(got.Altered), nonNil(got.Doubled), nonNil(got.Missing), r.Files.Damaged}
			if !reflect.DeepEqual(have, c.want) {
				t.Fatalf("\n got %+v\nwant %+v\n%+v", have, c.want, r)
			}
			if got.Complete != (len(got.Gaps)+len(got.Forks)+len(got.Altered)+len(got.Doubled) == 0) {
				t.Fatalf("complete: %+v", got)
			}
		})
	}
}

func nonNil(r []Range) []Range {
	if len(r) == 0 {
		return nil
	}
	return r
}

func TestVerifyBootsThatContradict(t *testing.T) {
	l := newLedger(t)
	one, end := l.boot(boot1, bootLeaf(boot1, "", 0, nil), 20, 10)
	wrong := tlog.RecordHash([]byte("wrong"))
	for name, c := range map[string]struct {
		second  *Record
		verdict string
		one     Range
	}{
		"shorter than it was":                    {bootLeaf(boot2, boot1, 10, nil), VerdictFork, Range{11, 20}},
		"another root":                           {bootLeaf(boot2, boot1, 20, &wrong), VerdictFork, Range{20, 20}},
		"right":                                  {bootLeaf(boot2, boot1, 20, &end.Root), VerdictComplete, Range{}},
		"damage reported, and the region has it": {bootLeaf(boot2, boot1, 10, nil, Damage{Boot: boot1, File: "x", From: 11, To: 20, Reason: "r"}), VerdictComplete, Range{}},
		"damage reported beyond what is there":   {bootLeaf(boot2, boot1, 20, &end.Root, Damage{Boot: boot1, File: "x", From: 21, To: 30, Reason: "r"}), VerdictGap, Range{21, 30}},
	} {
		t.Run(name, func(t *testing.T) {
			two, _ := l.boot(boot2, c.second, 5, 10)
			r := l.verify(export(t, append(slices.Clone(one), two...)))
			b := r.Nodes[0].Boots[0]
			found := append(slices.Clone(b.Forks), b.Gaps...)
			if r.Verdict != c.verdict || (c.one != Range{}) != (len(found) == 1) || len(found) == 1 && found[0] != c.one {
				t.Fatalf("%+v", r)
			}
		})
	}
	t.Run("two successors", func(t *testing.T) {
		two, _ := l.boot(boot2, bootLeaf(boot2, boot1, 20, &end.Root), 5, 10)
		twin, _ := l.boot(BootID(2, 0xc), bootLeaf(BootID(2, 0xc), boot1, 20, &end.Root), 5, 10)
		r := l.verify(export(t, slices.Concat(one, two, twin)))
		if r.Verdict != VerdictFork || len(r.Nodes[0].Boots[2].Forks) != 1 {
			t.Fatalf("%+v", r)
		}
	})
}

func TestVerifyWantsTheBootsOwnRecordFirst(t *testing.T) {
	l := newLedger(t)
	for name, first := range map[string]*Record{
		"a decision":            decision(1),
		"another boot's record": bootLeaf(boot2, "", 0, nil),
	} {
		batches, _ := l.boot(boot1, first, 5, 10)
		if r := l.verify(export(t, batches)); r.Verdict != VerdictFork || r.Nodes[0].Boots[0].Forks[0] != (Range{1, 1}) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestVerifyWithoutTheKey(t *testing.T) {
	l, batches, notes := story(t)
	l.keys = &Keys{}
	if r := l.verify(export(t, batches, notes...)); r.Verdict != VerdictAltered || r.Nodes[0].Boots[0].To != 0 {
		t.Fatalf("%+v", r)
	}
}

func TestVerifyNothing(t *testing.T) {
	l := newLedger(t)
	if r := l.verify(export(t, nil)); r.Verdict != VerdictDamaged {
		t.Fatalf("an export of nothing: %+v", r)
	}
	if r := l.verify(t.TempDir()); r.Verdict != VerdictDamaged {
		t.Fatalf("an empty folder: %+v", r)
	}
}

// TestBatchRefusesWhatItsNodeShouldNotHaveSigned has the node's own key sign
// what does not fit.
func TestBatchRefusesWhatItsNodeShouldNotHaveSigned(t *testing.T) {
	l := newLedger(t)
	for name, change := range map[string]func(*Batch, *Checkpoint){
		"another size":   func(_ *Batch, c *Checkpoint) { c.Size++ },
		"another boot":   func(_ *Batch, c *Checkpoint) { c.Boot = boot2 },
		"another tenant": func(b *Batch, _ *Checkpoint) { b.Tenant = "other" },
		"another root":   func(_ *Batch, c *Checkpoint) { c.Root[0] ^= 1 },
		"a record of another place": func(b *Batch, c *Checkpoint) {
			b.Entries[4] = entryOf(t, decision(9))
			f := b.before()
			for _, e := range b.Entries {
				f.Append(e.Hash())
			}
			c.Root = f.Root()
		},
		"no records": func(b *Batch, _ *Checkpoint) { b.Entries = nil },
		"nothing":    nil,
	} {
		batches, _ := l.boot(boot1, bootLeaf(boot1, "", 0, nil), 10, 10)
		b := batches[0]
		c, err := PeekCheckpoint(b.Checkpoint)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(b, &c)
		}
		b.Checkpoint = l.sign(c)
		if got, records, err := b.Verify(l.node, nil); (err == nil) != (change == nil) || err == nil && (got != c || len(records) != 10) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	l := newLedger(b)
	batches, last := l.boot(boot1, bootLeaf(boot1, "", 0, nil), 20_000, 500)
	dir := export(b, batches, l.sign(last))
	b.ReportAllocs()
	for b.Loop() {
		if r, err := Verify(os.DirFS(dir), l.keys); err != nil || r.Verdict != VerdictComplete {
			b.Fatal(err, r)
		}
	}
	b.ReportMetric(20_000*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
