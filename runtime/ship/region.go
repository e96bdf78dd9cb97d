package ship

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// errEvidence ends the shipping of one boot to one region.
var errEvidence = errors.New("the region knows more than the journal")

// A region is shipped to by one goroutine, which owns fences.
type region struct {
	Region
	shipper *Shipper
	// fences holds the next fence of each boot whose head is known.
	fences map[string]uint64

	mu    sync.Mutex // guards what follows
	boots map[string]BootStatus
	err   error
}

// ship drains the journal as it grows.
func (r *region) ship(ctx context.Context) {
	var wait backoff
	for ctx.Err() == nil {
		changed, urgent := r.shipper.cfg.Journal.Changed(), r.shipper.hurried()
		err := r.drain(ctx)
		r.failed(err)
		if err != nil {
			if wait.wait(ctx) != nil {
				return
			}
			continue
		}
		wait = 0
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		if pause(ctx, r.shipper.cfg.Linger, urgent) != nil {
			return
		}
	}
}

// drain ships everything that the journal now has, oldest boot first. A boot
// that cannot be shipped does not keep the others back.
func (r *region) drain(ctx context.Context) error {
	var errs []error
	for _, b := range r.shipper.cfg.Journal.Boots() {
		if r.status(b.ID).Stopped {
			continue
		}
		if err := r.drainBoot(ctx, b); err != nil {
			delete(r.fences, b.ID)
			errs = append(errs, fmt.Errorf("ship %s to %s: %w", b.ID, r.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (r *region) drainBoot(ctx context.Context, b journal.Boot) error {
	if _, known := r.fences[b.ID]; !known {
		if err := r.find(ctx, b.ID); errors.Is(err, errEvidence) {
			return nil
		} else if err != nil {
			return err
		}
	}
	for ctx.Err() == nil && r.status(b.ID).Shipped < b.Size {
		if err := r.send(ctx, b.ID); nothingYet(err) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// find asks the region how far a boot is. The journal is asked after the
// region, so that it can only have grown since.
func (r *region) find(ctx context.Context, boot string) error {
	last, fence, err := r.Sink.Head(ctx, r.shipper.cfg.Node, boot)
	if err != nil {
		return err
	}
	var have uint64
	for _, b := range r.shipper.cfg.Journal.Boots() {
		if b.ID == boot {
			have = b.Size
		}
	}
	if last > have {
		r.update(boot, func(s *BootStatus) { s.Stopped = true })
		e := Evidence{Region: r.Name, Boot: boot, RegionLast: last, JournalLast: have}
		r.shipper.cfg.Log.Error("region knows more than the journal", "region", r.Name, "boot", boot, "region_last", last, "journal_last", have)
		r.shipper.cfg.OnEvidence(e)
		return errEvidence
	}
	r.fences[boot] = fence
	r.update(boot, func(s *BootStatus) { s.Shipped = last })
	return nil
}

// send ships the next batch of a boot.
func (r *region) send(ctx context.Context, boot string) error {
	batch, err := r.shipper.cfg.Journal.ReadBatch(boot, r.status(boot).Shipped+1, 0, 0)
	if err != nil {
		return err
	}
	frame, err := batch.Encode()
	if err != nil {
		return err
	}
	next, err := r.Sink.Publish(ctx, r.shipper.cfg.Node, boot, r.fences[boot], frame)
	if err != nil {
		return err
	}
	r.fences[boot] = next
	r.update(boot, func(s *BootStatus) { s.Shipped = batch.Last() })
	return nil
}

// receive takes receipts; one that does not verify is logged and ignored.
func (r *region) receive(ctx context.Context) {
	var wait backoff
	for ctx.Err() == nil {
		err := r.Sink.Receipts(ctx, r.shipper.cfg.Node, func(msg []byte) {
			wait = 0
			if err := r.accept(msg); err != nil {
				r.shipper.cfg.Log.Warn("receipt refused", "region", r.Name, "err", err)
			}
		})
		r.shipper.cfg.Log.Debug("receipts ended", "region", r.Name, "err", err)
		if wait.wait(ctx) != nil {
			return
		}
	}
}

func (r *region) accept(msg []byte) error {
	receipt, err := audit.OpenReceipt(msg, r.shipper.cfg.Key, r.Key)
	if err != nil {
		return err
	}
	r.update(receipt.Boot, func(s *BootStatus) { s.Cosigned = max(s.Cosigned, receipt.Size) })
	r.shipper.tell()
	return nil
}

func (r *region) status(boot string) BootStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.boots[boot]
}

func (r *region) update(boot string, f func(*BootStatus)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.boots[boot]
	f(&s)
	r.boots[boot] = s
}

// failed keeps the error for Status and logs it when it is another state.
func (r *region) failed(err error) {
	r.mu.Lock()
	was := r.err
	r.err = err
	r.mu.Unlock()
	if (err == nil) != (was == nil) {
		r.shipper.cfg.Log.Info("shipping", "region", r.Name, "working", err == nil, "err", err)
	}
}
