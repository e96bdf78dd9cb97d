package ship

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A Need says in how many regions records must be, and how: in a region's
// stream, or in its ledger, counter-signed.
type Need struct{ Stored, Cosigned int }

// NeedOf is what a durability class needs beyond the node's own disk; ok is false
// for the classes that need nothing.
func NeedOf(class policy.Durability) (n Need, ok bool) {
	switch class {
	case policy.Region:
		return Need{Stored: class.Regions()}, true
	case policy.Regions:
		return Need{Cosigned: class.Regions()}, true
	}
	return Need{}, false
}

// Everywhere is counter-signed by every region that counts.
func (s *Shipper) Everywhere() Need {
	s.waiting.mu.Lock()
	defer s.waiting.mu.Unlock()
	return Need{Cosigned: s.counting()}
}

// Errors of Wait.
var (
	// ErrTooFewRegions: no waiting helps, there are fewer regions than needed.
	ErrTooFewRegions = errors.New("fewer regions than that are shipped to")
	// ErrTooManyWait: Config.MaxWaiting calls wait already.
	ErrTooManyWait = errors.New("too many wait for regions")
	// ErrStalled: another call waited in vain, and nothing has moved since.
	ErrStalled = errors.New("the regions do not take records")
)

// Wait returns nil when the first size records of a boot are where need says,
// which has the regions hurry, or the context's error.
func (s *Shipper) Wait(ctx context.Context, boot string, size uint64, need Need) error {
	return s.wait(ctx, boot, size, need, false)
}

// Await returns nil when a record is as durable as class says; see Wait. When a
// call has waited in vain while nothing moved, those that come later do not wait
// until something moves: an outage costs the first answers their time, not all of
// them.
func (s *Shipper) Await(ctx context.Context, boot string, seq uint64, class policy.Durability) error {
	need, ok := NeedOf(class)
	if !ok {
		return nil
	}
	return s.wait(ctx, boot, seq, need, true)
}

// Count is how many regions there are.
func (s *Shipper) Count() int { return len(s.regions) }

// Retire says which regions count no more, for durability and for trimming.
func (s *Shipper) Retire(names []string) {
	s.waiting.mu.Lock()
	defer s.waiting.mu.Unlock()
	for _, r := range s.regions {
		r.retired = slices.Contains(names, r.Name)
	}
}

func (s *Shipper) wait(ctx context.Context, boot string, size uint64, need Need, heed bool) error {
	w, err := s.enter(boot, size, need, heed)
	if w == nil {
		return err
	}
	for _, r := range s.regions {
		r.hasten()
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return s.leave(waitKey{boot, need}, w, ctx.Err())
	}
}

// Met is the class that a record, durable on the node's disk, has now.
func (s *Shipper) Met(boot string, seq uint64) policy.Durability {
	s.waiting.mu.Lock()
	defer s.waiting.mu.Unlock()
	for _, class := range []policy.Durability{policy.Regions, policy.Region} {
		if need, _ := NeedOf(class); s.reached(boot, need) >= seq {
			return class
		}
	}
	return policy.Synced
}

// enter returns nil when need is met already, or an error when it is not worth
// waiting for.
func (s *Shipper) enter(boot string, size uint64, need Need, heed bool) (*waiter, error) {
	q, key := &s.waiting, waitKey{boot, need}
	q.mu.Lock()
	defer q.mu.Unlock()
	reached := s.reached(boot, need)
	switch {
	case max(need.Stored, need.Cosigned) > s.counting():
		return nil, fmt.Errorf("%w: %d of %d", ErrTooFewRegions, s.counting(), max(need.Stored, need.Cosigned))
	case reached >= size:
		return nil, nil
	case heed && q.stalled[need] == stall{boot, reached}:
		return nil, ErrStalled
	case q.count >= s.cfg.MaxWaiting:
		return nil, ErrTooManyWait
	}
	if q.queues[key] == nil {
		q.queues[key] = &queue{}
	}
	w := &waiter{size: size, from: reached, heeds: heed, done: make(chan struct{})}
	heap.Push(q.queues[key], w)
	q.count++
	return w, nil
}

// reached is how many records of a boot are where need says. The lock is held.
func (s *Shipper) reached(boot string, need Need) uint64 {
	reached := ^uint64(0)
	for _, of := range []struct {
		n    int
		size func(BootStatus) uint64
	}{
		{need.Stored, func(b BootStatus) uint64 { return max(b.Shipped, b.Cosigned) }},
		{need.Cosigned, func(b BootStatus) uint64 { return b.Cosigned }},
	} {
		if of.n == 0 {
			continue
		}
		var sizes []uint64
		for _, r := range s.regions {
			if !r.retired {
				sizes = append(sizes, of.size(r.boots[boot]))
			}
		}
		if of.n > len(sizes) {
			return 0
		}
		slices.Sort(sizes)
		reached = min(reached, sizes[len(sizes)-of.n])
	}
	return reached
}

// receipted is how much of a boot n of the regions that count have counter-signed,
// or all of them where there are fewer; 0 when none counts, and when there is
// evidence about the boot.
func (s *Shipper) receipted(boot string, n int) uint64 {
	s.waiting.mu.Lock()
	defer s.waiting.mu.Unlock()
	n = min(n, s.counting())
	if n < 1 || slices.ContainsFunc(s.regions, func(r *region) bool { return r.boots[boot].Stopped }) {
		return 0
	}
	return s.reached(boot, Need{Cosigned: n})
}

// signers are the regions that have counter-signed the first size records.
func (s *Shipper) signers(boot string, size uint64) (names []string) {
	s.waiting.mu.Lock()
	defer s.waiting.mu.Unlock()
	for _, r := range s.regions {
		if !r.retired && r.boots[boot].Cosigned >= size {
			names = append(names, r.Name)
		}
	}
	return names
}

// counting is the number of regions that count. The lock is held.
func (s *Shipper) counting() (n int) {
	for _, r := range s.regions {
		if !r.retired {
			n++
		}
	}
	return n
}

// progress changes what is known of a boot in a region, and wakes those whose
// need is met by it.
func (s *Shipper) progress(r *region, boot string, f func(*BootStatus)) {
	q := &s.waiting
	q.mu.Lock()
	defer q.mu.Unlock()
	b := r.boots[boot]
	f(&b)
	r.boots[boot] = b
	for key, waiters := range q.queues {
		if key.boot == boot {
			q.wake(key, waiters, s.reached(boot, key.need))
		}
	}
}

// waiting are those who wait, and what their wait is about: mu guards the boots
// of every region too.
type waiting struct {
	mu     sync.Mutex
	queues map[waitKey]*queue
	count  int
	// stalled is, for each need, what the last call of Await that waited in vain had
	// seen to move no further.
	stalled map[Need]stall
}

type stall struct {
	boot string
	at   uint64
}

type waitKey struct {
	boot string
	need Need
}

// wake ends the waiting for what is reached. The lock is held.
func (q *waiting) wake(key waitKey, waiters *queue, reached uint64) {
	for waiters.Len() > 0 && (*waiters)[0].size <= reached {
		w := heap.Pop(waiters).(*waiter)
		q.count--
		close(w.done)
	}
	if waiters.Len() == 0 {
		delete(q.queues, key)
	}
}

// leave ends a wait early; nil when it was over already.
func (s *Shipper) leave(key waitKey, w *waiter, why error) error {
	q := &s.waiting
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.at < 0 {
		return nil
	}
	waiters := q.queues[key]
	heap.Remove(waiters, w.at)
	q.count--
	if waiters.Len() == 0 {
		delete(q.queues, key)
	}
	if w.heeds && s.reached(key.boot, key.need) == w.from {
		q.stalled[key.need] = stall{key.boot, w.from}
	}
	return why
}

// A waiter waits for the first size records; from were there when it came, at is
// its place in its queue, -1 when it has left it.
type waiter struct {
	size, from uint64
	heeds      bool // stalls
	at         int
	done       chan struct{}
}

// A queue is a heap of waiters, the smallest size first.
type queue []*waiter

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, k int) bool { return q[i].size < q[k].size }
func (q queue) Swap(i, k int) {
	q[i], q[k] = q[k], q[i]
	q[i].at, q[k].at = i, k
}

// Push is heap's.
func (q *queue) Push(x any) {
	w := x.(*waiter)
	w.at = len(*q)
	*q = append(*q, w)
}

// Pop is heap's.
func (q *queue) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	w.at = -1
	return w
}
