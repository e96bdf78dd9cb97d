package audit

import (
	"fmt"
	"iter"
	"math/bits"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Proof shows that one record is in the tree that its node signed.
type Proof struct {
	Entry Entry  `cbor:"1,keyasint"`
	Seq   uint64 `cbor:"2,keyasint"`
	// Path is the RFC 6962 audit path, from the leaf up.
	Path []tlog.Hash `cbor:"3,keyasint,omitempty"`
	// Checkpoint is a signed checkpoint or a receipt.
	Checkpoint []byte `cbor:"4,keyasint"`
}

// maxProofBytes bounds an encoded proof.
const maxProofBytes = MaxEntryBytes + MaxNoteBytes + 64*40

// Encode returns the proof as deterministic CBOR.
func (p *Proof) Encode() ([]byte, error) { return wire.Marshal(p) }

// DecodeProof reads what Encode wrote, and nothing else.
func DecodeProof(b []byte) (*Proof, error) {
	if len(b) > maxProofBytes {
		return nil, fmt.Errorf("proof of %d bytes; at most %d", len(b), maxProofBytes)
	}
	var p Proof
	if err := wire.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	return &p, nil
}

// Verify proves the record against the node's key and returns it with the
// checkpoint that covers it.
func (p *Proof) Verify(node note.Verifier) (*Record, Checkpoint, error) {
	c, err := OpenCheckpoint(p.Checkpoint, node)
	if err != nil {
		return nil, Checkpoint{}, err
	}
	r, err := p.Entry.Record(nil)
	if err != nil {
		return nil, Checkpoint{}, err
	}
	if r.Seq != p.Seq || p.Seq == 0 || p.Seq > c.Size {
		return nil, Checkpoint{}, fmt.Errorf("proof for record %d with record %d under a checkpoint of %d", p.Seq, r.Seq, c.Size)
	}
	if err := tlog.CheckRecord(p.Path, int64(c.Size), c.Root, int64(p.Seq-1), p.Entry.Hash()); err != nil {
		return nil, Checkpoint{}, fmt.Errorf("record %d of %s: %w", p.Seq, c.Origin(), err)
	}
	return r, c, nil
}

// Path computes the audit path of record seq in the tree of size leaves from
// the leaves in order, in memory of O(log size). It fails when there are fewer
// leaves than size, or no record seq among them.
func Path(size, seq uint64, leaves iter.Seq[tlog.Hash]) ([]tlog.Hash, error) {
	return PathFrom(&Frontier{}, size, seq, leaves)
}

// PathFrom is Path with the leaves behind before, which must be before the record.
func PathFrom(before *Frontier, size, seq uint64, leaves iter.Seq[tlog.Hash]) ([]tlog.Hash, error) {
	if seq <= before.size || seq > size {
		return nil, fmt.Errorf("no record %d in a tree of %d behind one of %d", seq, size, before.size)
	}
	spans := siblings(0, size, seq-1)
	trees := make([]Frontier, len(spans))
	for i, s := range spans {
		trees[i] = before.within(s)
	}
	n := before.size
	for leaf := range leaves {
		for i, s := range spans {
			if s.From <= n && n < s.To {
				trees[i].Append(leaf)
			}
		}
		if n++; n == size {
			break
		}
	}
	if n < size {
		return nil, fmt.Errorf("%d leaves for a tree of %d", n, size)
	}
	path := make([]tlog.Hash, len(trees))
	for i := range trees {
		path[i] = trees[i].Root()
	}
	return path, nil
}

// within returns the part of f that lies in the half-open span, which neither
// begins nor ends within one of its complete subtrees.
func (f *Frontier) within(s Range) (part Frontier) {
	at := uint64(0)
	for _, root := range f.roots {
		n := uint64(1) << (bits.Len64(f.size-at) - 1)
		if s.From <= at && at+n <= s.To {
			part.roots = append(part.roots, root)
			part.size += n
		}
		at += n
	}
	return part
}

// siblings returns the half-open leaf ranges whose roots make the audit path
// of leaf n in [lo, hi), from the leaf up.
func siblings(lo, hi, n uint64) []Range {
	if hi-lo == 1 {
		return nil
	}
	k := uint64(1)
	for k*2 < hi-lo {
		k *= 2
	}
	if n < lo+k {
		return append(siblings(lo, lo+k, n), Range{lo + k, hi})
	}
	return append(siblings(lo+k, hi, n), Range{lo, lo + k})
}
