package audit

import "slices"

// Erase takes the parts and keys of those records out of the batch that gone
// names; it returns how many had some. The batch proves itself as before. Blobs
// are for a Scrub.
func (b *Batch) Erase(gone func(seq uint64) bool) (n int) {
	for i := range b.Entries {
		e := &b.Entries[i]
		if gone(b.First+uint64(i)) && (len(e.Parts) > 0 || len(e.Key) > 0) {
			e.Parts, e.Key = nil, nil
			n++
		}
	}
	return n
}

// uses calls f with every blob to which the entry's parts refer.
func (e Entry) uses(find func(BlobID) []byte, f func(BlobID)) {
	for _, stored := range e.Parts {
		_, _ = unstore(stored, MaxEntryBytes, func(id BlobID) []byte {
			f(id)
			if b := find(id); b != nil {
				return b
			}
			return []byte{} // go on: the others are used as well
		})
	}
}

// Lacks returns the blobs to which the batch's parts refer and that are neither in
// it nor in w, which holds those of the batches before it and takes its own.
func (b *Batch) Lacks(w *Window) (lacks []BlobID) {
	for i, e := range b.Entries {
		seq := b.First + uint64(i)
		find := e.finder(func(id BlobID) []byte { return w.Find(seq, id) })
		e.uses(find, func(id BlobID) {
			if find(id) == nil && !slices.Contains(lacks, id) {
				lacks = append(lacks, id)
			}
		})
		if e.forgets() {
			w.enter(seq)
			w.forget()
		}
		w.Take(seq, e)
	}
	return lacks
}

// A Scrub finds the blobs that nothing uses any more, in one window of a boot.
// A blob stays while a record uses it that is not erased; one that its own record
// alone could use goes at once; another one goes when no record can come that
// uses it.
type Scrub struct {
	gone   func(seq uint64) bool
	number uint64
	window Window
	live   map[BlobID]bool
	found  []candidate
	drops  []Drop
}

// A Drop is a blob to be dropped: the At-th of the record Seq.
type Drop struct {
	Seq uint64
	At  int
}

type candidate struct {
	Drop
	id     BlobID
	shared bool
}

// NewScrub returns a scrub of the window with that number, (seq-1) divided by
// WindowRecords; gone names the records that are erased.
func NewScrub(number uint64, gone func(seq uint64) bool) *Scrub {
	return &Scrub{gone: gone, number: number, live: map[BlobID]bool{}}
}

// Batch takes the next batch, which has its blobs (Batch.Join); batches come in
// order, from the one that holds the window's first record on.
func (s *Scrub) Batch(b *Batch) {
	for i, e := range b.Entries {
		seq := b.First + uint64(i)
		if (seq-1)/WindowRecords != s.number {
			continue
		}
		if e.forgets() {
			s.end()
			s.window.enter(seq)
			s.window.forget()
		}
		s.entry(seq, e)
	}
}

func (s *Scrub) entry(seq uint64, e Entry) {
	if s.gone(seq) && len(e.Parts) == 0 { // one that is held still uses its blobs
		for at, b := range e.Blobs {
			if len(b) > 0 {
				s.found = append(s.found, candidate{Drop{seq, at}, NameBlob(b), len(b) <= MaxShared})
			}
		}
	} else {
		e.uses(e.finder(func(id BlobID) []byte { return s.window.Find(seq, id) }), func(id BlobID) { s.live[id] = true })
	}
	s.window.Take(seq, e)
}

// end settles what came before a point behind which nothing refers to it.
func (s *Scrub) end() {
	for _, c := range s.found {
		if !c.shared || !s.live[c.id] {
			s.drops = append(s.drops, c.Drop)
		}
	}
	s.found = nil
	clear(s.live)
}

// Finish returns what is to be dropped. Closed says that no further record of the
// window can come; otherwise waits tells whether something may have to go later.
func (s *Scrub) Finish(closed bool) (drops []Drop, waits bool) {
	if closed {
		s.end()
	}
	for _, c := range s.found {
		switch {
		case !c.shared:
			s.drops = append(s.drops, c.Drop)
		case !s.live[c.id]:
			waits = true
		}
	}
	return s.drops, waits
}

// Drop takes blobs out of the side, and reports whether it changed; the batch it
// belongs to begins with First. What is dropped leaves its length.
func (s *Side) Drop(drops []Drop) (changed bool) {
	for _, d := range drops {
		i := d.Seq - s.First
		blobs := s.Blobs[i]
		if d.Seq < s.First || d.At >= len(blobs) || len(blobs[d.At]) == 0 {
			continue
		}
		before := 0
		for _, b := range blobs[:d.At] {
			if len(b) == 0 {
				before++
			}
		}
		if s.Erased == nil {
			s.Erased = map[uint64][]uint64{}
		}
		lengths := s.Erased[i]
		s.Erased[i] = slices.Insert(lengths, min(before, len(lengths)), uint64(len(blobs[d.At])))
		blobs[d.At] = []byte{}
		changed = true
	}
	return changed
}
