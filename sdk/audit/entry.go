package audit

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// An Entry is a record as it is stored and shipped: the leaf bytes, and beside
// them what can be erased.
type Entry struct {
	Leaf []byte `cbor:"1,keyasint"`
	// Parts are the stored bytes of the parts in the order of Record.Parts; one
	// that is not there is empty, and trailing empty ones are left out.
	Parts [][]byte `cbor:"2,keyasint,omitempty"`
	// Key is that of the parts.
	Key PartKey `cbor:"3,keyasint,omitempty"`
	// Blobs are those to which the parts refer and of which this is the first
	// record in its window. An archive keeps them beside the batch.
	Blobs [][]byte `cbor:"4,keyasint,omitempty"`
	// Gone are the lengths of those of Blobs that are empty because they were
	// erased, in their order; a node ships none.
	Gone []uint64 `cbor:"5,keyasint,omitempty"`
}

// Hash is the RFC 6962 leaf hash.
func (e Entry) Hash() tlog.Hash { return tlog.RecordHash(e.Leaf) }

// Bytes bounds the entry's encoding.
func (e Entry) Bytes() int {
	n := len(e.Leaf) + len(e.Key) + 32
	for _, p := range e.Parts {
		n += len(p) + 8
	}
	for _, b := range e.Blobs {
		n += len(b) + 8
	}
	return n
}

// Record decodes the leaf and attaches the parts' bytes, each of which must
// match the size and the digest that the leaf covers. Blobs are looked for in
// the entry and then by find, which may be nil; a part that lacks one is left
// without bytes.
func (e Entry) Record(find func(BlobID) []byte) (*Record, error) {
	var r Record
	if err := shapes().record.Unmarshal(e.Leaf, &r); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if len(e.Key) != 0 && len(e.Key) != PartKeyBytes {
		return nil, fmt.Errorf("record %d: key of %d bytes, not %d", r.Seq, len(e.Key), PartKeyBytes)
	}
	parts := r.Parts()
	if len(e.Parts) > len(parts) {
		return nil, fmt.Errorf("record %d: %d parts, the leaf names %d", r.Seq, len(e.Parts), len(parts))
	}
	r.Key = e.Key
	find = e.finder(find)
	for i, stored := range e.Parts {
		if err := e.attach(parts[i], stored, find); err != nil {
			return nil, fmt.Errorf("record %d: part %d: %w", r.Seq, i, err)
		}
	}
	return &r, nil
}

// finder looks for blobs among the entry's own and then by find, which may be nil.
func (e Entry) finder(find func(BlobID) []byte) func(BlobID) []byte {
	if len(e.Blobs) == 0 && find != nil {
		return find
	}
	own := make(map[BlobID][]byte, len(e.Blobs))
	for _, b := range e.Blobs {
		own[NameBlob(b)] = b
	}
	return func(id BlobID) []byte {
		if b := own[id]; b != nil || find == nil {
			return b
		}
		return find(id)
	}
}

var errNotNamed = errors.New("not what the leaf names")

func (e Entry) attach(p *Part, stored []byte, find func(BlobID) []byte) error {
	if len(stored) == 0 {
		return nil
	}
	b, err := unstore(stored, min(p.Size, MaxEntryBytes), find)
	switch {
	case err != nil:
		return err
	case b == nil:
		return nil
	case uint64(len(b)) != p.Size || e.Key.digest(b) != p.Digest:
		return errNotNamed
	}
	p.Bytes = b
	return nil
}
