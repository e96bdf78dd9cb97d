package index_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/ledger/index"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const perBatch = 10

// record is the n-th of a boot: a boot leaf, an activation, decisions, and a
// second activation with another policy in the middle.
func record(node, boot string, seq uint64) *audit.Record {
	r := &audit.Record{Seq: seq, Time: int64(seq) * 1000}
	activation := func(name string) *audit.ActivationRecord {
		return &audit.ActivationRecord{Epoch: seq, Release: wire.Sum([]byte(name)), Modules: []audit.Module{
			{Name: name, Package: wire.Sum([]byte("package " + name)), Module: wire.Sum([]byte("module " + name))},
			{Name: "everywhere", Package: wire.Sum([]byte("e")), Module: wire.Sum([]byte("e"))},
		}, Points: []audit.Point{{Name: "p0", Modules: []uint64{0, 1}}, {Name: "p1", Modules: []uint64{1}}, {Name: "p2", Modules: []uint64{1}}}}
	}
	switch seq {
	case 1:
		r.Kind, r.Boot = audit.KindBoot, &audit.BootRecord{Tenant: "acme", Node: node, Boot: boot}
	case 2:
		r.Kind, r.Activation = audit.KindActivation, activation("first")
	case 45:
		r.Kind, r.Activation = audit.KindActivation, activation("second")
	case 60:
		r.Kind, r.Admin = audit.KindAdmin, &audit.AdminRecord{Event: "overload"}
	default:
		r.Kind, r.Decision = audit.KindDecision, &audit.DecisionRecord{
			Point: fmt.Sprintf("p%d", seq%3), RequestID: fmt.Sprintf("%s-%d", node, seq), Subject: audit.Entity{Type: "agent", ID: fmt.Sprintf("a%d", seq/20)},
			Verdict: policy.Verdict(seq % 5), Reasons: []audit.Reason{{Code: fmt.Sprintf("code%d", seq/30)}}, Activation: 2, Trace: []byte{byte(seq), 1},
			Request: audit.NewPart(nil, fmt.Appendf(nil, `{"n":%d}`, seq)),
		}
		if seq > 45 {
			r.Decision.Activation = 45
		}
	}
	return r
}

// world is an export of two nodes, one with two boots, of 100 records each.
type world struct {
	t   testing.TB
	dir string
	all map[string][]*audit.Record // by node/boot
}

func newWorld(t testing.TB, records uint64) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "export"), all: map[string][]*audit.Record{}}
	out, err := audit.NewExportWriter(w.dir)
	w.must(err)
	for _, at := range [][2]string{{"n1", audit.BootID(1, 7)}, {"n1", audit.BootID(2, 8)}, {"n2", audit.BootID(1, 9)}} {
		skey, _, err := note.GenerateKey(rand.Reader, audit.NodeKeyName("acme", at[0]))
		w.must(err)
		key, err := note.NewSigner(skey)
		w.must(err)
		var f audit.Frontier
		b := &audit.Batch{}
		for seq := uint64(1); seq <= records; seq++ {
			if len(b.Entries) == 0 {
				*b = audit.Batch{Tenant: "acme", Node: at[0], Boot: at[1], First: seq, Frontier: f.Roots()}
			}
			r := record(at[0], at[1], seq)
			body, err := r.Body()
			w.must(err)
			s := r.Store()
			e := audit.Entry{Leaf: audit.AppendLeaf(nil, body, seq), Parts: s.Parts}
			b.Entries = append(b.Entries, e)
			f.Append(e.Hash())
			if len(b.Entries) == perBatch || seq == records {
				b.Checkpoint, err = audit.Checkpoint{Tenant: "acme", Node: at[0], Boot: at[1], Size: f.Size(), Root: f.Root()}.Sign(key)
				w.must(err)
				frame, err := b.Encode()
				w.must(err)
				w.must(out.Batch(frame))
				b.Entries = nil
			}
			w.all[at[0]+"/"+at[1]] = append(w.all[at[0]+"/"+at[1]], r)
		}
	}
	w.must(out.Close())
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) index() *index.Index {
	return &index.Index{Folder: audit.Folder{FS: os.DirFS(w.dir)}, Dir: index.Beside(w.dir)}
}

func (w *world) find(x *index.Index, q *index.Query) (names []string, stats index.Stats) {
	w.t.Helper()
	for h, err := range x.Find(context.Background(), q, &stats, nil) {
		w.must(err)
		names = append(names, fmt.Sprintf("%s/%s %d", h.Node, h.Boot, h.Record.Seq))
	}
	return names, stats
}

// slowly is what a look at every record finds.
func (w *world) slowly(q *index.Query) (names []string) {
	for _, boot := range slices.Sorted(func(yield func(string) bool) {
		for name := range w.all {
			if !yield(name) {
				return
			}
		}
	}) {
		activations := map[uint64]*audit.ActivationRecord{}
		for _, r := range w.all[boot] {
			var a *audit.ActivationRecord
			if r.Activation != nil {
				activations[r.Seq] = r.Activation
			}
			if r.Decision != nil {
				a = activations[r.Decision.Activation]
			}
			node, id, _ := bytes.Cut([]byte(boot), []byte("/"))
			if (q.Node == "" || q.Node == string(node)) && (q.Boot == "" || q.Boot == string(id)) && q.Matches(r, a) {
				names = append(names, fmt.Sprintf("%s %d", boot, r.Seq))
			}
		}
	}
	return names
}

// queries, and how many of the 30 batches each may read at most.
var queries = map[string]struct {
	q    index.Query
	hits int // of the three boots
	read int
}{
	"everything":          {index.Query{}, 300, 30},
	"a node":              {index.Query{Node: "n2"}, 100, 10},
	"a boot":              {index.Query{Node: "n1", Boot: audit.BootID(2, 8)}, 100, 10},
	"a record":            {index.Query{Node: "n1", Boot: audit.BootID(1, 7), Seqs: audit.Range{From: 33, To: 33}}, 1, 1},
	"a time":              {index.Query{From: 50_000, To: 52_000}, 6, 6},
	"from a time on":      {index.Query{From: 91_000}, 30, 3},
	"a kind":              {index.Query{Kinds: []audit.Kind{audit.KindAdmin, audit.KindBoot}}, 6, 6},
	"a point":             {index.Query{Point: "p1"}, 3 * 33, 30},
	"a point of nobody":   {index.Query{Point: "p9"}, 0, 0},
	"verdicts":            {index.Query{Verdicts: []policy.Verdict{policy.Allow, policy.Deny}}, 3 * 38, 30},
	"a code":              {index.Query{Code: "code2"}, 3 * 29, 9},
	"a subject":           {index.Query{Subject: "a3"}, 3 * 19, 6},
	"a subject with type": {index.Query{Subject: "agent:a3"}, 3 * 19, 6},
	"another type":        {index.Query{Subject: "user:a3"}, 0, 6},
	"a request":           {index.Query{RequestID: "n2-77"}, 1, 1},
	"a trace":             {index.Query{Trace: []byte{77, 1}}, 3, 3},
	"a policy":            {index.Query{Policy: "first"}, 3 * 14, 15},
	"its package":         {index.Query{Policy: wire.Sum([]byte("package second")).String()}, 3 * 17, 18},
	"its module":          {index.Query{Policy: wire.Sum([]byte("module second")).String()}, 3 * 17, 18},
	"a policy of nobody":  {index.Query{Policy: "third"}, 0, 0},
	"several":             {index.Query{Node: "n1", Point: "p0", Subject: "a1", To: 30_000}, 6, 4},
}

// The index finds what a look at everything finds, reads no more than it must,
// and an index that was made is not made again.
func TestFind(t *testing.T) {
	w := newWorld(t, 100)
	first, err := w.index().Update(t.Context())
	if err != nil || first.Batches != 30 || first.Read != 30 || first.Damaged != 0 || first.Unsaved != nil {
		t.Fatalf("%v %+v", err, first)
	}
	for name, c := range queries {
		got, stats := w.find(w.index(), &c.q)
		if want := w.slowly(&c.q); !slices.Equal(got, want) || len(want) != c.hits || int(stats.Hits) != c.hits {
			t.Errorf("%s: %d found, %d are there, want %d", name, len(got), len(want), c.hits)
		}
		if stats.Batches > c.read {
			t.Errorf("%s: %d batches read, want %d", name, stats.Batches, c.read)
		}
	}
	if again, err := w.index().Update(t.Context()); err != nil || again.Read != 0 || again.Damaged != 0 {
		t.Fatalf("%v %+v", err, again)
	}
}

func (w *world) files() []string {
	files, err := filepath.Glob(filepath.Join(index.Beside(w.dir), "*", "*.index"))
	w.must(err)
	return files
}

// Whatever happens to the index's files, what is found is the same.
func TestDamagedIndex(t *testing.T) {
	w := newWorld(t, 100)
	want, _ := w.find(w.index(), &index.Query{})
	whole := map[string][]byte{}
	for _, f := range w.files() {
		b, err := os.ReadFile(f)
		w.must(err)
		whole[f] = b
	}
	if len(whole) != 3 {
		t.Fatalf("%d files", len(whole))
	}
	for name, change := range map[string]func([]byte) []byte{
		"a flipped bit":  func(b []byte) []byte { b[len(b)/2] ^= 8; return b },
		"cut":            func(b []byte) []byte { return b[:len(b)-5] },
		"cut in a head":  func(b []byte) []byte { return b[:len("holdfast index 1\n")+3] },
		"empty":          func([]byte) []byte { return nil },
		"another title":  func(b []byte) []byte { b[0]++; return b },
		"a huge length":  func(b []byte) []byte { return append(b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1) },
		"a long length":  func(b []byte) []byte { return append(b, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 1) },
		"frames too few": func(b []byte) []byte { return b[:len("holdfast index 1\n")] },
	} {
		for f, b := range whole {
			w.must(os.WriteFile(f, change(bytes.Clone(b)), 0o600))
		}
		u, err := w.index().Update(t.Context())
		if err != nil || (u.Damaged != 3) != (name == "frames too few") {
			t.Errorf("%s: %v %+v", name, err, u)
		}
		if got, _ := w.find(w.index(), &index.Query{}); !slices.Equal(got, want) {
			t.Errorf("%s: found %d of %d", name, len(got), len(want))
		}
		for f, b := range whole {
			if now, err := os.ReadFile(f); err != nil || !bytes.Equal(now, b) {
				t.Errorf("%s: %s was not made again: %v", name, f, err)
			}
		}
	}
	// One bit, anywhere in a file.
	for f, b := range whole {
		for at := 20; at < len(b); at += len(b) / 15 {
			changed := bytes.Clone(b)
			changed[at] ^= 1
			w.must(os.WriteFile(f, changed, 0o600))
			if u, err := w.index().Update(t.Context()); err != nil || u.Damaged != 1 {
				t.Errorf("a flipped bit at %d: %v %+v", at, err, u)
			}
		}
		break
	}
	// Frames of another process, twice.
	for f, b := range whole {
		tail := b[len("holdfast index 1\n"):]
		w.must(os.WriteFile(f, slices.Concat(b, tail), 0o600))
	}
	if u, err := w.index().Update(t.Context()); err != nil || u.Read != 0 {
		t.Errorf("%v %+v", err, u)
	}
	if got, _ := w.find(w.index(), &index.Query{}); !slices.Equal(got, want) {
		t.Errorf("frames twice: found %d of %d", len(got), len(want))
	}
	// Things in the place of its files.
	for f := range whole {
		w.must(os.Remove(f))
		w.must(os.Symlink("/dev/zero", f))
	}
	if got, _ := w.find(w.index(), &index.Query{}); !slices.Equal(got, want) {
		t.Errorf("links: found %d of %d", len(got), len(want))
	}
	w.must(w.index().Rebuild())
	if left := w.files(); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

// A folder changes: batches come, go, and are replaced by others.
func TestChangedFolder(t *testing.T) {
	w := newWorld(t, 100)
	w.find(w.index(), &index.Query{})
	batches, err := filepath.Glob(filepath.Join(w.dir, "nodes", "n2", "*", "*.batch"))
	w.must(err)
	gone, err := os.ReadFile(batches[9])
	w.must(err)
	w.must(os.Remove(batches[9]))
	if got, _ := w.find(w.index(), &index.Query{Node: "n2"}); len(got) != 90 {
		t.Fatalf("%d", len(got))
	}
	w.must(os.WriteFile(batches[9], gone, 0o600))
	if u, err := w.index().Update(t.Context()); err != nil || u.Read != 1 || u.Damaged != 0 {
		t.Fatalf("%v %+v", err, u)
	}
	w.must(os.Chtimes(batches[3], time.Time{}, time.Unix(1, 0))) // another one, of the same length
	if u, err := w.index().Update(t.Context()); err != nil || u.Read != 7 || u.Damaged != 1 {
		t.Fatalf("%v %+v", err, u)
	}
	w.must(os.WriteFile(batches[5], []byte("no batch"), 0o600))
	got, stats := w.find(w.index(), &index.Query{Node: "n2", RequestID: "n2-77"})
	if len(got) != 1 || len(stats.Damaged) != 1 || stats.Batches != 2 {
		t.Fatalf("%v %+v", got, stats)
	}
}

// An index that cannot be kept serves all the same.
func TestIndexThatCannotBeKept(t *testing.T) {
	w := newWorld(t, 100)
	x := w.index()
	x.Dir = filepath.Join(w.dir, "manifest") // a file is there
	for name, c := range queries {
		if got, _ := w.find(x, &c.q); !slices.Equal(got, w.slowly(&c.q)) {
			t.Errorf("%s: %d found", name, len(got))
		}
	}
	if u, err := x.Update(t.Context()); err != nil || u.Unsaved == nil {
		t.Fatalf("%v %+v", err, u)
	}
}

func TestFindStops(t *testing.T) {
	w := newWorld(t, 100)
	var stats index.Stats
	for range w.index().Find(t.Context(), &index.Query{}, &stats, nil) {
		if stats.Hits == 15 {
			break
		}
	}
	if stats.Batches > 2 {
		t.Errorf("%+v", stats)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range w.index().Find(ctx, &index.Query{}, &stats, nil) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	refuse := errors.New("not believed")
	stats = index.Stats{}
	for range w.index().Find(t.Context(), &index.Query{Node: "n2"}, &stats, func(*audit.Batch) error { return refuse }) {
		t.Error("a hit of a batch that is not believed")
	}
	if len(stats.Damaged) != 10 {
		t.Errorf("%+v", stats)
	}
}

// FuzzIndex reads files of the index: what is read is what was there, to the byte.
func FuzzIndex(f *testing.F) {
	w := newWorld(f, 30)
	w.find(w.index(), &index.Query{})
	for _, file := range w.files() {
		b, err := os.ReadFile(file)
		w.must(err)
		f.Add(b)
		f.Add(b[:len(b)-3])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if again, whole := index.Frames(b); !bytes.HasPrefix(b, again) || whole != (len(again) > 0 && len(again) == len(b)) {
			t.Fatalf("%d bytes became %d, whole %t", len(b), len(again), whole)
		}
	})
}
