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
		return Need{Stored: 1}, true
	case policy.Regions:
		return Need{Cosigned: 2}, true
	}
	return Need{}, false
}

// Everywhere is counter-signed by every region.
func (s *Shipper) Everywhere() Need { return Need{Cosigned: len(s.regions)} }

// MaxWaiting bounds the calls of Wait at a time; each holds about 200 bytes.
const MaxWaiting = 1 << 16

// Errors of Wait.
var (
	// ErrTooFewRegions: no waiting helps, there are fewer regions than needed.
	ErrTooFewRegions = errors.New("fewer regions than that are shipped to")
	// ErrTooManyWait: MaxWaiting calls wait already.
	ErrTooManyWait = errors.New("too many wait for regions")
)

// Wait returns nil when the first size records of a boot are where need says,
// which has the regions hurry, or the context's error.
func (s *Shipper) Wait(ctx context.Context, boot string, size uint64, need Need) error {
	if max(need.Stored, need.Cosigned) > len(s.regions) {
		return fmt.Errorf("%w: %d of %d", ErrTooFewRegions, len(s.regions), max(need.Stored, need.Cosigned))
	}
	w, err := s.enter(boot, size, need)
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
		return s.waiting.leave(waitKey{boot, need}, w, ctx.Err())
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

// enter returns nil when need is met already.
func (s *Shipper) enter(boot string, size uint64, need Need) (*waiter, error) {
	q := &s.waiting
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.reached(boot, need) >= size {
		return nil, nil
	}
	if q.count == MaxWaiting {
		return nil, ErrTooManyWait
	}
	key := waitKey{boot, need}
	if q.queues[key] == nil {
		q.queues[key] = &queue{}
	}
	w := &waiter{size: size, done: make(chan struct{})}
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
		if of.n > len(s.regions) {
			return 0
		}
		sizes := make([]uint64, len(s.regions))
		for i, r := range s.regions {
			sizes[i] = of.size(r.boots[boot])
		}
		slices.Sort(sizes)
		reached = min(reached, sizes[len(sizes)-of.n])
	}
	return reached
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
func (q *waiting) leave(key waitKey, w *waiter, why error) error {
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
	return why
}

// A waiter waits for the first size records; at is its place in its queue, -1 when
// it has left it.
type waiter struct {
	size uint64
	at   int
	done chan struct{}
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
