package journal

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A clock that jumps an hour on and back, stands still, or is at the beginning
// changes nothing but the times that are written: nothing waits for it, orders by
// it or is judged by it.
func TestClockJumps(t *testing.T) {
	base := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	rng := rand.New(rand.NewPCG(3, 3))
	for name, now := range map[string]func() time.Time{
		"jumps":           func() time.Time { return base.Add(time.Duration(rng.IntN(3)-1) * time.Hour) },
		"backwards":       func() time.Time { base = base.Add(-time.Minute); return base },
		"frozen":          func() time.Time { return time.Unix(1, 0) },
		"before it began": func() time.Time { return time.Unix(-1<<40, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.CheckpointInterval, b.cfg.window = time.Millisecond, 1
			lock := make(chan struct{}, 1)
			b.cfg.Now = func() time.Time {
				lock <- struct{}{}
				defer func() { <-lock }()
				return now()
			}
			for range 3 {
				j := b.open()
				refs := b.fill(j, 50)
				for signed := uint64(0); signed < 51; { // checkpoints come as they do
					changed := j.Changed()
					msg, err := j.LastCheckpoint(j.Boot())
					if err != nil {
						t.Fatal(err)
					}
					c, err := audit.PeekCheckpoint(msg)
					if err != nil {
						t.Fatal(err)
					}
					if signed = c.Size; signed == 51 {
						break
					}
					select {
					case <-changed:
					case <-time.After(20 * time.Second):
						t.Fatalf("nothing was signed behind %d", signed)
					}
				}
				b.mustHave(j, refs)
				b.mustComplete(j)
				if found, err := j.Scrub(context.Background(), 0); err != nil || len(found) > 0 {
					t.Fatalf("%v %v", err, found)
				}
				b.crash(j)
			}
			j := b.open()
			if d := j.Report().Damage; len(d) > 0 || len(j.Boots()) != 4 {
				t.Fatalf("%+v", d)
			}
			if err := j.Trim(j.Boots()[0].ID, 51); err != nil {
				t.Fatal(err)
			}
			if _, err := j.Append(context.Background(), decision(1), policy.Synced); err != nil {
				t.Fatal(err)
			}
		})
	}
}
