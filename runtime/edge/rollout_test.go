package edge_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func ringOf(names ...string) (rings []bundle.Ring) {
	for _, name := range names {
		rings = append(rings, bundle.Ring{Name: name, Percent: 100})
	}
	return rings
}

// A release with rings waits for its order, is evaluated beside, comes into
// force, and goes back when it is halted.
func TestRollout(t *testing.T) {
	w, n := started(t)
	r := w.release(2, w.publish(says(policy.Deny, 2)))
	r.Rings = []bundle.Ring{{Name: "canary", Labels: map[string]string{"site": "a"}, Percent: 100}, {Name: "rest", Percent: 100}}
	digest := w.put(r)
	n.Deliver(w.enrolmentOf(n, 1, 0, map[string]string{"site": "a"}))
	n.wait("candidate known", func() bool { return n.Status().Candidate == digest.String() })
	if st := n.Status(); st.Epoch != 1 || st.Ring != "canary" {
		t.Fatalf("%+v", st)
	}
	w.order(r, 1, bundle.RolloutRunning, bundle.PhaseShadow, bundle.PhaseWaiting)
	n.wait("shadow", func() bool { return n.Status().Shadow })
	for range 30 {
		if a := n.ask(); a.Verdict != policy.Allow || a.Epoch != 1 {
			t.Fatalf("answered by the shadow: %+v", a)
		}
	}
	n.wait("differences counted", func() bool { m := n.Metrics(); return m.Shadow.Decisions == 30 && m.Shadow.Differ == 30 })
	samples := n.admin("shadow_difference")
	if len(samples) == 0 || len(samples) > 8 || samples[0].Detail["in_force"] != "allow" || samples[0].Detail["candidate"] != "deny" {
		t.Errorf("%d samples, %+v", len(samples), samples)
	}
	if a := n.Attestation(); a.Shadow.Differ != 30 || a.Candidate != digest || a.Order != 1 || a.OrderEpoch != 2 || a.Ring != "canary" {
		t.Errorf("%+v", a)
	}
	w.order(r, 2, bundle.RolloutRunning, bundle.PhaseActive, bundle.PhaseWaiting)
	n.waitEpoch(2)
	if st := n.Status(); st.Shadow || st.Candidate != "" {
		t.Errorf("%+v", st)
	}
	if a := n.ask(); a.Verdict != policy.Deny {
		t.Errorf("%+v", a)
	}
	w.order(r, 3, bundle.RolloutHalted, bundle.PhaseActive, bundle.PhaseWaiting)
	n.waitFallback(2)
	a := n.ask()
	if a.Verdict != policy.Allow || a.Epoch != 2 {
		t.Errorf("%+v", a)
	}
	if got := n.admin("fallback"); len(got) != 1 || !strings.Contains(got[0].Text, "halted") {
		t.Errorf("%+v", got)
	}
	if w.alarmed("fallback") != 1 {
		t.Errorf("%v", w.alarms)
	}
	n.stop()
	n = w.start(nil) // which brings everything again
	n.Deliver(w.beat("eu"))
	if st, a := n.Status(), n.ask(); !st.Fallback || st.Epoch != 2 || a.Verdict != policy.Allow {
		t.Errorf("%+v, %+v", st, a)
	}
	next := w.release(3, w.publish(says(policy.Throttle, 3)))
	w.put(next)
	n.waitEpoch(3)
	if st := n.Status(); st.Fallback || st.Back == digest.String() {
		t.Errorf("the way back leads to what was halted: %+v", st)
	}
}

// A rollout that is complete takes nothing back, and orders that are old change nothing.
func TestOrders(t *testing.T) {
	w, n := started(t)
	r := w.release(2, w.publish(says(policy.Throttle, 2)))
	r.Rings = ringOf("all")
	w.put(r)
	n.wait("candidate", func() bool { return n.Status().Candidate != "" })
	n.Deliver(w.orderOf(r, 5, bundle.RolloutHalted, bundle.PhaseActive))
	n.Deliver(w.orderOf(r, 4, bundle.RolloutComplete))
	n.Deliver(w.orderOf(r, 3, bundle.RolloutRunning, bundle.PhaseActive))
	other := w.release(2, w.publish(says(policy.Deny, 9)))
	n.Deliver(w.orderOf(other, 9, bundle.RolloutComplete)) // of another release of that epoch
	n.Deliver(w.orderOf(w.release(9, r.Points[0].Packages[0]), 1, bundle.RolloutComplete))
	if a := n.Attestation(); a.Order != 5 || a.OrderEpoch != 2 || a.Epoch != 1 {
		t.Fatalf("%+v", a)
	}
	n.Deliver(w.orderOf(r, 6, bundle.RolloutComplete))
	n.waitEpoch(2)
	n.Deliver(w.orderOf(r, 7, bundle.RolloutHalted))
	if a := n.Attestation(); a.Order != 6 {
		t.Errorf("%+v", a)
	}
	last := w.release(3, w.publish(says(policy.Allow, 3)))
	w.put(last)
	n.waitEpoch(3)
	if got := n.admin("fallback"); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// A node that was away takes the newest release that is complete, not those
// between, and never one that was halted.
func TestAwayNode(t *testing.T) {
	w, n := started(t)
	n.stop()
	for epoch := uint64(2); epoch <= 6; epoch++ {
		r := w.release(epoch, w.publish(says(policy.Allow, int(epoch))))
		r.Rings = ringOf("all")
		w.put(r)
		state := bundle.RolloutComplete
		if epoch == 6 {
			state = bundle.RolloutHalted
		}
		w.order(r, 1, state, bundle.PhaseActive)
	}
	n = w.start(nil)
	n.waitEpoch(5)
	activated := 0
	for _, r := range n.records() {
		if r.Kind != audit.KindActivation {
			continue
		}
		if activated++; r.Activation.Epoch == 6 {
			t.Error("what was halted was in force")
		}
	}
	if activated > 3 { // 1 at the start, 5, and one that a slow disk may let through
		t.Errorf("%d activations on the way", activated)
	}
	n.wait("a way back", func() bool { return n.Metrics().WarmBack }) // fetched: the node never had it
}

func TestAudience(t *testing.T) {
	w, n := started(t)
	r := w.release(2, w.publish(says(policy.Throttle, 2)))
	r.Audience = map[string]string{"site": "b"}
	w.put(r)
	n.wait("refusal", func() bool { return strings.Contains(n.Status().Refused, bundle.ErrAudience.Error()) })
	n.Deliver(w.enrolmentOf(n, 1, 0, map[string]string{"site": "b"}))
	n.waitEpoch(2)
}

// A node that comes back without its disk does not begin below its enrolment's
// epoch, whatever comes first.
func TestMinEpoch(t *testing.T) {
	w := newWorld(t)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(func(c *edge.Config) { c.AwaitEnrolment = true })
	n.wait("candidate", func() bool { return n.Status().Candidate != "" })
	if n.Ready() == nil {
		t.Fatal("in force before the enrolment came")
	}
	n.Deliver(w.enrolmentOf(n, 1, 2, nil))
	n.wait("refusal", func() bool { return strings.Contains(n.Status().Refused, bundle.ErrOlder.Error()) })
	n.stop()
	n = w.start(nil)
	w.put(w.release(2, w.publish(says(policy.Throttle, 2))))
	n.waitEpoch(2)
	for _, r := range n.records() {
		if r.Kind == audit.KindActivation && r.Activation.Epoch == 1 {
			t.Error("epoch 1 was in force")
		}
	}
}

// What is refused of one release is not said of another: the fleet halts by it.
func TestRefusalIsTheCandidates(t *testing.T) {
	w, n := started(t)
	n.Deliver([]byte("junk"))
	r := w.release(2, w.publish(says(policy.Allow, 2)))
	r.Rings = ringOf("all")
	w.put(r)
	known := func() bool { return n.Status().Candidate == w.previous.String() }
	n.wait("candidate known", known)
	if a := n.Attestation(); a.Refused != "" || n.Status().Refused == "" || !a.Candidate.IsZero() {
		t.Errorf("a candidate that waits: %+v", a)
	}
	w.order(r, 1, bundle.RolloutRunning, bundle.PhaseShadow)
	n.wait("candidate in the shadow", func() bool { return n.Attestation().Candidate == w.previous })
	n.ask()
	n.wait("decision in the shadow", func() bool { return n.Attestation().Shadow.Decisions == 1 })
	bad := says(policy.Allow, 3)
	bad.Vectors[0].Expect.Verdict = policy.Deny
	r = w.release(3, w.publish(bad))
	r.Rings = ringOf("all")
	w.put(r)
	n.wait("next candidate known", known)
	if a := n.Attestation(); a.Candidate == w.previous || a.Shadow.Decisions != 1 {
		t.Errorf("counts of the candidate before: %+v", a)
	}
	w.order(r, 1, bundle.RolloutRunning, bundle.PhaseShadow)
	n.wait("refusal", func() bool {
		a := n.Attestation()
		return a.Candidate == w.previous && strings.Contains(a.Refused, "vectors")
	})
}

// Several trust roots at once, in any order; a restarted node uses the newest,
// what was in force stays, and what a revoked key signs is refused.
func TestRoots(t *testing.T) {
	w, n := started(t)
	author := key(bundle.RoleAuthor, "abe", 40)
	versions := make([][]byte, 4)
	var newest *bundle.TrustRoot
	for v := uint64(2); v <= 4; v++ {
		next := *w.trust
		next.Version = v
		next.Keys = slices.Clone(w.trust.Keys)
		if v == 3 || v == 4 { // ann is revoked
			i := slices.IndexFunc(next.Keys, func(k bundle.Key) bool { return k.Role == bundle.RoleAuthor })
			next.Keys[i] = author.Key
		}
		env, err := bundle.SignTrustRoot(&next, w.root)
		w.must(err)
		versions[v-1], newest = env, &next
	}
	r := w.release(2, w.publish(says(policy.Throttle, 2)))
	byAbe, err := bundle.SignRelease(r, author, w.approver)
	w.must(err)
	n.Deliver(byAbe) // before its key is known
	for _, env := range [][]byte{versions[3], versions[1], versions[2]} {
		n.Deliver(env)
	}
	n.waitEpoch(2) // without being delivered again
	if st := n.Status(); st.RootVersion != 4 {
		t.Fatalf("%+v", st)
	}
	n.Deliver(w.beat("eu"))
	if got := n.admin("root_rotated"); len(got) == 0 {
		t.Error("no record of the rotation")
	}
	n.stop()
	n = w.start(alone)
	if st, a := n.Status(), n.ask(); st.RootVersion != 4 || st.Epoch != 2 || a.Verdict != policy.Throttle {
		t.Fatalf("%+v, %+v", st, a)
	}
	revoked, err := bundle.SignRelease(w.release(3, r.Points[0].Packages[0]), w.author, w.approver)
	w.must(err)
	n.Deliver(revoked)
	n.wait("refusal", func() bool { return n.Status().Refused != "" })
	if st := n.Status(); st.Epoch != 2 {
		t.Errorf("%+v", st)
	}
	// The way back was signed by a key that is revoked now: it is there all the same.
	n.wait("a way back", func() bool { return n.Metrics().WarmBack })
	_ = newest
}

// poisoned puts a signed release in force whose policies misbehave, asks until the
// node has stepped back, and returns how long that took from the trigger.
func poisoned(t *testing.T, mode int64, change func(*bundle.Release)) time.Duration {
	t.Helper()
	w, n := started(t)
	ref := w.publish(w.unruly())
	ref.Params = map[string]any{"mode": mode}
	r := w.release(2, ref)
	r.Rings = []bundle.Ring{{Name: "one", Percent: 100, Bake: bundle.Bake{Decisions: 1000, Seconds: 60}}}
	if change != nil {
		change(r)
	}
	w.put(r)
	w.order(r, 1, bundle.RolloutRunning, bundle.PhaseActive)
	n.waitEpoch(2)
	asked := 0
	for !n.Status().Fallback {
		n.ask()
		if asked++; asked > 5000 {
			t.Fatalf("still in force: %+v", n.Metrics())
		}
	}
	n.wait("the step back recorded", func() bool { return n.Metrics().Fallbacks == 1 })
	took := n.Metrics().StepBack
	if a := n.ask(); a.Verdict != policy.Allow || a.Epoch != 2 || a.Reasons[0].Code != "v1" {
		t.Errorf("%+v", a)
	}
	if got := n.admin("fallback"); len(got) != 1 || got[0].Text == "" {
		t.Errorf("%+v", got)
	}
	if a := n.Attestation(); !a.Fallback || a.Release != w.previous || a.Enforced == a.Release {
		t.Errorf("%+v", a)
	}
	t.Logf("%d asked, back on the old set %s after the trigger", asked, took)
	return took
}

// A poisoned but signed release does not stay: its first ring is back on the old
// set; how long that took is in the log.
func TestPoisonedReleases(t *testing.T) {
	t.Run("traps", func(t *testing.T) { poisoned(t, 5, nil) })
	t.Run("loops", func(t *testing.T) { poisoned(t, 1, nil) })
	t.Run("nonsense", func(t *testing.T) { poisoned(t, 4, nil) })
	t.Run("too deep", func(t *testing.T) { poisoned(t, 2, nil) })
	t.Run("grows", func(t *testing.T) { poisoned(t, 3, nil) })
	t.Run("denies everything", func(t *testing.T) {
		w, n := started(t)
		r := w.release(2, w.publish(says(policy.Deny, 2)))
		r.Rings = []bundle.Ring{{Name: "one", Percent: 100, Bake: bundle.Bake{Decisions: 1000}}}
		r.Halt.DenyPerMillion = 500_000
		w.put(r)
		w.order(r, 1, bundle.RolloutRunning, bundle.PhaseActive)
		n.waitEpoch(2)
		for range 20 {
			n.ask()
		}
		n.waitFallback(2)
		t.Logf("back %s after the trigger", n.Metrics().StepBack)
	})
}

// Without a bake a node does not judge by rates, and after it neither.
func TestNoBakeNoStepBack(t *testing.T) {
	w, n := started(t)
	ref := w.publish(w.unruly())
	ref.Params = map[string]any{"mode": int64(5)}
	w.put(w.release(2, ref))
	n.waitEpoch(2)
	for range 50 {
		n.ask()
	}
	n.admin("none")
	if st := n.Status(); st.Fallback {
		t.Errorf("%+v", st)
	}
}

// A release that names no fallback stays, and the alarm is raised once.
func TestNoFallback(t *testing.T) {
	w, n := started(t)
	r := w.release(2, w.publish(says(policy.Throttle, 2)))
	r.Fallback, r.Rings = bundle.FallbackNone, ringOf("all")
	w.put(r)
	w.order(r, 1, bundle.RolloutRunning, bundle.PhaseActive)
	n.waitEpoch(2)
	w.order(r, 2, bundle.RolloutHalted)
	n.wait("alarm", func() bool { return w.alarmed("no_fallback") == 1 })
	if st := n.Status(); st.Fallback || !st.Ready {
		t.Errorf("%+v", st)
	}
}

// liar answers like the module until it is told to lie.
type liar struct {
	abi.Module
	lies *atomic.Bool
}

func (l liar) Call(c abi.Call) (abi.Result, error) {
	r, err := l.Module.Call(c)
	if err == nil && l.lies.Load() {
		r.Output = append(c.Output[:0], deny...)
	}
	return r, err
}

var deny = func() []byte {
	b, err := wire.Marshal(map[string]any{"verdict": "deny"})
	if err != nil {
		panic(err) // of the test's own
	}
	return b
}()

// lying starts a node whose modules of one engine can be told to lie, with
// release 2 in force, all of whose decisions the second engine makes too.
func lying(t *testing.T, onSecond bool) (*world, *node, *atomic.Bool) {
	w := newWorld(t)
	lies := &atomic.Bool{}
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(func(c *edge.Config) {
		c.Wrap = func(m abi.Module, second bool) abi.Module {
			if second == onSecond {
				return liar{m, lies}
			}
			return m
		}
	})
	n.waitEpoch(1)
	r := w.release(2, w.publish(says(policy.Allow, 2)))
	r.LivePerMillion = 1_000_000
	w.put(r)
	n.waitEpoch(2)
	return w, n, lies
}

// When the engines disagree, the node steps back, whichever of them is wrong.
func TestSecondEngineDisagrees(t *testing.T) {
	w, n, lies := lying(t, true)
	for range 20 {
		n.ask()
	}
	n.wait("samples", func() bool { m := n.Metrics(); return m.Second == 20 && m.SecondDisagreed == 0 })
	if a := n.Attestation(); a.Second.Samples != 20 || a.Second.Disagreed != 0 {
		t.Errorf("%+v", a.Second)
	}
	lies.Store(true)
	n.ask()
	n.waitFallback(2)
	t.Logf("back %s after the trigger", n.Metrics().StepBack)
	if got := n.admin("second_engine_disagreed"); len(got) != 1 || got[0].Detail["first"] != "allow" || got[0].Detail["second"] != "deny" {
		t.Errorf("%+v", got)
	}
	if w.alarmed("second_engine") != 1 || w.alarmed("fallback") != 1 {
		t.Errorf("%v", w.alarms)
	}
}

// A module whose golden vectors fail later on is stepped back from.
func TestVectorsFailLater(t *testing.T) {
	w, n, lies := lying(t, false)
	if run := n.RunVectors(context.Background()); run.Passed != 1 || run.Failed != 0 || n.Status().Fallback {
		t.Fatalf("%+v", run)
	}
	lies.Store(true)
	if run := n.RunVectors(context.Background()); run.Failed != 1 {
		t.Fatalf("%+v", run)
	}
	n.waitFallback(2)
	if got := n.admin("vectors_failed"); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	if w.alarmed("vectors") != 1 {
		t.Errorf("%v", w.alarms)
	}
}

// An attestation says what is in force; the first one of an activation says so.
func TestAttest(t *testing.T) {
	w := newWorld(t)
	type told struct {
		first bool
		*audit.Attestation
	}
	var mu sync.Mutex
	var all []told
	var key note.Verifier
	failing := true
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(func(c *edge.Config) {
		c.Attest = func(_ context.Context, first bool, epoch uint64, msg []byte) error {
			mu.Lock()
			defer mu.Unlock()
			if key == nil {
				return context.DeadlineExceeded
			}
			a, err := audit.OpenAttestation(msg, key)
			if err != nil || a.Epoch != epoch {
				t.Error(err, a, epoch)
				return err
			}
			all = append(all, told{first, a})
			if failing && a.Epoch == 1 {
				failing = false
				return context.DeadlineExceeded // it is not delivered
			}
			return nil
		}
	})
	mu.Lock()
	v, err := note.NewVerifier(n.VerifierKey())
	key = v
	mu.Unlock()
	w.must(err)
	find := func(true func(told) bool) (out []told) {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range all {
			if true(a) {
				out = append(out, a)
			}
		}
		return out
	}
	n.wait("two first ones: one was not delivered", func() bool {
		return len(find(func(a told) bool { return a.first && a.Epoch == 1 })) == 2
	})
	w.put(w.release(2, w.publish(says(policy.Throttle, 2))))
	n.wait("first of 2", func() bool { return len(find(func(a told) bool { return a.first && a.Epoch == 2 })) == 1 })
	a := find(func(a told) bool { return a.first && a.Epoch == 2 })[0]
	if a.Timing.Received == 0 || a.Timing.Admit == 0 || a.Timing.Swap == 0 || len(a.Packages) != 1 || a.Release != w.previous || a.Vectors.Passed != 1 || a.Staleness != "fresh" {
		t.Errorf("%+v", a)
	}
	env, _ := w.killOf("point:llm.pre_model")
	n.Deliver(env)
	n.wait("kill attested", func() bool { return len(find(func(a told) bool { return a.KillCount == 1 })) > 0 })
	n.wait("binary attested", func() bool { return len(find(func(a told) bool { return !a.Binary.IsZero() })) > 0 })
	mu.Lock()
	defer mu.Unlock()
	for i := 1; i < len(all); i++ {
		if all[i].Serial <= all[i-1].Serial {
			t.Errorf("serial %d after %d", all[i].Serial, all[i-1].Serial)
		}
	}
}

// What is in flight beyond the limit is answered by on_overload, counted, and one
// record a second.
func TestOverload(t *testing.T) {
	w := newWorld(t)
	hold, entered := make(chan struct{}), make(chan struct{}, 10)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(func(c *edge.Config) {
		c.Wrap = func(m abi.Module, second bool) abi.Module {
			if second {
				return m
			}
			return held{m, hold, entered}
		}
	})
	n.waitEpoch(1)
	r := w.release(2, w.publish(says(policy.Allow, 2)))
	r.Limits.MaxInFlight = 2
	r.Points[0].OnOverload = policy.FailEscalate
	r.Points[0].Limits.MaxRequestBytes = 200
	w.put(r)
	n.waitEpoch(2)
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() { n.ask() })
	}
	<-entered
	<-entered
	for range 3 {
		if a := n.ask(); a.Verdict != policy.RequireApproval || a.Reasons[0].Code != edge.CodeOverload || a.Recorded {
			t.Errorf("%+v", a)
		}
	}
	close(hold)
	asking.Wait()
	if a := n.ask(); a.Verdict != policy.Allow {
		t.Errorf("%+v", a)
	}
	if a := n.askAt(policy.PointCustom, `{"document":"`+strings.Repeat("x", 200)+`"}`); a.Verdict != policy.RequireApproval {
		t.Errorf("%+v", a)
	}
	n.wait("the shed load recorded", func() bool {
		var sum uint64
		for _, r := range n.admin("overload") {
			sum += r.Count
		}
		return sum == 4
	})
}

type held struct {
	abi.Module
	hold    chan struct{}
	entered chan struct{}
}

func (h held) Call(c abi.Call) (abi.Result, error) {
	select {
	case h.entered <- struct{}{}:
	default:
	}
	<-h.hold
	return h.Module.Call(c)
}

// Whatever is collected, a restart and a step back work.
func TestCollect(t *testing.T) {
	w, n := started(t)
	for epoch := uint64(2); epoch <= 12; epoch++ {
		w.put(w.release(epoch, w.publish(says(policy.Allow, int(epoch)))))
		n.waitEpoch(epoch)
	}
	n.stop()
	store := filepath.Join(w.dir, "store")
	if got := len(files(t, filepath.Join(store, "releases"))); got != 4 {
		t.Errorf("%d releases", got)
	}
	if got := len(files(t, filepath.Join(store, "packages"))); got != 4 {
		t.Errorf("%d packages", got)
	}
	n = w.start(alone)
	if st, a := n.Status(), n.ask(); st.Epoch != 12 || a.Reasons[0].Code != "v12" {
		t.Fatalf("%+v, %+v", st, a)
	}
	n.wait("a way back", func() bool { return n.Metrics().WarmBack })
	n.stop()
	// A way back that is not among the newest: epoch 13 goes back to 2, say.
	w2, m := started(t)
	first := w2.previous
	for epoch := uint64(2); epoch <= 9; epoch++ {
		r := w2.release(epoch, w2.publish(says(policy.Allow, int(epoch))))
		r.Previous = first
		w2.put(r)
		m.waitEpoch(epoch)
	}
	m.wait("a way back", func() bool { return m.Metrics().WarmBack })
	m.stop()
	m = w2.start(alone)
	if st := m.Status(); st.Epoch != 9 || st.Back != first.String() {
		t.Fatalf("%+v", st)
	}
	m.wait("a way back", func() bool { return m.Metrics().WarmBack })
	if a := m.ask(); a.Reasons[0].Code != "v9" {
		t.Errorf("%+v", a)
	}
}

// A bound of the release's is a bound of every call, whatever the package says.
func TestMaxFuel(t *testing.T) {
	w, n := started(t)
	ref := w.publish(w.unruly())
	ref.Params, ref.Fuel = map[string]any{"mode": int64(1)}, 2_000_000
	r := w.release(2, ref)
	r.Limits.MaxFuel = 500_000
	r.Points[0].Limits.MaxFuel = 100_000
	w.put(r)
	n.waitEpoch(2)
	for point, most := range map[string]uint64{policy.PointCustom: 100_000, policy.PointAgentStop: 500_000} {
		before := n.Metrics().Fuel
		n.askAt(point, `{"document":1}`)
		if used := n.Metrics().Fuel - before; used > most || used < most/2 {
			t.Errorf("%s: %d units, at most %d", point, used, most)
		}
	}
}

// brokenDisk fails every write of the journal's while it is on.
type brokenDisk struct {
	journal.FS
	on *atomic.Bool
}

func (d brokenDisk) OpenFile(name string, flag int, perm os.FileMode) (journal.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	return brokenFile{f, d.on}, err
}

type brokenFile struct {
	journal.File
	on *atomic.Bool
}

func (f brokenFile) WriteAt(p []byte, off int64) (int, error) {
	if f.on.Load() {
		return 0, syscall.ENOSPC
	}
	return f.File.WriteAt(p, off)
}

// A step back does not wait for a disk that takes no record: what was stepped
// back from decides no more, and the reopened journal has the step.
func TestStepBackWithoutJournal(t *testing.T) {
	w := newWorld(t)
	broken := &atomic.Bool{}
	w.put(w.release(1, w.publish(says(policy.Deny, 1))))
	n := w.start(func(c *edge.Config) { c.JournalFS = brokenDisk{journal.OS(), broken} })
	n.waitEpoch(1)
	r := w.release(2, w.publish(says(policy.Allow, 2)))
	r.Rings = ringOf("all")
	r.Points[0].OnLogFailure = policy.FailAllowFlagged
	w.put(r)
	w.order(r, 1, bundle.RolloutRunning, bundle.PhaseActive)
	n.waitEpoch(2)
	broken.Store(true)
	if a := n.ask(); a.Verdict != policy.Allow || a.Recorded {
		t.Fatalf("%+v", a)
	}
	n.Deliver(w.orderOf(r, 2, bundle.RolloutHalted))
	n.wait("the step back", func() bool { return n.Status().Fallback })
	if a := n.ask(); a.Verdict != policy.Deny || a.Recorded {
		t.Fatalf("%+v", a)
	}
	broken.Store(false)
	n.wait("the journal again", func() bool { return n.Ready() == nil })
	n.admin("none")
	last := (*audit.ActivationRecord)(nil)
	for _, rec := range n.records() {
		if rec.Kind == audit.KindActivation {
			last = rec.Activation
		}
	}
	if last == nil || !last.Fallback || last.Epoch != 2 {
		t.Errorf("%+v", last)
	}
}

// The second engine's memory is bounded: modules take turns.
func TestSecondEngineTakesTurns(t *testing.T) {
	w := newWorld(t)
	r := w.release(1, w.publish(says(policy.Allow, 1)))
	r.LivePerMillion = 1_000_000
	for i := range r.Points { // as if each was large
		pkg := says(policy.Allow, 10+i)
		body := append([]byte{1, 'x'}, make([]byte, 600<<10)...) // a custom section
		pkg.Module = slices.Concat(pkg.Module, []byte{0}, binary.AppendUvarint(nil, uint64(len(body))), body)
		r.Points[i].Packages = []bundle.PackageRef{w.publish(pkg)}
	}
	w.put(r)
	n := w.start(nil)
	n.waitEpoch(1)
	askBoth := func() (m edge.Metrics) {
		have := n.Metrics()
		n.askAt(policy.PointCustom, `{"document":1}`)
		n.askAt(policy.PointAgentStop, `{"document":1}`)
		n.wait("two looks", func() bool {
			m = n.Metrics()
			return m.Second+m.SecondSkipped+m.SecondFailed == have.Second+have.SecondSkipped+have.SecondFailed+2
		})
		return m
	}
	if m := askBoth(); m.Second != 2 || m.SecondSkipped != 0 { // the second point takes the first one's place
		t.Errorf("%+v", m)
	}
	if m := askBoth(); m.Second != 3 || m.SecondSkipped != 1 { // too soon for another turn
		t.Errorf("%+v", m)
	}
	w.advance(11 * time.Second)
	if m := askBoth(); m.Second != 4 || m.SecondSkipped != 2 || m.SecondFailed != 0 {
		t.Errorf("%+v", m)
	}
}
