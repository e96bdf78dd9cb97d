package guard

import (
	"fmt"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// CodeKilled is the reason code of a denial by a kill.
const CodeKilled = "killed"

// Kills are the kills in force, by what they stop. They never change; a node
// swaps them whole. A nil *Kills stops nothing.
type Kills struct {
	all       *Kill
	points    map[string]*Kill
	subjects  map[string]*Kill // by id and by type:id
	resources map[string]*Kill
	policies  map[wire.Digest]*Kill
}

// A Kill is what stopped a request.
type Kill struct {
	Digest wire.Digest
	Scope  bundle.Scope
	Reason string
}

// NewKills returns the index of the kills in force, nil when there are none. Of
// two kills of one scope the first one counts.
func NewKills(active []*bundle.SignedKill) *Kills {
	if len(active) == 0 {
		return nil
	}
	k := &Kills{points: map[string]*Kill{}, subjects: map[string]*Kill{}, resources: map[string]*Kill{}, policies: map[wire.Digest]*Kill{}}
	for _, signed := range active {
		k.add(signed)
	}
	return k
}

func (k *Kills) add(signed *bundle.SignedKill) {
	one := &Kill{Digest: signed.Digest, Scope: signed.Scope, Reason: signed.Reason}
	kind, name, err := signed.Scope.Split()
	if err != nil { // no verified kill has such a scope; whatever it meant, it stops
		kind = bundle.ScopeAll
	}
	switch kind {
	case bundle.ScopePoint:
		keepFirst(k.points, name, one)
	case bundle.ScopeSubject:
		keepFirst(k.subjects, name, one)
	case bundle.ScopeResource:
		keepFirst(k.resources, name, one)
	case bundle.ScopePolicy:
		if d, err := wire.ParseDigest("sha256:" + name); err == nil {
			keepFirst(k.policies, d, one)
		}
	default:
		if k.all == nil {
			k.all = one
		}
	}
}

func keepFirst[K comparable](m map[K]*Kill, key K, k *Kill) {
	if m[key] == nil {
		m[key] = k
	}
}

// Stops returns the kill that stops the request at its point, whose packages are
// given, or nil. The point agent.stop is exempt: an agent can always be stopped.
func (k *Kills) Stops(req *policy.Request, packages []wire.Digest) *Kill {
	if k == nil || req.Point == policy.PointAgentStop {
		return nil
	}
	if k.all != nil {
		return k.all
	}
	if len(k.points) > 0 {
		if hit := k.points[req.Point]; hit != nil {
			return hit
		}
	}
	if hit := named(k.subjects, &req.Subject); hit != nil {
		return hit
	}
	if hit := named(k.resources, &req.Resource); hit != nil {
		return hit
	}
	if len(k.policies) > 0 {
		for _, d := range packages {
			if hit := k.policies[d]; hit != nil {
				return hit
			}
		}
	}
	return nil
}

// named finds an entity by its id, or by its type, a colon and its id.
func named(m map[string]*Kill, e *policy.Entity) *Kill {
	if len(m) == 0 || e.ID == "" {
		return nil
	}
	if hit := m[e.ID]; hit != nil {
		return hit
	}
	var buffer [128]byte
	full := append(append(append(buffer[:0], e.Type...), ':'), e.ID...)
	return m[string(full)]
}

// Decision is the denial of what the kill stops.
func (k *Kill) Decision() policy.Decision {
	return policy.Decision{Reasons: []policy.Reason{{
		Code: CodeKilled, Text: fmt.Sprintf("stopped by kill %.12s of %s: %s", k.Digest.Hex(), k.Scope, k.Reason),
	}}}
}
