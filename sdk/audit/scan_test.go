package audit

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// scanned are entries of all kinds, with all that can stand beside a leaf.
func scanned(t testing.TB) []Entry {
	key := PartKey(bytes.Repeat([]byte{7}, PartKeyBytes))
	long := bytes.Repeat([]byte("0123456789abcdef"), 600)
	w := &Window{}
	full := decision(5)
	full.Decision.Said = &Said{Signals: []SignalRecord{{Detector: "pii", Score: 0.25}, {Detector: "x", Score: 0.1}}}
	full.Decision.Trace, full.Decision.Replay = bytes.Repeat([]byte{1}, 16), ReplayMasked
	return []Entry{
		entryOf(t, full),
		entryIn(t, w, requested(6, withSlots(key, long, [2]int{16, 400}), key)),
		entryIn(t, w, requested(7, withSlots(key, long[:2000], [2]int{16, 400}), key)), // of a blob before it
		entryOf(t, &Record{Seq: 1, Kind: KindBoot, Time: -1, Boot: &BootRecord{Tenant: "acme", Node: "n", Boot: boot1}}),
		entryOf(t, &Record{Seq: 2, Kind: KindActivation, Activation: &ActivationRecord{Epoch: 1, Modules: []Module{{Name: "m"}}, Points: []Point{{Name: "p", Modules: []uint64{0}}}}}),
		entryOf(t, &Record{Seq: 3, Kind: KindAdmin, Admin: &AdminRecord{Event: "e", Detail: map[string]any{"a": int64(1)}}}),
		entryOf(t, &Record{Seq: 4, Kind: KindResult, Result: &ResultRecord{Seq: 2, Usage: &Usage{Input: 3}}}),
	}
}

// oracle is what Entry.Record says of an entry at the place of seq.
func oracle(e *Entry, seq uint64, find func(BlobID) []byte) (f found) {
	r, err := e.Record(find)
	if err == nil && r.Seq != seq {
		err = errors.New("another place")
	}
	if f.err = err; err == nil {
		f.kind, f.missing = r.Kind, slices.ContainsFunc(r.Parts(), (*Part).Missing)
	}
	return f
}

// A scan accepts nothing that Entry.Record refuses, and sees the same in it; and
// it accepts what a node writes.
func TestScanAgainstRecord(t *testing.T) {
	entries := scanned(t)
	w := &Window{}
	for i, e := range entries {
		w.Take(uint64(i+1), e)
	}
	find := func(id BlobID) []byte { return w.Find(9, id) }
	var s scanner
	for i, e := range entries {
		want := oracle(&e, seqOf(t, e), find)
		if !s.scan(&e, seqOf(t, e), find) || want.err != nil || s.kind != want.kind || s.missing != want.missing {
			t.Errorf("%d: not accepted, or as %+v for %+v", i, s, want)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 60_000 {
		e := entries[r.IntN(len(entries))]
		e, seq := spoilt(r, e), seqOf(t, e)+uint64(r.IntN(20)/19)
		look := find
		if r.IntN(4) == 0 {
			look = func(BlobID) []byte { return nil }
		}
		if !s.scan(&e, seq, look) {
			continue
		}
		accepted++
		if want := oracle(&e, seq, look); want.err != nil || s.kind != want.kind || s.missing != want.missing {
			t.Fatalf("%x %x: scanned as %s, missing %t; want %+v", e.Leaf, e.Parts, s.kind, s.missing, want)
		}
	}
	if accepted < 1000 {
		t.Fatalf("%d were accepted: this test looks at nothing", accepted)
	}
}

// What check says of a record beyond its form is said by a scan too.
func TestScanOfInstead(t *testing.T) {
	r := &Record{Seq: 5, Kind: KindDecision, Decision: &DecisionRecord{Point: "custom", Instead: 4}}
	body, err := r.Body()
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(3); seq < 7; seq++ {
		e := Entry{Leaf: AppendLeaf(nil, body, seq)}
		var s scanner
		if want := oracle(&e, seq, nil); (want.err == nil) != (seq > 4) || want.err != nil && s.scan(&e, seq, nil) {
			t.Errorf("%d: scanned, though %v", seq, want.err)
		}
	}
}

func seqOf(t testing.TB, e Entry) uint64 {
	t.Helper()
	r, err := e.Record(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.Seq
}

// spoilt returns a copy of an entry with something changed, or nothing.
func spoilt(r *rand.Rand, e Entry) Entry {
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		if len(b) > 0 {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		return b
	}
	e.Parts = slices.Clone(e.Parts)
	switch r.IntN(8) {
	case 0, 1, 2:
		e.Leaf = flip(e.Leaf)
	case 3:
		e.Key = PartKey(flip(e.Key))
	case 4:
		e.Blobs = nil
	case 5:
		e.Parts = append(e.Parts, []byte{1})
	default:
		if len(e.Parts) > 0 {
			at := r.IntN(len(e.Parts))
			if e.Parts[at] = flip(e.Parts[at]); r.IntN(2) == 0 {
				e.Parts[at] = nil
			}
		}
	}
	return e
}

// A record must not find a blob that came after it, however far ahead others
// have read.
func TestBlobsOfLaterRecordsAreNotFound(t *testing.T) {
	w := &blobWindow{blobs: map[BlobID]introduced{}}
	id := NameBlob([]byte("x"))
	w.keep(introduced{seq: 5, id: id, bytes: []byte("x")})
	w.keep(introduced{seq: 9, id: id, bytes: []byte("x")})
	if w.find(5, id) != nil || w.find(6, id) == nil {
		t.Fatal("found too early, or not at all")
	}
	w.keep(introduced{seq: 2, id: id, bytes: []byte("x")})
	if w.find(5, id) == nil {
		t.Fatal("the first one counts")
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	l, batches, notes := story(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := VerifyWith(ctx, os.DirFS(export(t, batches, notes...)), l.keys, Options{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v %v", r, err)
	}
}
