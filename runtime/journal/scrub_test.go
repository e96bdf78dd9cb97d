package journal

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A flipped bit in what Open does not read is found by the scrub, with its exact
// range; the rest of the journal goes on.
func TestScrubFindsWhatOpenLeaves(t *testing.T) {
	b, boot := ended(t, true)
	b.cfg.ScanBytes, b.cfg.ScrubBytes, b.cfg.window = 1, -1, 1
	groups := groupsOf(t, boot)
	second := b.open()
	running := b.fill(second, 59)
	mine := groupsOf(t, second.boot)
	var told []*Damage
	damaged := map[string]place{boot.id: groups[3], second.boot.id: mine[20]}
	for _, g := range damaged {
		flip(t, g.path, g.end-1)
	}
	second.cfg.OnDamage = func(d *Damage) { told = append(told, d) }
	found, err := second.Scrub(context.Background(), 0)
	if err != nil || len(found) != 2 || len(told) != 2 {
		t.Fatalf("%v %+v, told %+v", err, found, told)
	}
	for i, where := range []string{boot.id, second.boot.id} {
		d, all := found[i], groups
		if i == 1 {
			all = mine
		}
		g := damaged[where]
		if d.Boot != where || d.From != g.first || d.To != lastOf(all, g.first) || d.Offset != uint64(g.off) || d.File != filepath.Base(g.path) {
			t.Errorf("%+v for %+v", d, g)
		}
		if _, err := second.ReadBatch(where, g.first, 0, 0); !errors.As(err, &d) {
			t.Error(err)
		}
	}
	if found, err := second.Scrub(context.Background(), 0); err != nil || len(found) != 0 {
		t.Fatalf("found again: %v %+v", err, found)
	}
	if _, err := second.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	b.crash(second)
	j := b.open() // by its end only, yet the damage is known
	if got := j.Report().Damage; len(got) != 2 || got[0].From != 4 || got[1].From != 21 {
		t.Fatalf("%+v", got)
	}
	b.mustHave(j, running[len(running)-5:])
	b.mustHave(j, b.fill(j, 3))
	if err := j.Trim(second.boot.id, 60); err != nil {
		t.Fatal(err)
	}
	if j.Boots()[1].Damage != nil {
		t.Errorf("%+v", j.Boots()[1])
	}
}

func TestScrubFindsRewrittenHistory(t *testing.T) {
	for _, n := range []int{3, records - 1} {
		b, boot := ended(t, true)
		b.cfg.ScanBytes, b.cfg.ScrubBytes = 1, -1
		b.open().Close() // so that the boot is no longer the last one
		groups := groupsOf(t, boot)
		rewrite(t, boot, groups[n])
		j := b.open()
		found, err := j.Scrub(context.Background(), 0)
		if err != nil || len(found) != 1 || found[0].From > groups[n].first || found[0].To != lastOf(groups, groups[n].first) {
			t.Fatalf("record %d: %v %+v", n+1, err, found)
		}
		if _, err := j.ReadBatch(boot.id, groups[n].first, 0, 0); err == nil {
			t.Fatal("a rewritten record was given out under a new signature")
		}
	}
}

// The scrub finds by itself, and keeps to its rate.
func TestScrubInTheBackground(t *testing.T) {
	b, boot := ended(t, true)
	b.cfg.ScanBytes, b.cfg.ScrubPause = 1, time.Millisecond
	groups := groupsOf(t, boot)
	told := make(chan *Damage, 10)
	b.cfg.OnDamage = func(d *Damage) { told <- d }
	j := b.open()
	flip(t, groups[7].path, groups[7].end-1)
	select {
	case d := <-told:
		if d.From != 8 {
			t.Fatalf("%+v", d)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was told")
	}
	began := time.Now()
	if _, err := j.Scrub(context.Background(), 200<<10); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 60*time.Millisecond { // of about 20 KiB
		t.Errorf("a pass took %v", took)
	}
}

// A disk that cannot be read for a moment is no damage.
func TestScrubLooksTwice(t *testing.T) {
	p := newPowerless(t, 1)
	p.cfg.FS = p.fs
	j := p.open()
	p.fill(j, 40)
	p.fs.mu.Lock()
	p.fs.fail = failsAt("read", segmentSuffix, 3, errors.New("a cable"))
	p.fs.mu.Unlock()
	if found, err := j.Scrub(context.Background(), 0); err != nil || len(found) > 0 {
		t.Fatalf("%v %+v", err, found)
	}
}

// Scrubbing, trimming, reading and appending at once.
func TestScrubWhileTrimming(t *testing.T) {
	b := newBench(t)
	b.cfg.SegmentBytes, b.cfg.FS, b.cfg.window, b.cfg.ScrubPause, b.cfg.ScrubBytes = 8<<10, unsyncedFS{}, 1, time.Nanosecond, 1<<40
	b.cfg.OnDamage = func(d *Damage) { t.Errorf("%+v", d.Damage) }
	j := b.open()
	for i := range 2000 {
		if _, err := j.Append(context.Background(), decision(i), policy.Synced); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			if err := j.Trim(j.Boot(), uint64(i)-20); err != nil {
				t.Fatal(err)
			}
		}
		if i%20 == 0 {
			if _, err := j.ReadBatch(j.Boot(), uint64(max(1, i-40)), 0, 0); err != nil && !errors.Is(err, ErrTrimmed) {
				t.Fatal(err)
			}
		}
	}
}
