package edge

import (
	"slices"
	"sync"

	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A word is what stands of those whose keys were taken out of the trust root.
//
// A kill stays in force when its signer's key is revoked, on every node that has
// it. A node that comes later cannot tell it from one that a thief of that key
// signed today: it believes those which, with all that it believes already, are
// the very kill set that a region's heartbeat names.
type word struct {
	mu      sync.Mutex
	roots   []*bundle.TrustRoot // before the one in use, newest first
	waiting []signedStop        // in the order in which they came
	tried   attempt
}

// A signedStop is a kill or a lift.
type signedStop struct {
	kill *bundle.SignedKill
	lift *bundle.SignedLift
}

func (s signedStop) digest() wire.Digest {
	if s.kill != nil {
		return s.kill.Digest
	}
	return s.lift.Digest
}

// An attempt found nothing: the same one would not either.
type attempt struct {
	named, own wire.Digest
	waiting    int
}

// former sets the trust roots before the one in use.
func (w *word) former(roots []*bundle.TrustRoot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.roots = roots
}

// wait keeps a kill or lift that the trust root in use does not verify, and tells
// of it, unless the node has it in force from before.
func (n *Node) wait(env []byte, why error) {
	if known := n.stop.word.keep(env, &n.stop.set); !known {
		n.discard(env, why)
	}
}

// keep has a kill or lift wait that only a former trust root verifies, and reports
// whether set has it already. What comes when there is no room is dropped: a
// region gives the oldest first.
func (w *word) keep(env []byte, set *bundle.KillSet) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, root := range w.roots {
		var s signedStop
		var err error
		if s.kill, err = root.OpenKill(env); err != nil {
			s.kill = nil
			if s.lift, err = root.OpenLift(env); err != nil {
				continue
			}
		}
		if set.DigestWith(s.digest()) == set.Digest() {
			return true
		}
		known := slices.ContainsFunc(w.waiting, func(o signedStop) bool { return o.digest() == s.digest() })
		if !known && len(w.waiting) < maxWaiting {
			w.waiting = append(w.waiting, s)
		}
		return false
	}
	return false
}

// named takes out the first of those that wait with which set has the digest;
// none when there are no such.
func (w *word) named(set *bundle.KillSet, digest wire.Digest) []signedStop {
	own := set.Digest()
	w.mu.Lock()
	defer w.mu.Unlock()
	try := attempt{digest, own, len(w.waiting)}
	if own == digest || try == w.tried {
		return nil
	}
	w.tried = try
	var more []wire.Digest
	for i, s := range w.waiting {
		if more = append(more, s.digest()); set.DigestWith(more...) == digest {
			found := w.waiting[:i+1]
			w.waiting = slices.Clone(w.waiting[i+1:])
			return found
		}
	}
	return nil
}

// forget lets regions begin with any serial again whose key was taken out of the
// trust root: its thief may have used the highest one there is. The age of what
// was heard stays, and a heartbeat's own time bounds what an old one renews.
func (w *word) forget(root *bundle.TrustRoot, regions []guard.Region) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range regions {
		if slices.ContainsFunc(w.roots, func(r *bundle.TrustRoot) bool { return revoked(r, root, regions[i].Name) }) {
			regions[i].Serial = 0
		}
	}
}

// revoked reports whether a region's heartbeat key of one trust root is not in another.
func revoked(before, now *bundle.TrustRoot, region string) bool {
	return slices.ContainsFunc(before.Keys, func(k bundle.Key) bool {
		return k.Role == bundle.RoleHeartbeat && k.Person == region && !slices.ContainsFunc(now.Keys, func(o bundle.Key) bool { return o.ID == k.ID && o.Role == k.Role })
	})
}

// believe takes the kills and lifts of revoked keys that a heartbeat vouches for.
func (n *Node) believe(named wire.Digest) {
	for _, s := range n.stop.word.named(&n.stop.set, named) {
		if s.kill != nil {
			n.enforceKill(s.kill, s.kill.Envelope)
		} else {
			n.enforceLift(s.lift, s.lift.Envelope)
		}
	}
}
