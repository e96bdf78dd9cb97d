package audit

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func sum(s string) wire.Digest { return wire.Sum([]byte(s)) }

// explained exports the story with documents and sweeps.
func explained(t *testing.T, batches []*Batch, notes [][]byte, documents []string, sweeps ...[]byte) string {
	t.Helper()
	dir := export(t, batches, notes...)
	w := &ExportWriter{dir: dir}
	for _, d := range documents {
		if err := w.Document([]byte(d)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sweeps {
		if err := w.Sweep(s); err != nil {
			t.Fatal(err)
		}
	}
	remanifest(t, dir)
	return dir
}

func (l *ledger) sweep(s Sweep) []byte {
	s.Tenant, s.Region, s.Time = "acme", "eu", 1
	s.Serial = max(s.Serial, 1)
	msg, err := s.Sign(l.region)
	if err != nil {
		l.t.Fatal(err)
	}
	return msg
}

// trusting opens the documents whose text is known, as a trust root would.
func trusting(removals map[string][]Records) func([]byte) (Document, error) {
	return func(env []byte) (Document, error) {
		r, ok := removals[string(env)]
		if !ok {
			return Document{}, errors.New("signed by nobody who is known")
		}
		return Document{Tenant: "acme", Kind: "erasure", Removal: Removal{By: wire.Sum(env), Records: r}}, nil
	}
}

func erase(batches []*Batch, ranges ...Range) {
	for _, b := range batches {
		if b.Boot == boot1 {
			b.Erase(func(seq uint64) bool { return Contains(ranges, seq) })
		}
	}
}

// What an erasure that is believed names is erased, exactly; everything else that
// is not there is missing.
func TestVerifyErased(t *testing.T) {
	whole := map[string][]Records{"good": {{"edge-1", boot1, []Range{{5, 8}, {20, 20}}}}, "foreign": {{"edge-2", boot1, []Range{{30, 31}}}}}
	for name, c := range map[string]struct {
		erased                   []Range
		documents                []string
		believe                  bool
		want, missing, notErased []Range
		verdict                  string
	}{
		"explained":             {[]Range{{5, 8}, {20, 20}}, []string{"good"}, true, []Range{{5, 8}, {20, 20}}, nil, nil, VerdictComplete},
		"nobody asks":           {[]Range{{5, 8}}, []string{"good"}, false, nil, []Range{{5, 8}}, nil, VerdictDamaged},
		"no document":           {[]Range{{5, 8}}, nil, true, nil, []Range{{5, 8}}, nil, VerdictDamaged},
		"forged document":       {[]Range{{5, 8}}, []string{"forged"}, true, nil, []Range{{5, 8}}, nil, VerdictDamaged},
		"more than it says":     {[]Range{{4, 9}, {20, 20}}, []string{"good"}, true, []Range{{5, 8}, {20, 20}}, []Range{{4, 4}, {9, 9}}, nil, VerdictDamaged},
		"less than it says":     {[]Range{{6, 7}}, []string{"good"}, true, []Range{{6, 7}}, nil, []Range{{5, 5}, {8, 8}, {20, 20}}, VerdictComplete},
		"another node's":        {[]Range{{30, 31}}, []string{"foreign"}, true, nil, []Range{{30, 31}}, nil, VerdictDamaged},
		"two, one of them good": {[]Range{{5, 8}, {20, 20}}, []string{"forged", "good"}, true, []Range{{5, 8}, {20, 20}}, nil, nil, VerdictComplete},
	} {
		l, batches, notes := story(t)
		if c.believe {
			l.keys.Believe(trusting(whole))
		}
		erase(batches, c.erased...)
		r := l.verify(explained(t, batches, notes, c.documents))
		b := r.Nodes[0].Boots[0]
		if r.Verdict != c.verdict || !slices.Equal(b.Erased, c.want) || !slices.Equal(b.Missing, c.missing) || !slices.Equal(b.NotErased, c.notErased) || !b.Complete {
			t.Errorf("%s: %s, erased %v, missing %v, not erased %v: %v", name, r.Verdict, b.Erased, b.Missing, b.NotErased, r.Problems)
		}
		believed := 0
		for _, d := range c.documents {
			if c.believe && whole[d] != nil {
				believed++
			}
		}
		if len(r.Explained) != believed {
			t.Errorf("%s: explained by %+v", name, r.Explained)
		}
		if b.Records["decision"] != records-1 {
			t.Errorf("%s: %d records are proven", name, b.Records["decision"])
		}
	}
}

// An erasure explains nothing that was not there yet when it was signed.
func TestVerifyErasureOfTheFuture(t *testing.T) {
	made := decision(1).Time
	for until, verdict := range map[int64]string{made - 1: VerdictDamaged, made: VerdictComplete, 0: VerdictComplete} {
		l, batches, notes := story(t)
		l.keys.Believe(func(env []byte) (Document, error) {
			return Document{Tenant: "acme", Kind: "erasure", Removal: Removal{Records: []Records{{"edge-1", boot1, []Range{{1, 1 << 40}}}}, Until: until}}, nil
		})
		erase(batches, Range{5, 8})
		r := l.verify(explained(t, batches, notes, []string{"order"}))
		b := r.Nodes[0].Boots[0]
		if r.Verdict != verdict || (len(b.Missing) > 0) != (verdict == VerdictDamaged) || (len(b.NotErased) > 0) == (verdict == VerdictDamaged) {
			t.Errorf("until %d: %s, missing %v, not erased %v", until-made, r.Verdict, b.Missing, b.NotErased)
		}
	}
}

// A sweep that the region signed explains parts; that whole records are gone it
// names, but one region's word does not make them complete. The rest is proven.
func TestVerifySwept(t *testing.T) {
	l, batches, notes := story(t)
	erase(batches, Range{31, 40})
	gone := l.sweep(Sweep{Records: []Records{{"edge-1", boot1, []Range{{11, 30}}}}, Parts: []Records{{"edge-1", boot1, []Range{{31, 40}}}}})
	stranger := newSigner(t, RegionKeyName("acme", "eu"))
	forged, err := (&Sweep{Tenant: "acme", Region: "eu", Serial: 1, Records: []Records{{"edge-1", boot1, []Range{{1, 50}}}}}).Sign(stranger)
	if err != nil {
		t.Fatal(err)
	}
	without := slices.Delete(slices.Clone(batches), 1, 3)
	for name, c := range map[string]struct {
		batches                []*Batch
		sweeps                 [][]byte
		gaps, expired, missing []Range
		parts                  []Range
		verdict                string
	}{
		"explained":       {without, [][]byte{gone}, nil, []Range{{11, 30}}, nil, []Range{{31, 40}}, VerdictDamaged},
		"not explained":   {without, nil, []Range{{11, 30}}, nil, []Range{{31, 40}}, nil, VerdictGap},
		"forged":          {without, [][]byte{forged}, []Range{{11, 30}}, nil, []Range{{31, 40}}, nil, VerdictGap},
		"more than swept": {slices.Delete(slices.Clone(batches), 1, 4), [][]byte{gone}, []Range{{31, 40}}, []Range{{11, 30}}, nil, nil, VerdictGap},
		"still there":     {batches, [][]byte{gone}, nil, nil, nil, []Range{{31, 40}}, VerdictComplete},
	} {
		r := l.verify(explained(t, c.batches, notes, nil, c.sweeps...))
		b := r.Nodes[0].Boots[0]
		if r.Verdict != c.verdict || !slices.Equal(b.Gaps, c.gaps) || !slices.Equal(b.Expired, c.expired) || !slices.Equal(b.Missing, c.missing) || !slices.Equal(b.PartsExpired, c.parts) {
			t.Errorf("%s: %s, gaps %v, expired %v, missing %v, parts %v: %v", name, r.Verdict, b.Gaps, b.Expired, b.Missing, b.PartsExpired, r.Problems)
		}
	}
	all := l.sweep(Sweep{Records: []Records{{"edge-1", boot1, []Range{{1, 50}}}}})
	r := l.verify(explained(t, batches[5:], notes, nil, all))
	if b := r.Nodes[0].Boots[0]; r.Verdict != VerdictDamaged || !slices.Equal(b.Expired, []Range{{1, 50}}) || r.Nodes[0].Boots[1].To != 20 {
		t.Errorf("a boot that expired as a whole: %s %+v", r.Verdict, r.Problems)
	}
}

// The keys of several tenants may be trusted at once, whose nodes have the same
// names: none of them explains what is not there of another, nor adds to it.
func TestVerifyKeepsTenantsApart(t *testing.T) {
	l, batches, notes := story(t)
	node, region := newSigner(t, NodeKeyName("other", "edge-1")), newSigner(t, RegionKeyName("other", "eu"))
	if err := errors.Join(l.keys.AddNode(node.vkey), l.keys.AddRegion(region.vkey)); err != nil {
		t.Fatal(err)
	}
	l.keys.Believe(func(env []byte) (Document, error) {
		return Document{Tenant: "other", Kind: "erasure", Removal: Removal{Records: []Records{{"edge-1", boot1, []Range{{1, 50}}}}}}, nil
	})
	sweep, err := (&Sweep{Tenant: "other", Region: "eu", Serial: 1, Parts: []Records{{"edge-1", boot1, []Range{{1, 50}}}}, Records: []Records{{"edge-1", boot1, []Range{{11, 20}}}}}).Sign(region)
	if err != nil {
		t.Fatal(err)
	}
	without := slices.Delete(slices.Clone(batches), 1, 2)
	erase(without, Range{31, 40})
	r := l.verify(explained(t, without, notes, []string{"erasure"}, sweep))
	if b := r.Nodes[0].Boots[0]; r.Verdict != VerdictGap || !slices.Equal(b.Gaps, []Range{{11, 20}}) || !slices.Equal(b.Missing, []Range{{31, 40}}) {
		t.Errorf("another tenant's word: %s, gaps %v, missing %v", r.Verdict, b.Gaps, b.Missing)
	}

	l, batches, notes = story(t)
	if err := l.keys.AddNode(node.vkey); err != nil {
		t.Fatal(err)
	}
	last := batches[len(batches)-1]
	tree := last.before()
	for _, e := range last.Entries {
		tree.Append(e.Hash())
	}
	more := &Batch{Tenant: "other", Node: "edge-1", Boot: boot2, First: 21, Frontier: tree.Roots(), Entries: []Entry{entryOf(t, decision(21))}}
	tree.Append(more.Entries[0].Hash())
	c := Checkpoint{Tenant: "other", Node: "edge-1", Boot: boot2, Size: 21, Root: tree.Root(), Time: 99}
	if more.Checkpoint, err = c.Sign(node); err != nil {
		t.Fatal(err)
	}
	r = l.verify(export(t, append(batches, more), notes...))
	if b := r.Nodes[0].Boots[1]; r.Verdict != VerdictAltered || b.To != 20 || !slices.Equal(b.Altered, []Range{{21, 21}}) {
		t.Errorf("another tenant's record: %s, to %d, altered %v", r.Verdict, b.To, b.Altered)
	}
}

// A file of documents is read as data: what is there instead of one is told, and
// damages nothing that is proven.
func TestHostileExplanations(t *testing.T) {
	l, batches, notes := story(t)
	l.keys.Believe(trusting(nil))
	dir := explained(t, batches, notes, []string{"x", strings.Repeat("y", 100_000)}, []byte("no note"), l.sweep(Sweep{}))
	for _, name := range []string{"documents/../x.dsse", "documents/a/b.dsse", "sweeps/x.txt"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	remanifest(t, dir)
	r := l.verify(dir)
	if r.Verdict != VerdictComplete || len(r.Problems) != 6 || len(r.Explained) != 1 {
		t.Errorf("%s, %+v, %+v", r.Verdict, r.Problems, r.Explained)
	}
}

func TestSweepForms(t *testing.T) {
	l := newLedger(t)
	good := Sweep{Tenant: "acme", Region: "eu", Serial: 7, Time: 8, Parts: []Records{{"edge-1", boot1, []Range{{1, 2}, {5, 9}}}, {"edge-2", boot2, []Range{{1, 1}}}}, Records: []Records{{"edge-1", boot1, []Range{{11, 30}}}}}
	msg, err := good.Sign(l.region)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := OpenSweep(msg, l.region); err != nil || !reflect.DeepEqual(again, &good) {
		t.Errorf("%+v, %v", again, err)
	}
	for name, breakIt := range map[string]func(*Sweep){
		"serial 0":      func(s *Sweep) { s.Serial = 0 },
		"region":        func(s *Sweep) { s.Region = "e/u" },
		"node":          func(s *Sweep) { s.Parts = []Records{{"../x", boot1, []Range{{1, 1}}}} },
		"boot":          func(s *Sweep) { s.Parts = []Records{{"edge-1", "x", []Range{{1, 1}}}} },
		"backwards":     func(s *Sweep) { s.Records = []Records{{"edge-1", boot1, []Range{{2, 1}}}} },
		"record 0":      func(s *Sweep) { s.Records = []Records{{"edge-1", boot1, []Range{{0, 1}}}} },
		"a line inside": func(s *Sweep) { s.Records = []Records{{"edge-1\nparts", boot1, []Range{{1, 1}}}} },
	} {
		s := Sweep{Tenant: "acme", Region: "eu", Serial: 1, Time: 1}
		breakIt(&s)
		if _, err := s.Sign(l.region); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	other := newSigner(t, RegionKeyName("acme", "us"))
	if msg, err = good.Sign(other); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSweep(msg, other); err == nil {
		t.Error("a region's sweep signed by another is read")
	}
}

func TestRanges(t *testing.T) {
	all := Union([]Range{{9, 9}, {1, 3}, {4, 5}, {2, 2}, {20, 30}})
	if !slices.Equal(all, []Range{{1, 5}, {9, 9}, {20, 30}}) {
		t.Fatalf("%v", all)
	}
	for seq := uint64(1); seq < 40; seq++ {
		slow := seq <= 5 || seq == 9 || seq >= 20 && seq <= 30
		if Contains(all, seq) != slow || Overlaps(all, seq, seq) != slow {
			t.Errorf("%d", seq)
		}
		for last := seq; last < 40; last++ {
			any := false
			for x := seq; x <= last; x++ {
				any = any || Contains(all, x)
			}
			if Overlaps(all, seq, last) != any {
				t.Errorf("%d to %d: %v", seq, last, !any)
			}
			in, rest := (Range{seq, last}).split(all)
			for x := seq; x <= last; x++ {
				if Contains(in, x) != Contains(all, x) || Contains(rest, x) == Contains(all, x) {
					t.Fatalf("%d of %d to %d: in %v, rest %v", x, seq, last, in, rest)
				}
			}
		}
	}
}

func FuzzOpenSweep(f *testing.F) {
	region := newSigner(f, RegionKeyName("acme", "eu"))
	good := Sweep{Tenant: "acme", Region: "eu", Serial: 1, Time: 1, Parts: []Records{{"edge-1", boot1, []Range{{1, 2}}}}}
	f.Add([]byte(good.Text()))
	f.Add([]byte("holdfast/acme/region/eu sweep\n1\n1\nrecords edge-1 " + boot1 + " 1 1\nrecords edge-1 " + boot1 + " 2 2\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = PeekSweep(text)
		s, err := parseSweep(string(text))
		if err != nil {
			return
		}
		msg, err := s.Sign(region)
		if err != nil {
			return // beyond what a note may hold
		}
		if again, err := OpenSweep(msg, region); err == nil && again.Text() != string(text) {
			t.Fatalf("%q is read as %q", text, again.Text())
		}
	})
}
