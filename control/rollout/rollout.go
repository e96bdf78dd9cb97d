// Package rollout decides the steps by which a release goes through its rings:
// shadow, active, the next ring, complete - or halted. It is pure: what the
// fleet attests and the time come in, the next order comes out. Two hubs that
// see the same come to the same order, and only one of them can create it.
package rollout

import (
	"fmt"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// A Node is an enrolled node, which is not retired, and what it said last.
type Node struct {
	Name   string
	Labels map[string]string
	// Attestation is the newest one that verified, nil when there is none, and
	// Away is set when it is too old to count.
	Attestation *audit.Attestation
	Away        bool
}

// First returns the order with which the rollout of a release with rings begins.
func First(rel *bundle.SignedRelease) bundle.Order {
	o := bundle.Order{
		Tenant: rel.Tenant, Epoch: rel.Epoch, Release: rel.Digest, Serial: 1, State: bundle.RolloutRunning,
		Rings: make([]string, len(rel.Rings)), Reason: "begun",
	}
	for i := range o.Rings {
		o.Rings[i] = bundle.PhaseWaiting
	}
	o.Rings[0] = firstPhase(rel.Rings[0])
	return o
}

func firstPhase(r bundle.Ring) string {
	if r.Shadow.IsZero() {
		return bundle.PhaseActive
	}
	return bundle.PhaseShadow
}

// Next returns the order that follows current, nil while there is nothing to do.
// Region, Leader and Created are the caller's to set. A rollout that is complete
// or halted has no next order: going on, or back, is a new release.
func Next(rel *bundle.SignedRelease, current *bundle.Order, nodes []Node, now time.Time) *bundle.Order {
	if current.State != bundle.RolloutRunning || len(current.Rings) != len(rel.Rings) {
		return nil
	}
	next := *current
	next.Serial++
	next.Rings = append([]string(nil), current.Rings...)
	rings := split(rel, nodes)
	if why := trouble(rel, current, rings); why != "" {
		next.State, next.Reason = bundle.RolloutHalted, line(why)
		return &next
	}
	at := last(current)
	bake, watched := rel.Rings[at].Bake, observedLive
	if current.Rings[at] == bundle.PhaseShadow {
		bake, watched = rel.Rings[at].Shadow, observedShadow
	}
	if !held(rel, rings[at], bake, watched, now.Sub(time.Unix(0, current.Created)), at == 0) {
		return nil
	}
	advance(rel, &next, at)
	return &next
}

// advance moves the ring that held to its next phase, or begins the ring after it.
func advance(rel *bundle.SignedRelease, o *bundle.Order, at int) {
	switch {
	case o.Rings[at] == bundle.PhaseShadow:
		o.Rings[at] = bundle.PhaseActive
		o.Reason = fmt.Sprintf("ring %s held in the shadow", rel.Rings[at].Name)
	case at+1 < len(o.Rings):
		o.Rings[at+1] = firstPhase(rel.Rings[at+1])
		o.Reason = fmt.Sprintf("ring %s held", rel.Rings[at].Name)
	default:
		o.State = bundle.RolloutComplete
		o.Reason = "every ring held"
	}
}

// last is the index of the newest ring that is not waiting.
func last(o *bundle.Order) int {
	for i := len(o.Rings) - 1; i > 0; i-- {
		if o.Rings[i] != bundle.PhaseWaiting {
			return i
		}
	}
	return 0
}

// split returns the nodes of each ring: those of the release's audience.
func split(rel *bundle.SignedRelease, nodes []Node) [][]Node {
	rings := make([][]Node, len(rel.Rings))
	for _, n := range nodes {
		if i := rel.RingOf(n.Name, n.Labels); i >= 0 && rel.For(n.Labels) == nil {
			rings[i] = append(rings[i], n)
		}
	}
	return rings
}

// held reports whether a ring has proven the release: every node of it that is
// there reports the phase, and together they made the decisions in the time. The
// first ring needs a node that does; a later one without any has nothing to prove.
func held(rel *bundle.SignedRelease, ring []Node, bake bundle.Bake, watched observer, passed time.Duration, first bool) bool {
	reporting, decisions := 0, uint64(0)
	for _, n := range ring {
		if n.Away || n.Attestation == nil {
			continue
		}
		seen, ok := watched(rel, n.Attestation)
		if !ok {
			return false
		}
		reporting++
		decisions += seen.Decisions
	}
	if reporting == 0 {
		return !first && len(ring) == 0
	}
	return decisions >= bake.Decisions && passed >= time.Duration(bake.Seconds)*time.Second
}

// An observer returns what a node observed of the release in a phase, and
// whether the node is in that phase at all.
type observer func(*bundle.SignedRelease, *audit.Attestation) (audit.Observed, bool)

func observedLive(rel *bundle.SignedRelease, a *audit.Attestation) (audit.Observed, bool) {
	return a.Live, a.Enforced == rel.Digest
}

func observedShadow(rel *bundle.SignedRelease, a *audit.Attestation) (audit.Observed, bool) {
	return a.Shadow, a.Candidate == rel.Digest && a.Refused == ""
}
