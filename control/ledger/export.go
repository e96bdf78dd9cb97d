package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

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
// the gap.
func (a archive) export(w *audit.ExportWriter, node, boot string) error {
	receipt, err := a.receipt(node, boot)
	if err != nil {
		return err
	}
	if receipt != nil {
		if err := w.Checkpoint(receipt); err != nil {
			return err
		}
	}
	spans, err := a.spans(node, boot)
	if err != nil {
		return err
	}
	for _, s := range spans {
		frame, err := os.ReadFile(filepath.Join(a.boot(node, boot), s.file()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken away meanwhile; verification shows it
		}
		if err != nil {
			return err
		}
		if _, err := audit.DecodeBatch(frame); err != nil {
			continue
		}
		if err := w.Batch(frame); err != nil {
			return err
		}
		if err := a.exportSide(w, node, boot, s); err != nil {
			return err
		}
	}
	return a.exportBehindGap(w, node, boot, spans)
}

// exportSide writes the blobs of a batch, if they are there and readable.
func (a archive) exportSide(w *audit.ExportWriter, node, boot string, s span) error {
	side, err := a.side(node, boot, s)
	if err != nil || side == nil {
		return nil // damaged or erased: verification names the parts that are missing
	}
	frame, err := side.Encode()
	if err != nil {
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
