package audit

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// life is a window of a boot as random chance has it: requests with blobs of a
// few kinds, of all sizes, and answers to erasures in between.
type life struct {
	entries []Entry
	bytes   map[uint64][]byte // of each request
	uses    map[uint64]map[BlobID]bool
	ends    []uint64 // answers to erasures
}

func newLife(t *testing.T, rng *rand.Rand, n uint64) life {
	l := life{bytes: map[uint64][]byte{}, uses: map[uint64]map[BlobID]bool{}}
	key := PartKey(bytes.Repeat([]byte{7}, PartKeyBytes))
	writer := &Window{}
	for seq := uint64(1); seq <= n; seq++ {
		if seq == 1 {
			l.entries = append(l.entries, entryIn(t, writer, bootLeaf(boot1, "", 0, nil)))
			continue
		}
		if rng.IntN(100) == 0 {
			l.ends = append(l.ends, seq)
			l.entries = append(l.entries, entryIn(t, writer, &Record{Seq: seq, Kind: KindAdmin, Admin: &AdminRecord{Event: EventErased}}))
			continue
		}
		var b []byte
		var places [][2]int
		for range 1 + rng.IntN(4) {
			size := 200 + rng.IntN(3)*20_000 + rng.IntN(2)*(MaxShared-20_000)
			from := len(b)
			b = append(b, bytes.Repeat([]byte{byte(rng.IntN(12))}, size)...)
			places = append(places, [2]int{from, len(b)})
			b = fmt.Appendf(b, "own words of %d", seq)
		}
		if rng.IntN(3) == 0 { // so many that the rest becomes a blob itself
			b = append(b, bytes.Repeat(fmt.Appendf(nil, "%d ", seq), 2000)...)
		}
		e := entryIn(t, writer, requested(seq, withSlots(key, b, places...), key))
		l.entries, l.bytes[seq] = append(l.entries, e), b
		l.uses[seq] = map[BlobID]bool{}
		for _, at := range places {
			l.uses[seq][NameBlob(b[at[0]:at[1]])] = true
		}
	}
	return l
}

// stretch numbers the part of the window, between answers, that a record is in.
func (l *life) stretch(seq uint64) (n int) {
	for _, end := range l.ends {
		if seq >= end {
			n++
		}
	}
	return n
}

// erase splits the records into batches of ten, erases and scrubs them, and
// returns them as they are read again.
func (l *life) erase(t *testing.T, gone map[uint64]bool, closed bool) (again []*Batch, waits bool) {
	is := func(seq uint64) bool { return gone[seq] }
	scrub := NewScrub(0, is)
	for from := 0; from < len(l.entries); from += 10 {
		b := &Batch{Tenant: "acme", Node: "edge-1", Boot: boot1, First: uint64(from + 1), Entries: append([]Entry(nil), l.entries[from:min(from+10, len(l.entries))]...)}
		b.Erase(is)
		scrub.Batch(b)
		again = append(again, b)
	}
	drops, waits := scrub.Finish(closed)
	for i, b := range again {
		rest, side := b.Split()
		if side == nil {
			continue
		}
		var here []Drop
		for _, d := range drops {
			if d.Seq >= b.First && d.Seq <= b.Last() {
				here = append(here, d)
			}
		}
		side.Drop(here)
		frame, err := side.Encode()
		if err != nil {
			t.Fatal(err)
		}
		read, err := DecodeSide(frame)
		if err != nil {
			t.Fatal(err)
		}
		if read.Drop(here) {
			t.Fatal("what was dropped is dropped again")
		}
		if err := rest.Join(read); err != nil {
			t.Fatal(err)
		}
		again[i] = rest
	}
	return again, waits
}

// Whatever is erased, every other record still has all its parts, and of what is
// erased no blob is left that nobody else uses.
func TestScrub(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, round))
		l := newLife(t, rng, 400)
		gone := map[uint64]bool{}
		for range rng.IntN(200) {
			gone[1+rng.Uint64N(400)] = true
		}
		for at := range gone {
			if l.bytes[at] == nil {
				delete(gone, at)
			}
		}
		again, waits := l.erase(t, gone, true)
		if waits {
			t.Fatal("waits for what cannot come")
		}
		left := map[BlobID][]uint64{} // introduced by erased records
		window := &Window{}
		for _, b := range again {
			for i, e := range b.Entries {
				seq := b.First + uint64(i)
				r, err := b.record(i, window)
				if err != nil {
					t.Fatal(err)
				}
				if gone[seq] {
					if len(e.Parts) > 0 || len(e.Key) > 0 || !r.Decision.Request.Missing() {
						t.Fatalf("record %d is not erased", seq)
					}
					for _, blob := range e.Blobs {
						if len(blob) > 0 {
							left[NameBlob(blob)] = append(left[NameBlob(blob)], seq)
						}
					}
				} else if want := l.bytes[seq]; want != nil && !bytes.Equal(r.Decision.Request.Bytes, want) {
					t.Fatalf("round %d: record %d lost a part to the erasure of others", round, seq)
				}
			}
		}
		for id, introducers := range left {
			for _, by := range introducers {
				used := false
				for seq, ids := range l.uses {
					used = used || !gone[seq] && ids[id] && l.stretch(seq) == l.stretch(by)
				}
				if !used {
					t.Fatalf("round %d: a blob that only record %d used is still there", round, by)
				}
			}
		}
	}
}

// proven exports batches without their places in the tree, which it gives them,
// and returns what verification says of them and of their requests.
func proven(t *testing.T, again []*Batch, gone []Range) (r *Report, requests map[uint64][]byte) {
	t.Helper()
	led := newLedger(t)
	w, err := NewExportWriter(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var f Frontier
	for _, b := range again {
		rest, side := b.Split()
		rest.Frontier = f.Roots()
		for _, e := range rest.Entries {
			f.Append(e.Hash())
		}
		rest.Checkpoint = led.sign(Checkpoint{Tenant: "acme", Node: "edge-1", Boot: boot1, Size: f.Size(), Root: f.Root(), Time: 1})
		frame, err := rest.Encode()
		if err == nil {
			err = w.Batch(frame)
		}
		if err == nil && side != nil {
			if frame, err = side.Encode(); err == nil {
				err = w.Side(frame)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Document([]byte("order")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	led.keys.Believe(trusting(map[string][]Records{"order": {{"edge-1", boot1, gone}}}))
	requests = map[uint64][]byte{}
	r, err = VerifyEach(os.DirFS(w.dir), led.keys, func(_, _ string, r *Record, _ tlog.Hash) {
		if r.Decision != nil {
			requests[r.Seq] = r.Decision.Request.Bytes
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, requests
}

// Verification, which reads ahead and side by side, finds the same.
func TestVerifyAfterScrub(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	l := newLife(t, rand.New(rand.NewPCG(seed, 1)), 300)
	gone := map[uint64]bool{}
	var ranges []Range
	for seq := uint64(2); seq <= 300; seq++ {
		if rand.IntN(3) == 0 && l.bytes[seq] != nil {
			gone[seq] = true
			ranges = extend(ranges, Range{seq, seq})
		}
	}
	again, _ := l.erase(t, gone, true)
	r, requests := proven(t, again, ranges)
	for seq, want := range l.bytes {
		if !gone[seq] && !bytes.Equal(requests[seq], want) {
			t.Errorf("record %d has other bytes", seq)
		}
	}
	if b := r.Nodes[0].Boots[0]; r.Verdict != VerdictComplete || len(b.Missing) > 0 || !slices.Equal(b.Erased, ranges) || len(b.NotErased) > 0 {
		t.Errorf("%s: missing %v, erased %v of %v", r.Verdict, b.Missing, b.Erased, ranges)
	}
}

// While records may come that use it, a blob that is shared waits; one that is
// too large to be shared goes at once, and once no record can refer to it, so does
// the other.
func TestScrubWaits(t *testing.T) {
	key := PartKey(bytes.Repeat([]byte{7}, PartKeyBytes))
	small, large := bytes.Repeat([]byte("s"), 5000), bytes.Repeat([]byte("L"), MaxShared+1)
	w := &Window{}
	l := life{entries: []Entry{
		entryIn(t, w, requested(1, NewPart(key, small), key)),
		entryIn(t, w, requested(2, NewPart(key, large), key)),
	}}
	left := func(b []*Batch) map[int]int {
		n := map[int]int{}
		for _, e := range b[0].Entries {
			for _, blob := range e.Blobs {
				n[len(blob)]++
			}
		}
		return n
	}
	gone := map[uint64]bool{1: true, 2: true}
	again, waits := l.erase(t, gone, false)
	if !waits || !maps.Equal(left(again), map[int]int{len(small): 1, 0: 1}) {
		t.Errorf("waits %v, left %v", waits, left(again))
	}
	l.entries = append(l.entries, entryIn(t, w, &Record{Seq: 3, Kind: KindAdmin, Admin: &AdminRecord{Event: EventErased}}))
	l.entries = append(l.entries, entryIn(t, w, requested(4, NewPart(key, small), key)))
	if again, waits = l.erase(t, gone, false); waits || left(again)[len(small)] != 1 || len(again[0].Entries[3].Blobs[0]) != len(small) {
		t.Errorf("after the node's answer: waits %v, left %v", waits, left(again))
	}
	if r, err := again[0].Entries[3].Record(nil); err != nil || !bytes.Equal(r.Decision.Request.Bytes, small) {
		t.Errorf("the record after the answer does not have its own blob: %v", err)
	}
}

// A reader of what was erased keeps the very blobs that the writer kept: room that
// an erased blob took is not given to another, nor is what came before an answer
// in the way of what comes after it.
func TestReaderKeepsWhatTheWriterKept(t *testing.T) {
	for _, answered := range []bool{false, true} {
		w, l := &Window{}, life{}
		l.entries = append(l.entries, entryIn(t, w, bootLeaf(boot1, "", 0, nil)))
		add := func(fill byte, size int) (whole []byte) {
			seq := uint64(len(l.entries) + 1)
			whole = append(bytes.Repeat([]byte{fill}, size), byte(seq))
			l.entries = append(l.entries, entryIn(t, w, requested(seq, withSlots(nil, whole, [2]int{0, size}), nil)))
			return whole
		}
		for i := range byte(MaxWindowBytes/MaxShared - 1) {
			add(i, MaxShared)
		}
		add(100, MaxShared-5000)
		if answered {
			l.entries = append(l.entries, entryIn(t, w, &Record{Seq: uint64(len(l.entries) + 1), Kind: KindAdmin, Admin: &AdminRecord{Event: EventErased}}))
		} else {
			for i := range byte(12) {
				add(110+i, 6000) // has no room where it is written
			}
		}
		add(200, 4900)
		last, seq := add(200, 4900), uint64(len(l.entries))
		if n := len(l.entries[seq-1].Blobs); n != 0 {
			t.Fatalf("the last record carries %d blobs", n)
		}
		gone := map[uint64]bool{2: true}
		if answered {
			gone = nil // all the room is taken
			add(201, 10_000)
			add(201, 10_000)
		}
		again, _ := l.erase(t, gone, true)
		window := &Window{}
		for _, b := range again {
			for i := range b.Entries {
				r, err := b.record(i, window)
				if err != nil {
					t.Fatal(err)
				}
				if r.Seq == seq && !bytes.Equal(r.Decision.Request.Bytes, last) {
					t.Errorf("answered %v: the last record lost its blob", answered)
				}
			}
		}
		if r, requests := proven(t, again, []Range{{2, 2}}); r.Verdict != VerdictComplete || !bytes.Equal(requests[seq], last) {
			t.Errorf("answered %v: %s %v", answered, r.Verdict, r.Problems)
		}
	}
}

func TestHoldCovers(t *testing.T) {
	r := decision(5)
	for name, c := range map[string]struct {
		hold Hold
		want bool
	}{
		"everything":      {Hold{}, true},
		"node":            {Hold{Node: "edge-1"}, true},
		"other node":      {Hold{Node: "edge-2"}, false},
		"point":           {Hold{Point: "tool.pre_call"}, true},
		"other point":     {Hold{Node: "edge-1", Point: "custom"}, false},
		"subject":         {Hold{Subject: sum("alice")}, true},
		"typed subject":   {Hold{Subject: sum("user:alice")}, true},
		"other subject":   {Hold{Subject: sum("bob")}, false},
		"time":            {Hold{From: r.Time, To: r.Time}, true},
		"before":          {Hold{To: r.Time - 1}, false},
		"after":           {Hold{From: r.Time + 1}, false},
		"all but a point": {Hold{Node: "edge-1", Subject: sum("alice"), From: 1, To: r.Time, Point: "custom"}, false},
	} {
		if got := c.hold.Covers("edge-1", r); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if (Hold{Point: "custom"}).Covers("edge-1", bootLeaf(boot1, "", 0, nil)) || !(Hold{}).Covers("edge-1", bootLeaf(boot1, "", 0, nil)) {
		t.Error("records that are no decisions")
	}
}
