package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A PartKey is the key of the HMACs that stand for a record's parts. Each record
// has its own, which travels beside the parts, so that anybody can check them;
// when they are erased it goes with them, and the HMACs left in the leaf say
// nothing about them, however few values they could have had. nil means plain
// SHA-256.
type PartKey []byte

// PartKeyBytes is the length of a PartKey.
const PartKeyBytes = 16

func (k PartKey) digest(b []byte) wire.Digest {
	if len(k) == 0 {
		return wire.Sum(b)
	}
	mac := hmac.New(sha256.New, k)
	mac.Write(b)
	return wire.Digest(mac.Sum(nil))
}

// A Part is a piece of a record that can be erased without touching the tree:
// the leaf covers its digest, the bytes travel beside the leaf.
type Part struct {
	// Digest is the HMAC-SHA-256 of the bytes under the record's key.
	Digest wire.Digest `cbor:"1,keyasint"`
	Size   uint64      `cbor:"2,keyasint"`
	// Bytes is nil when the part was erased, or is not at hand.
	Bytes []byte `cbor:"-"`
	// Slots are the places of Bytes that are worth a blob, in order.
	Slots []Slot `cbor:"-"`
}

// NewPart returns the part that holds b, which is kept, not copied; nil for no
// bytes.
func NewPart(key PartKey, b []byte) *Part {
	if len(b) == 0 {
		return nil
	}
	return &Part{Digest: key.digest(b), Size: uint64(len(b)), Bytes: b}
}

// Missing reports whether the part's bytes are not there.
func (p *Part) Missing() bool { return p.Bytes == nil && p.Size > 0 }

// Parts returns the record's parts in the order in which their bytes travel.
func (r *Record) Parts() []*Part {
	if r.Decision == nil {
		return nil
	}
	var parts []*Part
	for _, p := range []*Part{r.Decision.Request, r.Decision.Value, r.Decision.Logs} {
		if p != nil {
			parts = append(parts, p)
		}
	}
	return parts
}

// Bounds of parts and blobs.
const (
	// MaxSlots bounds the blobs of one part.
	MaxSlots = 32
	// MaxInline is how much of a part stays in the entry; more of it becomes a
	// blob as a whole.
	MaxInline = 4 << 10
	// MaxShared bounds a blob that records share; larger ones belong to one record.
	MaxShared = 64 << 10
	// MaxWindowBytes bounds the shared blobs of one window.
	MaxWindowBytes = 2 << 20
	// WindowRecords is the length of a window; windows of a boot begin with
	// record 1.
	WindowRecords = 1 << 16
)

// A BlobID names a blob: the first half of its SHA-256. It is an address only;
// what a part must be is in the leaf.
type BlobID [16]byte

// NameBlob returns the name of the blob b.
func NameBlob(b []byte) BlobID {
	sum := sha256.Sum256(b)
	return BlobID(sum[:16])
}

// A Slot is a place of a part's bytes that is stored as a blob of its own.
type Slot struct {
	From, To int
	ID       BlobID
}

// A blob is bytes that lie beside an entry.
type blob struct {
	id    BlobID
	bytes []byte
}

// How the bytes of a part are stored, by the first of them; otherwise they are
// stored as they are. Neither JSON nor CBOR begins with these bytes, and a part
// that does all the same is packed.
const (
	// formPacked: the number of slots; for each, how many bytes of the rest come
	// before it, and its blob; then the rest. Numbers are uvarints.
	formPacked = 0xfe
	// formBlob: the blob that holds the whole of another form.
	formBlob = 0xff
)

var errForm = errors.New("stored part is not in a known form")

// store returns the part's bytes as an entry holds them, and the blobs that
// this needs.
func (p *Part) store() (stored []byte, blobs []blob) {
	stored = p.Bytes
	if len(p.Slots) > 0 || len(stored) > 0 && stored[0] >= formPacked {
		stored, blobs = pack(p.Bytes, p.Slots)
	}
	if len(stored) <= MaxInline {
		return stored, blobs
	}
	id := NameBlob(stored)
	return append([]byte{formBlob}, id[:]...), append(blobs, blob{id, stored})
}

func pack(b []byte, slots []Slot) (stored []byte, blobs []blob) {
	stored = binary.AppendUvarint([]byte{formPacked}, uint64(len(slots)))
	end := 0
	for _, s := range slots {
		stored = append(binary.AppendUvarint(stored, uint64(s.From-end)), s.ID[:]...)
		blobs = append(blobs, blob{s.ID, b[s.From:s.To]})
		end = s.To
	}
	end = 0
	for _, s := range slots {
		stored = append(stored, b[end:s.From]...)
		end = s.To
	}
	return append(stored, b[end:]...), blobs
}

// unstore is the reverse of store. It returns nil bytes when a blob is not at
// hand, and never more than limit bytes.
func unstore(stored []byte, limit uint64, find func(BlobID) []byte) ([]byte, error) {
	if len(stored) > 0 && stored[0] == formBlob {
		if len(stored) != 1+len(BlobID{}) {
			return nil, errForm
		}
		stored = find(BlobID(stored[1:]))
		if stored == nil {
			return nil, nil
		}
		if len(stored) > 0 && stored[0] == formBlob {
			return nil, errForm
		}
	}
	if len(stored) == 0 || stored[0] != formPacked {
		return stored, nil
	}
	return unpack(stored[1:], limit, find)
}

func unpack(b []byte, limit uint64, find func(BlobID) []byte) ([]byte, error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > MaxSlots {
		return nil, errForm
	}
	b = b[k:]
	type place struct {
		before uint64
		id     BlobID
	}
	places := make([]place, n)
	for i := range places {
		before, k := binary.Uvarint(b)
		if k <= 0 || len(b)-k < len(BlobID{}) {
			return nil, errForm
		}
		places[i] = place{before, BlobID(b[k : k+len(BlobID{})])}
		b = b[k+len(BlobID{}):]
	}
	out := make([]byte, 0, min(limit, MaxEntryBytes))
	for _, p := range places {
		if p.before > uint64(len(b)) {
			return nil, errForm
		}
		filling := find(p.id)
		if filling == nil {
			return nil, nil
		}
		out = append(append(out, b[:p.before]...), filling...)
		b = b[p.before:]
		if uint64(len(out)) > limit {
			return nil, fmt.Errorf("%w: more than %d bytes", errForm, limit)
		}
	}
	return append(out, b...), nil
}

// A Window holds the blobs that the records of one window of a boot share: who
// writes uses it to know which are there already, who reads to find them. Both
// keep the same ones: those of at most MaxShared bytes, in the order in which
// they came, until there are MaxWindowBytes of them. The zero Window is empty.
type Window struct {
	number uint64
	bytes  int
	blobs  map[BlobID][]byte
}

// enter empties the window when record seq begins another one.
func (w *Window) enter(seq uint64) {
	if n := (seq - 1) / WindowRecords; n != w.number || w.blobs == nil {
		*w = Window{number: n, blobs: map[BlobID][]byte{}}
	}
}

// forget empties the window, which goes on.
func (w *Window) forget() { w.bytes, w.blobs = 0, map[BlobID][]byte{} }

// keep notes a blob of length bytes if it is one that is shared.
func (w *Window) keep(id BlobID, length int, b []byte) {
	if _, there := w.blobs[id]; !there && w.count(uint64(length)) {
		w.blobs[id] = b
	}
}

// count takes room for a shared blob of length bytes, if there is room.
func (w *Window) count(length uint64) bool {
	if !fits(w.bytes, length) {
		return false
	}
	w.bytes += int(length)
	return true
}

// fits reports whether a window that holds so many bytes keeps a blob of length
// bytes.
func fits(held int, length uint64) bool {
	return length <= MaxShared && held+int(length) <= MaxWindowBytes
}

// Take keeps the shared blobs of record seq, whose entry is e. One that was
// erased still takes its room, as it did where the record was written.
func (w *Window) Take(seq uint64, e Entry) {
	w.enter(seq)
	gone := e.Gone
	for _, b := range e.Blobs {
		if len(b) == 0 && len(gone) > 0 {
			w.count(gone[0])
			gone = gone[1:]
			continue
		}
		w.keep(NameBlob(b), len(b), slices.Clone(b))
	}
}

// Find returns a blob that record seq may refer to, or nil.
func (w *Window) Find(seq uint64, id BlobID) []byte {
	w.enter(seq)
	return w.blobs[id]
}

// Stored is what an entry holds of a record beside the leaf, but for the choice
// which blobs are new: see Introduce.
type Stored struct {
	Parts   [][]byte
	Key     PartKey
	blobs   []blob
	forgets bool
}

// Store returns how the record's parts are stored.
func (r *Record) Store() Stored {
	s := Stored{Key: r.Key, forgets: r.forgets()}
	for _, p := range r.Parts() {
		b, blobs := p.store()
		s.Parts = append(s.Parts, b)
		s.blobs = append(s.blobs, blobs...)
	}
	for len(s.Parts) > 0 && len(s.Parts[len(s.Parts)-1]) == 0 {
		s.Parts = s.Parts[:len(s.Parts)-1]
	}
	if len(s.Parts) == 0 {
		s.Key = nil
	}
	return s
}

// Bytes bounds what the entry needs beside the leaf.
func (s *Stored) Bytes() int {
	n := len(s.Key) + 16
	for _, p := range s.Parts {
		n += len(p) + 8
	}
	for _, b := range s.blobs {
		n += len(b.bytes) + 8
	}
	return n
}

// Introduce returns the blobs that record seq must carry itself, and notes in w,
// which is of the record's boot, that they are there now.
func (s *Stored) Introduce(w *Window, seq uint64) [][]byte {
	if s.forgets {
		w.enter(seq)
		w.forget()
	}
	if len(s.blobs) == 0 {
		return nil
	}
	w.enter(seq)
	var out [][]byte
	for i, b := range s.blobs {
		_, there := w.blobs[b.id]
		if there || slices.ContainsFunc(s.blobs[:i], func(o blob) bool { return o.id == b.id }) {
			continue
		}
		out = append(out, b.bytes)
		w.keep(b.id, len(b.bytes), []byte{})
	}
	return out
}
