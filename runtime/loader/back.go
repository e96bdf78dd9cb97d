package loader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// StepBack puts the way back into force in the place of the release with digest
// from, once and one way, and durably before it acts. It does not wait for a
// release that is being built. The error wraps bundle.ErrNoFallback or
// bundle.ErrFellBack when there is no step back from here, ErrSuperseded when
// from is not in force.
func (l *Loader) StepBack(ctx context.Context, from wire.Digest) error {
	done, err := l.stepBack(ctx, from, nil)
	if done || err != nil {
		return err
	}
	l.mu.Lock()
	back := l.state.ratchet.Back
	l.mu.Unlock()
	o, err := l.storedOffer(back)
	if err != nil {
		return fmt.Errorf("%w: %w", bundle.ErrNoFallback, err)
	}
	h, err := l.build(ctx, o, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", bundle.ErrNoFallback, err)
	}
	if done, err = l.stepBack(ctx, from, h); !done {
		return errors.Join(err, h.open.close(ctx))
	}
	return err
}

// stepBack steps back to what is warm, or else to h; with neither it does nothing.
func (l *Loader) stepBack(ctx context.Context, from wire.Digest, h *held) (done bool, err error) {
	begin := time.Now()
	l.swapping.Lock()
	defer l.swapping.Unlock()
	set := l.set.Load()
	if set == nil || set.Release != from || from != l.ratchet.InForce() {
		return false, ErrSuperseded
	}
	next, err := l.ratchet.StepBack(l.active.rel)
	if err != nil {
		return false, err
	}
	warm := l.back != nil && l.back.rel.Digest == next.Back
	if !warm && (h == nil || h.rel.Digest != next.Back) {
		return false, nil
	}
	l.config.Step("fallback ratchet")
	if err := l.store.putRatchet(next); err != nil {
		return false, err
	}
	l.setRatchet(next)
	to := h
	if warm {
		to, l.back = l.back, nil
	}
	other := *to.set
	other.Epoch, other.Fallback = next.Epoch, true
	to.set = &other
	l.config.Step("fallback activate")
	if err := l.config.Activate(ctx, to.set, to.rel); err != nil {
		l.restoreLater(to)
		return true, temporary{fmt.Errorf("record the step back: %w", err)}
	}
	l.config.Step("fallback swap")
	to.timing.Swap = int64(time.Since(begin))
	l.swap(to)
	return true, nil
}

// restoreLater has the plan put the way back into force as soon as that can be
// recorded: the ratchet has taken the step. The caller holds swapping.
func (l *Loader) restoreLater(h *held) {
	l.retire(h)
	l.mu.Lock()
	if l.state.byDigest(h.rel.Digest) == nil {
		l.state.offers[h.rel.Epoch] = &offer{rel: h.rel}
	}
	l.mu.Unlock()
	l.changed()
}

// stepBackOrdered obeys the order to halt what is in force.
func (l *Loader) stepBackOrdered(ctx context.Context) {
	l.mu.Lock()
	from, why := l.state.ratchet.InForce(), l.state.plan().back
	l.mu.Unlock()
	if why == "" {
		return
	}
	err := l.StepBack(ctx, from)
	if l.config.SteppedBack != nil {
		l.config.SteppedBack(why, err)
	}
	if err != nil && !errors.Is(err, ErrSuperseded) {
		l.config.Log.Error("no step back", "cause", why, "error", err)
	}
}

// shadow opens the candidate that the plan wants evaluated beside, or ends the
// one that it no longer wants, and reports whether it did anything.
func (l *Loader) shadow(ctx context.Context, o *offer) bool {
	l.swapping.Lock()
	have := l.candidate
	same := have != nil && o != nil && have.rel.Digest == o.rel.Digest || have == nil && o == nil
	if !same && have != nil {
		l.candidate = nil
		l.retire(have)
	}
	l.swapping.Unlock()
	if same {
		return false
	}
	if have != nil {
		l.setShadow(nil)
	}
	if o == nil {
		return true
	}
	h, err := l.ready(ctx, o, l.config.Source)
	l.settled(ctx, o, err)
	if err != nil {
		return l.failed(o) || errors.Is(err, ErrSuperseded)
	}
	l.swapping.Lock()
	l.candidate = h
	l.swapping.Unlock()
	l.setShadow(h)
	return true
}

func (l *Loader) setShadow(h *held) {
	l.mu.Lock()
	l.status.Shadow = h != nil
	l.mu.Unlock()
	if h == nil {
		l.config.Shadow(nil, nil)
	} else {
		l.config.Shadow(h.set, h.rel)
	}
	l.config.Changed()
}

// backMissing reports whether the way back should be made ready. The caller
// holds mu.
func (l *Loader) backMissing() bool {
	s := &l.state
	return !l.status.Warm && !s.backFailed && !s.ratchet.Back.IsZero() && !s.ratchet.Fallback &&
		s.inForce == s.ratchet.Release && l.config.Now().Before(l.status.Since.Add(l.config.Warm))
}

// prepareBack stores what the way back needs and opens it, when the node did not
// come from there. Without it there is no step back; Status says so.
func (l *Loader) prepareBack(ctx context.Context, d wire.Digest) {
	h, err := l.openBack(ctx, d)
	if err != nil {
		l.mu.Lock()
		told := l.told[d] == err.Error()
		l.told[d], l.state.backFailed = err.Error(), true
		l.mu.Unlock()
		if ctx.Err() == nil && !told {
			l.config.Log.Info("no way back yet", "release", d.String(), "reason", err.Error())
		}
		return
	}
	l.swapping.Lock()
	if l.ratchet.Back != d || l.ratchet.Fallback || l.back != nil {
		l.retire(h)
	} else {
		l.back, l.backUntil = h, l.config.Now().Add(l.config.Warm)
	}
	warm := l.back != nil
	l.swapping.Unlock()
	l.setWarm(warm)
	l.config.Changed()
}

func (l *Loader) openBack(ctx context.Context, d wire.Digest) (*held, error) {
	o, err := l.storedOffer(d)
	if err != nil {
		l.mu.Lock()
		o = l.state.byDigest(d)
		l.mu.Unlock()
		if o == nil {
			return nil, err
		}
	}
	h, err := l.build(ctx, o, l.config.Source)
	if err != nil {
		return nil, err
	}
	if err := l.putRelease(o.rel); err != nil {
		return nil, errors.Join(err, h.open.close(ctx))
	}
	return h, nil
}
