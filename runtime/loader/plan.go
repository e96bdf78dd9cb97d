package loader

import (
	"errors"
	"maps"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Bounds of what is remembered beyond what is in force: the newest count.
const (
	maxOffers  = 16
	maxOrders  = 16
	maxPending = 16 // documents that no key of the trust root signed, yet
)

// ErrWaiting: the release's rollout has not come to this node.
var ErrWaiting = errors.New("no rollout order for this node's ring yet")

// state is what a loader knows; deciding on it is pure.
type state struct {
	node       string
	labels     map[string]string
	unenrolled bool // nothing comes into force before the enrolment is known
	root       *bundle.TrustRoot
	ratchet    bundle.Ratchet
	inForce    wire.Digest                    // the release that decides; zero for none
	offers     map[uint64]*offer              // verified releases, by epoch
	orders     map[uint64]*bundle.SignedOrder // the newest of each epoch
	unknown    [][]byte                       // envelopes that a newer trust root may verify
	roots      [][]byte                       // trust roots that do not follow yet
	backFailed bool                           // the way back could not be prepared; again later
}

// offer is a release that verified.
type offer struct {
	rel      *bundle.SignedRelease
	id       wire.Digest // of the envelope
	received int64
	refused  string // why for good; "" for not
	deferred bool   // failed for a passing cause, to be tried again later
}

// plan is what is to be done next; the zero plan is nothing.
type plan struct {
	activate *offer
	shadow   *offer
	back     string // why the node is to step back; "" for not
	outside  *offer // a release for other nodes
}

func (s *state) plan() (p plan) {
	for _, epoch := range slices.Backward(slices.Sorted(maps.Keys(s.offers))) {
		o := s.offers[epoch]
		if epoch <= s.ratchet.Epoch || p.activate != nil {
			break
		}
		if o.refused != "" || o.deferred {
			continue
		}
		switch phase := s.phase(o); {
		case phase == bundle.PhaseActive:
			p.activate = o
		case phase == bundle.PhaseShadow && p.shadow == nil:
			p.shadow = o
		case !s.audience(o) && p.outside == nil:
			p.outside = o
		}
	}
	if want := s.ratchet.InForce(); p.activate == nil && want != s.inForce {
		if o := s.byDigest(want); o != nil && !o.deferred {
			p.activate = o // on its way back into force
		}
	}
	if o := s.orders[s.ratchet.Epoch]; o != nil && o.State == bundle.RolloutHalted && o.Release == s.ratchet.Release &&
		!s.ratchet.Fallback && s.inForce == s.ratchet.Release {
		p.back = "the rollout was halted: " + o.Reason
	}
	return p
}

// audience reports whether the node has the labels that a release asks for.
func (s *state) audience(o *offer) bool {
	for name, value := range o.rel.Audience {
		if s.labels[name] != value {
			return false
		}
	}
	return true
}

// phase is what the rollout of a release gives to this node.
func (s *state) phase(o *offer) string {
	switch {
	case s.unenrolled && s.ratchet.Epoch == 0:
		return bundle.PhaseWaiting
	case o.rel.Digest == s.ratchet.InForce():
		return bundle.PhaseActive
	case !s.audience(o):
		return bundle.PhaseWaiting
	case len(o.rel.Rings) == 0:
		return bundle.PhaseActive
	}
	if order := s.orders[o.rel.Epoch]; order != nil && order.Release == o.rel.Digest {
		return order.Phase(o.rel.RingOf(s.node, s.labels))
	}
	return bundle.PhaseWaiting
}

// remember keeps an offer; of too many the oldest is forgotten. Another release
// of the same epoch is an equivocation, unless what is there did not come into force.
func (s *state) remember(o *offer) (*offer, error) {
	have := s.offers[o.rel.Epoch]
	switch {
	case have != nil && have.rel.Digest == o.rel.Digest:
		have.deferred = false
		return have, nil
	case have != nil && have.refused == "" && !have.deferred && o.rel.Digest != s.ratchet.Release:
		return nil, &bundle.EquivocationError{Epoch: o.rel.Epoch, InForce: have.rel.Digest, Other: o.rel.Digest}
	}
	s.offers[o.rel.Epoch] = o
	for len(s.offers) > maxOffers {
		delete(s.offers, slices.Min(slices.Collect(maps.Keys(s.offers))))
	}
	return o, nil
}

// news reports whether an order is to be obeyed: its serial is the highest, and it
// is of the release that is known. Once a rollout is complete nothing is taken back.
func (s *state) news(o *bundle.SignedOrder) bool {
	have := s.orders[o.Epoch]
	if have != nil && (have.Serial >= o.Serial || have.State == bundle.RolloutComplete && have.Release == o.Release) {
		return false
	}
	release := s.releaseOf(o.Epoch)
	return release.IsZero() || release == o.Release
}

// obey keeps an order that is news.
func (s *state) obey(o *bundle.SignedOrder) {
	if !s.news(o) {
		return
	}
	s.orders[o.Epoch] = o
	for len(s.orders) > maxOrders {
		s.forgetOrder()
	}
}

// forgetOrder drops the order that matters least: the oldest of those before what
// is in force; else, of a release that nothing is known of, the one that is
// furthest ahead. What is in force keeps its own.
func (s *state) forgetOrder() {
	epochs := slices.Sorted(maps.Keys(s.orders))
	if epochs[0] < s.ratchet.Epoch {
		delete(s.orders, epochs[0])
		return
	}
	for _, e := range slices.Backward(epochs) {
		if e != s.ratchet.Epoch && s.offers[e] == nil {
			delete(s.orders, e)
			return
		}
	}
	delete(s.orders, epochs[len(epochs)-1])
}

func (s *state) releaseOf(epoch uint64) wire.Digest {
	if epoch == s.ratchet.Epoch {
		return s.ratchet.Release
	}
	if o := s.offers[epoch]; o != nil {
		return o.rel.Digest
	}
	return wire.Digest{}
}

// wayBack follows a way back past releases whose rollout was halted.
func (s *state) wayBack(d wire.Digest) wire.Digest {
	for range maxOffers {
		o := s.byDigest(d)
		if o == nil {
			return d
		}
		if order := s.orders[o.rel.Epoch]; order == nil || order.Release != d || order.State != bundle.RolloutHalted {
			return d
		}
		if o.rel.Fallback == bundle.FallbackNone {
			return wire.Digest{}
		}
		d = o.rel.Previous
	}
	return wire.Digest{}
}

func (s *state) byDigest(d wire.Digest) *offer {
	for _, o := range s.offers {
		if o.rel.Digest == d {
			return o
		}
	}
	return nil
}

// describe fills in what Status says of rollouts.
func (s *state) describe(st *Status) {
	var newest *bundle.Release
	if len(s.offers) > 0 {
		o := s.offers[slices.Max(slices.Collect(maps.Keys(s.offers)))]
		newest = &o.rel.Release
		if o.rel.Epoch > s.ratchet.Epoch && s.audience(o) {
			st.Candidate, st.CandidateRefused = o.rel.Digest, o.refused
		}
	}
	if newest != nil {
		if i := newest.RingOf(s.node, s.labels); i >= 0 && i < len(newest.Rings) {
			st.Ring = newest.Rings[i].Name
		}
		if order := s.orders[newest.Epoch]; order != nil {
			st.Order, st.OrderEpoch = order.Serial, order.Epoch
			st.Rolling = order.State == bundle.RolloutRunning
		} else if order := s.orders[s.ratchet.Epoch]; order != nil {
			st.Order, st.OrderEpoch = order.Serial, order.Epoch
		}
	}
}
