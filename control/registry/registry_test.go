package registry_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const tenant = "demo"

var began = time.Unix(1_800_000_000, 0)

// world is a fleet with keys of its own.
type world struct {
	t            *testing.T
	keys         map[bundle.Role]*bundle.PrivateKey
	root         *bundle.TrustRoot
	fleet        *registry.Fleet
	logs         map[string]note.Signer
	attestations map[string][]registry.Stored
	activations  map[string][]registry.Stored
	serial       uint64
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, keys: map[bundle.Role]*bundle.PrivateKey{}, logs: map[string]note.Signer{},
		attestations: map[string][]registry.Stored{}, activations: map[string][]registry.Stored{},
	}
	var public []bundle.Key
	for role, person := range map[bundle.Role]string{
		bundle.RoleRoot: "ruth", bundle.RoleAuthor: "ann", bundle.RoleApprover: "bob",
		bundle.RoleHeartbeat: "eu", bundle.RoleEnrol: "eve", bundle.RoleKill: "kim",
	} {
		k, err := bundle.GenerateKey(role, person)
		w.check(err)
		w.keys[role] = k
		public = append(public, k.Key)
	}
	w.root = bundle.NewTrustRoot(tenant, time.Now().Add(time.Hour), public...)
	w.fleet = registry.NewFleet(w.root)
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// signed adds what signing gave.
func (w *world) signed(envelope []byte, err error, at time.Time) {
	w.t.Helper()
	w.check(err)
	w.check(w.fleet.Add(envelope, at))
}

func (w *world) enrol(node string, serial uint64, retired bool) {
	secret, vkey, err := note.GenerateKey(rand.Reader, audit.NodeKeyName(tenant, node))
	w.check(err)
	w.logs[node], err = note.NewSigner(secret)
	w.check(err)
	env, err := bundle.SignEnrolment(&bundle.Enrolment{
		Tenant: tenant, Node: node, Serial: serial, LogKey: vkey, Labels: map[string]string{"site": "lab", "region": "eu"}, Created: began.UnixNano(), Retired: retired,
	}, w.keys[bundle.RoleEnrol])
	w.signed(env, err, began)
}

func (w *world) publish(epoch uint64, at time.Time, rings ...bundle.Ring) wire.Digest {
	r := &bundle.Release{
		Tenant: tenant, Epoch: epoch, Fallback: bundle.FallbackNone, Rings: rings,
		Points: []bundle.Point{{
			Name: "custom", Durability: policy.Synced, LeaseSeconds: 600,
			Packages: []bundle.PackageRef{{Name: "p", Digest: wire.Sum([]byte("package")), Size: 1}},
		}},
	}
	env, err := bundle.SignRelease(r, w.keys[bundle.RoleAuthor], w.keys[bundle.RoleApprover])
	w.signed(env, err, at)
	return w.fleet.Newest().Digest
}

func (w *world) attest(node string, at time.Time, change func(*audit.Attestation)) {
	w.serial++
	a := &audit.Attestation{
		Tenant: tenant, Node: node, Boot: "00000001-0000000000000001", Serial: w.serial, Time: at.UnixNano(),
		Kills: w.fleet.Kills().Digest(), Staleness: "fresh", HeartbeatAge: int64(time.Second),
	}
	change(a)
	msg, err := audit.SignAttestation(a, w.logs[node])
	w.check(err)
	w.attestations[node] = []registry.Stored{{Data: msg, At: at}}
	if w.activations[node] == nil && !a.Enforced.IsZero() {
		w.activations[node] = w.attestations[node]
	}
}

func enforcing(d wire.Digest, epoch uint64) func(*audit.Attestation) {
	return func(a *audit.Attestation) { a.Epoch, a.Release, a.Enforced = epoch, d, d }
}

func (w *world) view(now time.Time) registry.View {
	return w.fleet.View(w.attestations, w.activations, now)
}

// count is who is counted, and who is not and why.
func count(v registry.View) string {
	return fmt.Sprintf("%d of %d, away %v, other %v", v.InForce.Nodes, v.InForce.Of, v.InForce.Away, v.InForce.Other)
}

func (w *world) expect(now time.Time, want string) {
	w.t.Helper()
	if got := count(w.view(now)); got != want {
		w.t.Errorf("in force on %s; want %s", got, want)
	}
}

func TestWhoIsCounted(t *testing.T) {
	w := newWorld(t)
	for _, node := range []string{"a", "b", "c"} {
		w.enrol(node, 1, false)
	}
	d := w.publish(1, began)
	w.expect(began, "0 of 3, away [a b c], other []")
	for i, node := range []string{"a", "b", "c"} {
		w.attest(node, began.Add(time.Duration(i+1)*100*time.Millisecond), enforcing(d, 1))
	}
	now := began.Add(time.Second)
	w.expect(now, "3 of 3, away [], other []")
	v := w.view(now)
	if v.InForce.WorstPropagation != 300 || !v.InForce.Since.Equal(began.Add(300*time.Millisecond)) {
		t.Errorf("worst propagation %v ms since %v", v.InForce.WorstPropagation, v.InForce.Since)
	}
	if s := v.InForce.Sentence(); !strings.Contains(s, "epoch 1, in force on 3 of 3 nodes since 2027-01-15T08:00:00Z; worst propagation 0.300 s") {
		t.Error(s)
	}

	// A node that is killed says nothing more.
	w.expect(began.Add(6150*time.Millisecond), "2 of 3, away [a], other []")
	// A newer release counts nobody who does not say so.
	d2 := w.publish(2, now)
	w.attest("b", now, enforcing(d2, 2))
	w.expect(now, "1 of 3, away [], other [a c]")
	// A retired node is of no count; what it says changes nothing.
	w.enrol("c", 2, true)
	w.expect(now, "1 of 2, away [], other [a]")
}

func TestSwappedKeyLeavesTheCount(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 1, false)
	w.enrol("b", 1, false)
	d := w.publish(1, began)
	w.attest("a", began, enforcing(d, 1))
	w.attest("b", began, enforcing(d, 1))
	w.expect(began, "2 of 2, away [], other []")
	w.logs["b"] = w.logs["a"] // the key of another node
	w.attest("b", began, enforcing(d, 1))
	w.expect(began, "1 of 2, away [b], other []")
	if v := w.view(began); !strings.Contains(v.Nodes[1].Distrusted, "not signed by its node's log key") {
		t.Errorf("distrusted: %q", v.Nodes[1].Distrusted)
	}
	// A new enrolment makes the old key's words count for nothing.
	w.enrol("a", 2, false)
	w.expect(began, "0 of 2, away [a b], other []")
}

// A region that was away still holds what the key before signed: that is no
// reason to distrust a node whose newer word verifies.
func TestTheKeyBefore(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 1, false)
	d := w.publish(1, began)
	w.attest("a", began, enforcing(d, 1))
	old := w.attestations["a"]
	w.enrol("a", 2, false)
	w.attest("a", began.Add(time.Second), enforcing(d, 1))
	w.attestations["a"] = append(w.attestations["a"], old...)
	if v := w.view(began.Add(time.Second)); v.InForce.Nodes != 1 || v.Nodes[0].Distrusted != "" {
		t.Errorf("%+v", v.Nodes[0])
	}
	w.attestations["a"][1].At = began.Add(2 * time.Second) // newer: somebody speaks in its name
	if v := w.view(began.Add(2 * time.Second)); v.InForce.Nodes != 1 || v.Nodes[0].Distrusted == "" {
		t.Errorf("%+v", v.Nodes[0])
	}
}

// What one node signed does not count for another, though it is stored there.
func TestAnothersAttestation(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 1, false)
	w.enrol("b", 1, false)
	w.attest("a", began, enforcing(w.publish(1, began), 1))
	w.attestations["b"] = w.attestations["a"]
	w.expect(began, "1 of 2, away [b], other []")
}

func TestRolloutDecidesTheTarget(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 1, false)
	old := w.publish(1, began)
	w.attest("a", began, enforcing(old, 1))
	next := w.publish(2, began, bundle.Ring{Name: "canary", Percent: 100})
	w.expect(began, "1 of 1, away [], other []")
	order := func(serial uint64, state, phase string) {
		env, err := bundle.SignOrder(&bundle.Order{
			Tenant: tenant, Region: "eu", Epoch: 2, Release: next, Serial: serial, State: state, Rings: []string{phase}, Created: began.UnixNano(),
		}, w.keys[bundle.RoleHeartbeat])
		w.signed(env, err, began)
	}
	order(1, bundle.RolloutRunning, bundle.PhaseActive)
	if p := w.view(began).Rollout; p == nil || p.State != bundle.RolloutRunning || p.Rings[0].Of != 1 || p.Rings[0].Nodes != 0 {
		t.Errorf("rollout %+v", p)
	}
	w.attest("a", began, enforcing(next, 2))
	w.expect(began, "0 of 1, away [], other [a]")
	order(2, bundle.RolloutComplete, bundle.PhaseActive)
	w.expect(began, "1 of 1, away [], other []")
	// An older order that comes late changes nothing.
	order(1, bundle.RolloutHalted, bundle.PhaseActive)
	w.expect(began, "1 of 1, away [], other []")
}

func TestKillsAreConfirmed(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 1, false)
	w.enrol("b", 1, false)
	d := w.publish(1, began)
	w.attest("a", began, enforcing(d, 1))
	w.attest("b", began, enforcing(d, 1))
	env, err := bundle.SignKill(&bundle.Kill{Tenant: tenant, Scope: "point:custom", Reason: "drill", Created: began.UnixNano()}, w.keys[bundle.RoleKill])
	w.signed(env, err, began)
	w.attest("a", began.Add(time.Second), enforcing(d, 1))
	v := w.view(began.Add(2 * time.Second))
	if len(v.Kills) != 1 || v.Kills[0].Confirmed != 1 || len(v.Kills[0].NotConfirmed) != 1 || v.Kills[0].NotConfirmed[0].Node != "b" {
		t.Fatalf("kills %+v", v.Kills)
	}
	// b was last heard when it began; its lease is ten minutes.
	if by := v.Kills[0].NotConfirmed[0].StopsBy; by.Before(began.Add(10*time.Minute)) || by.After(began.Add(11*time.Minute)) {
		t.Errorf("b stops by %v", by)
	}
}

func TestAddRefuses(t *testing.T) {
	w := newWorld(t)
	stranger, err := bundle.GenerateKey(bundle.RoleKill, "mallory")
	w.check(err)
	env, err := bundle.SignKill(&bundle.Kill{Tenant: tenant, Scope: "all", Reason: "x", Created: began.UnixNano()}, stranger)
	w.check(err)
	if err := w.fleet.Add(env, began); err == nil || w.fleet.Kills().Len() != 0 {
		t.Errorf("a stranger's kill: %v", err)
	}
	if err := w.fleet.Add([]byte("{}"), began); err == nil {
		t.Error("junk was taken")
	}
}

// A node's word counts only while its own time is near its receipt: whoever stole
// its credentials, but not its log key, may send an old one again for ever.
func TestAnOldWordSentAgain(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 1, false)
	d := w.publish(1, began)
	w.attest("a", began, enforcing(d, 1))
	for _, c := range []struct {
		late  time.Duration
		nodes int
	}{{50 * time.Second, 1}, {2 * time.Minute, 0}, {-2 * time.Minute, 0}} {
		w.attestations["a"][0].At = began.Add(c.late)
		v := w.view(began.Add(c.late))
		if v.InForce.Nodes != c.nodes || (v.Nodes[0].Distrusted == "") != (c.nodes == 1) {
			t.Errorf("received %v after it was said: %+v, %+v", c.late, v.InForce, v.Nodes[0])
		}
	}
}

// A node that is heard and holds other kills is not said to stop by itself: its
// lease is renewed. One that knows of fewer than the heartbeats is: it is not.
func TestWhoDoesNotObeyAndDoesNotStop(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 1, false)
	d := w.publish(1, began)
	env, err := bundle.SignKill(&bundle.Kill{Tenant: tenant, Scope: bundle.ScopeAll, Reason: "drill", Created: began.UnixNano()}, w.keys[bundle.RoleKill])
	w.signed(env, err, began)
	for count, stops := range map[uint64]bool{0: true, 1: false} {
		w.attest("a", began, func(a *audit.Attestation) {
			enforcing(d, 1)(a)
			a.Kills, a.KillCount = wire.Sum([]byte("others")), count
		})
		n := w.view(began).NotConfirmed
		if len(n) != 1 || n[0].StopsBy.IsZero() == stops {
			t.Errorf("of %d kills: %+v", count, n)
		}
	}
	if n := w.view(began.Add(time.Minute)).NotConfirmed; len(n) != 1 || n[0].StopsBy.IsZero() {
		t.Errorf("away: %+v", n)
	}
}

// A node that was set back is found by what it has signed itself; what others
// signed, or what names another epoch, proves nothing.
func TestWhatANodeHasProven(t *testing.T) {
	w := newWorld(t)
	w.enrol("a", 1, false)
	w.enrol("b", 1, false)
	d := w.publish(3, began)
	w.attest("a", began, enforcing(d, 3))
	w.attest("b", began, enforcing(d, 3))
	mine, others := w.attestations["a"][0], w.attestations["b"][0]
	for _, c := range []struct {
		first map[uint64][]registry.Stored
		want  uint64
	}{
		{nil, 0},
		{map[uint64][]registry.Stored{3: {mine}}, 3},
		{map[uint64][]registry.Stored{3: {others, mine}}, 3},
		{map[uint64][]registry.Stored{3: {others}}, 0},
		{map[uint64][]registry.Stored{9: {mine}}, 0},
		{map[uint64][]registry.Stored{3: {mine}, 9: {others}}, 3},
	} {
		if got := w.fleet.Proven(w.fleet.Enrolment("a"), c.first); got != c.want {
			t.Errorf("proven %d; want %d", got, c.want)
		}
	}
}
