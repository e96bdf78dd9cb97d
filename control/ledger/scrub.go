package ledger

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

const (
	scrubAgain = time.Hour
	// scrubShare is how many times longer than reading a batch the scrub rests.
	scrubShare = 20
)

// scrub reads the whole archive again and again, slowly, until ctx ends. It begins
// at once: opening has read the end of each boot only, and a server that was down
// may have lost anything.
func (l *Ledger) scrub(ctx context.Context) {
	for {
		l.Scrub(ctx, scrubShare)
		if !pause(ctx, scrubAgain) {
			return
		}
	}
}

// Scrub reads the archive once, resting rest times as long as it works, and has
// what is damaged or gone fetched again.
func (l *Ledger) Scrub(ctx context.Context, rest int) {
	for _, key := range l.sortedKeys() {
		if l.cfg.Keys.Node(l.cfg.Tenant, key.node) != nil {
			l.scrubBoot(ctx, key, rest)
		}
	}
}

func (l *Ledger) scrubBoot(ctx context.Context, key bootKey, rest int) {
	spans, err := l.archive.spans(key.node, key.boot)
	if err != nil {
		l.cfg.Log.Error("scrub", "node", key.node, "boot", key.boot, "err", err)
		return
	}
	w := walk{next: 1}
	for _, s := range spans {
		began := time.Now()
		if !l.scrubSpan(ctx, key, s, &w) {
			return
		}
		if rest > 0 && !pause(ctx, time.Duration(rest)*time.Since(began)) || ctx.Err() != nil {
			return
		}
	}
	l.do(ctx, key, func() { l.recount(key) })
}

// scrubSpan reads one batch and its blobs, and has them fetched again when they
// are not what was archived; false when ctx ended.
func (l *Ledger) scrubSpan(ctx context.Context, key bootKey, s span, w *walk) bool {
	if !l.intact(key, s) {
		w.lose(s)
		return l.do(ctx, key, func() { l.lost(key, s) })
	}
	if w.whole(l.archive, key, s) {
		return true
	}
	if !l.mendBlobs(ctx, key, s) {
		w.lose(s)
	} else {
		w.whole(l.archive, key, s) // what was fetched is for those behind it
	}
	return ctx.Err() == nil
}

// intact reports whether an archived batch is what its node signed. One that is
// not there may be part of another one now; recount finds what is missing.
func (l *Ledger) intact(key bootKey, s span) bool {
	b, err := l.archive.read(key.node, key.boot, s)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err == nil {
		_, _, err = b.VerifyFirst(l.cfg.Keys.Node(l.cfg.Tenant, key.node))
	}
	return err == nil
}

// lost sets a damaged batch aside. The lane calls it.
func (l *Ledger) lost(key bootKey, s span) {
	if l.intact(key, s) {
		return
	}
	l.cfg.Log.Error("archived batch is damaged", "node", key.node, "boot", key.boot, "file", s.file())
	if err := l.archive.setAside(key.node, key.boot, s); err != nil {
		l.cfg.Log.Error("damaged batch not set aside", "file", s.file(), "err", err)
	}
}

// recount finds the holes of what is on disk now. The lane calls it.
func (l *Ledger) recount(key bootKey) {
	s := l.state(key)
	spans, err := l.archive.spans(key.node, key.boot)
	if err != nil {
		return
	}
	var holes []audit.Range
	next := uint64(1)
	for _, have := range spans {
		if have.first > next && next <= s.head.size {
			holes = append(holes, audit.Range{From: next, To: min(have.first-1, s.head.size)})
		}
		next = max(next, have.last+1)
	}
	if next <= s.head.size {
		holes = append(holes, audit.Range{From: next, To: s.head.size})
	}
	l.mu.Lock()
	fresh := !slices.Equal(holes, s.holes)
	s.holes = holes
	if fresh && len(holes) > 0 {
		s.tried, s.stuck = false, time.Now().Add(-patience)
	}
	l.mu.Unlock()
	if fresh && len(holes) > 0 {
		l.cfg.Log.Error("archive is damaged", "node", key.node, "boot", key.boot, "missing", holes)
		wake(l.look)
	}
}
