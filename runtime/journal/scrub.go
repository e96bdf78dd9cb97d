package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// scrubAgain is how long after a damage that is new it is looked at again: a disk
// may fail for a moment.
const scrubAgain = 50 * time.Millisecond

// scrubAlways scrubs slowly until the journal is closed.
func (j *Journal) scrubAlways() {
	defer close(j.scrubber)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-j.stop
		cancel()
	}()
	for j.cfg.ScrubBytes > 0 && ctx.Err() == nil {
		if _, err := j.Scrub(ctx, j.cfg.ScrubBytes); err != nil && ctx.Err() == nil {
			j.cfg.Log.Error("journal scrub", "error", err)
		}
		pause(ctx, j.cfg.ScrubPause)
	}
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Scrub reads every segment again but for the one that is being written, at no
// more than rate bytes a second, 0 for as fast as it can. It returns the damage
// that is new, after telling Config.OnDamage of it and storing it; that is not
// given out from then on. It never holds up an append.
func (j *Journal) Scrub(ctx context.Context, rate int64) (found []*Damage, err error) {
	pace := &pace{ctx: ctx, rate: rate, began: time.Now()}
	for _, boot := range j.Boots() {
		b, _, err := j.state(boot.ID)
		if err != nil {
			return found, err
		}
		more, err := j.scrubBoot(b, pace)
		found = append(found, more...)
		if err != nil || ctx.Err() != nil {
			return found, errors.Join(err, ctx.Err())
		}
	}
	return found, nil
}

// A pace keeps reading at a rate.
type pace struct {
	ctx   context.Context // of one call of Scrub
	rate  int64
	began time.Time
	read  int64
}

func (p *pace) took(n int64) {
	p.read += n
	if p.rate <= 0 {
		return
	}
	due := time.Duration(float64(p.read) / float64(p.rate) * float64(time.Second))
	if ahead := due - time.Since(p.began); ahead > 10*time.Millisecond {
		pause(p.ctx, ahead)
	}
}

// A stretch is one segment with where its records end, and what must follow.
type stretch struct {
	segment
	last uint64
	next *segment
	head *audit.Checkpoint // of the boot, when the segment is its last
}

func (j *Journal) scrubBoot(b bootDir, pace *pace) (found []*Damage, err error) {
	stretches, err := j.stretches(b)
	for _, s := range stretches {
		if pace.ctx.Err() != nil {
			break
		}
		d := b.check(s, pace)
		if d == nil || j.knows(b.id, d) {
			continue
		}
		if pause(pace.ctx, scrubAgain); pace.ctx.Err() != nil {
			break
		}
		if d = b.check(s, pace); d == nil || pace.ctx.Err() != nil || j.knows(b.id, d) {
			continue
		}
		found = append(found, d)
		if markErr := j.keepDamage(b, d); markErr != nil {
			err = errors.Join(err, markErr)
		}
	}
	return found, err
}

// stretches returns the closed segments of a boot.
func (j *Journal) stretches(b bootDir) ([]stretch, error) {
	segments, err := b.segments()
	if err != nil {
		return nil, err
	}
	_, state, err := j.state(b.id)
	if err != nil {
		return nil, err
	}
	running := b.id == j.boot.id
	var out []stretch
	for i, seg := range segments {
		s := stretch{segment: seg, last: state.size}
		if i+1 < len(segments) {
			s.next, s.last = &segments[i+1], segments[i+1].first-1
		} else if running || state.cut() {
			break
		} else {
			s.head = j.head(b.id)
		}
		if s.last >= seg.first {
			out = append(out, s)
		}
	}
	return out, nil
}

func (j *Journal) head(boot string) *audit.Checkpoint {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.past {
		if j.past[i].id == boot {
			return j.past[i].head
		}
	}
	return nil
}

// check reads a segment and returns what is damaged of it, from the first place on.
func (b bootDir) check(s stretch, pace *pace) *Damage {
	r, err := openSegment(b.fs, s.segment, b.salt)
	if err != nil {
		return b.damage(s.path, 0, s.first, s.last, err)
	}
	defer r.close()
	if err := r.header(); err != nil {
		return b.damage(s.path, 0, s.first, s.last, err)
	}
	tree := r.frontier.Clone()
	for r.next <= s.last {
		at := r.off
		_, entries, err := r.group()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: the records end at %d, there were %d", errBroken, r.next-1, s.last)
			}
			return b.damage(s.path, at, r.next, s.last, err)
		}
		for _, e := range entries {
			tree.Append(e.Hash())
		}
		if pace.took(r.off - at); pace.ctx.Err() != nil {
			return nil
		}
	}
	if root, by := b.mustBe(s); by != "" && root != tree.Root() {
		return b.damage(s.path, 0, s.first, s.last, fmt.Errorf("%w: the records are not those that %s was made for", errBroken, by))
	}
	return nil
}

// mustBe returns what somebody says is the root behind a segment, and who: nobody,
// when the header of the next segment is damaged itself.
func (b bootDir) mustBe(s stretch) (root tlog.Hash, by string) {
	if s.next == nil {
		if s.head == nil || s.head.Size != s.last {
			return root, ""
		}
		return s.head.Root, "the boot's last checkpoint"
	}
	next, err := b.headerState(*s.next)
	if err != nil {
		return root, ""
	}
	return next.tree.Root(), "the next segment"
}

// knows reports whether a damage was found before, or is among what was trimmed
// in between.
func (j *Journal) knows(boot string, d *Damage) bool {
	_, state, err := j.state(boot)
	return err != nil || d.From <= state.trimmed || slices.ContainsFunc(state.lost, func(k *Damage) bool {
		return k.From > 0 && k.From <= d.From && d.From <= max(k.From, k.To)
	})
}

// keepDamage has readers refuse what is damaged, stores it and tells of it.
func (j *Journal) keepDamage(b bootDir, d *Damage) error {
	j.mu.Lock()
	state := j.kept(b.id)
	state.lost = append(slices.Clone(state.lost), d)
	lost := state.lost
	j.mu.Unlock()
	j.cfg.Log.Error("journal damage", "boot", b.id, "from", d.From, "to", d.To, "error", d)
	if j.cfg.OnDamage != nil {
		j.cfg.OnDamage(d)
	}
	return b.mark(lost)
}
