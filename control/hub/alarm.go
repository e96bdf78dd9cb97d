package hub

import (
	"fmt"
	"time"

	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// The kinds of alarms.
const (
	AlarmAway       = "node_away"       // an enrolled node is not heard
	AlarmDistrusted = "node_distrusted" // what a node says does not verify
	AlarmFallback   = "node_fallback"   // a node stepped back by itself
	AlarmVectors    = "vectors_failed"
	AlarmSecond     = "second_engine_disagreed"
	AlarmStale      = "node_stale"
	AlarmRefused    = "release_refused" // a node does not take the newest release
	AlarmHalted     = "rollout_halted"
	AlarmFell       = "epoch_fell"   // a node is below an epoch that it has attested
	AlarmLedger     = "ledger"       // records are missing, or contradict what was signed
	AlarmEquivocate = "equivocation" // two releases were signed for one epoch
)

// An Alarm is something that people should look at. It is raised once, and
// resolved once it no longer holds. A server that takes over raises again what
// holds: its ID is the same.
type Alarm struct {
	ID       string    `json:"id"` // kind/node, or kind/epoch
	Kind     string    `json:"kind"`
	Tenant   string    `json:"tenant"`
	Region   string    `json:"region"` // whose hub raises it
	Node     string    `json:"node,omitempty"`
	Epoch    uint64    `json:"epoch,omitempty"`
	Text     string    `json:"text"`
	At       time.Time `json:"at"`
	Resolved bool      `json:"resolved"`
}

// alarms compares what should be raised with what is.
func (h *Hub) alarms(now time.Time) {
	h.mu.Lock()
	attested := h.fleet.Attested(h.attestations, now)
	holding := alarms(h.fleet, attested, now)
	for _, n := range attested {
		if proven := h.fleet.Proven(n.Node, h.activations[n.Node.Node]); !n.Away && n.Attestation.Epoch < proven {
			id := AlarmFell + "/" + n.Node.Node
			holding[id] = Alarm{ID: id, Kind: AlarmFell, Node: n.Node.Node, Epoch: n.Attestation.Epoch, Text: fmt.Sprintf(
				"is at epoch %d and was at %d: its folder was set back", n.Attestation.Epoch, proven)}
		}
	}
	h.mu.Unlock()
	for id, a := range holding {
		if _, is := h.raised[id]; is {
			continue
		}
		h.raised[id] = a
		h.tell(a, now)
	}
	for id, a := range h.raised {
		if _, holds := holding[id]; !holds {
			delete(h.raised, id)
			a.Resolved = true
			h.tell(a, now)
		}
	}
}

func (h *Hub) tell(a Alarm, now time.Time) {
	a.Tenant, a.Region, a.At = h.cfg.Tenant, h.cfg.Region, now.UTC()
	h.cfg.Log.Warn("alarm", "kind", a.Kind, "node", a.Node, "epoch", a.Epoch, "text", a.Text, "resolved", a.Resolved)
	if h.cfg.Alarm != nil {
		h.cfg.Alarm(a)
	}
}

// firstWord is how long a node that was enrolled may take to be heard.
const firstWord = 5 * time.Minute

// alarms are all that hold now, by ID.
func alarms(f *registry.Fleet, attested []registry.Attested, now time.Time) map[string]Alarm {
	out := map[string]Alarm{}
	raise := func(kind, node string, epoch uint64, format string, args ...any) {
		id := kind + "/" + node
		if node == "" {
			id = fmt.Sprintf("%s/%d", kind, epoch)
		}
		out[id] = Alarm{ID: id, Kind: kind, Node: node, Epoch: epoch, Text: fmt.Sprintf(format, args...)}
	}
	newest := f.Newest()
	for _, n := range attested {
		name, a := n.Node.Node, n.Attestation
		if n.Distrusted != "" {
			raise(AlarmDistrusted, name, 0, "%s", n.Distrusted)
		}
		if n.Away && n.At.IsZero() && now.Sub(time.Unix(0, n.Node.Created)) < firstWord {
			continue // it has just been enrolled
		}
		if n.Away {
			raise(AlarmAway, name, 0, "not heard since %s", since(n.At))
			continue
		}
		if a.Fallback {
			raise(AlarmFallback, name, a.Epoch, "stepped back from epoch %d", a.Epoch)
		}
		if a.Vectors.Failed > 0 {
			raise(AlarmVectors, name, a.Epoch, "%d golden vectors failed", a.Vectors.Failed)
		}
		if a.Second.Disagreed > 0 {
			raise(AlarmSecond, name, a.Epoch, "the second engine disagreed on %d of %d decisions", a.Second.Disagreed, a.Second.Samples)
		}
		if a.Staleness == "stale" && !a.Enforced.IsZero() {
			raise(AlarmStale, name, 0, "has heard no heartbeat for its lease")
		}
		if a.Refused != "" && newest != nil && a.Epoch < newest.Epoch {
			raise(AlarmRefused, name, newest.Epoch, "%s", a.Refused)
		}
	}
	if newest != nil {
		if o := f.Order(newest.Digest); o != nil && o.State == bundle.RolloutHalted {
			raise(AlarmHalted, "", newest.Epoch, "%s", o.Reason)
		}
	}
	for epoch, n := range f.Equivocations() {
		raise(AlarmEquivocate, "", epoch, "%d releases are signed for this epoch", n)
	}
	return out
}

func since(at time.Time) string {
	if at.IsZero() {
		return "it was enrolled"
	}
	return at.UTC().Format(time.RFC3339)
}
