// Package watch holds what a node observes of the release that it enforces: how
// decisions come out, how long they take, and whether another opinion differs.
// It is pure but for its counters, which are safe for concurrent use.
package watch

import (
	"context"
	"fmt"
	"math/bits"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// minSlow is how many decisions must be too slow before latency is evidence: of
// few decisions a single hiccup of the machine is the 99th percentile.
const minSlow = 3

// Health is what was observed of one release since it came into force, or of a
// candidate since it is shadowed.
type Health struct {
	Halt  bundle.Halt // with its defaults
	Bake  bundle.Bake // how long its own evidence sends the node back
	Since time.Time

	decisions, denied, traps, slow, differ atomic.Uint64
	took                                   histogram
}

// NewHealth begins to observe a release that came into force, or into the
// shadow, in a ring with that bake.
func NewHealth(halt bundle.Halt, bake bundle.Bake, since time.Time) *Health {
	return &Health{Halt: halt.Thresholds(), Bake: bake, Since: since}
}

// Add counts one decision and reports whether it is one of those after which the
// thresholds should be looked at.
func (h *Health) Add(v policy.Verdict, trapped bool, took time.Duration) (look bool) {
	n := h.decisions.Add(1)
	h.took.add(took)
	look = n == h.Halt.MinDecisions
	if v == policy.Deny {
		h.denied.Add(1)
		look = look || h.Halt.DenyPerMillion != 0
	}
	if trapped {
		h.traps.Add(1)
		look = true
	}
	if took > time.Duration(h.Halt.LatencyMicros)*time.Microsecond {
		h.slow.Add(1)
		look = true
	}
	return look
}

// Differ counts a decision that another opinion differs from.
func (h *Health) Differ() uint64 { return h.differ.Add(1) }

// Baking reports whether the release's own evidence still sends the node back:
// until the bake's decisions and its seconds have passed. Without a bake it
// never does.
func (h *Health) Baking(now time.Time) bool {
	passed := now.Sub(h.Since) >= time.Duration(h.Bake.Seconds)*time.Second
	return !h.Bake.IsZero() && (h.decisions.Load() <= h.Bake.Decisions && h.Bake.Decisions > 0 || !passed)
}

// Broken returns which threshold the release breaks, "" for none.
func (h *Health) Broken() string {
	n := h.decisions.Load()
	if n < h.Halt.MinDecisions {
		return ""
	}
	traps, denied, slow := h.traps.Load(), h.denied.Load(), h.slow.Load()
	switch {
	case over(traps, n, h.Halt.TrapsPerMillion):
		return fmt.Sprintf("%d of %d decisions trapped; at most %d in a million", traps, n, h.Halt.TrapsPerMillion)
	case slow >= minSlow && over(slow, n, 10_000):
		return fmt.Sprintf("%d of %d decisions took more than %d us", slow, n, h.Halt.LatencyMicros)
	case h.Halt.DenyPerMillion != 0 && over(denied, n, h.Halt.DenyPerMillion):
		return fmt.Sprintf("%d of %d decisions deny; at most %d in a million", denied, n, h.Halt.DenyPerMillion)
	}
	return ""
}

func over(count, of, perMillion uint64) bool { return count*1_000_000 > of*perMillion }

// Observed returns the counts as an attestation has them.
func (h *Health) Observed() audit.Observed {
	if h == nil {
		return audit.Observed{}
	}
	return audit.Observed{
		Decisions: h.decisions.Load(), Denied: h.denied.Load(), Traps: h.traps.Load(), Differ: h.differ.Load(),
		P99: int64(h.took.quantile(99)),
	}
}

// histogram counts durations in buckets of a quarter of a power of two.
type histogram struct{ buckets [4 * 64]atomic.Uint64 }

func (h *histogram) add(d time.Duration) { h.buckets[bucket(d)].Add(1) }

func bucket(d time.Duration) int {
	n := uint64(max(d, 4))
	top := bits.Len64(n) - 1
	return 4*top + int(n>>(top-2)&3)
}

// quantile returns the upper end of the bucket in which so many percent end.
func (h *histogram) quantile(percent uint64) time.Duration {
	var all uint64
	for i := range h.buckets {
		all += h.buckets[i].Load()
	}
	need := all - all*(100-percent)/100
	for i := range h.buckets {
		n := h.buckets[i].Load()
		if need <= n && n > 0 {
			return time.Duration((5+uint64(i)%4)<<(i/4-2) - 1)
		}
		need -= n
	}
	return 0
}

// Differs returns what two decisions on one request differ in, "" for nothing.
func Differs(a, b *policy.Decision) string {
	switch {
	case a.Verdict != b.Verdict:
		return "verdict"
	case !reflect.DeepEqual(a.Value, b.Value):
		return "value"
	case len(a.Obligations) != len(b.Obligations) || len(a.Obligations) > 0 && !reflect.DeepEqual(a.Obligations, b.Obligations):
		return "obligations"
	}
	return ""
}

// Sampled counts what was run again on the second engine.
type Sampled struct{ samples, disagreed atomic.Uint64 }

// Add counts one decision that was run again.
func (s *Sampled) Add(agreed bool) {
	s.samples.Add(1)
	if !agreed {
		s.disagreed.Add(1)
	}
}

// Run returns the counts as an attestation has them.
func (s *Sampled) Run() audit.SecondRun {
	return audit.SecondRun{Samples: s.samples.Load(), Disagreed: s.disagreed.Load()}
}

// A Queue is bounded work that is done after the answer, or not at all.
type Queue[T any] struct {
	work    chan T
	dropped atomic.Uint64
}

// NewQueue makes a queue for n pieces of work.
func NewQueue[T any](n int) *Queue[T] { return &Queue[T]{work: make(chan T, n)} }

// Offer leaves a piece of work, or counts it as dropped. It does not wait.
func (q *Queue[T]) Offer(w T) {
	select {
	case q.work <- w:
	default:
		q.dropped.Add(1)
	}
}

// Dropped counts what there was no room for.
func (q *Queue[T]) Dropped() uint64 { return q.dropped.Load() }

// Run does the work, one piece at a time, until ctx ends.
func (q *Queue[T]) Run(ctx context.Context, do func(T)) {
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-q.work:
			do(w)
		}
	}
}
