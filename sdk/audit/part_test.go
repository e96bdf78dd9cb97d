package audit

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"testing"
)

// withSlots returns a part of b whose slots are at the given places.
func withSlots(key PartKey, b []byte, places ...[2]int) *Part {
	p := NewPart(key, b)
	for _, at := range places {
		p.Slots = append(p.Slots, Slot{From: at[0], To: at[1], ID: NameBlob(b[at[0]:at[1]])})
	}
	return p
}

func requested(seq uint64, p *Part, key PartKey) *Record {
	r := decision(seq)
	r.Key = key
	r.Decision.Request, r.Decision.Value = p, nil
	return r
}

func entryIn(t testing.TB, w *Window, r *Record) Entry {
	t.Helper()
	body, err := r.Body()
	if err != nil {
		t.Fatal(err)
	}
	s := r.Store()
	return Entry{Leaf: AppendLeaf(nil, body, r.Seq), Parts: s.Parts, Key: s.Key, Blobs: s.Introduce(w, r.Seq)}
}

// What a part was is what comes out, whatever its size, slots and first byte.
func TestStoredPartsComeBack(t *testing.T) {
	key := PartKey(bytes.Repeat([]byte{7}, PartKeyBytes))
	long := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	for name, p := range map[string]*Part{
		"small":            NewPart(key, []byte(`{"a":1}`)),
		"without key":      NewPart(nil, []byte(`{"a":1}`)),
		"slots":            withSlots(key, long[:3000], [2]int{0, 300}, [2]int{300, 700}, [2]int{2000, 3000}),
		"the same twice":   withSlots(key, long[:1600], [2]int{0, 320}, [2]int{640, 960}),
		"large":            NewPart(key, long),
		"large with slots": withSlots(key, long, [2]int{16, 400}),
		"like a form":      NewPart(key, []byte{formPacked, 1, 2}),
		"like another":     NewPart(key, []byte{formBlob}),
	} {
		k := key
		if name == "without key" {
			k = nil
		}
		e := entryIn(t, &Window{}, requested(9, p, k))
		for _, stored := range e.Parts {
			if len(stored) > MaxInline {
				t.Errorf("%s: %d bytes stay in the entry", name, len(stored))
			}
		}
		r, err := e.Record(nil)
		if err != nil || !bytes.Equal(r.Decision.Request.Bytes, p.Bytes) {
			t.Errorf("%s: %v", name, err)
		}
		e.Blobs = nil
		r, err = e.Record(nil)
		if blobs := len(p.Slots) > 0 || len(p.Bytes) > MaxInline; err != nil || r.Decision.Request.Missing() != blobs {
			t.Errorf("%s without its blobs: %v, missing %v", name, err, r.Decision.Request.Missing())
		}
	}
}

// Records of one window share blobs; those of the next introduce them anew.
func TestWindowsShareBlobs(t *testing.T) {
	writer, reader := &Window{}, &Window{}
	declared := bytes.Repeat([]byte("declaration "), 50)
	introduced := map[uint64]int{}
	for _, seq := range []uint64{1, 2, WindowRecords, WindowRecords + 1, WindowRecords + 2} {
		b := fmt.Appendf(nil, `{"tool":"%s","n":%d}`, declared, seq)
		e := entryIn(t, writer, requested(seq, withSlots(nil, b, [2]int{9, 9 + len(declared)}), nil))
		introduced[seq] = len(e.Blobs)
		r, err := e.Record(func(id BlobID) []byte { return reader.Find(seq, id) })
		if err != nil || !bytes.Equal(r.Decision.Request.Bytes, b) {
			t.Fatalf("record %d: %v, %q", seq, err, r.Decision.Request.Bytes)
		}
		reader.Take(seq, e)
	}
	if fmt.Sprint(introduced) != fmt.Sprint(map[uint64]int{1: 1, 2: 0, WindowRecords: 0, WindowRecords + 1: 1, WindowRecords + 2: 0}) {
		t.Errorf("blobs introduced by record: %v", introduced)
	}
}

// Writer and reader keep the same blobs, however many and however large, and a
// window stays within its bound.
func TestWindowIsBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	writer, reader := &Window{}, &Window{}
	for seq := uint64(1); seq < 400; seq++ {
		size := 1 + rng.IntN(2*MaxShared)
		b := bytes.Repeat([]byte{byte(rng.IntN(8))}, size)
		e := entryIn(t, writer, requested(seq, withSlots(nil, b, [2]int{0, size}), nil))
		r, err := e.Record(func(id BlobID) []byte { return reader.Find(seq, id) })
		if err != nil || r.Decision.Request.Missing() {
			t.Fatalf("record %d of %d bytes: %v", seq, size, err)
		}
		reader.Take(seq, e)
		if reader.bytes > MaxWindowBytes || len(reader.blobs) != len(writer.blobs) {
			t.Fatalf("record %d: %d bytes, %d and %d blobs", seq, reader.bytes, len(reader.blobs), len(writer.blobs))
		}
	}
}

// Whatever length a side claims of what was erased, the window keeps its bound.
func TestWindowIsBoundedWhateverWasErased(t *testing.T) {
	for _, gone := range []uint64{1 << 63, 1<<64 - 1, 1 << 62} {
		w := &Window{}
		w.Take(1, Entry{Blobs: [][]byte{{}}, Gone: []uint64{gone}})
		for i := range 3 * MaxWindowBytes / MaxShared {
			w.Take(2, Entry{Blobs: [][]byte{bytes.Repeat([]byte{byte(i), byte(i >> 8)}, MaxShared/2)}})
		}
		if len(w.blobs) > MaxWindowBytes/MaxShared {
			t.Errorf("%d: %d blobs of %d bytes are kept", gone, len(w.blobs), MaxShared)
		}
	}
}

// A batch of records that share a blob is not many times its size in memory when
// nobody wants the records.
func TestVerifyFirstLetsRecordsGo(t *testing.T) {
	const blob, times, n = 20_000, 30, 150
	l := newLedger(t)
	shared := bytes.Repeat([]byte("x"), blob*times)
	var places [][2]int
	for at := range times {
		places = append(places, [2]int{at * blob, (at + 1) * blob})
	}
	w, tree := &Window{}, Frontier{}
	batch := &Batch{Tenant: "acme", Node: "edge-1", Boot: boot1, First: 1}
	for seq := uint64(1); seq <= n; seq++ {
		e := entryIn(t, w, requested(seq, withSlots(nil, shared, places...), nil))
		batch.Entries = append(batch.Entries, e)
		tree.Append(e.Hash())
	}
	batch.Checkpoint = l.sign(Checkpoint{Tenant: "acme", Node: "edge-1", Boot: boot1, Size: n, Root: tree.Root(), Time: 1})
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c, first, err := batch.VerifyFirst(l.node)
	runtime.ReadMemStats(&after)
	if err != nil || c.Size != n || first.Seq != 1 || len(first.Decision.Request.Bytes) != len(shared) {
		t.Fatalf("%v, %+v", err, c)
	}
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > n*blob*times/5 {
		t.Errorf("the heap has grown by %d bytes for a batch whose records have %d", grown, n*blob*times)
	}
}

// The leaf says nothing of an erased part to who does not have its key.
func TestDigestNeedsItsKey(t *testing.T) {
	one, other := PartKey(bytes.Repeat([]byte{1}, PartKeyBytes)), PartKey(bytes.Repeat([]byte{2}, PartKeyBytes))
	if NewPart(one, []byte("yes")).Digest == NewPart(other, []byte("yes")).Digest || NewPart(one, []byte("yes")).Digest == NewPart(nil, []byte("yes")).Digest {
		t.Fatal("the digest does not depend on the key")
	}
	e := entryIn(t, &Window{}, requested(1, NewPart(one, []byte("yes")), one))
	e.Key = other
	if _, err := e.Record(nil); err == nil {
		t.Error("another key is accepted")
	}
	e.Key = one[:8]
	if _, err := e.Record(nil); err == nil {
		t.Error("half a key is accepted")
	}
}

// A batch proves itself with its blobs beside it, and without them.
func TestSplitAndJoin(t *testing.T) {
	b := bytes.Repeat([]byte("x"), 2*MaxInline)
	batch := &Batch{Tenant: "acme", Node: "edge-1", Boot: BootID(1, 10), First: 1}
	w := &Window{}
	for seq := uint64(1); seq <= 3; seq++ {
		batch.Entries = append(batch.Entries, entryIn(t, w, requested(seq, NewPart(nil, b[:len(b)-int(seq%2)]), nil)))
	}
	rest, side := batch.Split()
	frame, err := side.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeSide(frame)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest.Entries[0].Blobs)+len(rest.Entries[2].Blobs) != 0 || len(batch.Entries[0].Blobs) != 1 {
		t.Fatal("the blobs are where they were")
	}
	if err := rest.Join(again); err != nil || !bytes.Equal(rest.Entries[1].Blobs[0], batch.Entries[1].Blobs[0]) {
		t.Fatalf("%v", err)
	}
	again.First = 2
	if err := rest.Join(again); err == nil {
		t.Error("the blobs of another batch are accepted")
	}
	again.First, again.Blobs = 1, map[uint64][][]byte{3: {b}}
	if err := rest.Join(again); err == nil {
		t.Error("blobs of a record that is not there are accepted")
	}
}

func FuzzStored(f *testing.F) {
	blob := bytes.Repeat([]byte("b"), 100)
	id := NameBlob(blob)
	f.Add(append(append([]byte{formPacked, 1, 2}, id[:]...), "abcd"...), uint64(104))
	f.Add(append([]byte{formBlob}, id[:]...), uint64(100))
	f.Add([]byte{formPacked, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, uint64(1<<62))
	f.Fuzz(func(t *testing.T, stored []byte, limit uint64) {
		limit = min(limit, MaxEntryBytes)
		b, err := unstore(stored, limit, func(got BlobID) []byte {
			if got == id {
				return blob
			}
			return nil
		})
		if err == nil && len(b) > int(limit)+len(stored)+len(blob) {
			t.Fatalf("%d bytes, the limit is %d", len(b), limit)
		}
	})
}
