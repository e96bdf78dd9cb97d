package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// Export writes the ledger kept in the folder dir to w: every batch as it is and
// the last receipt of each boot. The ledger may be running; nothing is changed.
func Export(dir string, w *audit.ExportWriter) error {
	a := archive(dir)
	nodes, err := a.boots()
	if err != nil {
		return err
	}
	for node, boots := range nodes {
		for _, boot := range boots {
			if err := a.export(w, node, boot); err != nil {
				return fmt.Errorf("export %s/%s: %w", node, boot, err)
			}
		}
	}
	return errors.Join(a.exportDocuments(w), a.exportSweeps(w))
}

// export writes the receipt first: batches that come meanwhile are beyond it.
// A batch that cannot be read any more is left out, so that verification shows
// the gap; a receipt that is torn is, since it counts as none.
func (a archive) export(w *audit.ExportWriter, node, boot string) error {
	receipt, err := a.receipt(node, boot)
	if err != nil {
		return err
	}
	if isWhole(receipt) {
		if err := w.Checkpoint(receipt); err != nil {
			return err
		}
	}
	have, err := a.exportBatches(w, node, boot)
	if err != nil {
		return err
	}
	return a.exportBehindGap(w, node, boot, have)
}

// isWhole reports whether there is a receipt with all its signatures, whoever made
// them: that is for verification.
func isWhole(receipt []byte) bool {
	_, err := audit.PeekCheckpoint(receipt)
	_, unknown := note.Open(receipt, note.VerifierList())
	return err == nil && errors.As(unknown, new(*note.UnverifiedNoteError))
}

// exportBatches writes each batch with its blobs. Batches may be put together
// meanwhile: what is gone is looked for again.
func (a archive) exportBatches(w *audit.ExportWriter, node, boot string) (have []span, err error) {
	for next, again := uint64(1), true; again; {
		spans, err := a.spans(node, boot)
		if err != nil {
			return nil, err
		}
		again = false
		for _, s := range spans {
			if s.last < next {
				continue
			}
			err := a.exportBatch(w, node, boot, s, next)
			if errors.Is(err, fs.ErrNotExist) {
				again = true
				break
			}
			if err != nil {
				return nil, err
			}
			have, next = append(have, span{max(s.first, next), s.last}), s.last+1
		}
	}
	return have, nil
}

// exportBatch writes what is in a batch from record first on, and its blobs if
// they are readable: verification names the parts that are missing. The blobs are
// read first, because they are taken away last.
func (a archive) exportBatch(w *audit.ExportWriter, node, boot string, s span, first uint64) error {
	side, _ := a.side(node, boot, s)
	frame, err := os.ReadFile(filepath.Join(a.boot(node, boot), s.file()))
	if err != nil {
		return err
	}
	b, err := audit.DecodeBatch(frame)
	if err != nil {
		return nil
	}
	if first > s.first {
		if side != nil && b.Join(side) != nil {
			side = nil
		}
		b, side = tail(b, first).Split()
		if frame, err = b.Encode(); err != nil {
			return err
		}
	}
	if err := w.Batch(frame); err != nil || side == nil {
		return err
	}
	if frame, err = side.Encode(); err != nil {
		return err
	}
	return w.Side(frame)
}

// exportBehindGap writes the batches that are kept as evidence because records
// before them are missing: they prove themselves.
func (a archive) exportBehindGap(w *audit.ExportWriter, node, boot string, have []span) error {
	entries, err := os.ReadDir(filepath.Join(string(a), evidenceDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if why, ok := isEvidence(e.Name()); !ok || why != gap {
			continue
		}
		frame, err := os.ReadFile(filepath.Join(string(a), evidenceDir, e.Name()))
		if err != nil {
			return err
		}
		b, err := audit.DecodeBatch(frame)
		if err != nil || b.Node != node || b.Boot != boot || slices.ContainsFunc(have, func(s span) bool { return s.first <= b.Last() && b.First <= s.last }) {
			continue // archived since
		}
		if err := w.Batch(frame); err != nil {
			return err
		}
		have = append(have, span{b.First, b.Last()})
	}
	return nil
}
