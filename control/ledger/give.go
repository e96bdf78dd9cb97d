package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// Has reports whether the archive holds a record.
func (l *Ledger) Has(node, boot string, seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.boots[bootKey{node, boot}]
	return s != nil && seq > 0 && s.has(seq)
}

// Give returns archived batches as their node shipped them, from the one on that
// holds record from: at least one, then as many as fit into so many bytes. Blobs
// that were erased are not there.
func (l *Ledger) Give(node, boot string, from uint64, bytes int) (frames [][]byte, err error) {
	if !audit.ValidName(node) || !audit.ValidName(boot) {
		return nil, fmt.Errorf("node %.80q, boot %.80q: not names", node, boot)
	}
	spans, err := l.archive.spans(node, boot)
	if err != nil {
		return nil, err
	}
	i, _ := slices.BinarySearchFunc(spans, from, span.compare)
	size := 0
	for next := from; i < len(spans) && spans[i].first <= next; i++ {
		frame, err := l.archive.whole(node, boot, spans[i])
		if errors.Is(err, fs.ErrNotExist) || err != nil && len(frames) > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		if size += len(frame); size > bytes && len(frames) > 0 {
			break
		}
		frames, next = append(frames, frame), spans[i].last+1
	}
	return frames, nil
}

// Leaves returns the leaf hashes of records from on, at most so many: what an
// independent witness needs, who is not to see the records.
func (l *Ledger) Leaves(node, boot string, from uint64, most int) (hashes []byte, err error) {
	if !audit.ValidName(node) || !audit.ValidName(boot) {
		return nil, fmt.Errorf("node %.80q, boot %.80q: not names", node, boot)
	}
	spans, err := l.archive.spans(node, boot)
	if err != nil {
		return nil, err
	}
	i, _ := slices.BinarySearchFunc(spans, from, span.compare)
	for next := from; i < len(spans) && spans[i].first <= next && most > 0; i++ {
		b, err := l.archive.read(node, boot, spans[i])
		if err != nil {
			return hashes, nil // what comes before is good; the rest is not here
		}
		for _, e := range b.Entries[next-b.First:] {
			if most--; most < 0 {
				return hashes, nil
			}
			h := e.Hash()
			hashes = append(hashes, h[:]...)
		}
		next = spans[i].last + 1
	}
	return hashes, nil
}

// whole returns an archived batch's frame with its blobs in it.
func (a archive) whole(node, boot string, s span) ([]byte, error) {
	b, err := a.read(node, boot, s)
	if err != nil {
		return nil, err
	}
	side, err := a.side(node, boot, s)
	if err == nil && side != nil {
		err = b.Join(side)
	}
	if err != nil { // damaged blobs are none
		if b, err = a.read(node, boot, s); err != nil {
			return nil, err
		}
	}
	return b.Encode()
}
