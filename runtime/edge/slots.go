package edge

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/holdfast-policy/holdfast/runtime/rawjson"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// Bounds of looking for what requests repeat.
const (
	// minShared is the length from which a value is worth a blob, in bytes.
	minShared = 96
	// maxLevels is how deep values are looked at: a tool's declaration in the
	// properties of a resource is three levels down.
	maxLevels = 4
	// rememberedBits: a node remembers 2^15 values, 256 KiB of hashes.
	rememberedBits = 15
)

// repeats remembers values that requests had, so that one that comes again is
// stored once. It forgets: what it does not know is stored in full. It is safe
// for concurrent use.
type repeats struct {
	seed  maphash.Seed
	table [1 << rememberedBits]atomic.Uint64
}

func newRepeats() *repeats { return &repeats{seed: maphash.MakeSeed()} }

// again reports whether b was there before, and remembers it. Two values that are
// taken for one cost a blob too many, no more.
func (r *repeats) again(b []byte) bool {
	h := maphash.Bytes(r.seed, b)
	return r.table[h>>(64-rememberedBits)].Swap(h) == h
}

// slots returns the places of a request's JSON that were in earlier ones too, the
// largest of each.
func (r *repeats) slots(doc []byte) []audit.Slot {
	if len(doc) < minShared {
		return nil
	}
	f := finder{repeats: r, doc: doc}
	if len(doc) <= audit.MaxShared && r.again(doc) { // asked again, as it was
		return []audit.Slot{{From: 0, To: len(doc), ID: audit.NameBlob(doc)}}
	}
	if f.nested(rawjson.Space(doc, 0), 1) == rawjson.Bad { // no request that was parsed is one of these
		return nil
	}
	return f.found
}

type finder struct {
	*repeats
	doc   []byte
	found []audit.Slot
}

func (f *finder) nested(at, level int) int {
	return rawjson.Each(f.doc, at, func(_ []byte, _, from int) int {
		end := rawjson.Skip(f.doc, from)
		if end == rawjson.Bad || end-from < minShared || len(f.found) == audit.MaxSlots {
			return end
		}
		if end-from <= audit.MaxShared && f.again(f.doc[from:end]) {
			f.found = append(f.found, audit.Slot{From: from, To: end, ID: audit.NameBlob(f.doc[from:end])})
			return end
		}
		if c := f.doc[from]; level < maxLevels && (c == '{' || c == '[') {
			f.nested(from, level+1)
		}
		return end
	})
}
