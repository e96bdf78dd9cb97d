package loader

import (
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func orderFor(epoch, serial uint64) *bundle.SignedOrder {
	return &bundle.SignedOrder{Order: bundle.Order{Epoch: epoch, Serial: serial, Release: wire.Sum([]byte{byte(epoch)}), State: bundle.RolloutRunning}}
}

// Orders are bounded, and neither those of the past nor a flood of the future's
// displace the one of the next release, which may come before that release does.
func TestOrdersAreBounded(t *testing.T) {
	s := &state{offers: map[uint64]*offer{}, orders: map[uint64]*bundle.SignedOrder{}}
	s.ratchet = bundle.Ratchet{Epoch: 40, Release: wire.Sum([]byte{40})}
	for epoch := uint64(1); epoch <= 41; epoch++ {
		s.obey(orderFor(epoch, 1))
	}
	if len(s.orders) != maxOrders || s.orders[41] == nil || s.orders[40] == nil {
		t.Fatalf("%d orders, %v, %v", len(s.orders), s.orders[40], s.orders[41])
	}
	for epoch := uint64(1000); epoch < 2000; epoch++ {
		s.obey(orderFor(epoch, 1))
	}
	if len(s.orders) != maxOrders || s.orders[41] == nil || s.orders[40] == nil {
		t.Errorf("%d orders, %v, %v", len(s.orders), s.orders[40], s.orders[41])
	}
}

func offerOf(epoch uint64, change func(*bundle.Release)) *offer {
	r := bundle.Release{Tenant: "acme", Epoch: epoch}
	if change != nil {
		change(&r)
	}
	return &offer{rel: &bundle.SignedRelease{Release: r, Digest: wire.Sum([]byte{byte(epoch)})}}
}

// What a plan does with what a node knows.
func TestPlan(t *testing.T) {
	ringed := func(r *bundle.Release) { r.Rings = []bundle.Ring{{Name: "all", Percent: 100}} }
	order := func(epoch, serial uint64, state string, phases ...string) func(*known) {
		return func(s *known) {
			o := orderFor(epoch, serial)
			o.State, o.Rings = state, phases
			s.obey(o)
		}
	}
	offered := func(offers ...*offer) func(*known) {
		return func(s *known) {
			for _, o := range offers {
				s.offers[o.rel.Epoch] = o
			}
		}
	}
	inForce := func(epoch uint64) func(*known) {
		return func(s *known) {
			s.ratchet = bundle.Ratchet{Epoch: epoch, Release: wire.Sum([]byte{byte(epoch)}), Back: wire.Sum([]byte{byte(epoch - 1)})}
			s.inForce = s.ratchet.Release
		}
	}
	do := func(changes ...func(*known)) []func(*known) { return changes }
	for name, c := range map[string]struct {
		given            []func(*known)
		activate, shadow uint64
		back             bool
	}{
		"nothing":                     {},
		"the newest":                  {do(offered(offerOf(2, nil), offerOf(4, nil), offerOf(3, nil))), 4, 0, false},
		"not before the enrolment":    {do(offered(offerOf(2, nil)), func(s *known) { s.unenrolled = true }), 0, 0, false},
		"nothing older":               {do(inForce(5), offered(offerOf(2, nil), offerOf(4, nil))), 0, 0, false},
		"what is in force":            {do(inForce(5), offered(offerOf(5, nil))), 0, 0, false},
		"back into force":             {do(inForce(5), offered(offerOf(5, nil)), func(s *known) { s.inForce = wire.Digest{} }), 5, 0, false},
		"no order":                    {do(inForce(1), offered(offerOf(2, ringed))), 0, 0, false},
		"waiting":                     {do(inForce(1), offered(offerOf(2, ringed)), order(2, 1, bundle.RolloutRunning, bundle.PhaseWaiting)), 0, 0, false},
		"shadow":                      {do(inForce(1), offered(offerOf(2, ringed)), order(2, 1, bundle.RolloutRunning, bundle.PhaseShadow)), 0, 2, false},
		"active":                      {do(inForce(1), offered(offerOf(2, ringed)), order(2, 1, bundle.RolloutRunning, bundle.PhaseActive)), 2, 0, false},
		"complete":                    {do(inForce(1), offered(offerOf(2, ringed)), order(2, 1, bundle.RolloutComplete)), 2, 0, false},
		"halted":                      {do(inForce(1), offered(offerOf(2, ringed)), order(2, 1, bundle.RolloutHalted, bundle.PhaseActive)), 0, 0, false},
		"below what waits":            {do(inForce(1), offered(offerOf(2, nil), offerOf(3, ringed))), 2, 0, false},
		"below what is shadowed":      {do(inForce(1), offered(offerOf(2, nil), offerOf(3, ringed)), order(3, 1, bundle.RolloutRunning, bundle.PhaseShadow)), 2, 3, false},
		"what was refused":            {do(inForce(1), offered(offerOf(2, nil), &offer{rel: offerOf(3, nil).rel, refused: "bad"})), 2, 0, false},
		"halted in force":             {do(inForce(2), order(2, 1, bundle.RolloutRunning, bundle.PhaseActive), order(2, 2, bundle.RolloutHalted)), 0, 0, true},
		"halted after it is complete": {do(inForce(2), order(2, 1, bundle.RolloutComplete), order(2, 2, bundle.RolloutHalted)), 0, 0, false},
		"halted twice": {do(inForce(2), order(2, 2, bundle.RolloutHalted), func(s *known) {
			s.ratchet.Fallback, s.inForce = true, s.ratchet.Back
		}), 0, 0, false},
		"of other nodes": {do(inForce(1), offered(offerOf(2, func(r *bundle.Release) { r.Audience = map[string]string{"a": "b"} }))), 0, 0, false},
	} {
		s := &state{node: "n1", offers: map[uint64]*offer{}, orders: map[uint64]*bundle.SignedOrder{}}
		for _, change := range c.given {
			change(s)
		}
		p := s.plan()
		if epochOf(p.activate) != c.activate || epochOf(p.shadow) != c.shadow || (p.back != "") != c.back {
			t.Errorf("%s: activate %d, shadow %d, back %q", name, epochOf(p.activate), epochOf(p.shadow), p.back)
		}
	}
}

type known = state

func epochOf(o *offer) uint64 {
	if o == nil {
		return 0
	}
	return o.rel.Epoch
}
