package audit

import (
	"errors"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// ErrNoRecord is returned for a record that is not in a folder.
var ErrNoRecord = errors.New("the record is not there")

// Prove makes the proof of a record from a folder: under the smallest receipt
// that covers it if there is one and all records up to it, else under the checkpoint of its own batch. The
// proof holds the record's parts whole, as far as they are at hand. Nothing is
// believed: whoever gets the proof verifies it, and Prove has done so with keys.
func (f Folder) Prove(node, boot string, seq uint64, keys *Keys) (*Proof, error) {
	files, err := f.Batches(node, boot)
	if err != nil {
		return nil, fmt.Errorf("prove: %w", err)
	}
	own, err := f.holding(files, seq)
	if err != nil {
		return nil, err
	}
	key := keys.Node(own.Tenant, node)
	if key == nil {
		return nil, fmt.Errorf("no public key for %s", NodeKeyName(own.Tenant, node))
	}
	p := &Proof{Seq: seq}
	if p.Entry, err = f.whole(files, own, seq); err != nil {
		return nil, err
	}
	for _, head := range [][]byte{f.receipt(node, boot, own, seq, keys), own.Checkpoint} {
		if head == nil {
			continue
		}
		if err = f.under(p, files, own, head, key); err == nil {
			return p, nil // what lies between a record and a receipt may be missing
		}
	}
	return nil, fmt.Errorf("prove record %d of %s/%s: %w", seq, node, boot, err)
}

// under completes the proof for a signed checkpoint, and verifies it.
func (f Folder) under(p *Proof, files []BatchFile, own *Batch, msg []byte, key note.Verifier) error {
	head, err := PeekCheckpoint(msg)
	if err != nil {
		return err
	}
	var failed error
	p.Checkpoint = msg
	p.Path, err = PathFrom(own.before(), head.Size, p.Seq, f.leaves(files, own.First, &failed))
	if err = errors.Join(failed, err); err == nil {
		_, _, err = p.Verify(key)
	}
	return err
}

// holding reads the batch that holds a record.
func (f Folder) holding(files []BatchFile, seq uint64) (*Batch, error) {
	for b, err := range f.ReadAll(files, seq) {
		switch {
		case err != nil:
			return nil, err
		case b.First <= seq && seq <= b.Last():
			return b, nil
		case b.First > seq:
			return nil, fmt.Errorf("record %d: %w, others after it are", seq, ErrNoRecord)
		}
		return nil, fmt.Errorf("record %d: %w; the last before it is %d", seq, ErrNoRecord, b.Last())
	}
	return nil, fmt.Errorf("record %d: %w, nor is any of its boot", seq, ErrNoRecord)
}

// whole is the entry of a record with parts that need no other record's blobs.
func (f Folder) whole(files []BatchFile, own *Batch, seq uint64) (Entry, error) {
	e := own.Entries[seq-own.First]
	r, err := e.Record(nil)
	if err == nil && len(e.Parts) > 0 && slices.ContainsFunc(r.Parts(), (*Part).Missing) {
		var w Window
		if w, err = f.window(files, seq); err == nil {
			r, err = e.Record(func(id BlobID) []byte { return w.Find(seq, id) })
		}
	}
	if err != nil {
		return Entry{}, err
	}
	s := r.Store()
	return Entry{Leaf: e.Leaf, Parts: s.Parts, Key: s.Key, Blobs: s.Introduce(&Window{}, seq)}, nil
}

// window holds the blobs to which record seq may refer.
func (f Folder) window(files []BatchFile, seq uint64) (w Window, err error) {
	begin := (seq-1)/WindowRecords*WindowRecords + 1
	for b, err := range f.ReadAll(files, begin) {
		if err != nil {
			return w, err
		}
		for i := range b.Entries {
			if at := b.First + uint64(i); begin <= at && at < seq {
				_, _ = b.record(i, &w) // what is no record brings no blobs
			}
		}
		if b.Last() >= seq {
			break
		}
	}
	return w, nil
}

// receipt returns the smallest checkpoint over a record that the node and a region
// signed, or nil.
func (f Folder) receipt(node, boot string, own *Batch, seq uint64, keys *Keys) (best []byte) {
	notes, err := f.Checkpoints(node, boot)
	if err != nil {
		return nil
	}
	var size uint64
	for _, msg := range notes {
		c, regions, err := OpenCosigned(msg, keys.Node(own.Tenant, node), keys.Regions(own.Tenant)...)
		if err != nil || len(regions) == 0 || c.Node != node || c.Boot != boot || c.Size < seq || best != nil && c.Size >= size {
			continue
		}
		best, size = msg, c.Size
	}
	return best
}

// leaves yields the hashes of the records from a batch's first on.
func (f Folder) leaves(files []BatchFile, first uint64, failed *error) iter.Seq[tlog.Hash] {
	return func(yield func(tlog.Hash) bool) {
		next := first
		for b, err := range f.ReadAll(files, first) {
			if err == nil && b.First != next {
				err = fmt.Errorf("records %v are missing", Range{next, b.First - 1})
			}
			if err != nil {
				*failed = err
				return
			}
			next = b.Last() + 1
			for _, e := range b.Entries {
				if !yield(e.Hash()) {
					return
				}
			}
		}
	}
}

// OpenCosigned verifies the signature of the node and returns which of the
// regions signed too.
func OpenCosigned(msg []byte, node note.Verifier, regions ...note.Verifier) (Checkpoint, []string, error) {
	c, n, err := openNote(msg, node, regions...)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	var names []string
	for _, r := range regions {
		if signedBy(n, r) {
			names = append(names, r.Name()[len(RegionKeyName(c.Tenant, "")):])
		}
	}
	return c, names, nil
}
