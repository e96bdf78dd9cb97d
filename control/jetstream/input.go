package jetstream

import (
	"context"
	"strconv"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/bus"
)

// An Input feeds the ledger of a region. It is a control/ledger.Input; its
// connection should be one to the region's own hub.
type Input struct {
	Region
}

// Records calls take with each batch, in the order in which the region stored
// them, beginning after the given position ("" for all there is), and settled
// with the position reached whenever it is caught up or has given out a group.
// A position that is damaged, or of a stream that was made anew, counts as "". It ends with the
// first error of either, or the context's.
func (in Input) Records(ctx context.Context, position string, take func(node, boot string, frame []byte) error, settled func(position string) error) error {
	created, err := in.records().Created(ctx)
	if err != nil {
		return err
	}
	stream := strconv.FormatInt(created.UnixNano(), 10)
	var after uint64
	if name, seq, ok := strings.Cut(position, " "); ok && name == stream {
		after, _ = strconv.ParseUint(seq, 10, 63) // a damaged number counts as ""
	}
	subject := in.prefix() + "rec.>"
	return in.records().Follow(ctx, after+1, subject, []string{in.stored(subject)}, poll, func(group []bus.Msg) error {
		for _, m := range group {
			node, boot, ok := parseRecord(m.Subject)
			if !ok {
				continue
			}
			if err := take(node, boot, m.Data); err != nil {
				return err
			}
		}
		return settled(stream + " " + strconv.FormatUint(group[len(group)-1].Seq, 10))
	})
}

// Receipt publishes a boot's receipt to its node. A nil error means that the
// region has it on disk.
func (in Input) Receipt(ctx context.Context, node, boot string, receipt []byte) error {
	return in.receipts().Put(ctx, in.receipt(node, boot), receipt)
}
