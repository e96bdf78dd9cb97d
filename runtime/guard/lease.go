package guard

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// CodeStale is the reason code of an answer that on_stale gave.
const CodeStale = "stale"

// A Staleness says how long ago a node last heard that what it enforces is what
// it should enforce.
type Staleness uint8

// The degrees of staleness.
const (
	// Unleased: the trust root has no heartbeat keys, so that nothing is expected
	// to be heard and nothing grows stale.
	Unleased Staleness = iota
	Fresh
	Aging // it decides, and says so
	Stale // a point answers by its on_stale
)

func (s Staleness) String() string {
	return [...]string{"none", "fresh", "aging", "stale"}[s&3]
}

// An Instant is a moment on a node's two clocks, in nanoseconds. Mono counts from
// the process's start and is negative before; it never goes back. Wall is since
// 1970 and may.
type Instant struct{ Mono, Wall int64 }

// A Region is the newest heartbeat that was heard of one region.
type Region struct {
	Name   string
	Serial uint64
	Time   int64 // by the region's clock, ns since 1970
	// Mono is when it was heard: a serial that was heard before renews nothing.
	Mono int64
}

// A Lease is what a node's staleness is judged by. It never changes; a node
// swaps it whole. The zero Lease is one under a trust root without heartbeat keys.
type Lease struct {
	// Expected: the trust root has heartbeat keys.
	Expected bool
	// Began stands in for regions that were never heard: when the node first put
	// a release in force.
	Began   Region
	Regions []Region // by name
	// Highest is a time that has passed, ns since 1970.
	Highest int64
}

// Age is how long ago the node last heard of so many regions. A wall clock that
// shows a time which has passed is no clock: then nothing was heard ever.
func (l *Lease) Age(now Instant, regions int) time.Duration {
	if now.Wall/int64(time.Second) < l.Highest/int64(time.Second) {
		return never
	}
	var space [16]time.Duration
	ages := space[:0]
	for i := range l.Regions {
		ages = append(ages, l.Regions[i].age(now))
	}
	switch {
	case regions > len(ages):
		return l.Began.age(now)
	case len(ages) > 1:
		slices.Sort(ages)
	}
	return ages[max(regions, 1)-1]
}

const never = time.Duration(1<<63 - 1)

func (r Region) age(now Instant) time.Duration {
	return time.Duration(max(now.Mono-r.Mono, now.Wall-r.Time, 0))
}

// Judge returns the staleness of a point with that lease, and the age that it
// was judged by.
func (l *Lease) Judge(now Instant, s bundle.Staleness, lease time.Duration) (Staleness, time.Duration) {
	if !l.Expected {
		return Unleased, 0
	}
	switch age := l.Age(now, s.MinRegions()); {
	case age > lease:
		return Stale, age
	case age > s.Aging():
		return Aging, age
	default:
		return Fresh, age
	}
}

// Heard returns the names of the regions that were heard within the age, sorted.
func (l *Lease) Heard(now Instant, within time.Duration) []string {
	var names []string
	for _, r := range l.Regions {
		if r.age(now) <= within {
			names = append(names, r.Name)
		}
	}
	return names
}

// Hear returns the lease with a heartbeat added, and whether it counts: one that
// has expired, or whose serial is not higher than its region's last, does not.
func (l *Lease) Hear(h *bundle.Heartbeat, now Instant) (*Lease, bool) {
	at, known := slices.BinarySearchFunc(l.Regions, h.Region, func(r Region, name string) int { return strings.Compare(r.Name, name) })
	if h.Expires <= now.Wall || known && h.Serial <= l.Regions[at].Serial {
		return l, false
	}
	next := *l
	next.Regions = slices.Clone(l.Regions)
	if !known {
		next.Regions = slices.Insert(next.Regions, at, Region{})
	}
	next.Regions[at] = Region{Name: h.Region, Serial: h.Serial, Time: h.Time, Mono: now.Mono}
	next.Highest = max(l.Highest, min(h.Time, now.Wall))
	return &next, true
}

// Late returns what on_stale makes of what the policies of a stale point said:
// never more than they or the mode permit.
func Late(mode policy.FailMode, d policy.Decision, age time.Duration) policy.Decision {
	reason := policy.Reason{Code: CodeStale, Text: "the wall clock shows a time that has already passed"}
	if age != never {
		reason.Text = fmt.Sprintf("no heartbeat for %s", age.Round(time.Second))
	}
	if v := mode.Verdict(); v < d.Verdict {
		return policy.Decision{Verdict: v, Reasons: []policy.Reason{reason}, Epoch: d.Epoch}
	}
	d.Reasons = append(d.Reasons[:len(d.Reasons):len(d.Reasons)], reason)
	return d
}
