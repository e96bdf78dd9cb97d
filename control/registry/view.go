package registry

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A View is what `holdfast fleet` shows.
type View struct {
	InForce InForce   `json:"in_force"`
	Rollout *Progress `json:"rollout,omitempty"`
	Nodes   []Node    `json:"nodes"`
	// Kills are the scopes that are stopped.
	Kills []Kill `json:"kills"`
	// NotConfirmed are the nodes that do not attest the very kill set - kills and
	// lifts - that the regions hold.
	NotConfirmed []NotConfirmed `json:"not_confirmed"`
}

// InForce is the sentence: release R, epoch E, in force on N of M nodes since T.
type InForce struct {
	Epoch uint64 `json:"epoch"`
	// Digest of the release; "" while there is none.
	Digest string `json:"digest"`
	// Nodes enforce it by their own young, verified word; Of are enrolled and not retired.
	Nodes int `json:"nodes"`
	Of    int `json:"of"`
	// Since is when a hub received the last of their first attestations.
	Since time.Time `json:"since,omitzero"`
	// WorstPropagation is from the hub's storing of the release to its receipt of
	// a node's first attestation, in milliseconds, over the nodes counted that were
	// enrolled by then; -1 when no such attestation is stored.
	WorstPropagation float64     `json:"worst_propagation_ms"`
	Propagation      []Propagate `json:"propagation,omitempty"`
	// Away are enrolled nodes that were not heard lately, Other those that enforce
	// something else.
	Away  []string `json:"away"`
	Other []string `json:"other"`
	// Outside are enrolled nodes that the release is not for; they are not among Of.
	Outside []string `json:"outside,omitempty"`
}

// Propagate is one bar of the histogram of propagation.
type Propagate struct {
	UpTo  float64 `json:"up_to_ms"`
	Nodes int     `json:"nodes"`
}

// Node is one line of the fleet.
type Node struct {
	Name     string            `json:"name"`
	Region   string            `json:"region,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Epoch    uint64            `json:"epoch"`
	Digest   string            `json:"digest"` // of what decides
	Fallback bool              `json:"fallback,omitempty"`
	Ring     string            `json:"ring,omitempty"`
	Since    time.Time         `json:"since,omitzero"` // by the node's clock
	// Propagation is from the hub's storing of the release that should be in force
	// to its receipt of the node's first attestation of it, in milliseconds; -1
	// when that is not known. Timing says what the node did meanwhile.
	Propagation  float64         `json:"propagation_ms"`
	Timing       Timing          `json:"timing,omitzero"`
	HeartbeatAge float64         `json:"heartbeat_age_ms"`
	Staleness    string          `json:"staleness"`
	Journal      Journal         `json:"journal"`
	Vectors      audit.VectorRun `json:"vectors"`
	Second       audit.SecondRun `json:"second_engine"`
	KillCount    uint64          `json:"kills"`
	Binary       string          `json:"binary,omitempty"`
	Attested     time.Time       `json:"attested,omitzero"` // the hub's receipt
	Away         bool            `json:"away"`
	// StopsBy is when the node, away, falls to on_stale at the latest: its last
	// attestation and the longest lease of the release in force.
	StopsBy    time.Time `json:"stops_by,omitzero"`
	Refused    string    `json:"refused,omitempty"`
	Distrusted string    `json:"distrusted,omitempty"`
}

// Timing is what a node says of how its release came into force, in milliseconds:
// from the hub's storing to the node's receipt, by both clocks; fetching the
// packages; admitting and testing them; ratchet, record and swap.
type Timing struct {
	Transport float64 `json:"transport_ms"`
	Fetch     float64 `json:"fetch_ms"`
	Admit     float64 `json:"admit_ms"`
	Swap      float64 `json:"swap_ms"`
	// InForce is from the hub's storing to the activation, by both clocks. What
	// propagation_ms has beyond it is the attestation's way.
	InForce float64 `json:"in_force_ms"`
}

// Journal is where a node's records are.
type Journal struct {
	Boot     string `json:"boot,omitempty"`
	Seq      uint64 `json:"seq"`
	Shipped  uint64 `json:"shipped"`
	Cosigned uint64 `json:"cosigned"`
}

// Kill is one kill that is not lifted.
type Kill struct {
	Digest  string       `json:"digest"`
	Scope   bundle.Scope `json:"scope"`
	Reason  string       `json:"reason"`
	By      []string     `json:"by"`
	Created time.Time    `json:"created"`
	// Confirmed are the nodes whose attested kill set is the very one that the
	// regions hold; NotConfirmed the others.
	Confirmed    int            `json:"confirmed"`
	NotConfirmed []NotConfirmed `json:"not_confirmed"`
}

// NotConfirmed is a node that has not said that it obeys, and when it stops by
// itself; zero when that is not known, or when it will not.
type NotConfirmed struct {
	Node    string    `json:"node"`
	StopsBy time.Time `json:"stops_by,omitzero"`
}

// Progress is where a rollout stands.
type Progress struct {
	Epoch  uint64         `json:"epoch"`
	Digest string         `json:"digest"`
	State  string         `json:"state"`
	Reason string         `json:"reason"`
	Serial uint64         `json:"serial"`
	Since  time.Time      `json:"since"`
	Leader string         `json:"leader"`
	Rings  []RingProgress `json:"rings"`
}

// RingProgress is one ring of a rollout.
type RingProgress struct {
	Name      string `json:"name"`
	Phase     string `json:"phase"`
	Nodes     int    `json:"nodes"` // that report the phase
	Of        int    `json:"of"`    // of the ring
	Decisions uint64 `json:"decisions"`
	Traps     uint64 `json:"traps"`
	Differ    uint64 `json:"differ"`
}

// View computes what is in force. attestations are the newest of each node,
// activations the first ones of the target's epoch, both by node.
func (f *Fleet) View(attestations, activations map[string][]Stored, now time.Time) View {
	attested := f.Attested(attestations, now)
	v := View{InForce: InForce{WorstPropagation: -1, Away: []string{}, Other: []string{}}, Nodes: []Node{}}
	target := f.Target()
	if target != nil {
		v.InForce.Epoch, v.InForce.Digest = target.Epoch, target.Digest.String()
	}
	var took []time.Duration
	for i := range attested {
		a := &attested[i]
		v.Nodes = append(v.Nodes, f.node(a))
		if target != nil && target.For(a.Node.Labels) != nil {
			v.InForce.Outside = append(v.InForce.Outside, a.Node.Node)
			continue
		}
		v.InForce.Of++
		switch {
		case a.Away:
			v.InForce.Away = append(v.InForce.Away, a.Node.Node)
		case target == nil || a.Attestation.Enforced != target.Digest:
			v.InForce.Other = append(v.InForce.Other, a.Node.Node)
		default:
			v.InForce.Nodes++
			at := f.activated(a.Node, target, activations[a.Node.Node])
			if at.After(v.InForce.Since) {
				v.InForce.Since = at
			}
			if !at.IsZero() && a.Node.Created <= target.Published.UnixNano() {
				d := at.Sub(target.Published)
				took = append(took, d)
				v.Nodes[i].propagated(d, target, a.Attestation)
			}
		}
	}
	v.InForce.propagation(took)
	v.Rollout = f.progress(attested)
	v.Kills = f.killView(attested)
	v.NotConfirmed, _ = f.notConfirmed(attested)
	return v
}

func (n *Node) propagated(d time.Duration, target *Release, a *audit.Attestation) {
	published := target.Published.UnixNano()
	n.Propagation = float64(d) / 1e6
	n.Timing = Timing{
		Transport: float64(a.Timing.Received-published) / 1e6, Fetch: float64(a.Timing.Fetch) / 1e6, Admit: float64(a.Timing.Admit) / 1e6,
		Swap: float64(a.Timing.Swap) / 1e6, InForce: float64(a.Activated-published) / 1e6,
	}
}

// activated is when a hub first received the node's word that the release is in force.
func (f *Fleet) activated(e *bundle.SignedEnrolment, target *Release, stored []Stored) (first time.Time) {
	for _, s := range stored {
		a, err := f.open(s.Data, e)
		if err == nil && a.Enforced == target.Digest && (first.IsZero() || s.At.Before(first)) {
			first = s.At
		}
	}
	return first
}

func (f *Fleet) node(a *Attested) Node {
	n := Node{Name: a.Node.Node, Region: a.Node.Labels["region"], Labels: a.Node.Labels, Away: a.Away, Attested: a.At, Distrusted: a.Distrusted, HeartbeatAge: -1, Propagation: -1}
	t := a.Attestation
	if t == nil {
		return n
	}
	n.Epoch, n.Fallback, n.Ring, n.Staleness, n.Refused = t.Epoch, t.Fallback, t.Ring, t.Staleness, t.Refused
	n.Vectors, n.Second, n.KillCount = t.Vectors, t.Second, t.KillCount
	n.Journal = Journal{Boot: t.Boot, Seq: t.Journal}
	if !t.Enforced.IsZero() {
		n.Digest = t.Enforced.String()
	}
	if !t.Binary.IsZero() {
		n.Binary = t.Binary.String()
	}
	if t.Activated != 0 {
		n.Since = time.Unix(0, t.Activated).UTC()
	}
	if t.HeartbeatAge >= 0 {
		n.HeartbeatAge = float64(t.HeartbeatAge) / 1e6
	}
	if a.Away {
		n.StopsBy = f.stopsBy(a)
	}
	return n
}

// stopsBy is when a node that hears nothing has stopped by itself: what it heard
// last, and the longest lease of what it enforces. Zero when that is not known.
func (f *Fleet) stopsBy(a *Attested) time.Time {
	r := f.releases[a.Attestation.Enforced]
	if r == nil || a.Attestation.HeartbeatAge < 0 {
		return time.Time{}
	}
	var longest time.Duration
	for i := range r.Points {
		longest = max(longest, r.Points[i].Lease())
	}
	// The attestation may have been sent long after it heard a heartbeat, or a
	// heartbeat may have reached it after the attestation: the hub's receipt bounds both.
	return a.At.Add(longest + awayAfter).UTC()
}

// buckets bound the bars of the histogram of propagation.
var buckets = [...]time.Duration{
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, time.Minute,
}

func (f *InForce) propagation(took []time.Duration) {
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	f.WorstPropagation = float64(took[len(took)-1]) / 1e6
	i := 0
	for _, bound := range buckets {
		n := 0
		for ; i < len(took) && took[i] <= bound; i++ {
			n++
		}
		f.Propagation = append(f.Propagation, Propagate{float64(bound) / 1e6, n})
	}
	if i < len(took) {
		f.Propagation = append(f.Propagation, Propagate{f.WorstPropagation, len(took) - i})
	}
}

// progress describes the rollout of the newest release, nil when it has no rings.
func (f *Fleet) progress(attested []Attested) *Progress {
	r := f.Newest()
	if r == nil || len(r.Rings) == 0 {
		return nil
	}
	p := &Progress{Epoch: r.Epoch, Digest: r.Digest.String(), State: "not begun", Since: r.Published.UTC()}
	o := f.orders[r.Digest]
	if o != nil {
		p.State, p.Reason, p.Serial, p.Leader, p.Since = o.State, o.Reason, o.Serial, o.Leader, time.Unix(0, o.Created).UTC()
	}
	for i, g := range r.Rings {
		p.Rings = append(p.Rings, RingProgress{Name: g.Name, Phase: bundle.PhaseWaiting})
		if o != nil {
			p.Rings[i].Phase = o.Phase(i)
		}
	}
	for _, a := range attested {
		if i := r.RingOf(a.Node.Node, a.Node.Labels); i >= 0 && r.For(a.Node.Labels) == nil {
			p.Rings[i].count(r.Digest, &a)
		}
	}
	return p
}

func (r *RingProgress) count(release wire.Digest, a *Attested) {
	r.Of++
	if a.Attestation == nil || a.Away {
		return
	}
	seen := a.Attestation.Live
	switch {
	case a.Attestation.Enforced == release:
	case a.Attestation.Candidate == release && r.Phase == bundle.PhaseShadow:
		seen = a.Attestation.Shadow
	default:
		return
	}
	r.Nodes++
	r.Decisions, r.Traps, r.Differ = r.Decisions+seen.Decisions, r.Traps+seen.Traps, r.Differ+seen.Differ
}

func (f *Fleet) killView(attested []Attested) []Kill {
	missing, confirmed := f.notConfirmed(attested)
	kills := []Kill{}
	for _, k := range f.kills.Active() {
		kills = append(kills, Kill{
			Digest: k.Digest.String(), Scope: k.Scope, Reason: k.Reason, By: k.Persons,
			Created: time.Unix(0, k.Created).UTC(), Confirmed: confirmed, NotConfirmed: missing,
		})
	}
	return kills
}

// notConfirmed are the nodes whose kill set is another one than the regions', or
// not known, and the number of the others.
func (f *Fleet) notConfirmed(attested []Attested) (missing []NotConfirmed, confirmed int) {
	digest := f.kills.Digest()
	missing = []NotConfirmed{}
	for i := range attested {
		a := &attested[i]
		if !a.Away && a.Attestation.Kills == digest {
			confirmed++
			continue
		}
		n := NotConfirmed{Node: a.Node.Node}
		// A node that is heard stops by itself only while heartbeats renew no lease of
		// it: when it knows of fewer kills than they do.
		if a.Attestation != nil && (a.Away || a.Attestation.KillCount < uint64(f.kills.Len())) {
			n.StopsBy = f.stopsBy(a)
		}
		missing = append(missing, n)
	}
	return missing, confirmed
}

// Sentence is the line that says what is in force.
func (f InForce) Sentence() string {
	if f.Digest == "" {
		return fmt.Sprintf("no release is in force; %d nodes are enrolled", f.Of)
	}
	s := fmt.Sprintf("release %s, epoch %d, in force on %d of %d nodes", f.Digest[:len("sha256:")+12], f.Epoch, f.Nodes, f.Of)
	if !f.Since.IsZero() {
		s += " since " + f.Since.UTC().Format(time.RFC3339)
	}
	if f.WorstPropagation >= 0 {
		s += fmt.Sprintf("; worst propagation %.3f s", f.WorstPropagation/1e3)
	}
	return s
}
