package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
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
	for {
		err := in.one(ctx, position, take, settled)
		if !errors.Is(err, errAnew) {
			return err
		}
		position = ""
	}
}

// one reads one life of the stream.
func (in Input) one(ctx context.Context, position string, take func(node, boot string, frame []byte) error, settled func(position string) error) error {
	created, err := in.records().Created(ctx)
	if err != nil {
		return err
	}
	stream := strconv.FormatInt(created.UnixNano(), 10)
	var after uint64
	if name, seq, ok := strings.Cut(position, " "); ok && name == stream {
		after, _ = strconv.ParseUint(seq, 10, 63) // a damaged number counts as ""
	}
	within, stop := whileSame(ctx, in.records(), created)
	defer stop()
	subject := in.prefix() + "rec.>"
	err = in.records().Follow(within, after+1, subject, []string{in.stored(subject)}, poll, func(group []bus.Msg) error {
		if group[0].Seq <= after {
			return errAnew
		}
		for _, m := range group {
			node, boot, ok := parseRecord(m.Subject)
			if !ok {
				continue
			}
			if err := take(node, boot, m.Data); err != nil {
				return err
			}
		}
		after = group[len(group)-1].Seq
		return settled(stream + " " + decimal(after))
	})
	if ctx.Err() == nil && within.Err() != nil {
		return context.Cause(within)
	}
	return err
}

// whileSame ends, with errAnew, when the stream is not the one that was made at
// that time.
func whileSame(ctx context.Context, s *bus.Stream, created time.Time) (within context.Context, stop func()) {
	within, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(within, sameEvery) == nil {
			at, err := s.Created(within)
			if err == nil && !at.Equal(created) {
				cancel(errAnew)
			}
		}
	}()
	return within, func() { cancel(nil); <-done }
}

// sameEvery is how often a reader looks whether its stream is the same.
const sameEvery = 2 * time.Second

// Stored calls take with the batches of a boot that the stream holds now and
// that do not end before record from, in their order, until take returns true.
func (in Input) Stored(ctx context.Context, node, boot string, from uint64, take func(frame []byte) (enough bool)) error {
	if err := errors.Join(checkToken("node", node), checkToken("boot", boot)); err != nil {
		return err
	}
	subject := in.record(node, boot)
	for seq := uint64(1); ; {
		group, err := in.records().Batch(ctx, seq, subject, readMessages, readBytes)
		if errors.Is(err, bus.ErrNotFound) || err == nil && len(group) == 0 {
			return nil
		}
		if err != nil && len(group) == 0 {
			return err
		}
		for _, m := range group {
			b, err := audit.DecodeBatch(m.Data)
			if err == nil && b.Last() >= from && take(m.Data) {
				return nil
			}
		}
		seq = group[len(group)-1].Seq + 1
	}
}

// receiptTries bounds how often a receipt that others replace is replaced.
const receiptTries = 10

// Receipt replaces the last receipt of a boot (nil for none) by what next makes
// of it, and asks next again when another was faster; nil leaves what is there.
// A nil error means that the region has it on disk.
func (in Input) Receipt(ctx context.Context, node, boot string, next func(last []byte) ([]byte, error)) error {
	subject := in.receipt(node, boot)
	for range receiptTries {
		last, err := in.receipts().Last(ctx, subject)
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return err
		}
		msg, err := next(last.Data)
		if err != nil || msg == nil {
			return err
		}
		_, err = in.receipts().Append(ctx, subject, msg, last.Seq)
		var lost *bus.FenceError
		if !errors.As(err, &lost) {
			return err
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil { // the replica that was read may be behind
			return err
		}
	}
	return fmt.Errorf("receipt of %s/%s: replaced by others %d times", node, boot, receiptTries)
}
