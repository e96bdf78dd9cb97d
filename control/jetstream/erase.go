package jetstream

import (
	"context"
	"errors"

	"github.com/holdfast-policy/holdfast/sdk/bus"
)

// Clean goes through the batches of a boot that the region's stream holds. Those
// that rewrite changes are overwritten on disk and removed; before the last one
// is, which is the node's fence, what rewrite makes of it is stored behind it. A
// nil error means that none is left. A crash in between leaves what Clean, done
// again, finds.
func (in Input) Clean(ctx context.Context, node, boot string, rewrite func(frame []byte) (changed []byte, change bool)) error {
	if err := errors.Join(checkToken("node", node), checkToken("boot", boot)); err != nil {
		return err
	}
	subject := in.record(node, boot)
	for seq := uint64(1); ; {
		group, err := in.records().Batch(ctx, seq, subject, readMessages, readBytes)
		if errors.Is(err, bus.ErrNotFound) || err == nil && len(group) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		for _, m := range group {
			if changed, change := rewrite(m.Data); change {
				if err := in.overwrite(ctx, m, changed); err != nil {
					return err
				}
			}
		}
		seq = group[len(group)-1].Seq + 1
	}
}

func (in Input) overwrite(ctx context.Context, m bus.Msg, changed []byte) error {
	last, err := in.records().Last(ctx, m.Subject)
	if err != nil {
		return err
	}
	if last.Seq == m.Seq {
		_, err := in.records().Append(ctx, m.Subject, changed, m.Seq)
		var behind *bus.FenceError
		if err != nil && !errors.As(err, &behind) { // behind: the node was faster, and its batch is the fence now
			return err
		}
	}
	err = in.records().Erase(ctx, m.Seq)
	if errors.Is(err, bus.ErrNotErasable) { // of a version before: removed, if not overwritten
		return in.records().PurgeBefore(ctx, m.Subject, m.Seq+1)
	}
	return err
}
