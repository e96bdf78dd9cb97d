package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// The reasons of this package for which a release does not come into force.
var (
	// ErrDurability: a point demands more regions than this node ships to.
	ErrDurability = errors.New("durability class is not available on this node")
	// ErrDigest: a package is not the one that the release names.
	ErrDigest = errors.New("digest does not match")
	// ErrVectors: a package's golden vectors did not pass here.
	ErrVectors = errors.New("golden vectors failed")
	// ErrSuperseded: a newer release or order came first.
	ErrSuperseded = errors.New("superseded")
)

// coldStart reads the folder and puts what was last in force into force again.
func (l *Loader) coldStart(ctx context.Context) error {
	if err := l.readRatchet(); err != nil {
		return err
	}
	l.readOrders()
	if l.ratchet.Epoch == 0 {
		return nil
	}
	o, err := l.storedOffer(l.ratchet.InForce())
	if err != nil {
		l.refuse(l.ratchet.InForce(), l.ratchet.InForce(), fmt.Errorf("release in force: %w", err))
		return nil
	}
	l.mu.Lock()
	o, err = l.state.remember(o)
	l.mu.Unlock()
	if err == nil {
		l.building.Lock()
		_ = l.bring(ctx, o, nil) // it has told its own error
		l.building.Unlock()
	}
	return ctx.Err()
}

// readRatchet reads the trust roots that followed the configured one, and the
// ratchet.
func (l *Loader) readRatchet() (err error) {
	for {
		env, err := l.store.root(l.state.root.Version + 1)
		if err != nil {
			break
		}
		next, err := l.state.root.OpenNext(env)
		if err != nil {
			l.config.Log.Error("stored trust root is not used", "version", l.state.root.Version+1, "error", err)
			break
		}
		l.state.root = next
	}
	l.ratchet, err = l.store.ratchet()
	switch {
	case errors.Is(err, bundle.ErrRatchetState), errors.Is(err, fs.ErrNotExist):
		why := err
		if l.ratchet, err = l.newestStored(); l.ratchet.Epoch != 0 {
			l.config.Log.Error("ratchet is lost; rebuilt from the newest release stored", "error", why, "epoch", l.ratchet.Epoch)
		}
	}
	if err != nil {
		return fmt.Errorf("loader: read ratchet: %w", err)
	}
	if l.ratchet.RootVersion > l.state.root.Version {
		l.config.Log.Error("a trust root that was used is missing: no release is taken before it comes again",
			"used", l.ratchet.RootVersion, "have", l.state.root.Version)
	}
	l.setRatchet(l.ratchet)
	if behind := l.ratchet.ClockBehind(l.config.Now()); behind > 0 {
		l.config.Log.Warn("wall clock is before a time that has passed", "behind", behind)
	}
	return nil
}

// newestStored rebuilds a lost ratchet. Releases are stored before the ratchet
// names them and the newest is never removed, so that it is not older than it was.
func (l *Loader) newestStored() (r bundle.Ratchet, err error) {
	envelopes, err := l.store.releases()
	for _, env := range envelopes {
		s, err := l.reopen(env)
		if err == nil && s.Epoch > r.Epoch {
			r = bundle.Ratchet{RootVersion: s.RootVersion, Epoch: s.Epoch, Release: s.Digest}
			if s.Fallback == bundle.FallbackPrevious {
				r.Back = s.Previous
			}
		}
	}
	return r, err
}

// reopen verifies a release of the own folder against the trust root in use, or
// one that was before: a key that was revoked since takes nothing out of force.
func (l *Loader) reopen(env []byte) (*bundle.SignedRelease, error) {
	l.mu.Lock()
	newest := l.state.root
	l.mu.Unlock()
	s, err := newest.ReopenRelease(env)
	if err == nil {
		return s, nil
	}
	for root := l.config.Root; root != nil && root.Version < newest.Version; root = l.storedAfter(root) {
		if s, e := root.ReopenRelease(env); e == nil {
			return s, nil
		}
	}
	return nil, err
}

func (l *Loader) storedAfter(root *bundle.TrustRoot) *bundle.TrustRoot {
	env, err := l.store.root(root.Version + 1)
	if err != nil {
		return nil
	}
	next, err := root.OpenNext(env)
	if err != nil {
		return nil
	}
	return next
}

func (l *Loader) readOrders() {
	envelopes, err := l.store.orders()
	if err != nil {
		l.config.Log.Error("stored rollout orders are not read", "error", err)
	}
	for _, env := range envelopes {
		for root := l.config.Root; root != nil; root = l.storedAfter(root) {
			if o, err := root.OpenOrder(env); err == nil {
				l.state.obey(o)
				break
			}
		}
	}
}

// storedOffer returns a release of the own folder.
func (l *Loader) storedOffer(d wire.Digest) (*offer, error) {
	env, err := l.store.release(d)
	if err != nil {
		return nil, err
	}
	s, err := l.reopen(env)
	if err != nil {
		return nil, err
	}
	if s.Digest != d {
		return nil, fmt.Errorf("%w: the file holds %s", ErrDigest, s.Digest)
	}
	return &offer{rel: s, id: wire.Sum(env)}, nil
}

// work does what the plan says until there is nothing left to do now.
func (l *Loader) work(ctx context.Context) {
	for ctx.Err() == nil {
		l.building.Lock()
		again := l.workOnce(ctx)
		l.building.Unlock()
		if !again {
			return
		}
	}
}

func (l *Loader) workOnce(ctx context.Context) bool {
	l.mu.Lock()
	p := l.state.plan()
	back, missing := l.state.ratchet.Back, l.backMissing()
	l.mu.Unlock()
	if p.outside != nil {
		l.refuse(p.outside.id, p.outside.rel.Digest, fmt.Errorf("%w: it asks for %v", bundle.ErrAudience, p.outside.rel.Audience))
	}
	switch {
	case p.activate != nil:
		err := l.bring(ctx, p.activate, l.config.Source)
		return err == nil || errors.Is(err, ErrSuperseded) || l.failed(p.activate)
	case l.shadow(ctx, p.shadow):
		return true
	case missing:
		l.prepareBack(ctx, back)
		return false
	}
	return false
}

// failed reports whether a release is out of the plan, for now or for good.
func (l *Loader) failed(o *offer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return o.refused != "" || o.deferred
}

// bring puts a release into force. The caller holds building. Until the ratchet
// is on disk a crash leaves the old release in force; from then on the new one,
// whole: everything that it needs is in the folder already.
func (l *Loader) bring(ctx context.Context, o *offer, source Source) error {
	if set := l.set.Load(); set != nil && set.Release == o.rel.Digest {
		return nil
	}
	h, err := l.ready(ctx, o, source)
	if err == nil {
		if err = l.commit(ctx, o, h); err != nil {
			err = errors.Join(err, h.open.close(ctx))
		}
	}
	l.settled(ctx, o, err)
	if err == nil {
		l.collect()
	}
	return err
}

// settled notes and tells what became of a release.
func (l *Loader) settled(ctx context.Context, o *offer, err error) {
	passing := errors.As(err, &temporary{})
	quiet := err == nil || ctx.Err() != nil || errors.Is(err, ErrSuperseded)
	l.mu.Lock()
	if l.target == o {
		l.cancel()
		l.target, l.cancel = nil, nil
	}
	if !errors.Is(err, ErrSuperseded) {
		l.cut = 0
	}
	if err == nil {
		delete(l.told, o.id)
	} else if !quiet {
		if o.deferred = passing; !passing {
			o.refused = err.Error()
		}
	}
	l.mu.Unlock()
	if !quiet {
		l.refuse(o.id, o.rel.Digest, err)
	}
}

// ready returns the release's set: the candidate's, or a new one. While it is
// being built, a newer release or order may end that.
func (l *Loader) ready(ctx context.Context, o *offer, source Source) (*held, error) {
	l.swapping.Lock()
	h := l.candidate
	if h != nil && h.rel.Digest == o.rel.Digest {
		l.candidate = nil
		l.swapping.Unlock()
		l.setShadow(nil)
		h.timing = audit.ActivationTiming{Received: l.config.Now().UnixNano()}
		return h, nil
	}
	l.swapping.Unlock()
	building, cancel := context.WithCancel(ctx)
	l.mu.Lock()
	l.target, l.cancel = o, cancel
	l.mu.Unlock()
	h, err := l.build(building, o, source)
	if err != nil && building.Err() != nil && ctx.Err() == nil {
		err = ErrSuperseded
	}
	return h, err
}

// build fetches, stores, admits and tests what a release needs.
func (l *Loader) build(ctx context.Context, o *offer, source Source) (*held, error) {
	if err := l.admissible(o.rel); err != nil {
		return nil, err
	}
	begin := time.Now()
	packages, err := l.packages(ctx, o.rel, source)
	if err != nil {
		return nil, err
	}
	fetched := time.Now()
	b := builder{engine: l.config.Engine, packages: packages, opened: modules{}, shelf: &l.shelf, wrap: l.config.Wrap}
	set, err := b.build(ctx, o.rel)
	if err != nil {
		if compile, ok := errors.AsType[*engine.CompileError](err); ok && compile.Passing {
			err = temporary{err}
		}
		return nil, errors.Join(err, b.opened.close(context.WithoutCancel(ctx)))
	}
	return &held{set: set, rel: o.rel, open: b.opened, timing: audit.ActivationTiming{
		Received: o.received, Fetch: int64(fetched.Sub(begin)), Admit: int64(time.Since(fetched)),
	}}, nil
}

// admissible returns why a release cannot come into force, now or at all. What is
// on its way back into force was admitted before.
func (l *Loader) admissible(s *bundle.SignedRelease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, err := l.state.current(s)
	if err != nil {
		return err
	}
	if _, err = admit(l.state.ratchet, s, l.config.Now()); err != nil || s.Digest == l.state.ratchet.InForce() || s.Digest == l.state.ratchet.Back {
		return err
	}
	return l.config.durable(s)
}

// durable refuses a release with a point whose class this node can never meet: it
// would do nothing there but what on_log_failure says. One that was in force
// before the node lost a region stays.
func (c *Config) durable(s *bundle.SignedRelease) error {
	for _, p := range s.Points {
		if need := p.Durability.Regions(); need > c.Regions {
			return fmt.Errorf("%w: point %s wants %s, which needs %d of them, and the node ships its records to %d; configure more regions, or release a weaker class",
				ErrDurability, p.Name, p.Durability, need, c.Regions)
		}
	}
	return nil
}

// current is a release that may have been verified before the last trust root
// came, as the one in use verifies it. What is in force or the way back stays.
func (s *state) current(rel *bundle.SignedRelease) (*bundle.SignedRelease, error) {
	if rel.RootVersion >= s.root.Version || rel.Digest == s.ratchet.InForce() || rel.Digest == s.ratchet.Back {
		return rel, nil
	}
	return s.root.ReopenRelease(rel.Envelope)
}

// admit returns the ratchet for s. A release that the ratchet names already was
// admitted before and is on its way back into force, whatever the time is now.
func admit(r bundle.Ratchet, s *bundle.SignedRelease, now time.Time) (bundle.Ratchet, error) {
	if s.Digest == r.InForce() || s.Digest == r.Back {
		return r, nil
	}
	next, err := r.Admit(s, now)
	if errors.Is(err, bundle.ErrNotYetValid) {
		err = temporary{err}
	}
	return next, err
}

// commit makes the release durable, has its activation recorded and swaps the
// set. A trust root or an order that came meanwhile is heard first.
func (l *Loader) commit(ctx context.Context, o *offer, h *held) error {
	begin := time.Now()
	l.swapping.Lock()
	defer l.swapping.Unlock()
	next, err := l.wanted(o)
	if err != nil {
		return err
	}
	if next != l.ratchet {
		if err := l.putRelease(o.rel); err != nil {
			return temporary{err}
		}
		l.config.Step("ratchet")
		if err := l.store.putRatchet(next); err != nil {
			return temporary{err}
		}
		l.setRatchet(next)
	}
	if next.Fallback {
		h.set.Epoch, h.set.Fallback = next.Epoch, true
	}
	l.config.Step("activate")
	if err := l.config.Activate(ctx, h.set, o.rel); err != nil {
		return temporary{fmt.Errorf("record the activation: %w", err)}
	}
	l.config.Step("swap")
	h.timing.Swap = int64(time.Since(begin))
	l.swap(h)
	return nil
}

// wanted returns the ratchet with which o comes into force, or why it no longer
// should. The caller holds swapping.
func (l *Loader) wanted(o *offer) (bundle.Ratchet, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.rel.Digest == l.ratchet.InForce() {
		return l.ratchet, nil
	}
	if l.state.phase(o) != bundle.PhaseActive {
		return l.ratchet, ErrSuperseded
	}
	rel, err := l.state.current(o.rel)
	if err != nil {
		return l.ratchet, err
	}
	next, err := admit(l.ratchet, rel, l.config.Now())
	if err != nil {
		return next, err
	}
	next.Back = l.state.wayBack(next.Back)
	return next, nil
}

func (l *Loader) putRelease(rel *bundle.SignedRelease) error {
	l.config.Step("release")
	return l.store.putRelease(rel.Digest, rel.Envelope)
}

func (l *Loader) setRatchet(r bundle.Ratchet) {
	l.ratchet = r
	l.mu.Lock()
	l.state.ratchet = r
	l.mu.Unlock()
}

// swap puts a set in force. The one before stays open as the way back, or until
// its grace is over. The caller holds swapping.
func (l *Loader) swap(h *held) {
	l.set.Store(h.set)
	now := l.config.Now()
	old := l.active
	l.active = h
	if old != nil && old.rel.Digest == l.ratchet.Back && !l.ratchet.Fallback {
		l.retire(l.back)
		l.back, l.backUntil = old, now.Add(l.config.Warm)
	} else {
		l.retire(old)
		if l.back != nil && (l.ratchet.Fallback || l.back.rel.Digest != l.ratchet.Back) {
			l.retire(l.back)
			l.back = nil
		}
	}
	l.mu.Lock()
	l.state.inForce, l.state.backFailed = h.rel.Digest, false
	st := &l.status
	st.Epoch, st.Release, st.Fallback, st.Enforced, st.Since = h.set.Epoch, l.ratchet.Release, h.set.Fallback, h.rel.Digest, now
	st.Timing, st.Warm = h.timing, l.back != nil
	l.mu.Unlock()
	l.config.Log.Info("release in force", "epoch", h.set.Epoch, "release", h.rel.Digest.String(), "fallback", h.set.Fallback, "points", len(h.set.Points))
	l.config.Changed()
}
