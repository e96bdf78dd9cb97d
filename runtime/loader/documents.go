package loader

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// takeRelease verifies a release and remembers it. What it refuses it tells.
func (l *Loader) takeRelease(env []byte) (*offer, error) {
	id, now := wire.Sum(env), l.config.Now()
	s, err := l.openRelease(env, now)
	name := id
	var o *offer
	if err == nil {
		name = s.Digest
		l.mu.Lock()
		o, err = l.consider(&offer{rel: s, id: id, received: now.UnixNano()}, now)
		l.mu.Unlock()
	}
	if err != nil {
		l.later(env, err)
		l.refuse(id, name, err)
		return nil, err
	}
	l.changed()
	return o, nil
}

func (l *Loader) openRelease(env []byte, now time.Time) (*bundle.SignedRelease, error) {
	l.mu.Lock()
	root, ratchet := l.state.root, l.state.ratchet
	l.mu.Unlock()
	s, err := root.OpenRelease(env, now)
	if errors.Is(err, bundle.ErrRootExpired) {
		// What has been admitted before stays admitted.
		if again, e := root.ReopenRelease(env); e == nil && (again.Digest == ratchet.Release || again.Digest == ratchet.Back) {
			return again, nil
		}
	}
	return s, err
}

// consider judges a verified release by the ratchet and remembers it. One that
// is not valid yet, and the way back of what is in force, are kept as well.
func (l *Loader) consider(o *offer, now time.Time) (*offer, error) {
	s := &l.state
	if o.rel.Digest == s.ratchet.Back {
		s.backFailed = false
		return s.remember(o)
	}
	_, err := s.ratchet.Admit(o.rel, now)
	if err != nil && !errors.Is(err, bundle.ErrInForce) && !errors.Is(err, bundle.ErrNotYetValid) {
		return nil, err
	}
	return s.remember(o)
}

// later keeps a document that a key which is not in the trust root signed: a
// newer trust root may be on its way.
func (l *Loader) later(env []byte, err error) {
	if !errors.Is(err, bundle.ErrUnknownKey) && !errors.Is(err, bundle.ErrThreshold) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.unknown = keep(l.state.unknown, env)
}

// keep adds an envelope to a bounded list; the oldest makes room.
func keep(list [][]byte, env []byte) [][]byte {
	if slices.ContainsFunc(list, func(e []byte) bool { return string(e) == string(env) }) {
		return list
	}
	if len(list) == maxPending {
		list = slices.Delete(list, 0, 1)
	}
	return append(list, slices.Clone(env))
}

// refuse tells once for each cause why the envelope with digest id is not in force.
func (l *Loader) refuse(id, name wire.Digest, err error) {
	l.mu.Lock()
	if l.told[id] == err.Error() {
		l.mu.Unlock()
		return
	}
	if len(l.told) >= maxTold {
		clear(l.told)
	}
	l.told[id] = err.Error()
	l.status.Refusal = &Refusal{Digest: name, Reason: err.Error(), At: l.config.Now()}
	epoch := l.status.Epoch
	l.mu.Unlock()
	l.warnings.Warn(l.config.Log, "release refused", "release", name.String(), "reason", err.Error(), "epoch_in_force", epoch)
	if l.config.Refused != nil {
		l.config.Refused(name, err)
	}
	l.config.Changed()
}

// takeOrder verifies a rollout order, stores it and has the plan made again.
func (l *Loader) takeOrder(env []byte) {
	o, err := l.Root().OpenOrder(env)
	if err != nil {
		l.later(env, err)
		l.tell(env, fmt.Errorf("rollout order: %w", err))
		return
	}
	// It is stored before it is obeyed, so that a restart does not undo it.
	l.ordering.Lock()
	defer l.ordering.Unlock()
	l.mu.Lock()
	news := l.state.news(o)
	l.mu.Unlock()
	if !news {
		return
	}
	if err := l.store.putOrder(o.Epoch, env); err != nil {
		l.config.Log.Error("rollout order not stored", "error", err)
	}
	l.mu.Lock()
	l.state.obey(o)
	l.mu.Unlock()
	l.changed()
	l.config.Changed()
}

// takeRoot verifies the next trust root, and those that then follow it, stores
// each and has it used. What the one in use does not sign is kept for a while.
func (l *Loader) takeRoot(env []byte) {
	l.swapping.Lock()
	taken := l.chain(env)
	l.swapping.Unlock()
	if taken == 0 {
		l.tellRoot(env)
		return
	}
	l.mu.Lock()
	root, unknown := l.state.root, l.state.unknown
	l.state.unknown = nil
	l.mu.Unlock()
	l.config.Log.Info("trust root rotated", "version", root.Version)
	l.config.Event(&audit.AdminRecord{Event: "root_rotated", Text: fmt.Sprintf("version %d", root.Version), Count: uint64(taken)})
	l.config.Rooted(root)
	for _, env := range unknown {
		l.Deliver(env)
	}
	l.changed()
	l.config.Changed()
}

// tellRoot tells why a trust root is not used, unless it was passed long ago or
// waits for those before it.
func (l *Loader) tellRoot(env []byte) {
	l.mu.Lock()
	root, waits := l.state.root, slices.ContainsFunc(l.state.roots, func(e []byte) bool { return string(e) == string(env) })
	l.mu.Unlock()
	if v := bundle.UnverifiedRootVersion(env); waits || v != 0 && v <= root.Version {
		return
	}
	if _, err := root.OpenNext(env); err != nil {
		l.tell(env, fmt.Errorf("trust root: %w", err))
	}
}

// tell says once why a document that is no release is not believed.
func (l *Loader) tell(env []byte, err error) {
	id := wire.Sum(env)
	l.mu.Lock()
	known := l.told[id] == err.Error()
	if len(l.told) >= maxTold {
		clear(l.told)
	}
	l.told[id] = err.Error()
	l.mu.Unlock()
	if known {
		return
	}
	l.warnings.Warn(l.config.Log, "document refused", "document", id.String(), "reason", err.Error())
	if l.config.Refused != nil {
		l.config.Refused(id, err)
	}
}

// chain applies a trust root and then whichever of those that wait follows. The
// caller holds swapping. It returns how many it applied.
func (l *Loader) chain(env []byte) (taken int) {
	l.mu.Lock()
	root := l.state.root
	waiting := append(slices.Clone(l.state.roots), env)
	l.mu.Unlock()
	for again := true; again; {
		again = false
		for i, e := range waiting {
			next, err := root.OpenNext(e)
			if err != nil {
				continue
			}
			if err := l.putRoot(next, e); err != nil {
				l.config.Log.Error("trust root not stored; it is not used", "version", next.Version, "error", err)
				return taken
			}
			root, waiting, again = next, slices.Delete(waiting, i, i+1), true
			taken++
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.root, l.state.roots = root, nil
	for _, e := range waiting {
		if later, err := bundle.ReopenTrustRoot(e); err == nil && later.Tenant == root.Tenant && later.Version > root.Version+1 {
			l.state.roots = keep(l.state.roots, e)
		}
	}
	l.dropRevoked()
	return taken
}

// dropRevoked forgets releases that the trust root in use no longer verifies,
// unless they are in force or the way back. The caller holds mu.
func (l *Loader) dropRevoked() {
	s := &l.state
	for epoch, o := range s.offers {
		if o.rel.Digest == s.ratchet.Release || o.rel.Digest == s.ratchet.Back {
			continue
		}
		if _, err := s.root.ReopenRelease(o.rel.Envelope); err != nil {
			delete(s.offers, epoch)
		}
	}
}

// putRoot stores a trust root, then lets the ratchet name its version.
func (l *Loader) putRoot(root *bundle.TrustRoot, env []byte) error {
	if err := l.store.putRoot(root.Version, env); err != nil {
		return err
	}
	next := l.ratchet
	next.RootVersion = max(next.RootVersion, root.Version)
	if err := l.store.putRatchet(next); err != nil {
		return err
	}
	l.mu.Lock()
	l.state.root = root // never behind the ratchet: releases are judged by both
	l.mu.Unlock()
	l.setRatchet(next)
	return nil
}
