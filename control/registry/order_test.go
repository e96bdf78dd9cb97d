package registry_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Objects come in any order, some of them twice and from two regions: what
// counts is the newest enrolment, the first storing, the first of two rivals.
func TestObjectsInAnyOrder(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 5, false)
	w.enrol("a", 4, true) // late
	if len(w.fleet.Enrolments()) != 1 || w.fleet.Enrolment("a").Serial != 5 {
		t.Errorf("enrolment %+v", w.fleet.Enrolment("a"))
	}
	stored := func(epoch uint64, text string, at time.Time) wire.Digest {
		r := &bundle.Release{Tenant: tenant, Epoch: epoch, Fallback: bundle.FallbackNone, Points: []bundle.Point{{
			Name: text, Durability: policy.Synced, Packages: []bundle.PackageRef{{Name: "p", Digest: wire.Sum([]byte("package")), Size: 1}},
		}}}
		env, err := bundle.SignRelease(r, w.keys[bundle.RoleAuthor], w.keys[bundle.RoleApprover])
		w.signed(env, err, at)
		w.signed(env, err, at.Add(time.Second)) // the other region, later
		s, err := w.root.ReopenRelease(env)
		w.check(err)
		return s.Digest
	}
	second := stored(2, "custom", began.Add(10*time.Second))
	if n := w.fleet.Equivocations(); len(n) != 0 {
		t.Errorf("equivocations %v", n)
	}
	first := stored(2, "tool", began.Add(5*time.Second))
	if got := w.fleet.Newest(); got.Digest != first || !got.Published.Equal(began.Add(5*time.Second)) || first == second {
		t.Errorf("newest is %v of %v", got.Digest, got.Published)
	}
	if n := w.fleet.Equivocations(); n[2] != 2 || len(n) != 1 {
		t.Errorf("equivocations %v", n)
	}
	stored(1, "custom", began.Add(20*time.Second))
	if w.fleet.Newest().Digest != first || w.fleet.Target().Digest != first {
		t.Error("an older epoch is the newest")
	}
	// The region that has it first, although it is read last.
	third := stored(3, "custom", began.Add(40*time.Second))
	if stored(3, "custom", began.Add(30*time.Second)) != third || !w.fleet.Newest().Published.Equal(began.Add(30*time.Second)) {
		t.Errorf("published %v", w.fleet.Newest().Published)
	}
}

// Of what two regions hold of a node the newest boot and serial counts, and its
// first receipt anywhere.
func TestNewestAttestation(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 1, false)
	d := w.publish(1, began)
	say := func(boot string, serial, epoch uint64, at time.Duration) registry.Stored {
		w.attest("a", began.Add(at), func(a *audit.Attestation) {
			a.Boot, a.Serial, a.Epoch, a.Release, a.Enforced = boot, serial, epoch, d, d
			a.Time = began.UnixNano()
		})
		return w.attestations["a"][0]
	}
	const old, young = "00000001-0000000000000009", "00000002-0000000000000001"
	a, b, c := say(old, 7, 1, time.Second), say(old, 8, 2, 0), say(young, 1, 3, 0)
	again := registry.Stored{Data: c.Data, At: c.At.Add(time.Second)}
	for _, order := range [][]registry.Stored{{a, b}, {b, a}} {
		w.attestations["a"] = order
		if n := w.view(began).Nodes[0]; n.Epoch != 2 {
			t.Errorf("epoch %d, want the higher serial's", n.Epoch)
		}
	}
	for _, order := range [][]registry.Stored{{a, b, c}, {c, b, a}, {again, c}, {c, again}} {
		w.attestations["a"] = order
		if n := w.view(began).Nodes[0]; n.Epoch != 3 || !n.Attested.Equal(c.At) {
			t.Errorf("epoch %d received %v, want the younger boot's first receipt", n.Epoch, n.Attested)
		}
	}
	// The first receipt of the activation, whichever region is read first; what
	// enforces something else is none.
	w.attest("a", began.Add(-time.Minute), enforcing(wire.Sum([]byte("else")), 1))
	other := w.attestations["a"][0]
	late := registry.Stored{Data: c.Data, At: began.Add(2 * time.Second)}
	for _, order := range [][]registry.Stored{{late, again, other}, {other, again, late}} {
		w.attestations["a"], w.activations["a"] = []registry.Stored{c}, order
		if v := w.view(began); v.InForce.WorstPropagation != 1000 || v.Nodes[0].Propagation != 1000 {
			t.Errorf("propagation %v ms", v.InForce.WorstPropagation)
		}
	}
}

// What a node enforces counts, not what it was given; and the numbers are in the
// units that their names say.
func TestNodeLines(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 1, false)
	w.enrol("b", 1, false)
	d := w.publish(1, began)
	w.attest("a", began, func(a *audit.Attestation) {
		a.Epoch, a.Release, a.Fallback, a.Enforced = 1, d, true, wire.Sum([]byte("before"))
		a.HeartbeatAge = int64(1500 * time.Millisecond)
	})
	w.expect(began, "0 of 2, away [b], other [a]")
	if n := w.view(began).Nodes[0]; n.HeartbeatAge != 1500 || !n.Fallback {
		t.Errorf("%+v", n)
	}
	if n := w.view(began).Nodes[1]; n.Region != "eu" {
		t.Errorf("a node that was never heard is of region %q", n.Region)
	}
	nodes := registry.Nodes(w.fleet.Attested(w.attestations, began))
	if len(nodes) != 2 || nodes[1].Labels["site"] != "lab" || nodes[0].Away || !nodes[1].Away || nodes[1].Name != "b" {
		t.Errorf("nodes of a rollout %+v", nodes)
	}
	// Away since just now: it has not confirmed a kill set that it knows.
	late := began.Add(7 * time.Second)
	if missing := w.view(late).NotConfirmed; len(missing) != 2 || missing[0].Node != "a" {
		t.Errorf("not confirmed %+v", missing)
	}
	w.attest("b", began, enforcing(d, 1))
	if by := w.view(late).Nodes[1].StopsBy; !by.Equal(began.Add(10*time.Minute + 3*registry.AttestEvery)) {
		t.Errorf("b stops by %v", by)
	}
}

// The bars of propagation hold every node once, in order.
func TestHistogram(t *testing.T) {
	w := newWorld(t)
	d := w.publish(1, began)
	for i, took := range []time.Duration{2 * time.Minute, 50 * time.Millisecond, 51 * time.Millisecond, 249 * time.Millisecond, 3 * time.Second} {
		node := fmt.Sprint("n", i)
		w.enrol(node, 1, false)
		w.attest(node, began.Add(2*time.Minute), enforcing(d, 1))
		w.activations[node] = []registry.Stored{{Data: w.attestations[node][0].Data, At: began.Add(took)}}
	}
	var got []string
	for _, b := range w.view(began.Add(2 * time.Minute)).InForce.Propagation {
		if b.Nodes > 0 {
			got = append(got, fmt.Sprintf("%d<=%v", b.Nodes, b.UpTo))
		}
	}
	if want := []string{"1<=50", "1<=100", "1<=250", "1<=5000", "1<=120000"}; !slices.Equal(got, want) {
		t.Errorf("bars %v, want %v", got, want)
	}
}

// A ring counts the nodes that are there and in its phase; a node that the
// release is not for is outside of every count.
func TestRingsAndOutside(t *testing.T) {
	w := newWorld(t)
	for _, node := range []string{"a", "b", "c"} {
		w.enrol(node, 1, false)
	}
	old := w.publish(1, began)
	next := w.publish(2, began, bundle.Ring{Name: "all", Percent: 100, Shadow: bundle.Bake{Decisions: 1}})
	rollout := func(serial uint64, phase string) registry.RingProgress {
		env, err := bundle.SignOrder(&bundle.Order{
			Tenant: tenant, Region: "eu", Epoch: 2, Release: next, Serial: serial, State: bundle.RolloutRunning, Rings: []string{phase}, Created: began.UnixNano(),
		}, w.keys[bundle.RoleHeartbeat])
		w.signed(env, err, began)
		return w.view(began).Rollout.Rings[0]
	}
	shadow := func(a *audit.Attestation) {
		a.Epoch, a.Release, a.Enforced, a.Candidate, a.Shadow.Decisions = 1, old, old, next, 5
	}
	w.attest("a", began, shadow)
	w.attest("b", began.Add(-time.Minute), shadow) // away
	w.attest("c", began, enforcing(old, 1))
	if r := rollout(1, bundle.PhaseShadow); r.Of != 3 || r.Nodes != 1 || r.Decisions != 5 {
		t.Errorf("in the shadow %+v", r)
	}
	if r := rollout(2, bundle.PhaseActive); r.Of != 3 || r.Nodes != 0 || r.Decisions != 0 {
		t.Errorf("active %+v", r)
	}
	env, err := bundle.SignRelease(&bundle.Release{
		Tenant: tenant, Epoch: 3, Fallback: bundle.FallbackNone, Audience: map[string]string{"site": "elsewhere"},
		Points: []bundle.Point{{Name: "custom", Durability: policy.Synced, Packages: []bundle.PackageRef{{Name: "p", Digest: wire.Sum([]byte("package")), Size: 1}}}},
	}, w.keys[bundle.RoleAuthor], w.keys[bundle.RoleApprover])
	w.signed(env, err, began)
	if v := w.view(began); len(v.InForce.Outside) != 3 || v.InForce.Of != 0 || len(v.InForce.Other)+len(v.InForce.Away) != 0 {
		t.Errorf("outside %+v", v.InForce)
	}
}
