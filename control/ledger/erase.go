package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const (
	// eraseAgain is how often an erasure that waits for something is looked at.
	eraseAgain = 2 * time.Second
	// eraseAtLast is how long a shared blob may wait for the node's answer: then
	// it is dropped, and what comes later and refers to it lacks a part.
	eraseAtLast = 7 * 24 * time.Hour
)

// A Cleaner is an Input out of which batches can be taken again.
type Cleaner interface {
	// Clean goes through the batches of a boot that the region's stream holds. Those
	// that rewrite changes are overwritten there; the last one, which is the node's
	// fence, by what rewrite makes of it. A nil error means that none is left.
	Clean(ctx context.Context, node, boot string, rewrite func(frame []byte) (changed []byte, change bool)) error
}

// withoutErased returns the batch as it may be archived: without the parts of
// erased records. The lane calls it.
func (l *Ledger) withoutErased(b *audit.Batch) *audit.Batch {
	removed, at := l.documents.erased(), audit.Place{Node: b.Node, Boot: b.Boot}
	if !audit.Overlaps(removed.Ranges(at), b.First, b.Last()) {
		return b
	}
	bare := *b
	bare.Entries = slices.Clone(b.Entries)
	gone := l.gone(&bare, removed)
	if bare.Erase(gone) > 0 {
		l.reopen(at, b.First, b.Last()) // their blobs are judged with the window
	}
	return &bare
}

// gone names the records of a batch that are erased and not held.
func (l *Ledger) gone(b *audit.Batch, removed *audit.Removed) func(seq uint64) bool {
	at, holds := audit.Place{Node: b.Node, Boot: b.Boot}, l.documents.holds()
	return func(seq uint64) bool {
		if !removed.Has(at, seq) {
			return false
		}
		r, err := b.Entries[seq-b.First].Record(nil)
		if err != nil {
			return true
		}
		if !removed.Covers(at, seq, r.Time) {
			return false
		}
		_, held := heldBy(holds, b.Node, r)
		return !held
	}
}

// reopen has the erasures of those records carried out again.
func (l *Ledger) reopen(at audit.Place, first, last uint64) {
	for _, digest := range l.documents.reopen(at, first, last) {
		if err := ignoreMissing(os.Remove(l.archive.document(digest, doneFile))); err != nil {
			l.cfg.Log.Error("erasure", "erasure", digest.String(), "err", err)
		}
	}
}

func (d *documents) reopen(at audit.Place, first, last uint64) (again []wire.Digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for digest, k := range d.known {
		if k.Refused == "" && slices.ContainsFunc(k.Erase, func(r audit.Records) bool {
			return r.Node == at.Node && r.Boot == at.Boot && audit.Overlaps(r.Ranges, first, last)
		}) {
			d.todo[digest], d.late[digest] = true, true
			again = append(again, digest)
			wake(d.wake)
		}
	}
	return again
}

// erase carries erasures out until ctx ends.
func (l *Ledger) erase(ctx context.Context) {
	if err := l.expireAgain(ctx); err != nil && ctx.Err() == nil { // what a crash kept from being deleted
		l.cfg.Log.Error("old parts are not deleted", "err", err)
	}
	tick := time.NewTicker(eraseAgain)
	defer tick.Stop()
	for {
		for _, k := range l.documents.undone() {
			done, err := l.carryOut(ctx, k)
			if err != nil && ctx.Err() == nil {
				l.cfg.Log.Error("erasure not carried out; tried again", "erasure", k.Digest.String(), "err", err)
			}
			if done && err == nil {
				l.finished(k)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-l.documents.wake:
		case <-tick.C:
		}
	}
}

func (d *documents) undone() (out []*keptDocument) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.late)
	for digest := range d.todo {
		out = append(out, d.known[digest])
	}
	slices.SortFunc(out, func(a, b *keptDocument) int { return int(min(max(a.Taken-b.Taken, -1), 1)) })
	return out
}

func (l *Ledger) finished(k *keptDocument) {
	path := l.archive.document(k.Digest, doneFile)
	if err := replace(path, nil); err != nil {
		l.cfg.Log.Error("erasure", "erasure", k.Digest.String(), "err", err)
		return
	}
	if !l.documents.finish(k.Digest) {
		if err := ignoreMissing(os.Remove(path)); err != nil {
			l.cfg.Log.Error("erasure", "erasure", k.Digest.String(), "err", err)
		}
		return
	}
	l.cfg.Log.Warn("erasure carried out", "erasure", k.Digest.String())
}

// finish notes that nothing is left of an erasure, unless records came meanwhile.
func (d *documents) finish(digest wire.Digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.late[digest] {
		return false
	}
	delete(d.todo, digest)
	return true
}

// carryOut erases what is here of an erasure's records; done means that nothing
// of them is left, nor waits for what the node has not said yet.
func (l *Ledger) carryOut(ctx context.Context, k *keptDocument) (done bool, err error) {
	forced := time.Since(time.Unix(0, k.Taken)) > eraseAtLast
	done = true
	var errs []error
	for _, r := range k.Erase {
		ok, err := l.eraseBoot(ctx, r, forced)
		done = done && ok
		errs = append(errs, err)
	}
	errs = append(errs, l.eraseEvidence(), l.dropDamaged(k.Erase))
	return done && ctx.Err() == nil, errors.Join(errs...)
}

func (l *Ledger) eraseBoot(ctx context.Context, r audit.Records, forced bool) (done bool, err error) {
	key := bootKey{r.Node, r.Boot}
	lane := func(f func() error) {
		var failed error
		if l.do(ctx, key, func() { failed = f() }) {
			err = errors.Join(err, failed)
		}
	}
	defer lane(func() error { // what is found damaged on the way is set aside
		waits, err := l.archive.eraseLoose(r, forced)
		done = done && !waits
		return err
	})
	var spans []span
	// In the lane: a batch that is being stored belongs to what is here.
	if !l.do(ctx, key, func() { spans, err = l.archive.spans(r.Node, r.Boot) }) || err != nil {
		return false, err
	}
	if len(spans) == 0 {
		return true, l.clean(ctx, r)
	}
	done = true
	lane(func() error { return l.archive.removeTorn(r.Node, r.Boot) })
	windows := map[uint64]bool{}
	for _, s := range spans {
		if !audit.Overlaps(r.Ranges, s.first, s.last) {
			continue
		}
		lane(func() error { return l.eraseSpan(key, s) })
		for _, x := range r.Ranges {
			for n := (max(x.From, s.first) - 1) / audit.WindowRecords; n <= (min(x.To, s.last)-1)/audit.WindowRecords; n++ {
				windows[n] = true
			}
		}
	}
	for n := range windows {
		lane(func() error {
			waits, err := l.scrubWindow(key, n, forced)
			done = done && !waits
			return err
		})
	}
	return done, errors.Join(err, l.clean(ctx, r))
}

// eraseLoose takes erased records' blobs out of files of blobs whose batch is not
// there, because it was set aside. When other batches hold its records, the file
// goes. Else what records may share stays until it is forced: the batch that is
// fetched may need it; waits tells of that. The lane calls it.
func (a archive) eraseLoose(r audit.Records, forced bool) (waits bool, err error) {
	dir := a.boot(r.Node, r.Boot)
	spans, err := a.spans(r.Node, r.Boot)
	if err != nil {
		return false, err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		name, blobs := strings.CutSuffix(e.Name(), ".blobs")
		s, ok := parseSpan(name + ".batch")
		if !ok || !blobs || slices.Contains(spans, s) || !audit.Overlaps(r.Ranges, s.first, s.last) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		side, bad := a.side(r.Node, r.Boot, s)
		if bad != nil || covers(spans, s) {
			err = errors.Join(err, ignoreMissing(os.Remove(path)))
			continue
		}
		frame, changed, left := eraseSide(side, r.Ranges, forced)
		if changed {
			err = errors.Join(err, replace(path, frame))
		}
		waits = waits || left
	}
	return waits, ignoreMissing(err)
}

// covers reports whether spans, which rise, hold all records of s.
func covers(spans []span, s span) bool {
	next := s.first
	for _, have := range spans {
		if have.first <= next && next <= have.last {
			next = have.last + 1
		}
	}
	return next > s.last
}

func eraseSide(side *audit.Side, ranges []audit.Range, shared bool) (frame []byte, changed, left bool) {
	var drops []audit.Drop
	for i, blobs := range side.Blobs {
		seq := side.First + i
		if !audit.Contains(ranges, seq) {
			continue
		}
		for at, b := range blobs {
			if shared || len(b) > audit.MaxShared {
				drops = append(drops, audit.Drop{Seq: seq, At: at})
			} else {
				left = left || len(b) > 0
			}
		}
	}
	if !side.Drop(drops) {
		return nil, false, left
	}
	frame, err := side.Encode()
	return frame, err == nil, left
}

// removeTorn takes away what a crash left of writing a batch.
func (a archive) removeTorn(node, boot string) error {
	entries, err := os.ReadDir(a.boot(node, boot))
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".batch.tmp") || strings.HasSuffix(name, ".blobs.tmp") {
			err = errors.Join(err, os.Remove(filepath.Join(a.boot(node, boot), name)))
		}
	}
	return err
}

// eraseSpan takes the parts of erased records out of an archived batch. The lane
// calls it.
func (l *Ledger) eraseSpan(key bootKey, s span) error {
	b, err := l.archive.read(key.node, key.boot, s)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		l.lost(key, s) // damaged: what is fetched in its place is erased when it comes
		return nil
	}
	if b.Erase(l.gone(b, l.documents.erased())) == 0 {
		return nil
	}
	frame, err := b.Encode()
	if err != nil {
		return err
	}
	path := filepath.Join(l.archive.boot(key.node, key.boot), s.file())
	arrived, err := os.Stat(path)
	if err != nil {
		return err
	}
	l.cfg.Step("erase")
	err = replace(path, frame)
	l.cfg.Step("erased")
	return errors.Join(err, os.Chtimes(path, arrived.ModTime(), arrived.ModTime())) // retention counts from it
}

// scrubWindow drops the blobs of a window that no record uses any more; waits
// tells whether some may have to go later. The lane calls it.
func (l *Ledger) scrubWindow(key bootKey, number uint64, forced bool) (waits bool, err error) {
	spans, err := l.archive.spans(key.node, key.boot)
	if err != nil {
		return false, err
	}
	first, last := number*audit.WindowRecords+1, (number+1)*audit.WindowRecords
	spans = slices.DeleteFunc(spans, func(s span) bool { return s.last < first || s.first > last })
	at, removed := audit.Place{Node: key.node, Boot: key.boot}, l.documents.erased()
	var window audit.Window
	scrub := audit.NewScrub(number, func(seq uint64) bool { return removed.Has(at, seq) })
	next, whole := first, true
	for _, s := range spans {
		whole = whole && s.first <= next
		b, err := l.archive.read(key.node, key.boot, s)
		if err == nil {
			err = l.joinSide(b, s)
		}
		if err != nil {
			if !forced {
				return true, nil // who uses what is known when it was fetched again
			}
			continue
		}
		if len(b.Lacks(&window)) > 0 && whole && !forced {
			return true, nil // what is not here may say who uses what
		}
		scrub.Batch(b)
		next = s.last + 1
	}
	drops, waits := scrub.Finish(forced || whole && l.closed(key, next, last))
	for _, s := range spans {
		if err := l.dropBlobs(key, s, drops); err != nil {
			return true, err
		}
	}
	return waits, nil
}

// closed reports whether no record can come for a window that ends with last,
// when all of it before next is here.
func (l *Ledger) closed(key bootKey, next, last uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.boots[key]
	return next > last || s != nil && s.end != nil && s.head.size == s.end.size && next > s.head.size
}

// joinSide gives a batch its blobs; a damaged file of them counts as none.
func (l *Ledger) joinSide(b *audit.Batch, s span) error {
	side, err := l.archive.side(b.Node, b.Boot, s)
	if err != nil || side == nil {
		return err
	}
	return b.Join(side)
}

func (l *Ledger) dropBlobs(key bootKey, s span, drops []audit.Drop) error {
	var here []audit.Drop
	for _, d := range drops {
		if d.Seq >= s.first && d.Seq <= s.last {
			here = append(here, d)
		}
	}
	if len(here) == 0 {
		return nil
	}
	side, err := l.archive.side(key.node, key.boot, s)
	if err != nil || side == nil || !side.Drop(here) {
		return err
	}
	frame, err := side.Encode()
	if err != nil {
		return err
	}
	l.cfg.Step("drop")
	err = replace(beside(filepath.Join(l.archive.boot(key.node, key.boot), s.file())), frame)
	l.cfg.Step("dropped")
	return err
}

// strip returns a frame without the parts of erased records, and without those of
// their blobs that the archive does not have either; and whether that changed it.
func (l *Ledger) strip(frame []byte) (changed []byte, change bool) {
	b, err := audit.DecodeBatch(frame)
	if err != nil {
		return frame, false
	}
	removed, at := l.documents.erased(), audit.Place{Node: b.Node, Boot: b.Boot}
	if !audit.Overlaps(removed.Ranges(at), b.First, b.Last()) {
		return frame, false
	}
	gone := l.gone(b, removed)
	n := b.Erase(gone)
	for i := range b.Entries {
		if e, seq := &b.Entries[i], b.First+uint64(i); len(e.Blobs) > 0 && gone(seq) && !l.keepsBlobs(at, seq, e.Blobs) {
			e.Blobs, e.Gone = nil, nil
			n++
		}
	}
	if n == 0 {
		return frame, false
	}
	if changed, err = b.Encode(); err != nil {
		return frame, false
	}
	return changed, true
}

// keepsBlobs reports whether the archive still has one of a record's blobs, for
// another record's sake: then what else stands for the record keeps them too.
func (l *Ledger) keepsBlobs(at audit.Place, seq uint64, blobs [][]byte) bool {
	spans, err := l.archive.spans(at.Node, at.Boot)
	if err != nil {
		return true // not known; asked again
	}
	i, found := slices.BinarySearchFunc(spans, seq, span.compare)
	if !found {
		return false
	}
	side, err := l.archive.side(at.Node, at.Boot, spans[i])
	if err != nil || side == nil {
		return false
	}
	return slices.ContainsFunc(side.Blobs[seq-spans[i].first], func(b []byte) bool {
		return len(b) > 0 && slices.ContainsFunc(blobs, func(o []byte) bool { return bytes.Equal(b, o) })
	})
}

// clean has the region's stream forget what is erased, when this server leads.
func (l *Ledger) clean(ctx context.Context, r audit.Records) error {
	c, ok := l.cfg.Input.(Cleaner)
	if !ok || !l.cfg.Leading() {
		return nil
	}
	err := c.Clean(ctx, r.Node, r.Boot, func(frame []byte) ([]byte, bool) {
		b, err := audit.DecodeBatch(frame)
		if err != nil || !l.Has(r.Node, r.Boot, b.First) || !l.Has(r.Node, r.Boot, b.Last()) {
			return frame, false // it is erased when it is archived, and then here
		}
		return l.strip(frame)
	})
	if err != nil {
		return fmt.Errorf("stream of %s/%s: %w", r.Node, r.Boot, err)
	}
	return nil
}

// eraseEvidence takes the parts of erased records out of batches that are kept as
// evidence; they prove what they proved before.
func (l *Ledger) eraseEvidence() error {
	dir := filepath.Join(l.cfg.Dir, evidenceDir)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		why, ok := isEvidence(e.Name())
		if !ok || !strings.HasSuffix(e.Name(), ".batch") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		frame, readErr := os.ReadFile(path)
		if readErr != nil {
			err = errors.Join(err, readErr)
			continue
		}
		if why == damaged && l.eraseDamaged(path, frame) {
			err = errors.Join(err, ignoreMissing(os.Remove(path)))
			continue
		}
		if changed, change := l.strip(frame); change {
			err = errors.Join(err, l.replaceEvidence(path, l.archive.evidence(why, changed), changed))
		}
	}
	return err
}

// eraseDamaged reports whether a damaged batch that cannot be read any more, and so
// neither without what is erased, has erased records. While there are holds it
// stays: it may have held ones.
func (l *Ledger) eraseDamaged(path string, frame []byte) bool {
	if _, err := audit.DecodeBatch(frame); err == nil || len(l.documents.holds()) > 0 {
		return false
	}
	at, s, ok := setAsideOf(path)
	return ok && audit.Overlaps(l.documents.erased().Ranges(at), s.first, s.last)
}

func (l *Ledger) replaceEvidence(old, path string, frame []byte) error {
	if note, err := os.ReadFile(wordsOf(old)); err == nil {
		if err := replace(wordsOf(path), note); err != nil {
			return err
		}
	}
	if err := replace(path, frame); err != nil {
		return err
	}
	return errors.Join(os.Remove(old), ignoreMissing(os.Remove(wordsOf(old))))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Erased returns the records of a boot that are erased, or to be.
func (l *Ledger) Erased(node, boot string) []audit.Range {
	return slices.Clone(l.documents.erased().Ranges(audit.Place{Node: node, Boot: boot}))
}
