package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// MaxRings bounds the rings of a release.
const MaxRings = 16

// A Ring is a share of the fleet that takes a release together, after the rings
// before it held. A node is in the first ring that takes it.
type Ring struct {
	Name string `cbor:"name"`
	// Labels must all be the node's; none takes every node.
	Labels map[string]string `cbor:"labels,omitempty"`
	// Percent of those nodes, 1 to 100, chosen by their names and the ring's: the
	// same ones in every release.
	Percent uint64 `cbor:"percent"`
	// Shadow is how long the release is evaluated beside the one in force before
	// it is put in force; zero leaves the shadow out.
	Shadow Bake `cbor:"shadow,omitzero"`
	// Bake is how long the release must hold in this ring before the next one.
	Bake Bake `cbor:"bake,omitzero"`
}

// A Bake is over when both have passed: so many decisions in the whole ring, and
// so many seconds since its last node reported.
type Bake struct {
	Decisions uint64 `cbor:"decisions,omitempty"`
	Seconds   int64  `cbor:"seconds,omitempty"`
}

// IsZero reports whether there is nothing to wait for.
func (b Bake) IsZero() bool { return b == Bake{} }

// A Halt says when a rollout stops by itself and goes back. Zero members are the
// defaults, which Thresholds gives.
type Halt struct {
	// TrapsPerMillion of calls that ended without an answer.
	TrapsPerMillion uint64 `cbor:"traps_per_million,omitempty"`
	// DriftPerMillion of shadowed decisions whose verdict differs.
	DriftPerMillion uint64 `cbor:"drift_per_million,omitempty"`
	// LatencyMicros bounds the 99th percentile of deciding, in microseconds.
	LatencyMicros uint64 `cbor:"latency_micros,omitempty"`
	// DenyPerMillion of decisions that deny; 0 does not look at it.
	DenyPerMillion uint64 `cbor:"deny_per_million,omitempty"`
	// MinDecisions is how many are needed before a rate is believed.
	MinDecisions uint64 `cbor:"min_decisions,omitempty"`
}

// Thresholds returns h with the defaults in the place of zeros: traps 1 %, drift
// 10 %, latency 50 ms, 20 decisions. DenyPerMillion has none.
func (h Halt) Thresholds() Halt {
	set := func(v *uint64, otherwise uint64) {
		if *v == 0 {
			*v = otherwise
		}
	}
	set(&h.TrapsPerMillion, 10_000)
	set(&h.DriftPerMillion, 100_000)
	set(&h.LatencyMicros, 50_000)
	set(&h.MinDecisions, 20)
	return h
}

// RingOf returns the index of the node's ring in the release, or -1 when the
// release has rings and none takes the node; then the node takes the release when
// the rollout is complete. A release without rings has the index 0 for everybody.
func (r *Release) RingOf(node string, labels map[string]string) int {
	if len(r.Rings) == 0 {
		return 0
	}
	for i := range r.Rings {
		if r.Rings[i].takes(r.Tenant, node, labels) {
			return i
		}
	}
	return -1
}

func (g *Ring) takes(tenant, node string, labels map[string]string) bool {
	for name, value := range g.Labels {
		if labels[name] != value {
			return false
		}
	}
	sum := sha256.Sum256([]byte(tenant + "\x00" + g.Name + "\x00" + node))
	return binary.BigEndian.Uint64(sum[:])%100 < g.Percent
}

func checkRings(rings []Ring) error {
	if len(rings) > MaxRings {
		return fmt.Errorf("%d rings; at most %d", len(rings), MaxRings)
	}
	seen := map[string]bool{}
	for i := range rings {
		g := &rings[i]
		if err := first(checkToken("ring", g.Name, "-_"), checkLabels(g.Labels), g.Shadow.check(), g.Bake.check()); err != nil {
			return fmt.Errorf("ring %.80q: %w", g.Name, err)
		}
		switch {
		case seen[g.Name]:
			return fmt.Errorf("ring %q twice", g.Name)
		case g.Percent < 1 || g.Percent > 100:
			return fmt.Errorf("ring %q: %d percent; 1 to 100", g.Name, g.Percent)
		}
		seen[g.Name] = true
	}
	return nil
}

func (b Bake) check() error {
	if b.Seconds < 0 || b.Seconds > MaxLease || b.Decisions > 1<<40 {
		return fmt.Errorf("bake of %d decisions and %d seconds", b.Decisions, b.Seconds)
	}
	return nil
}
