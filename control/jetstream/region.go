package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// ErrConflict means that the subject of an object already holds other bytes:
// two releases with one epoch, or a blob that is not what its digest says.
var ErrConflict = errors.New("another object has this name")

// ErrNoPackage means that no region's stream has the whole package.
var ErrNoPackage = errors.New("package is not there")

const (
	poll  = 500 * time.Millisecond
	retry = 250 * time.Millisecond
)

// Create makes the region's streams, or brings them to this configuration:
// policies (POL, immutable), record batches (REC) and the last receipt of each
// boot (RCPT).
func (r Region) Create(ctx context.Context) error {
	conf := func(kind string) bus.StreamConfig {
		return bus.StreamConfig{Subjects: []string{r.prefix() + kind + ".>"}, MaxMsgSize: maxMessage, Announce: announce(r.Tenant, r.Name)}
	}
	policies, records, receipts := conf("pol"), conf("rec"), conf("rcpt")
	policies.Immutable, receipts.LastOnly = true, true
	return errors.Join(
		r.policies().Ensure(ctx, policies),
		r.records().Ensure(ctx, records),
		r.receipts().Ensure(ctx, receipts),
	)
}

// Publish stores the packages (.hfp files) and, when all of them are
// acknowledged, the release's envelope under its epoch. What is there already is left alone, so that a Publish which
// failed can be repeated. ErrConflict when the epoch is taken by another
// release.
func (r Region) Publish(ctx context.Context, epoch uint64, envelope []byte, packages ...[]byte) error {
	for i, file := range packages {
		content, err := wire.Decompress(file, MaxPackage)
		if err != nil {
			return fmt.Errorf("publish package %d: %w", i, err)
		}
		if err := r.upload(ctx, content); err != nil {
			return err
		}
	}
	return r.create(ctx, r.release(epoch), envelope)
}

// upload stores the uncompressed content in chunks, so that one digest has one
// form, whoever compressed it.
func (r Region) upload(ctx context.Context, content []byte) error {
	digest := wire.Sum(content)
	for i := 0; ; i++ {
		chunk := content[:min(ChunkSize, len(content))]
		content = content[len(chunk):]
		if err := r.create(ctx, r.blob(digest, i), chunk); err != nil {
			return err
		}
		if len(chunk) < ChunkSize {
			return nil
		}
	}
}

// create stores the first and only message of a subject.
func (r Region) create(ctx context.Context, subject string, data []byte) error {
	_, err := r.policies().Append(ctx, subject, data, 0)
	var taken *bus.FenceError
	if !errors.As(err, &taken) {
		return err
	}
	there, err := r.policies().Last(ctx, subject)
	if err != nil {
		return err
	}
	if !bytes.Equal(there.Data, data) {
		return fmt.Errorf("%s: %w", subject, ErrConflict)
	}
	return nil
}

// Copy copies the policies that another region has into this one's streams,
// in their order, until ctx ends. Every object is created at most once, so any
// number of copies may run, both ways. It waits for a region that is away and
// goes on within a second when it is back.
func (r Region) Copy(ctx context.Context, from Region, log *slog.Logger) error {
	next := uint64(1)
	for {
		err := from.policies().Follow(ctx, next, from.prefix()+"pol.>", from.stored(from.prefix()+"pol.rel.*"), poll, func(group []bus.Msg) error {
			for _, m := range group {
				if err := r.copy(ctx, from, m, log); err != nil {
					return err
				}
				next = m.Seq + 1
			}
			return nil
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("copy policies", "from", from.Name, "to", r.Name, "err", err)
		if err := sleep(ctx, retry); err != nil {
			return err
		}
	}
}

// copy creates one object; a conflict is logged and passed over, because
// waiting for it would keep back everything after it.
func (r Region) copy(ctx context.Context, from Region, m bus.Msg, log *slog.Logger) error {
	name, ok := strings.CutPrefix(m.Subject, from.prefix())
	if !ok {
		return nil
	}
	err := r.create(ctx, r.prefix()+name, m.Data)
	if errors.Is(err, ErrConflict) {
		log.Error("regions hold different objects of one name", "from", from.Name, "to", r.Name, "subject", m.Subject)
		return nil
	}
	return err
}

// fetch assembles a package's uncompressed content from the chunks that stream
// holds under the region's prefix, at most max bytes, and checks its digest.
func (r Region) fetch(ctx context.Context, stream *bus.Stream, digest wire.Digest, max uint64) ([]byte, error) {
	var content []byte
	for i := 0; ; i++ {
		m, err := stream.Last(ctx, r.blob(digest, i))
		if errors.Is(err, bus.ErrNotFound) {
			return nil, fmt.Errorf("package %s, chunk %d of region %s: %w", digest, i, r.Name, ErrNoPackage)
		}
		if err != nil {
			return nil, err
		}
		if len(m.Data) > ChunkSize || uint64(len(content)+len(m.Data)) > max {
			return nil, fmt.Errorf("package %s of region %s: beyond %d bytes: %w", digest, r.Name, max, wire.ErrTooLarge)
		}
		content = append(content, m.Data...)
		if len(m.Data) < ChunkSize {
			break
		}
	}
	if wire.Sum(content) != digest {
		return nil, fmt.Errorf("package %s of region %s: the content has another digest", digest, r.Name)
	}
	return content, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
