package bundle

import (
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Phases of a ring in an Order.
const (
	PhaseWaiting = "waiting"
	PhaseShadow  = "shadow" // evaluated beside what is in force, never answered
	PhaseActive  = "active" // in force
)

// States of a rollout in an Order.
const (
	RolloutRunning  = "running"
	RolloutComplete = "complete" // in force for everybody
	RolloutHalted   = "halted"   // nobody else takes it, and who has it goes back
)

// An Order is one step of a release's rollout through its rings. Orders of one
// release have serials without gaps, each is created once, and the highest
// counts. A hub signs it with its region's heartbeat key: it can delay a release
// that two people signed, or send nodes back to the fallback that this release
// names while the rollout is not complete, and nothing else.
type Order struct {
	Tenant  string      `cbor:"tenant"`
	Region  string      `cbor:"region"` // whose hub leads the rollout
	Epoch   uint64      `cbor:"epoch"`
	Release wire.Digest `cbor:"release"`
	Serial  uint64      `cbor:"serial"`
	State   string      `cbor:"state"`
	// Rings are the phases of the release's rings, in its order.
	Rings []string `cbor:"rings,omitempty"`
	// Reason says why, for people.
	Reason string `cbor:"reason,omitempty"`
	// Created is in nanoseconds since 1970, by the hub's clock.
	Created int64 `cbor:"created"`
	// Leader is the hub server that led, for people.
	Leader string `cbor:"leader,omitempty"`
}

// A SignedOrder is an order whose signature was verified.
type SignedOrder struct {
	Order
	Signed
}

// SignOrder validates o and returns its envelope.
func SignOrder(o *Order, key *PrivateKey) ([]byte, error) {
	return signDocument(OrderType, o, []*PrivateKey{key})
}

// OpenOrder verifies an order and that its region's own key signed it.
func (r *TrustRoot) OpenOrder(env []byte) (*SignedOrder, error) {
	o := &SignedOrder{}
	var err error
	if o.Signed, err = r.open(env, OrderType, RoleHeartbeat, 1, &o.Order); err == nil {
		err = o.byRegion(o.Region)
	}
	if err != nil {
		return nil, fmt.Errorf("open order: %w", err)
	}
	return o, nil
}

func (o *Order) check() error {
	if err := first(CheckTenant(o.Tenant), checkToken("region", o.Region, "-_"), checkTime("created", o.Created),
		checkText("reason", o.Reason), checkText("leader", o.Leader)); err != nil {
		return err
	}
	switch {
	case o.Epoch == 0 || o.Release.IsZero() || o.Serial == 0:
		return errors.New("epochs and serials begin at 1, and an order names its release")
	case !slices.Contains([]string{RolloutRunning, RolloutComplete, RolloutHalted}, o.State):
		return fmt.Errorf("state %.80q", o.State)
	case len(o.Rings) > MaxRings:
		return fmt.Errorf("%d rings; at most %d", len(o.Rings), MaxRings)
	}
	for _, p := range o.Rings {
		if !slices.Contains([]string{PhaseWaiting, PhaseShadow, PhaseActive}, p) {
			return fmt.Errorf("phase %.80q", p)
		}
	}
	return nil
}

// Phase returns the phase that the order gives to a ring of its release; -1 is a
// node in no ring.
func (o *Order) Phase(ring int) string {
	switch {
	case o.State == RolloutComplete:
		return PhaseActive
	case o.State == RolloutHalted || ring < 0 || ring >= len(o.Rings):
		return PhaseWaiting
	}
	return o.Rings[ring]
}
