package ship

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A region is shipped to by one goroutine, which owns lanes and what follows them.
type region struct {
	Region
	shipper *Shipper
	hurry   chan struct{}         // holds one mark: somebody waits
	boots   map[string]BootStatus // guarded by the shipper's waiting.mu, like retired
	retired bool

	lanes     map[string]*lane
	wait      backoff
	until     time.Time // the region failed; it is not asked before
	paced     time.Time // frames are held back until then, to be larger
	from      int       // the older boot whose turn it is
	preparing sync.WaitGroup

	mu  sync.Mutex // guards err
	err error
}

// A lane is one boot on its way to one region.
type lane struct {
	known bool // of the fence, and of how far the region is
	fence uint64
	next  chan frame // the frame that is being prepared, if there is one
	until time.Time  // the journal failed; it is not read before
	err   error

	sent   time.Time // when the last frame went
	frames []uint64  // the last records of those that are not known to be counter-signed, the youngest ones

	stood BootStatus // where the boot stood
	since time.Time  // since when it has stood there, or the region was asked
}

// A region that was shipped records and does not counter-sign them may have lost
// them, and so may one that has counter-signed everything: it is asked again how
// far it is, when nothing has moved for so long.
const (
	doubtStalled = 15 * time.Second
	doubtIdle    = 10 * time.Minute
	doubtEvery   = 5 * time.Second // how often that is looked at
)

// doubts reports whether to ask again how far the region is.
func (l *lane) doubts(s BootStatus, now time.Time) bool {
	if !l.known || s != l.stood || l.since.IsZero() {
		l.stood, l.since = s, now
		return false
	}
	stalled := s.Shipped > s.Cosigned && now.Sub(l.since) >= doubtStalled
	if !stalled && now.Sub(l.since) < doubtIdle {
		return false
	}
	l.since = now
	return true
}

// A ledger works for each frame. While it is so many frames behind, a frame that
// is not full waits a moment to be larger: else many small ones would make it slower
// than the records come.
const (
	pacedBehind = 3
	pace        = 5 * time.Millisecond
)

// paces reports whether to hold the next frame back.
func (l *lane) paces(s BootStatus, size uint64, now time.Time) bool {
	for len(l.frames) > 0 && (l.frames[0] <= s.Cosigned || len(l.frames) > pacedBehind) {
		l.frames = l.frames[1:]
	}
	return len(l.frames) >= pacedBehind && size-s.Shipped < audit.MaxBatchRecords && now.Sub(l.sent) < pace
}

// A frame is an encoded batch.
type frame struct {
	first, last uint64
	bytes       []byte
	err         error
}

// What came of a boot's turn.
type outcome int

const (
	idle   outcome = iota // nothing to ship, or not now
	moved                 // the region is a step further
	failed                // the region failed
)

// errEvidence ends the shipping of one boot to one region.
var errEvidence = errors.New("the region knows more than the journal")

// readRetry is how long a boot waits that could not be read.
const readRetry = time.Second

// ship drains the journal as it grows.
func (r *region) ship(ctx context.Context) {
	defer r.preparing.Wait()
	for ctx.Err() == nil {
		changed := r.shipper.cfg.Journal.Changed()
		boots := r.shipper.cfg.Journal.Boots()
		if r.turn(ctx, boots) {
			continue
		}
		r.forget(boots)
		retry, err := r.trouble()
		r.failed(err)
		if r.rest(ctx, changed, retry) != nil {
			return
		}
	}
}

// turn ships a batch of the running boot, and one of an older boot, so that
// fresh records do not wait for the backlog of the boots before, and reports
// whether there may be more to do. Within a boot the order of the records is that
// of their shipping: there nothing overtakes a backlog.
func (r *region) turn(ctx context.Context, boots []journal.Boot) (more bool) {
	if len(boots) == 0 || time.Now().Before(r.until) {
		return false
	}
	older, running := boots[:len(boots)-1], boots[len(boots)-1]
	switch r.step(ctx, running) {
	case failed:
		return false
	case moved:
		more = true
	}
	for i := range older {
		at := (r.from + i) % len(older)
		switch r.step(ctx, older[at]) {
		case failed:
			r.lanes[older[at].ID].drop()
			r.from = at + 1 // it does not keep the others back
			return false
		case moved:
			r.from = at
			return true
		}
	}
	return more
}

// step takes a boot one step further: it asks for its head, or ships a batch.
func (r *region) step(ctx context.Context, b journal.Boot) outcome {
	l := r.lanes[b.ID]
	if l == nil {
		l = &lane{}
		r.lanes[b.ID] = l
	}
	s := r.status(b.ID)
	if l.doubts(s, time.Now()) {
		l.known = false
	}
	if s.Stopped || time.Now().Before(l.until) || l.known && max(s.Shipped, b.TrimmedThrough) >= b.Size {
		return idle
	}
	if !l.known {
		return r.came(l, b.ID, r.find(ctx, l, b.ID))
	}
	if l.paces(s, b.Size, time.Now()) {
		r.paced = l.sent.Add(pace)
		return idle
	}
	from := s.Shipped + 1
	if from <= b.TrimmedThrough { // given up on the receipts of others, of whom the region gets it
		r.shipper.cfg.Log.Warn("records that were trimmed are not shipped", "region", r.Name, "boot", b.ID, "from", from, "through", b.TrimmedThrough)
		from = b.TrimmedThrough + 1
	}
	f := r.take(l, b.ID, from)
	if f.err != nil {
		l.err = nil
		if !errors.Is(f.err, journal.ErrNoRecords) && !errors.Is(f.err, journal.ErrTrimmed) { // it is shipped from behind next time
			l.err, l.until = fmt.Errorf("read %s: %w", b.ID, f.err), time.Now().Add(readRetry)
		}
		return idle
	}
	r.ahead(l, b, f.last+1)
	return r.came(l, b.ID, r.send(ctx, l, b.ID, f))
}

// came notes what came of asking the region.
func (r *region) came(l *lane, boot string, err error) outcome {
	switch {
	case err == nil:
		again := r.wait > 0
		r.wait, r.until, l.err = 0, time.Time{}, nil
		if again {
			_, err := r.trouble()
			r.failed(err)
		}
		return moved
	case errors.Is(err, errEvidence):
		l.err = nil
		return moved
	}
	l.known, l.err = false, fmt.Errorf("ship %s to %s: %w", boot, r.Name, err)
	r.until = time.Now().Add(r.wait.next())
	return failed
}

// find asks the region how far a boot is. The journal is asked after the
// region, so that it can only have grown since.
func (r *region) find(ctx context.Context, l *lane, boot string) error {
	last, fence, err := r.Sink.Head(ctx, r.shipper.cfg.Node, boot)
	if err != nil {
		return err
	}
	var have, trimmed uint64
	for _, b := range r.shipper.cfg.Journal.Boots() {
		if b.ID == boot {
			have, trimmed = b.Size, b.TrimmedThrough
		}
	}
	if last > have {
		r.update(boot, func(s *BootStatus) { s.Stopped = true })
		e := Evidence{Region: r.Name, Boot: boot, RegionLast: last, JournalLast: have}
		r.shipper.cfg.Log.Error("region knows more than the journal", "region", r.Name, "boot", boot, "region_last", last, "journal_last", have)
		r.shipper.cfg.OnEvidence(e)
		return errEvidence
	}
	l.known, l.fence = true, fence
	r.update(boot, func(s *BootStatus) { s.Shipped = max(last, trimmed) }) // what was given up it gets from the others
	return nil
}

// send ships a frame. Only one of a boot is on its way: its fence is the sequence
// that the one before it got, which nobody knows before.
func (r *region) send(ctx context.Context, l *lane, boot string, f frame) error {
	r.shipper.cfg.Step("ship publish")
	next, err := r.Sink.Publish(ctx, r.shipper.cfg.Node, boot, l.fence, f.bytes)
	if err != nil {
		return err
	}
	r.shipper.cfg.Step("ship acknowledged")
	l.fence, l.sent, l.frames = next, time.Now(), append(l.frames, f.last)
	r.update(boot, func(s *BootStatus) { s.Shipped = f.last })
	return nil
}

// take returns the frame that begins with record from.
func (r *region) take(l *lane, boot string, from uint64) frame {
	if l.next != nil {
		f := <-l.next
		l.next = nil
		if f.err == nil && f.first == from {
			return f
		}
	}
	return r.shipper.read(boot, from)
}

// ahead prepares the frame that begins with record from while the one before it is
// on its way, if it will be a whole one: of the newest records more come meanwhile.
func (r *region) ahead(l *lane, b journal.Boot, from uint64) {
	if b.Size < from+audit.MaxBatchRecords {
		return
	}
	next := make(chan frame, 1)
	l.next = next
	r.preparing.Go(func() { next <- r.shipper.read(b.ID, from) })
}

// drop gives back the frame that was prepared.
func (l *lane) drop() {
	if l.next != nil {
		<-l.next
		l.next = nil
	}
}

func (s *Shipper) read(boot string, from uint64) frame {
	s.cfg.Step("ship read")
	batch, err := s.cfg.Journal.ReadBatch(boot, from, 0, 0)
	if err != nil {
		return frame{err: err}
	}
	bytes, err := batch.Encode()
	return frame{first: batch.First, last: batch.Last(), bytes: bytes, err: err}
}

// forget forgets the boots that the journal has no more.
func (r *region) forget(boots []journal.Boot) {
	have := make(map[string]bool, len(boots))
	for _, b := range boots {
		have[b.ID] = true
	}
	for id, l := range r.lanes {
		if !have[id] {
			l.drop()
			delete(r.lanes, id)
		}
	}
	r.shipper.waiting.mu.Lock()
	defer r.shipper.waiting.mu.Unlock()
	for id := range r.boots {
		if !have[id] {
			delete(r.boots, id)
		}
	}
}

// trouble is what keeps any boot back, and when it is tried again; zero for never.
func (r *region) trouble() (retry time.Time, err error) {
	var errs []error
	for _, l := range r.lanes {
		if l.err == nil {
			continue
		}
		errs = append(errs, l.err)
		at := l.until
		if r.until.After(at) {
			at = r.until
		}
		if retry.IsZero() || at.Before(retry) {
			retry = at
		}
	}
	return retry, errors.Join(errs...)
}

// rest waits until there is more to ship, or something is to be tried again.
func (r *region) rest(ctx context.Context, changed <-chan struct{}, retry time.Time) error {
	var again <-chan time.Time
	if !retry.IsZero() {
		t := time.NewTimer(time.Until(retry))
		defer t.Stop()
		again = t.C
	}
	if wait := time.Until(r.paced); wait > 0 {
		return pause(ctx, wait, nil)
	}
	doubt := time.NewTimer(doubtEvery)
	defer doubt.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-again:
		return nil
	case <-doubt.C:
		return nil
	case <-changed:
	}
	if wait := time.Until(r.until); wait > 0 {
		return pause(ctx, wait, nil)
	}
	return pause(ctx, r.shipper.cfg.Linger, r.hurry)
}

// hasten cuts the linger short.
func (r *region) hasten() {
	select {
	case r.hurry <- struct{}{}:
	default:
	}
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
		if pause(ctx, wait.next(), nil) != nil {
			return
		}
	}
}

func (r *region) accept(msg []byte) error {
	receipt, err := audit.OpenReceipt(msg, r.shipper.cfg.Key, r.Key)
	if err != nil {
		return err
	}
	r.shipper.cfg.Step("ship receipt")
	r.update(receipt.Boot, func(s *BootStatus) { s.Cosigned = max(s.Cosigned, receipt.Size) })
	return nil
}

func (r *region) status(boot string) BootStatus {
	r.shipper.waiting.mu.Lock()
	defer r.shipper.waiting.mu.Unlock()
	return r.boots[boot]
}

func (r *region) update(boot string, f func(*BootStatus)) { r.shipper.progress(r, boot, f) }

// known is what Status tells.
func (r *region) known() Status {
	r.shipper.waiting.mu.Lock()
	boots := maps.Clone(r.boots)
	r.shipper.waiting.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	return Status{Region: r.Name, Boots: boots, Err: r.err}
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
