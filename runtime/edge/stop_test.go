package edge_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func started(t testing.TB) (*world, *node) {
	t.Helper()
	w := newWorld(t)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(nil)
	n.waitEpoch(1)
	return w, n
}

func TestKill(t *testing.T) {
	w, n := started(t)
	if a := n.ask(); a.Verdict != policy.Allow {
		t.Fatalf("%+v", a)
	}
	env, digest := w.killOf("subject:agent:a7")
	n.Deliver(env)
	a := n.ask()
	if a.Verdict != policy.Deny || a.Reasons[0].Code != guard.CodeKilled || !a.Recorded || a.Epoch != 1 {
		t.Fatalf("killed: %+v", a)
	}
	if a := n.askAt(policy.PointAgentStop, `{"subject":{"type":"agent","id":"a7"},"action":{"name":"x"},"resource":{"type":"t","id":"r"}}`); a.Verdict != policy.Allow {
		t.Errorf("agent.stop: %+v", a)
	}
	if a := n.askAt(policy.PointCustom, `{"document":1}`); a.Verdict != policy.Allow {
		t.Errorf("another subject: %+v", a)
	}
	n.Deliver(env) // again
	if got := n.admin("kill"); len(got) != 1 || got[0].Detail["kill"] != digest.String() {
		t.Errorf("%+v", got)
	}
	for _, r := range n.records() {
		if r.Kind == audit.KindDecision && r.Seq == a.Seq && (r.Decision.Kill == nil || *r.Decision.Kill != digest || len(r.Decision.Runs) != 0) {
			t.Errorf("record: %+v", r.Decision)
		}
	}
	n.stop()
	n = w.start(alone)
	if a := n.ask(); a.Verdict != policy.Deny || a.Reasons[0].Code != guard.CodeKilled {
		t.Fatalf("after a restart: %+v", a)
	}
	lift := &bundle.Lift{Tenant: "acme", Kills: []wire.Digest{digest}, Reason: "over", Created: w.now().UnixNano()}
	one, err := bundle.SignLift(lift, w.kill[0])
	w.must(err)
	n.Deliver(one)
	if a := n.ask(); a.Verdict != policy.Deny {
		t.Fatalf("lifted by one: %+v", a)
	}
	two, err := bundle.SignLift(lift, w.kill...)
	w.must(err)
	n.Deliver(two)
	if a := n.ask(); a.Verdict != policy.Allow {
		t.Fatalf("lifted: %+v", a)
	}
	if got := n.admin("lift"); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	n.stop()
	n = w.start(alone)
	n.Deliver(env) // what was lifted stays lifted
	if a := n.ask(); a.Verdict != policy.Allow {
		t.Fatalf("after another restart: %+v", a)
	}
}

// A policy that is killed stops every point that asks it, and OPA's door obeys.
func TestKillOfAPolicy(t *testing.T) {
	w := newWorld(t)
	ref := w.publish(says(policy.Allow, 1))
	w.put(w.release(1, ref))
	n := w.start(nil)
	n.waitEpoch(1)
	env, _ := w.killOf("policy:" + ref.Digest.Hex())
	n.Deliver(env)
	if a := n.ask(); a.Verdict != policy.Deny {
		t.Errorf("%+v", a)
	}
	all, _ := w.killOf("all")
	n.Deliver(all)
	noDocument(t, n, guard.CodeKilled)
}

// noDocument asks OPA's door, which must be stopped with that reason: undefined
// would be permission to who asks for denials.
func noDocument(t *testing.T, n *node, code string) {
	t.Helper()
	a, doc, err := n.Data(context.Background(), []string{"p", "deny"}, []byte(`{"x":1}`))
	if _, ok := errors.AsType[*policy.NoDocumentError](err); !ok || a.Verdict.Permits() || doc != nil || a.Reasons[len(a.Reasons)-1].Code != code {
		t.Errorf("OPA's door: %+v, %s, %v", a, doc, err)
	}
}

// OPA's door obeys the lease as well.
func TestStaleDocuments(t *testing.T) {
	for _, mode := range []policy.FailMode{policy.FailDeny, policy.FailEscalate} {
		w := newWorld(t)
		built, err := rego.Compile(context.Background(), fstest.MapFS{"p.rego": {Data: []byte("package p\n\ndeny := false\n")}}, rego.Options{Entrypoints: []string{"p/deny"}})
		w.must(err)
		r := w.release(1, w.publish(&bundle.Package{
			Manifest: bundle.Manifest{Name: "p", ABI: string(abi.OPA1), Class: bundle.ClassPolicy, Entrypoint: "p/deny"}, Module: built.Wasm,
			Vectors: []bundle.Vector{{Name: "no", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: policy.Deny}}},
		}))
		r.Points[0].OnStale = mode
		w.put(r)
		n := w.start(nil)
		n.waitEpoch(1)
		if _, doc, err := n.Data(context.Background(), []string{"p", "deny"}, []byte(`{}`)); err != nil || string(doc) != "false" {
			t.Fatalf("%s, %v", doc, err)
		}
		w.advance(2 * time.Hour)
		noDocument(t, n, guard.CodeStale)
		n.stop()
	}
}

// A person puts a kill into the node's own folder.
func TestKillByFile(t *testing.T) {
	w := newWorld(t)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(nil)
	n.waitEpoch(1)
	n.stop()
	n = w.start(alone)
	env, _ := w.killOf("all")
	w.write(filepath.Join(edge.KillDir(w.dir), "stop.dsse"), env)
	n.wait("kill by file", func() bool { return n.ask().Verdict == policy.Deny })
	w.must(os.Remove(filepath.Join(edge.KillDir(w.dir), "stop.dsse")))
	n.stop()
	if a := w.start(alone).ask(); a.Verdict != policy.Deny {
		t.Errorf("the file is gone, the kill is not: %+v", a)
	}
}

// slowSource holds back packages until it is let go.
type slowSource struct {
	loader.Source
	asked chan struct{}
	let   chan struct{}
	once  sync.Once
}

func (s *slowSource) Package(ctx context.Context, d wire.Digest, size uint64) ([]byte, error) {
	s.once.Do(func() { close(s.asked) })
	select {
	case <-s.let:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.Source.Package(ctx, d, size)
}

// Nothing waits behind an activation: neither kills, heartbeats, enrolments,
// roots nor orders.
func TestNothingWaitsForAnActivation(t *testing.T) {
	w, n := started(t)
	n.stop()
	slow := &slowSource{Source: loader.FolderSource{Dir: w.folder}, asked: make(chan struct{}), let: make(chan struct{})}
	n = w.start(func(c *edge.Config) { c.Source = slow })
	w.put(w.release(2, w.publish(says(policy.Throttle, 2))))
	<-slow.asked
	beats := n.Metrics().Heartbeats
	done := make(chan struct{})
	go func() {
		defer close(done)
		env, _ := w.killOf("all")
		n.Deliver(env)
		n.Deliver(w.beat("eu"))
		n.Deliver(w.enrolmentOf(n, 1, 0, map[string]string{"site": "a"}))
		next := *w.trust
		next.Version = 2
		root, err := bundle.SignTrustRoot(&next, w.root)
		w.must(err)
		n.Deliver(root)
		n.Deliver(w.orderOf(w.release(3, bundle.PackageRef{Name: "p", Digest: wire.Sum(nil), Size: 1}), 1, bundle.RolloutComplete))
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("something waits behind the activation")
	}
	if st := n.Status(); st.Epoch != 1 || st.RootVersion != 2 || st.Kills != 1 || n.Metrics().Heartbeats != beats+1 {
		t.Errorf("%+v", st)
	}
	if a := n.ask(); a.Verdict != policy.Deny || a.Reasons[0].Code != guard.CodeKilled {
		t.Errorf("%+v", a)
	}
	close(slow.let)
	n.waitEpoch(2)
}

// A lease runs out by the node's own clock and is renewed by heartbeats only.
func TestStaleness(t *testing.T) {
	w, n := started(t)
	state := func(want guard.Staleness) {
		t.Helper()
		if got, _ := n.Staleness(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	state(guard.Fresh)
	w.advance(61 * time.Second)
	state(guard.Aging)
	if a := n.ask(); a.Verdict != policy.Allow {
		t.Errorf("aging: %+v", a)
	}
	w.advance(time.Hour)
	state(guard.Stale)
	a := n.ask()
	if a.Verdict != policy.Deny || a.Reasons[0].Code != guard.CodeStale || !a.Recorded {
		t.Errorf("stale: %+v", a)
	}
	n.stop()
	n = w.start(alone) // no new lease
	state(guard.Stale)
	if a := n.ask(); a.Verdict != policy.Deny {
		t.Errorf("stale after a restart: %+v", a)
	}
	old := w.beat("eu")
	n.Deliver(old)
	state(guard.Fresh)
	if a := n.ask(); a.Verdict != policy.Allow {
		t.Errorf("fresh again: %+v", a)
	}
	w.advance(50 * time.Second)
	n.Deliver(old) // the same serial
	w.advance(20 * time.Second)
	state(guard.Aging)
	n.stop()
	n = w.start(alone)
	state(guard.Aging)
	n.Deliver(old)
	state(guard.Aging)
	w.advance(-2 * time.Hour) // a time that has passed
	state(guard.Stale)
}

// After a cut a heartbeat may come before the kill that it knows of: the node is
// stale until the kill is there.
func TestNoLeaseBeforeTheKill(t *testing.T) {
	w, n := started(t)
	n.Deliver(w.beat("eu"))
	w.advance(2 * time.Hour)
	kill, digest := w.killOf("point:custom")
	beat := func() []byte {
		w.serial++
		env, err := bundle.SignHeartbeat(&bundle.Heartbeat{
			Tenant: "acme", Region: "eu", Serial: w.serial, Time: w.now().UnixNano(), Expires: w.now().Add(time.Minute).UnixNano(), RootVersion: 1,
			Kills: wire.Sum(digest[:]), KillCount: 1,
		}, w.heartbeat["eu"])
		w.must(err)
		return env
	}
	n.Deliver(beat())
	if a := n.ask(); a.Verdict != policy.Deny || a.Reasons[0].Code != guard.CodeStale || !n.Metrics().KillsBehind {
		t.Errorf("before the kill came: %+v", a)
	}
	n.Deliver(kill)
	n.Deliver(beat())
	if state, _ := n.Staleness(); state != guard.Fresh || n.Metrics().KillsBehind {
		t.Errorf("after it came: %v", state)
	}
}

// A node whose file is gone does not begin a new lease.
func TestLostLease(t *testing.T) {
	w, n := started(t)
	w.advance(2 * time.Hour)
	n.stop()
	w.must(os.Remove(filepath.Join(w.dir, "heard")))
	n = w.start(alone)
	if a := n.ask(); a.Verdict != policy.Deny || a.Reasons[0].Code != guard.CodeStale {
		t.Errorf("%+v", a)
	}
}

// What the node says of itself reaches policies and records, and nobody else can
// say it.
func TestStalenessIsTold(t *testing.T) {
	w, n := started(t)
	w.advance(90 * time.Second)
	a := n.askAt(policy.PointCustom, `{"subject":{"type":"a","id":"b"},"action":{"name":"x"},"resource":{"type":"t","id":"r"},"context":{"n":1.50}}`)
	n.admin("none")
	for _, r := range n.records() {
		if r.Seq != a.Seq {
			continue
		}
		req, err := policy.ParseRequest(policy.PointCustom, r.Decision.Request.Bytes)
		w.must(err)
		said, _ := req.Context[policy.ContextNode].(map[string]any)
		if said["staleness"] != "aging" || said["age_s"].(int64) < 90 || r.Decision.Stale == nil || r.Decision.Stale.State != "aging" {
			t.Errorf("%s, %+v", r.Decision.Request.Bytes, r.Decision.Stale)
		}
	}
	forged, err := policy.ParseRequest(policy.PointCustom, []byte(`{"document":1,"context":{"holdfast":{"staleness":"fresh"}}}`))
	w.must(err)
	if _, ok := errors.AsType[*policy.SyntaxError](second(n.Decide(context.Background(), forged))); !ok {
		t.Error("an asker may say what only the node says")
	}
}

func second(_ policy.Answer, err error) error { return err }

func TestStalenessIsRecordedOnce(t *testing.T) {
	w, n := started(t)
	n.Deliver(w.beat("eu"))
	w.advance(90 * time.Second)
	n.wait("aging recorded", func() bool { return len(n.admin("staleness")) == 1 })
	n.Deliver(w.beat("eu"))
	n.wait("fresh recorded", func() bool { return len(n.admin("staleness")) == 2 })
	if got := n.admin("staleness"); got[0].Text != "aging" || got[1].Text != "fresh" {
		t.Errorf("%+v", got)
	}
}

func TestOnStale(t *testing.T) {
	for mode, want := range map[policy.FailMode]policy.Verdict{
		policy.FailDeny: policy.Deny, policy.FailAllowFlagged: policy.Allow, policy.FailEscalate: policy.RequireApproval,
	} {
		w := newWorld(t)
		r := w.release(1, w.publish(says(policy.Allow, 1)))
		r.Points[0].OnStale = mode
		w.put(r)
		n := w.start(nil)
		n.waitEpoch(1)
		w.advance(2 * time.Hour)
		a := n.ask()
		if last := a.Reasons[len(a.Reasons)-1]; a.Verdict != want || last.Code != guard.CodeStale {
			t.Errorf("%s: %+v", mode, a)
		}
		n.admin("none")
		for _, rec := range n.records() {
			if rec.Seq == a.Seq && (rec.Decision.Failure == nil || rec.Decision.Failure.Cause != "stale" || rec.Decision.Failure.Mode != mode || rec.Decision.Stale.State != "stale") {
				t.Errorf("%s: %+v", mode, rec.Decision)
			}
		}
		n.stop()
	}
}

// A trust root without heartbeat keys grants no lease and asks for none.
func TestNoHeartbeats(t *testing.T) {
	w := newWorld(t)
	w.trust = bundle.NewTrustRoot("acme", time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), w.root.Key, w.author.Key, w.approver.Key)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(nil)
	n.waitEpoch(1)
	w.advance(1000 * time.Hour)
	if a := n.ask(); a.Verdict != policy.Allow || n.Status().Staleness != "none" {
		t.Errorf("%+v, %+v", a, n.Status())
	}
}

// rotated is the next trust root without some keys, and with others.
func (w *world) rotated(out []*bundle.PrivateKey, in ...*bundle.PrivateKey) []byte {
	w.t.Helper()
	next := *w.trust
	next.Version++
	next.Keys = slices.DeleteFunc(slices.Clone(w.trust.Keys), func(k bundle.Key) bool {
		return slices.ContainsFunc(out, func(o *bundle.PrivateKey) bool { return o.ID == k.ID })
	})
	for _, k := range in {
		next.Keys = append(next.Keys, k.Key)
	}
	env, err := bundle.SignTrustRoot(&next, w.root)
	w.must(err)
	w.trust = &next
	return env
}

// beatOf is a heartbeat that names a kill set.
func (w *world) beatOf(digests ...wire.Digest) []byte {
	w.t.Helper()
	w.serial++
	env, err := bundle.SignHeartbeat(&bundle.Heartbeat{
		Tenant: "acme", Region: "eu", Serial: w.serial, Time: w.now().UnixNano(), Expires: w.now().Add(time.Minute).UnixNano(), RootVersion: 1,
		Kills: new(bundle.KillSet).DigestWith(digests...), KillCount: uint64(len(digests)),
	}, w.heartbeat["eu"])
	w.must(err)
	return env
}

// A kill outlives its signer's key, on a node that comes after the rotation as
// well; what a thief of the revoked key signs does not begin.
func TestKillOfARevokedKey(t *testing.T) {
	w, n := started(t)
	old, digest := w.killOf("subject:agent:a7")
	w.advance(time.Second)
	stolen, _ := w.killOf("all")
	n.Deliver(w.rotated(w.kill[:1]))
	n.wait("rotation", func() bool { return n.Status().RootVersion == 2 })
	n.Deliver(old)
	n.Deliver(stolen)
	n.Deliver(w.beatOf())
	if a := n.ask(); a.Verdict != policy.Allow {
		t.Fatalf("before a region vouches: %+v", a)
	}
	n.Deliver(w.beatOf(digest))
	if a := n.ask(); a.Verdict != policy.Deny || a.Reasons[0].Code != guard.CodeKilled {
		t.Fatalf("a region vouches for the kill: %+v", a)
	}
	if a := n.askAt(policy.PointCustom, `{"document":1}`); a.Verdict != policy.Allow {
		t.Fatalf("what nobody vouches for: %+v", a)
	}
	n.stop()
	n = w.start(alone)
	if a := n.ask(); a.Verdict != policy.Deny || a.Reasons[0].Code != guard.CodeKilled {
		t.Fatalf("after a restart: %+v", a)
	}
	n.Deliver(stolen)
	n.Deliver(w.beatOf(digest))
	if a := n.askAt(policy.PointCustom, `{"document":1}`); a.Verdict != policy.Allow || n.Metrics().KillsBehind {
		t.Fatalf("what nobody vouches for: %+v", a)
	}
}

// Who stole a region's key may use up its serials; taking the key out of the
// trust root ends that, at once and after a restart.
func TestSerialsOfARevokedKey(t *testing.T) {
	w, n := started(t)
	poison, err := bundle.SignHeartbeat(&bundle.Heartbeat{
		Tenant: "acme", Region: "eu", Serial: math.MaxUint64, Time: w.now().UnixNano(), Expires: w.now().Add(time.Minute).UnixNano(), RootVersion: 1,
	}, w.heartbeat["eu"])
	w.must(err)
	n.Deliver(poison)
	w.advance(2 * time.Hour)
	n.Deliver(w.beat("eu"))
	if state, _ := n.Staleness(); state == guard.Fresh {
		t.Fatal("the serial was not the highest")
	}
	out := []*bundle.PrivateKey{w.heartbeat["eu"]}
	w.heartbeat["eu"] = key(bundle.RoleHeartbeat, "eu", 50)
	n.Deliver(w.rotated(out, w.heartbeat["eu"]))
	n.wait("rotation", func() bool { return n.Status().RootVersion == 2 })
	if state, _ := n.Staleness(); state != guard.Stale {
		t.Errorf("the rotation alone renewed the lease: %v", state)
	}
	n.Deliver(w.beat("eu"))
	if state, _ := n.Staleness(); state != guard.Fresh {
		t.Errorf("by the new key: %v", state)
	}
}

// What somebody who may publish, and sign nothing, sends does not fill the log.
func TestNoLogFlood(t *testing.T) {
	w := newWorld(t)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	var out lines
	n := w.start(func(c *edge.Config) { c.Log = slog.New(slog.NewTextHandler(&out, nil)) })
	n.waitEpoch(1)
	for i := range 2000 {
		typ := []string{bundle.KillType, bundle.HeartbeatType, bundle.ReleaseType, bundle.OrderType, bundle.TrustRootType}[i%5]
		n.Deliver(fmt.Appendf(nil, `{"payloadType":%q,"payload":"o2Fh","signatures":[{"keyid":"%016x","sig":"AAAA"}]}`, typ, i))
	}
	if got := out.count.Load(); got > 100 {
		t.Errorf("%d lines of log", got)
	}
}

// lines counts what is written, a line at a time.
type lines struct{ count atomic.Int64 }

func (l *lines) Write(b []byte) (int, error) { l.count.Add(1); return len(b), nil }
