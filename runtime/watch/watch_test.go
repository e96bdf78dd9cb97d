package watch_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/watch"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func TestBroken(t *testing.T) {
	for name, c := range map[string]struct {
		halt                     bundle.Halt
		good, denied, trap, slow int
		want                     string
	}{
		"nothing":          {want: ""},
		"traps too few":    {trap: 19, want: ""},
		"traps":            {trap: 20, want: "trapped"},
		"traps allowed":    {good: 990, trap: 10, want: ""},
		"one trap more":    {good: 989, trap: 11, want: "trapped"},
		"two hiccups":      {good: 20, slow: 2, want: ""},
		"slow":             {good: 20, slow: 3, want: "50000 us"},
		"slow one percent": {good: 297, slow: 3, want: ""},
		"denies, unlooked": {denied: 100, want: ""},
		"denies":           {halt: bundle.Halt{DenyPerMillion: 500_000}, denied: 30, good: 20, want: "deny"},
		"denies half":      {halt: bundle.Halt{DenyPerMillion: 500_000}, denied: 20, good: 20, want: ""},
	} {
		h := watch.NewHealth(c.halt, bundle.Bake{Decisions: 1000}, time.Time{})
		looked := false
		add := func(n int, v policy.Verdict, trapped bool, took time.Duration) {
			for range n {
				looked = h.Add(v, trapped, took)
			}
		}
		add(c.good, policy.Allow, false, time.Microsecond)
		add(c.denied, policy.Deny, false, time.Microsecond)
		add(c.slow, policy.Allow, false, time.Second)
		add(c.trap, policy.Deny, true, time.Microsecond)
		got := h.Broken()
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
		if got != "" && !looked {
			t.Errorf("%s: the decision that broke it asked for no look", name)
		}
	}
}

func TestBaking(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		bake      bundle.Bake
		decisions int
		after     time.Duration
		want      bool
	}{
		{bundle.Bake{}, 0, 0, false},
		{bundle.Bake{Decisions: 10}, 10, time.Hour, true},
		{bundle.Bake{Decisions: 10}, 11, time.Hour, false},
		{bundle.Bake{Seconds: 10}, 100, 9 * time.Second, true},
		{bundle.Bake{Seconds: 10}, 100, 10 * time.Second, false},
		{bundle.Bake{Decisions: 10, Seconds: 10}, 9, time.Hour, true},
		{bundle.Bake{Decisions: 10, Seconds: 10}, 11, 10 * time.Second, false},
	} {
		h := watch.NewHealth(bundle.Halt{}, c.bake, start)
		for range c.decisions {
			h.Add(policy.Allow, false, 1)
		}
		if got := h.Baking(start.Add(c.after)); got != c.want {
			t.Errorf("%+v after %d and %s: %t", c.bake, c.decisions, c.after, got)
		}
	}
}

// The histogram's 99th percentile is never below the exact one, and at most a
// quarter above.
func TestPercentile(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		h := watch.NewHealth(bundle.Halt{}, bundle.Bake{}, time.Time{})
		all := make([]int64, 1+rnd.IntN(500))
		for i := range all {
			all[i] = 4 + rnd.Int64N(1<<(3+rnd.IntN(36)))
			h.Add(policy.Allow, false, time.Duration(all[i]))
		}
		slices.Sort(all)
		exact := all[len(all)-1-len(all)/100]
		if got := h.Observed().P99; got < exact || float64(got) > 1.26*float64(exact)+4 {
			t.Fatalf("seed %d: %d, exactly %d of %d", seed, got, exact, len(all))
		}
	}
}

func TestDiffers(t *testing.T) {
	a := policy.Decision{Verdict: policy.Transform, Value: map[string]any{"n": int64(1)}, Obligations: []policy.Obligation{{Type: "redact"}}}
	for want, change := range map[string]func(*policy.Decision){
		"":            func(d *policy.Decision) { d.Reasons, d.Epoch = []policy.Reason{{Code: "x"}}, 9 },
		"verdict":     func(d *policy.Decision) { d.Verdict = policy.Allow },
		"value":       func(d *policy.Decision) { d.Value = map[string]any{"n": 1.0} },
		"obligations": func(d *policy.Decision) { d.Obligations = nil },
	} {
		b := a
		change(&b)
		if got := watch.Differs(&a, &b); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := watch.Differs(&policy.Decision{Obligations: []policy.Obligation{}}, &policy.Decision{}); got != "" {
		t.Errorf("empty and none: %q", got)
	}
}

func BenchmarkAdd(b *testing.B) {
	h := watch.NewHealth(bundle.Halt{}, bundle.Bake{}, time.Time{})
	for b.Loop() {
		h.Add(policy.Allow, false, 12*time.Microsecond)
	}
}
