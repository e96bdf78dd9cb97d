package ledger

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// Nodes ship small batches so that records arrive soon. What came in small ones
// is put together, so that a day of a busy node is not a million files: a batch of
// several is a batch, with the last one's checkpoint.

// mergeBytes bounds the frame of a batch of several, and its blobs.
const mergeBytes = audit.MaxFrameBytes / 2

// recent are archived batches that follow one another and are not put together yet.
type recent struct {
	spans []span
	bytes int64
}

func (r recent) records() uint64 {
	if len(r.spans) == 0 {
		return 0
	}
	return r.spans[len(r.spans)-1].last + 1 - r.spans[0].first
}

// grown notes a batch that was archived, and puts those before it together when
// it does not fit to them any more. The lane calls it.
func (l *Ledger) grown(key bootKey, s *bootState, have span) error {
	size := l.archive.size(key.node, key.boot, have)
	n := len(s.recent.spans)
	apart := n > 0 && s.recent.spans[n-1].last+1 != have.first
	if n > 0 && (apart || s.recent.records()+have.last+1-have.first > audit.MaxBatchRecords || s.recent.bytes+size > mergeBytes) {
		full := s.recent.spans
		s.recent = recent{}
		if err := l.merge(key, full); err != nil {
			return err
		}
	}
	s.recent.spans, s.recent.bytes = append(s.recent.spans, have), s.recent.bytes+size
	return nil
}

// size is how much a batch takes on disk.
func (a archive) size(node, boot string, s span) (n int64) {
	path := filepath.Join(a.boot(node, boot), s.file())
	for _, file := range []string{path, beside(path)} {
		if info, err := os.Stat(file); err == nil {
			n += info.Size()
		}
	}
	return n
}

// merge puts batches together that follow one another. What is not as it was
// archived is left for the scrub.
func (l *Ledger) merge(key bootKey, spans []span) error {
	if len(spans) < 2 {
		return nil
	}
	var all *audit.Batch
	for _, s := range spans {
		b, err := l.archive.read(key.node, key.boot, s)
		if err == nil {
			var side *audit.Side
			if side, err = l.archive.side(key.node, key.boot, s); err == nil && side != nil {
				err = b.Join(side)
			}
		}
		if err != nil || all != nil && b.First != all.Last()+1 {
			return nil
		}
		if all == nil {
			all = b
			continue
		}
		all.Entries, all.Checkpoint = append(all.Entries, b.Entries...), b.Checkpoint
	}
	c, err := audit.PeekCheckpoint(all.Checkpoint)
	if err != nil || c.Size != all.Last() || c.Root != rootWithin(all, c.Size) {
		return nil
	}
	l.cfg.Step("merge")
	if err := l.archive.keep(l.withoutErased(all)); errors.Is(err, audit.ErrBatchTooLarge) {
		return nil
	} else if err != nil {
		return err
	}
	if err := syncDir(l.archive.boot(key.node, key.boot)); err != nil {
		return err
	}
	l.cfg.Step("merged")
	for _, s := range spans {
		if err := l.archive.remove(key.node, key.boot, s); err != nil {
			return err
		}
	}
	return nil
}
