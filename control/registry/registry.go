// Package registry computes what is in force in a fleet from what hubs have
// stored: releases, orders, enrolments and attestations. It is pure, and it
// believes only what verifies: an attestation counts while the key of the node's
// newest enrolment signed it and it is young.
package registry

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/control/rollout"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// AttestEvery is how often a node attests when nothing happens. A node whose
// newest attestation is older than three of them is away.
const AttestEvery = 2 * time.Second

// awayAfter is how old an attestation may be and still count.
const awayAfter = 3 * AttestEvery

// clockSlack is how far a node's clock may be from the hub's. An attestation
// whose own time is further from its receipt counts for nothing: whoever stole a
// node's credentials, but not its log key, could send an old one again for ever.
const clockSlack = time.Minute

// A Stored is something that a hub holds, with the time of its receipt.
type Stored struct {
	Data []byte
	At   time.Time
}

// A Fleet is all that was read, verified. The zero value is empty. It is not
// safe for concurrent use.
type Fleet struct {
	root       *bundle.TrustRoot
	releases   map[wire.Digest]*Release
	orders     map[wire.Digest]*bundle.SignedOrder // newest of each release
	enrolments map[string]*bundle.SignedEnrolment  // newest of each node
	kills      *bundle.KillSet
	data       dataDocuments
	opened     map[opening]*audit.Attestation // what verified, so that it is done once
}

// An opening is a message and the enrolment whose key it was held against.
type opening struct{ message, enrolment wire.Digest }

// maxOpened bounds what is remembered of messages that verified.
const maxOpened = 1 << 14

// A Release is a verified release and when the hub stored it.
type Release struct {
	*bundle.SignedRelease
	Published time.Time
}

// NewFleet returns an empty fleet that believes what root names.
func NewFleet(root *bundle.TrustRoot) *Fleet {
	return &Fleet{
		root: root, releases: map[wire.Digest]*Release{}, orders: map[wire.Digest]*bundle.SignedOrder{},
		enrolments: map[string]*bundle.SignedEnrolment{}, kills: &bundle.KillSet{},
		opened: map[opening]*audit.Attestation{},
	}
}

// Root is the newest trust root that was added.
func (f *Fleet) Root() *bundle.TrustRoot { return f.root }

// Kills is the set of all kills and lifts that were added.
func (f *Fleet) Kills() *bundle.KillSet { return f.kills }

// Add verifies a signed object and takes it into account; the error says why
// not. What is older than what is there changes nothing. Objects may come in any
// order, but a release is judged by the trust root that is newest when it comes.
func (f *Fleet) Add(envelope []byte, at time.Time) error {
	switch bundle.Type(envelope) {
	case bundle.TrustRootType:
		next, err := f.root.OpenNext(envelope)
		if err == nil {
			f.root = next
		}
		return err
	case bundle.ReleaseType:
		r, err := f.root.ReopenRelease(envelope)
		if err == nil && (f.releases[r.Digest] == nil || at.Before(f.releases[r.Digest].Published)) {
			f.releases[r.Digest] = &Release{r, at}
		}
		return err
	case bundle.OrderType:
		o, err := f.root.OpenOrder(envelope)
		if err == nil && (f.orders[o.Release] == nil || f.orders[o.Release].Serial < o.Serial) {
			f.orders[o.Release] = o
		}
		return err
	case bundle.EnrolmentType:
		e, err := f.root.OpenEnrolment(envelope)
		if err == nil && (f.enrolments[e.Node] == nil || f.enrolments[e.Node].Serial < e.Serial) {
			f.enrolments[e.Node] = e
		}
		return err
	case bundle.KillType:
		k, err := f.root.OpenKill(envelope)
		if err == nil {
			_, err = f.kills.AddKill(k)
		}
		return err
	case bundle.LiftType:
		l, err := f.root.OpenLift(envelope)
		if err == nil {
			_, err = f.kills.AddLift(l)
		}
		return err
	}
	return f.data.add(f.root, envelope)
}

// Newest returns the release with the highest epoch, nil when there is none. Of
// two releases with one epoch, which is evidence against their signers, it is
// the one that was stored first.
func (f *Fleet) Newest() *Release {
	var newest *Release
	for _, r := range f.releases {
		if newest == nil || newer(r, newest) {
			newest = r
		}
	}
	return newest
}

func newer(a, b *Release) bool {
	if c := cmp.Compare(a.Epoch, b.Epoch); c != 0 {
		return c > 0
	}
	return a.Published.Before(b.Published)
}

// Releases returns every release, oldest epoch first.
func (f *Fleet) Releases() []*Release {
	return slices.SortedFunc(maps.Values(f.releases), func(a, b *Release) int { return cmp.Compare(a.Epoch, b.Epoch) })
}

// Order returns the newest order of a release, nil when there is none.
func (f *Fleet) Order(release wire.Digest) *bundle.SignedOrder { return f.orders[release] }

// Target returns the release that everybody should have in force: the newest
// one that is taken at once or whose rollout is complete.
func (f *Fleet) Target() *Release {
	var target *Release
	for _, r := range f.releases {
		o := f.orders[r.Digest]
		if len(r.Rings) > 0 && (o == nil || o.State != bundle.RolloutComplete) {
			continue
		}
		if target == nil || newer(r, target) {
			target = r
		}
	}
	return target
}

// Enrolments returns the newest enrolment of each node that is not retired, by name.
func (f *Fleet) Enrolments() []*bundle.SignedEnrolment {
	var out []*bundle.SignedEnrolment
	for _, name := range slices.Sorted(maps.Keys(f.enrolments)) {
		if e := f.enrolments[name]; !e.Retired {
			out = append(out, e)
		}
	}
	return out
}

// Enrolment returns a node's newest enrolment, retired or not; nil for none.
func (f *Fleet) Enrolment(node string) *bundle.SignedEnrolment { return f.enrolments[node] }

// An Attested is a node with its newest attestation that verified.
type Attested struct {
	Node        *bundle.SignedEnrolment
	Attestation *audit.Attestation // nil: none verified
	At          time.Time          // its receipt by a hub
	Away        bool               // none, or too old to count
	// Distrusted says why the newest thing on the node's subject does not count.
	Distrusted string
}

// Attested matches attestations, by node, with enrolments. Each node may have
// several, from several regions: the newest that verifies counts.
func (f *Fleet) Attested(attestations map[string][]Stored, now time.Time) []Attested {
	var out []Attested
	for _, e := range f.Enrolments() {
		n := Attested{Node: e, Away: true}
		var distrusted time.Time
		for _, s := range attestations[e.Node] {
			a, err := f.open(s.Data, e)
			if err != nil {
				n.Distrusted, distrusted = err.Error(), later(distrusted, s.At)
				continue
			}
			if d := s.At.Sub(time.Unix(0, a.Time)).Round(time.Second); d.Abs() > clockSlack {
				n.Distrusted = fmt.Sprintf("said %s, by the node's clock, before a hub received it: somebody sent it again, or a clock is wrong", d)
				continue
			}
			if n.Attestation == nil || fresher(a, s.At, &n) {
				n.Attestation, n.At = a, s.At
			}
		}
		n.Away = n.Attestation == nil || now.Sub(n.At) > awayAfter
		if distrusted.Before(n.At) {
			n.Distrusted = "" // what a region kept of the time before
		}
		out = append(out, n)
	}
	return out
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// fresher orders attestations by boot, whose counter leads its name, and serial.
func fresher(a *audit.Attestation, at time.Time, than *Attested) bool {
	if c := strings.Compare(a.Boot, than.Attestation.Boot); c != 0 {
		return c > 0
	}
	if a.Serial != than.Attestation.Serial {
		return a.Serial > than.Attestation.Serial
	}
	return at.Before(than.At) // the same one: its first receipt anywhere
}

// Nodes are the attested nodes as a rollout wants them.
func Nodes(attested []Attested) []rollout.Node {
	out := make([]rollout.Node, len(attested))
	for i, a := range attested {
		out[i] = rollout.Node{Name: a.Node.Node, Labels: a.Node.Labels, Attestation: a.Attestation, Away: a.Away}
	}
	return out
}

// open verifies an attestation, once.
func (f *Fleet) open(msg []byte, e *bundle.SignedEnrolment) (*audit.Attestation, error) {
	key := opening{wire.Sum(msg), e.Digest}
	if a := f.opened[key]; a != nil {
		return a, nil
	}
	a, err := audit.OpenAttestation(msg, e.Key)
	if err != nil {
		return nil, err
	}
	if len(f.opened) >= maxOpened {
		clear(f.opened)
	}
	f.opened[key] = a
	return a, nil
}

// Proven returns the highest epoch that a node has once attested to be in force,
// of its first attestations by epoch; 0 for none. Only what the key of its
// enrolment signed counts.
func (f *Fleet) Proven(e *bundle.SignedEnrolment, first map[uint64][]Stored) (highest uint64) {
	for epoch, stored := range first {
		for _, s := range stored {
			if a, err := f.open(s.Data, e); epoch > highest && err == nil && a.Epoch == epoch {
				highest = epoch
			}
		}
	}
	return highest
}

// Equivocations are the epochs for which more than one release is signed, with
// their number.
func (f *Fleet) Equivocations() map[uint64]int {
	n := map[uint64]int{}
	for _, r := range f.releases {
		n[r.Epoch]++
	}
	maps.DeleteFunc(n, func(_ uint64, n int) bool { return n < 2 })
	return n
}
