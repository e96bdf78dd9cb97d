package ledger

import (
	"fmt"
	"os"
	"path/filepath"

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
	return nil
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
		if err != nil {
			return err
		}
		if _, err := audit.DecodeBatch(frame); err != nil {
			continue
		}
		if err := w.Batch(frame); err != nil {
			return err
		}
	}
	return nil
}
