package ledger

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A blob belongs to the first record of its window that uses it, so that a file of
// blobs that is damaged or gone shows where its own records, or later ones, refer
// to what is not there. Erased records refer to nothing: what erasure and age took
// away is not missed.

func windowOf(seq uint64) uint64 { return (seq - 1) / audit.WindowRecords }

// A walk goes through a boot's batches in order, with the blobs of the window.
type walk struct {
	window audit.Window
	next   uint64
	// lost is 1 more than the number of a window of which something is not here:
	// what its records lack says nothing about their own blobs.
	lost uint64
}

func (w *walk) lose(s span) { w.lost, w.next = windowOf(s.last)+1, s.last+1 }

// whole takes the next batch, and reports whether its blobs are there.
func (w *walk) whole(a archive, key bootKey, s span) bool {
	if s.first > w.next {
		w.lost = windowOf(s.first) + 1
	}
	b, err := a.joined(key, s)
	if b == nil {
		w.lose(s) // put together with others meanwhile
		return true
	}
	w.next = s.last + 1
	lacks := b.Lacks(&w.window)
	return err == nil && (len(lacks) == 0 || w.lost == windowOf(s.first)+1)
}

// joined returns an archived batch with its blobs: without them, and with the
// error, when their file is damaged. The blobs are read first, because they are
// taken away last.
func (a archive) joined(key bootKey, s span) (*audit.Batch, error) {
	side, sideErr := a.side(key.node, key.boot, s)
	b, err := a.read(key.node, key.boot, s)
	if err != nil {
		return nil, err
	}
	if side != nil && sideErr == nil {
		sideErr = b.Join(side)
	}
	if sideErr != nil {
		for i := range b.Entries {
			b.Entries[i].Blobs, b.Entries[i].Gone = nil, nil
		}
	}
	return b, sideErr
}

// mendBlobs sets a damaged file of blobs aside and gets what records of the batch
// lack; false when nobody has all of it.
func (l *Ledger) mendBlobs(ctx context.Context, key bootKey, s span) bool {
	var lacks []audit.BlobID
	var from []span
	l.do(ctx, key, func() { lacks, from = l.lackNow(key, s) })
	for i := len(from) - 1; i >= 0 && len(lacks) > 0 && ctx.Err() == nil; i-- {
		got := l.fetchBlobs(ctx, key, from[i], lacks)
		if len(got) == 0 {
			continue
		}
		l.do(ctx, key, func() {
			if err := l.putBlobs(key, from[i], got, lacks); err != nil {
				l.cfg.Log.Error("blobs not stored", "node", key.node, "boot", key.boot, "file", from[i].file(), "err", err)
			}
			lacks, _ = l.lackNow(key, s)
		})
	}
	if len(lacks) > 0 && ctx.Err() == nil {
		l.cfg.Log.Error("blobs are missing, and no server has them", "node", key.node, "boot", key.boot, "file", s.file(), "blobs", len(lacks))
	}
	return len(lacks) == 0
}

// lackNow returns the blobs that a batch lacks, and the batches of its window up
// to it, which may have had them. A damaged file of blobs is set aside. The lane
// calls it.
func (l *Ledger) lackNow(key bootKey, s span) (lacks []audit.BlobID, from []span) {
	spans, err := l.archive.spans(key.node, key.boot)
	if err != nil || !slices.Contains(spans, s) {
		return nil, nil
	}
	var window audit.Window
	for _, have := range spans {
		if windowOf(have.last) < windowOf(s.first) {
			continue
		}
		b, err := l.archive.joined(key, have)
		if b == nil {
			return nil, nil // the batch itself is fetched again
		}
		lacks, from = b.Lacks(&window), append(from, have)
		if have != s {
			continue
		}
		if err != nil {
			l.loseBlobs(key, s, err)
		}
		break
	}
	return lacks, from
}

// loseBlobs sets a damaged file of blobs aside.
func (l *Ledger) loseBlobs(key bootKey, s span, why error) {
	path := beside(filepath.Join(l.archive.boot(key.node, key.boot), s.file()))
	l.cfg.Log.Error("archived blobs are damaged", "node", key.node, "boot", key.boot, "file", filepath.Base(path), "err", why)
	frame, err := os.ReadFile(path)
	if err == nil {
		to := strings.TrimSuffix(l.archive.evidence(damaged, frame), ".batch")
		words := []byte(key.node + "/" + key.boot + "\n" + string(damaged) + ": " + filepath.Base(path) + ": " + why.Error() + "\n")
		err = errors.Join(replace(to+".txt", words), os.Rename(path, to+".blobs"))
	}
	if err != nil {
		l.cfg.Log.Error("damaged blobs not set aside", "file", path, "err", err)
	}
}

// dropDamaged removes the damaged blobs of those boots that were kept as evidence:
// what is to go cannot be found in them. While there are holds they stay.
func (l *Ledger) dropDamaged(of []audit.Records) error {
	if len(l.documents.holds()) > 0 {
		return nil
	}
	kept, err := filepath.Glob(filepath.Join(l.cfg.Dir, evidenceDir, string(damaged)+"-*.blobs"))
	for _, path := range kept {
		words := strings.TrimSuffix(path, ".blobs") + ".txt"
		text, readErr := os.ReadFile(words)
		subject, _, _ := bytes.Cut(text, []byte("\n"))
		if readErr == nil && !slices.ContainsFunc(of, func(r audit.Records) bool { return r.Node+"/"+r.Boot == string(subject) }) {
			continue
		}
		err = errors.Join(err, ignoreMissing(os.Remove(path)), ignoreMissing(os.Remove(words)))
	}
	return err
}

// fetchBlobs asks for a batch with its blobs: the region's stream, its other
// servers, other regions. It returns what has blobs, by its seq.
func (l *Ledger) fetchBlobs(ctx context.Context, key bootKey, s span, lacks []audit.BlobID) map[uint64]audit.Entry {
	l.setBare(key, s, true)
	defer l.setBare(key, s, false)
	got, need, reached := map[uint64]audit.Entry{}, map[audit.BlobID]bool{}, uint64(0)
	for _, id := range lacks {
		need[id] = true
	}
	take := func(frame []byte) bool {
		b, _, _, err := l.verify(key, frame)
		if err != nil || b.First > s.last {
			return false
		}
		reached = max(reached, b.Last())
		for i, e := range b.Entries {
			seq := b.First + uint64(i)
			if seq < s.first || seq > s.last || len(e.Blobs) == 0 || e.Bytes() <= got[seq].Bytes() {
				continue
			}
			got[seq] = e
			for _, blob := range e.Blobs {
				delete(need, audit.NameBlob(blob))
			}
		}
		return len(need) == 0
	}
	if err := l.cfg.Input.Stored(ctx, key.node, key.boot, s.first, take); err != nil && ctx.Err() == nil {
		l.cfg.Log.Debug("stream asked for blobs", "err", err)
	}
	reached = 0
	for from := s.first; l.cfg.Peers != nil && len(need) > 0 && from <= s.last && ctx.Err() == nil; from = reached + 1 {
		if err := l.cfg.Peers.FetchBlobs(ctx, key.node, key.boot, from, take); err != nil && ctx.Err() == nil {
			l.cfg.Log.Debug("peers asked for blobs", "err", err)
		}
		if reached < from {
			break
		}
	}
	return got
}

func (l *Ledger) setBare(key bootKey, s span, bare bool) {
	state := l.state(key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !bare {
		delete(state.bare, s)
		return
	}
	if state.bare == nil {
		state.bare = map[span]bool{}
	}
	state.bare[s] = true
}

// putBlobs stores blobs beside the batch to which they belong: those of records
// that have their parts, and of others only those that are lacking. The lane calls
// it.
func (l *Ledger) putBlobs(key bootKey, s span, got map[uint64]audit.Entry, lacks []audit.BlobID) error {
	b, err := l.archive.joined(key, s)
	if b == nil {
		return ignoreMissing(err)
	}
	for seq, theirs := range got {
		if e := &b.Entries[seq-s.first]; bytes.Equal(e.Leaf, theirs.Leaf) {
			fill(e, theirs, lacks)
		}
	}
	_, side := b.Split()
	if side == nil {
		return nil
	}
	frame, err := side.Encode()
	if err != nil {
		return err
	}
	l.cfg.Step("blobs")
	if err := replace(beside(filepath.Join(l.archive.boot(key.node, key.boot), s.file())), frame); err != nil {
		return err
	}
	l.cfg.Log.Info("blobs fetched again", "node", key.node, "boot", key.boot, "file", s.file())
	return nil
}

// fill gives an entry the blobs that it may have of those of the same record. Those
// that it may not have leave their length.
func fill(e *audit.Entry, theirs audit.Entry, lacks []audit.BlobID) {
	ours, gone := e.Blobs, theirs.Gone
	if len(theirs.Blobs) < len(ours) {
		return
	}
	e.Blobs, e.Gone = nil, nil
	for i, blob := range theirs.Blobs {
		length := uint64(len(blob))
		if length == 0 && len(gone) > 0 {
			length, gone = gone[0], gone[1:]
		}
		if i < len(ours) && len(ours[i]) > 0 && len(blob) == 0 {
			blob = ours[i]
		}
		had := i < len(ours) && bytes.Equal(ours[i], blob)
		if len(blob) > 0 && !had && len(e.Parts) == 0 && !slices.Contains(lacks, audit.NameBlob(blob)) {
			blob = nil
		}
		if len(blob) == 0 {
			blob = []byte{}
			if length > 0 {
				e.Gone = append(e.Gone, length)
			}
		}
		e.Blobs = append(e.Blobs, blob)
	}
}

// HasBlobs reports whether the file of the blobs of the batch with a record is
// there and readable.
func (l *Ledger) HasBlobs(node, boot string, seq uint64) bool {
	if !audit.ValidName(node) || !audit.ValidName(boot) {
		return false
	}
	spans, err := l.archive.spans(node, boot)
	i, found := slices.BinarySearchFunc(spans, seq, span.compare)
	if err != nil || !found {
		return false
	}
	l.mu.Lock()
	s := l.boots[bootKey{node, boot}]
	bare := s == nil || s.bare[spans[i]]
	l.mu.Unlock()
	if bare {
		return false
	}
	side, err := l.archive.side(node, boot, spans[i])
	if err != nil || side == nil {
		return false
	}
	_, err = l.archive.joined(bootKey{node, boot}, spans[i])
	return err == nil
}
