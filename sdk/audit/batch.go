package audit

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Batch is a run of consecutive records of one boot that proves itself: with
// the tree before it (Frontier) and its entries, anybody computes the root that
// the node signed for the tree after it (Checkpoint).
type Batch struct {
	Tenant string `cbor:"1,keyasint"`
	Node   string `cbor:"2,keyasint"`
	Boot   string `cbor:"3,keyasint"`
	First  uint64 `cbor:"4,keyasint"`
	// Frontier is the tree of the records before First; see Frontier.Roots.
	Frontier []tlog.Hash `cbor:"5,keyasint,omitempty"`
	Entries  []Entry     `cbor:"6,keyasint"`
	// Checkpoint is the signed checkpoint of size Last.
	Checkpoint []byte `cbor:"7,keyasint"`
}

// ErrBatchTooLarge is returned for a batch beyond the bounds of a frame.
var ErrBatchTooLarge = errors.New("batch beyond its bounds")

// Last is the seq of the last record.
func (b *Batch) Last() uint64 { return b.First + uint64(len(b.Entries)) - 1 }

// Before returns the size and root of the tree before the batch: what the
// checkpoint of the batch before it must say.
func (b *Batch) Before() (size uint64, root tlog.Hash) {
	f := b.before()
	return f.Size(), f.Root()
}

// Encode returns the batch as a Zstandard frame of deterministic CBOR, or
// ErrBatchTooLarge.
func (b *Batch) Encode() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	doc, err := wire.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode batch: %w", err)
	}
	frame := wire.Compress(doc)
	if len(doc) > MaxBatchBytes || len(frame) > MaxFrameBytes {
		return nil, fmt.Errorf("batch of %d bytes, %d compressed: %w", len(doc), len(frame), ErrBatchTooLarge)
	}
	return frame, nil
}

// DecodeBatch reads what Encode wrote, and nothing else. It bounds memory by
// MaxBatchBytes and checks the batch's form, not its proof: see Verify.
func DecodeBatch(frame []byte) (*Batch, error) {
	if len(frame) > MaxFrameBytes {
		return nil, fmt.Errorf("frame of %d bytes: %w", len(frame), ErrBatchTooLarge)
	}
	doc, err := wire.Decompress(frame, MaxBatchBytes)
	if err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	var b Batch
	if err := shapes().batch.Unmarshal(doc, &b); err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	return &b, b.check()
}

// check holds the form: names, sizes, and a frontier that fits First.
func (b *Batch) check() error {
	if !ValidName(b.Tenant) || !ValidName(b.Node) {
		return fmt.Errorf("batch of tenant %.80q, node %.80q: not names", b.Tenant, b.Node)
	}
	if _, _, err := ParseBootID(b.Boot); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	if len(b.Entries) == 0 || len(b.Entries) > MaxBatchRecords || b.First == 0 || b.First > 1<<62 {
		return fmt.Errorf("batch of %d records from %d", len(b.Entries), b.First)
	}
	if _, ok := NewFrontier(b.First-1, b.Frontier); !ok {
		return fmt.Errorf("batch from %d with a frontier of %d roots", b.First, len(b.Frontier))
	}
	for i, e := range b.Entries {
		if len(e.Blobs) > maxBlobs || len(e.Parts) > maxParts || len(e.Gone) > len(e.Blobs) {
			return fmt.Errorf("batch from %d: record %d with %d parts and %d blobs", b.First, b.First+uint64(i), len(e.Parts), len(e.Blobs))
		}
	}
	return nil
}

// Verify proves the batch against the node's key: the checkpoint is signed by
// it and names this boot and the size Last, frontier and entries give its root,
// every record is well formed, bears its seq, and those of its parts that are
// at hand match their digests. Records come in order of seq. w holds the blobs
// of the batches before this one; it may be nil, and takes those of this one.
func (b *Batch) Verify(node note.Verifier, w *Window) (Checkpoint, []*Record, error) {
	records := make([]*Record, 0, len(b.Entries))
	c, err := b.verify(node, w, func(r *Record) { records = append(records, r) })
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, records, nil
}

// VerifyFirst is Verify for who wants no record but the first. The others are let
// go one by one: records that share blobs can be much larger than their batch.
func (b *Batch) VerifyFirst(node note.Verifier) (Checkpoint, *Record, error) {
	var first *Record
	c, err := b.verify(node, nil, func(r *Record) {
		if first == nil {
			first = r
		}
	})
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, first, nil
}

func (b *Batch) verify(node note.Verifier, w *Window, each func(*Record)) (Checkpoint, error) {
	if err := b.check(); err != nil {
		return Checkpoint{}, err
	}
	c, _, _, err := b.prove(node)
	if err != nil {
		return Checkpoint{}, err
	}
	if w == nil {
		w = &Window{}
	}
	for i := range b.Entries {
		r, err := b.record(i, w)
		if err != nil {
			return Checkpoint{}, err
		}
		each(r)
	}
	return c, nil
}

// prove checks signature and root: when it returns no error, the leaves of
// these hashes are what the node signed, and after is the tree with them.
func (b *Batch) prove(node note.Verifier) (c Checkpoint, leaves []tlog.Hash, after *Frontier, err error) {
	c, err = OpenCheckpoint(b.Checkpoint, node)
	if err != nil {
		return Checkpoint{}, nil, nil, err
	}
	if c.Tenant != b.Tenant || c.Node != b.Node || c.Boot != b.Boot || c.Size != b.Last() {
		return Checkpoint{}, nil, nil, fmt.Errorf("batch %s/%s %d-%d with the checkpoint of %s at %d", b.Node, b.Boot, b.First, b.Last(), c.Origin(), c.Size)
	}
	after = b.before()
	leaves = make([]tlog.Hash, len(b.Entries))
	for i, e := range b.Entries {
		leaves[i] = e.Hash()
		after.Append(leaves[i])
	}
	if after.Root() != c.Root {
		return Checkpoint{}, nil, nil, fmt.Errorf("batch %s/%s %d-%d does not give the signed root", b.Node, b.Boot, b.First, b.Last())
	}
	return c, leaves, after, nil
}

// before is the tree before the batch, which must have passed check.
func (b *Batch) before() *Frontier {
	f, _ := NewFrontier(b.First-1, append([]tlog.Hash(nil), b.Frontier...))
	return &f
}

// record decodes the i-th entry, which must bear its seq, and has w take its
// blobs.
func (b *Batch) record(i int, w *Window) (*Record, error) {
	seq := b.First + uint64(i)
	r, err := b.Entries[i].Record(func(id BlobID) []byte { return w.Find(seq, id) })
	if err != nil {
		return nil, err
	}
	if r.Seq != seq {
		return nil, fmt.Errorf("record %d at the place of %d", r.Seq, seq)
	}
	if r.forgets() {
		w.enter(seq)
		w.forget()
	}
	w.Take(seq, b.Entries[i])
	return r, nil
}

// Side is what an archive keeps beside a batch's frame: the blobs of its
// entries. They can be erased, and the batch still proves itself.
type Side struct {
	Node  string `cbor:"1,keyasint"`
	Boot  string `cbor:"2,keyasint"`
	First uint64 `cbor:"3,keyasint"`
	// Blobs are those of each entry that has some, by its index in the batch.
	Blobs map[uint64][][]byte `cbor:"4,keyasint"`
	// Erased are the lengths of those of an entry's Blobs that are empty, because
	// they were erased, in their order.
	Erased map[uint64][]uint64 `cbor:"5,keyasint,omitempty"`
}

// Split returns the batch without its blobs, and them; side is nil when it has
// none.
func (b *Batch) Split() (rest *Batch, side *Side) {
	stripped := *b
	stripped.Entries = make([]Entry, len(b.Entries))
	for i, e := range b.Entries {
		if len(e.Blobs) > 0 {
			if side == nil {
				side = &Side{Node: b.Node, Boot: b.Boot, First: b.First, Blobs: map[uint64][][]byte{}}
			}
			side.Blobs[uint64(i)] = e.Blobs
			if len(e.Gone) > 0 {
				if side.Erased == nil {
					side.Erased = map[uint64][]uint64{}
				}
				side.Erased[uint64(i)] = e.Gone
			}
			e.Blobs, e.Gone = nil, nil
		}
		stripped.Entries[i] = e
	}
	if side == nil {
		return b, nil
	}
	return &stripped, side
}

// Join gives the batch its blobs back. What is not of this batch is an error.
func (b *Batch) Join(s *Side) error {
	if s.Node != b.Node || s.Boot != b.Boot || s.First != b.First {
		return fmt.Errorf("batch %s/%s from %d with the blobs of %s/%s from %d", b.Node, b.Boot, b.First, s.Node, s.Boot, s.First)
	}
	for i, blobs := range s.Blobs {
		if i >= uint64(len(b.Entries)) || len(blobs) > maxBlobs {
			return fmt.Errorf("batch %s/%s from %d: %d blobs of record %d", b.Node, b.Boot, b.First, len(blobs), b.First+i)
		}
		empty := 0
		for _, blob := range blobs {
			if len(blob) == 0 {
				empty++
			}
		}
		if len(s.Erased[i]) > empty {
			return fmt.Errorf("batch %s/%s from %d: record %d lacks %d blobs, not %d", b.Node, b.Boot, b.First, b.First+i, empty, len(s.Erased[i]))
		}
		b.Entries[i].Blobs, b.Entries[i].Gone = blobs, s.Erased[i]
	}
	return nil
}

// Encode returns the blobs as a Zstandard frame of deterministic CBOR.
func (s *Side) Encode() ([]byte, error) {
	doc, err := wire.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode blobs: %w", err)
	}
	if len(doc) > MaxBatchBytes {
		return nil, fmt.Errorf("blobs of %d bytes: %w", len(doc), ErrBatchTooLarge)
	}
	return wire.Compress(doc), nil
}

// DecodeSide reads what Encode wrote, and nothing else.
func DecodeSide(frame []byte) (*Side, error) {
	doc, err := wire.Decompress(frame, MaxBatchBytes)
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	var s Side
	if err := wire.Unmarshal(doc, &s); err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	return &s, nil
}
