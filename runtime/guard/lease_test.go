package guard_test

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

const (
	second = int64(time.Second)
	epoch  = 1_800_000_000 * second
)

func at(seconds int64) guard.Instant {
	return guard.Instant{Mono: seconds * second, Wall: epoch + seconds*second}
}

func beat(region string, serial uint64, seconds int64) *bundle.Heartbeat {
	return &bundle.Heartbeat{Region: region, Serial: serial, Time: epoch + seconds*second, Expires: epoch + (seconds+900)*second}
}

func hear(t *testing.T, l *guard.Lease, h *bundle.Heartbeat, now guard.Instant, counts bool) *guard.Lease {
	t.Helper()
	next, ok := l.Hear(h, now)
	if ok != counts {
		t.Fatalf("heartbeat %+v at %+v counts: %t", h, now, ok)
	}
	return next
}

func judged(t *testing.T, l *guard.Lease, now guard.Instant, s bundle.Staleness, want guard.Staleness) {
	t.Helper()
	if got, age := l.Judge(now, s, time.Hour); got != want {
		t.Errorf("at %ds: %s after %s, want %s", now.Mono/second, got, age, want)
	}
}

func TestLadder(t *testing.T) {
	l := &guard.Lease{Expected: true, Began: guard.Region{Time: epoch}}
	judged(t, l, at(60), bundle.Staleness{}, guard.Fresh)
	judged(t, l, at(61), bundle.Staleness{}, guard.Aging)
	judged(t, l, at(3600), bundle.Staleness{}, guard.Aging)
	judged(t, l, at(3601), bundle.Staleness{}, guard.Stale) // a first lease ends too
	l = hear(t, l, beat("eu", 5, 4000), at(4000), true)
	judged(t, l, at(4060), bundle.Staleness{}, guard.Fresh)
	judged(t, l, at(4061), bundle.Staleness{}, guard.Aging)
	judged(t, l, at(7601), bundle.Staleness{}, guard.Stale)
	judged(t, l, at(4030), bundle.Staleness{AgingSeconds: 20}, guard.Aging)
	judged(t, &guard.Lease{}, at(1<<30), bundle.Staleness{}, guard.Unleased)
}

// What does not count renews nothing.
func TestHeartbeatsThatDoNotCount(t *testing.T) {
	l := hear(t, &guard.Lease{Expected: true}, beat("eu", 5, 0), at(0), true)
	l = hear(t, l, beat("eu", 5, 50), at(50), false)       // the same serial
	l = hear(t, l, beat("eu", 4, 50), at(50), false)       // an older one
	l = hear(t, l, beat("eu", 9, 0), at(900), false)       // one that has expired
	l = hear(t, l, beat("us", 1, -2000), at(50), false)    // of any region
	judged(t, l, at(61), bundle.Staleness{}, guard.Aging)  // since 0
	l = hear(t, l, beat("eu", 6, 100), at(800), true)      // held back for 700 s: its own time counts
	judged(t, l, at(800), bundle.Staleness{}, guard.Aging) // although it came just now
	l = hear(t, l, beat("eu", 7, 9000), at(810), true)     // a region's clock ahead
	judged(t, l, at(871), bundle.Staleness{}, guard.Aging) // does not lengthen the lease
}

// Both clocks must agree that it is not long ago: neither a wall clock that is
// set back nor one that is set forward makes a node fresher.
func TestClocks(t *testing.T) {
	l := hear(t, &guard.Lease{Expected: true}, beat("eu", 5, 100), at(100), true)
	judged(t, l, guard.Instant{Mono: 200 * second, Wall: epoch + 110*second}, bundle.Staleness{}, guard.Aging)
	judged(t, l, guard.Instant{Mono: 110 * second, Wall: epoch + 200*second}, bundle.Staleness{}, guard.Aging)
	judged(t, l, guard.Instant{Mono: 110 * second, Wall: epoch + 99*second}, bundle.Staleness{}, guard.Stale)
	judged(t, l, guard.Instant{Mono: 110 * second, Wall: epoch + 100*second}, bundle.Staleness{}, guard.Fresh)
}

func TestRegions(t *testing.T) {
	two := bundle.Staleness{Regions: 2}
	l := &guard.Lease{Expected: true, Began: guard.Region{Time: epoch}}
	l = hear(t, l, beat("us", 1, 90), at(90), true)
	judged(t, l, at(100), bundle.Staleness{}, guard.Fresh)
	judged(t, l, at(100), two, guard.Aging)
	l = hear(t, l, beat("eu", 1, 100), at(100), true)
	judged(t, l, at(150), two, guard.Fresh)
	judged(t, l, at(155), two, guard.Aging)
	if heard := l.Heard(at(155), time.Minute); !slices.Equal(heard, []string{"eu"}) {
		t.Errorf("heard %v", heard)
	}
	if heard := l.Heard(at(150), time.Minute); !slices.Equal(heard, []string{"eu", "us"}) {
		t.Errorf("heard %v", heard)
	}
}

// on_stale never gives more than the policies did.
func TestLate(t *testing.T) {
	for _, c := range []struct {
		mode       policy.FailMode
		said, want policy.Verdict
	}{
		{policy.FailDeny, policy.Allow, policy.Deny},
		{policy.FailEscalate, policy.Allow, policy.RequireApproval},
		{policy.FailEscalate, policy.Deny, policy.Deny},
		{policy.FailAllowFlagged, policy.Allow, policy.Allow},
		{policy.FailAllowFlagged, policy.Throttle, policy.Throttle},
	} {
		said := policy.Decision{Verdict: c.said, Reasons: []policy.Reason{{Code: "own"}}, Value: "v", Epoch: 3}
		d := guard.Late(c.mode, said, 2*time.Hour)
		last := d.Reasons[len(d.Reasons)-1]
		if d.Verdict != c.want || last.Code != guard.CodeStale || d.Epoch != 3 || (d.Value != nil) != (c.said == c.want) {
			t.Errorf("%s of %s: %+v", c.mode, c.said, d)
		}
	}
}
