package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/hub"
	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/fleetkit"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// mailbox keeps the alarms that came one way, in order.
type mailbox struct {
	mu  sync.Mutex
	all []hub.Alarm
}

func (m *mailbox) put(raw []byte) error {
	var a hub.Alarm
	if err := json.Unmarshal(raw, &a); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, a)
	return nil
}

func (m *mailbox) has(kind, node string, epoch uint64, resolved bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.all, func(a hub.Alarm) bool {
		return a.Kind == kind && a.Node == node && a.Epoch == epoch && a.Resolved == resolved
	})
}

// canaryThenRest are two rings: one that is labelled, and everybody else.
func canaryThenRest(shadow, bake bundle.Bake) []bundle.Ring {
	return []bundle.Ring{
		{Name: "canary", Labels: map[string]string{"ring": "canary"}, Percent: 100, Shadow: shadow, Bake: bake},
		{Name: "rest", Percent: 100, Shadow: shadow, Bake: bundle.Bake{Decisions: 20}},
	}
}

// patient keeps a busy machine from being taken for a slow policy.
var patient = bundle.Halt{LatencyMicros: 5_000_000}

// ringFleet is a region of three hub servers with a canary and one other node.
type ringFleet struct {
	*fleetkit.Fleet
	t            *testing.T
	ctx          context.Context
	admin        *assembly.Admin
	canary, rest string // their URLs
	hook, wire   mailbox
}

// watched connects an operator, with the alarms on a subject going into a mailbox.
func watched(t *testing.T, ctx context.Context, f *fleetkit.Fleet, subject string, alarms *mailbox) *assembly.Admin {
	t.Helper()
	admin, err := f.Admin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	stop, err := admin.Conn().Subscribe(ctx, subject, func(m bus.Msg) { _ = alarms.put(m.Data) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return admin
}

func newRingFleet(t *testing.T, ctx context.Context) *ringFleet {
	t.Helper()
	f := &ringFleet{Fleet: newFleet(t, 3, "eu"), t: t, ctx: ctx}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var raw json.RawMessage
		if err := errors.Join(json.NewDecoder(r.Body).Decode(&raw), f.hook.put(raw)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(receiver.Close)
	configure(t, f.Fleet, "heartbeat: 500ms\nalarms: {webhook: '"+receiver.URL+"'}\n")
	if err := f.StartHubs(ctx); err != nil {
		t.Fatal(err)
	}
	f.admin = watched(t, ctx, f.Fleet, "hf.bank.eu.alarm.>", &f.wire)
	f.canary = startEdge(t, ctx, f.Fleet, "canary", "eu", map[string]string{"ring": "canary"})
	f.rest = startEdge(t, ctx, f.Fleet, "rest", "eu", nil)
	return f
}

// ask asks a node so many times, one after the other.
func (f *ringFleet) ask(url string, n int) {
	f.t.Helper()
	for range n {
		decideUntil(f.t, url, "ada", policy.Allow)
	}
}

// phases waits until the newest rollout's rings have these phases, every node
// of the ring in question reports it, and the state is that.
func (f *ringFleet) phases(epoch uint64, state string, phases ...string) {
	f.t.Helper()
	until(f.t, f.ctx, f.Fleet, fmt.Sprintf("epoch %d %s %v", epoch, state, phases), func(s *assembly.State) bool {
		p := s.View().Rollout
		if p == nil || p.Epoch != epoch || p.State != state {
			return false
		}
		for i, r := range p.Rings {
			if r.Phase != phases[i] || r.Phase != bundle.PhaseWaiting && r.Nodes != r.Of {
				return false
			}
		}
		return true
	})
}

// orders returns every order that the region has of an epoch, and fails unless
// their serials are 1, 2, 3... each once.
func (f *ringFleet) orders(epoch uint64) (out []*bundle.SignedOrder) {
	f.t.Helper()
	region := jetstream.Region{Conn: f.admin.Conn(), Tenant: "bank", Name: "eu"}
	objects, err := region.SignedObjects(f.ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, o := range objects {
		if bundle.Type(o.Data) != bundle.OrderType {
			continue
		}
		order, err := f.Root.OpenOrder(o.Data)
		if err != nil {
			f.t.Fatal(err)
		}
		if order.Epoch == epoch {
			out = append(out, order)
		}
	}
	for i, o := range out {
		if o.Serial != uint64(i+1) {
			f.t.Errorf("epoch %d: order %d of the stream has the serial %d", epoch, i+1, o.Serial)
		}
	}
	return out
}

// TestRollouts has one region of three hub servers bring releases through rings:
// good ones while the server that leads is killed, bad ones that stop themselves.
func TestRollouts(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*timeout)
	defer cancel()
	f := newRingFleet(t, ctx)
	publish(t, ctx, f.Fleet, lenient, allow(t, "ada"))
	counted(t, ctx, f.Fleet, 2, 2)
	loads := map[string]*load{}
	f.throughRings()
	f.leaderKilledMidway()
	for node, url := range map[string]string{"canary": f.canary, "rest": f.rest} {
		loads[node] = startLoad(t, url, `{"document":{"user":"ada"}}`)
	}
	f.leaderKilledWhilePublishing()
	bad := f.poison()
	for node, l := range loads {
		l.end()
		l.answeredAll(t, node)
	}
	f.away()
	for _, node := range []string{"canary", "rest"} {
		if code := f.Process(node).End(syscall.SIGTERM); code != 0 {
			t.Errorf("%s: exit code %d", node, code)
		}
	}
	f.recorded(bad)
}

func lenient(r *bundle.Release) {
	r.Points[0].OnError, r.Points[0].OnFuel = policy.FailAllowFlagged, policy.FailEscalate
}

// ringed puts a release through rings that bake by decisions.
func ringed(shadow, bake bundle.Bake, halt bundle.Halt) func(*bundle.Release) {
	return func(r *bundle.Release) {
		lenient(r)
		r.Rings, r.Halt = canaryThenRest(shadow, bake), halt
	}
}

var shadowFirst = ringed(bundle.Bake{Decisions: 30}, bundle.Bake{Decisions: 30}, patient)

// throughRings: each phase is there to see, for as long as nobody asks.
func (f *ringFleet) throughRings() {
	f.t.Helper()
	s := publish(f.t, f.ctx, f.Fleet, shadowFirst, allow(f.t, "ada"), says(f.t, policy.Allow, policy.Allow, 0))
	f.phases(s.Epoch, bundle.RolloutRunning, bundle.PhaseShadow, bundle.PhaseWaiting)
	if st := status(f.t, f.canary); st.Epoch != s.Epoch-1 || st.Candidate != s.Digest.String() || !st.Shadow {
		f.t.Errorf("the canary in the shadow: %+v", st)
	}
	f.ask(f.canary, 31)
	f.phases(s.Epoch, bundle.RolloutRunning, bundle.PhaseActive, bundle.PhaseWaiting)
	if st := status(f.t, f.rest); st.Epoch != s.Epoch-1 {
		f.t.Errorf("the rest beside an active canary: %+v", st)
	}
	f.ask(f.canary, 31)
	f.phases(s.Epoch, bundle.RolloutRunning, bundle.PhaseActive, bundle.PhaseShadow)
	f.ask(f.rest, 31)
	f.phases(s.Epoch, bundle.RolloutRunning, bundle.PhaseActive, bundle.PhaseActive)
	f.ask(f.rest, 21)
	f.phases(s.Epoch, bundle.RolloutComplete, bundle.PhaseActive, bundle.PhaseActive)
	counted(f.t, f.ctx, f.Fleet, 2, 2)
	if n := len(f.orders(s.Epoch)); n != 5 {
		f.t.Errorf("%d orders; want shadow, active, shadow, active, complete", n)
	}
}

// leaderKilledMidway kills the server that leads in the middle of a rollout, as
// often as there are phases in which another can carry on.
func (f *ringFleet) leaderKilledMidway() {
	f.t.Helper()
	s := publish(f.t, f.ctx, f.Fleet, shadowFirst, allow(f.t, "ada"))
	var took []time.Duration
	kill := func(ask func()) {
		leader, before := leading(f.t, f.ctx, f.Fleet, "eu"), len(f.orders(s.Epoch))
		f.Process(leader).End(syscall.SIGKILL)
		killed := time.Now()
		ask()
		until(f.t, f.ctx, f.Fleet, "the next order", func(st *assembly.State) bool {
			p := st.View().Rollout
			return p != nil && p.Epoch == s.Epoch && p.Serial > uint64(before)
		})
		if next := f.orders(s.Epoch)[before]; next.Leader == leader {
			f.t.Errorf("order %d is by %s, which was killed", next.Serial, leader)
		} else {
			took = append(took, time.Unix(0, next.Created).Sub(killed))
		}
		if _, err := f.StartHub(leader); err != nil {
			f.t.Fatal(err)
		}
	}
	f.phases(s.Epoch, bundle.RolloutRunning, bundle.PhaseShadow, bundle.PhaseWaiting)
	kill(func() { f.ask(f.canary, 31) })
	f.phases(s.Epoch, bundle.RolloutRunning, bundle.PhaseActive, bundle.PhaseWaiting)
	kill(func() { f.ask(f.canary, 31) })
	f.phases(s.Epoch, bundle.RolloutRunning, bundle.PhaseActive, bundle.PhaseShadow)
	f.ask(f.rest, 31)
	f.phases(s.Epoch, bundle.RolloutRunning, bundle.PhaseActive, bundle.PhaseActive)
	f.ask(f.rest, 21)
	f.phases(s.Epoch, bundle.RolloutComplete, bundle.PhaseActive, bundle.PhaseActive)
	if n := len(f.orders(s.Epoch)); n != 5 {
		f.t.Errorf("%d orders over two kills; want 5", n)
	}
	figures(f.t, "leader's kill -9 to the next order", took)
}

// leaderKilledWhilePublishing kills the server that leads when the first chunk of
// a package is on its way, and publishes again until it is done.
func (f *ringFleet) leaderKilledWhilePublishing() {
	f.t.Helper()
	big := says(f.t, policy.Allow, policy.Allow, 3<<20)
	envelope, s, err := f.Release([]fleetkit.Policy{big}, lenient)
	if err != nil {
		f.t.Fatal(err)
	}
	leader, chunk := leading(f.t, f.ctx, f.Fleet, "eu"), make(chan struct{}, 1)
	stop, err := f.admin.Conn().Subscribe(f.ctx, "hf.bank.eu.blob.>", func(bus.Msg) {
		select {
		case chunk <- struct{}{}:
		default:
		}
	})
	if err != nil {
		f.t.Fatal(err)
	}
	defer stop()
	first := make(chan error, 1)
	go func() {
		_, _, err := f.admin.Publish(f.ctx, envelope, big.File)
		first <- err
	}()
	<-chunk
	f.Process(leader).End(syscall.SIGKILL)
	killed, tries := time.Now(), 1
	for err = <-first; err != nil; tries++ {
		if f.ctx.Err() != nil {
			f.t.Fatal(err)
		}
		time.Sleep(25 * time.Millisecond)
		_, _, err = f.admin.Publish(f.ctx, envelope, big.File)
	}
	f.t.Logf("figure: leader's kill -9 to a publish that succeeded: %v, %d tries", time.Since(killed).Round(time.Millisecond), tries)
	if _, _, err := f.admin.Publish(f.ctx, envelope, big.File); err != nil {
		f.t.Errorf("published once more: %v", err)
	}
	f.WasPublished(s)
	counted(f.t, f.ctx, f.Fleet, 2, 2)
	if _, err := f.StartHub(leader); err != nil {
		f.t.Fatal(err)
	}
	f.once("hf.bank.eu.pol.rel.*", "hf.bank.eu.blob.>")
}

// once fails unless each subject of the region's policies holds one message.
func (f *ringFleet) once(subjects ...string) {
	f.t.Helper()
	for _, subject := range subjects {
		seen := map[string]bool{}
		stream := f.admin.Conn().Stream("eu", "POL_bank")
		for seq := uint64(1); ; {
			group, err := stream.Batch(f.ctx, seq, subject, 64, 4<<20)
			if errors.Is(err, bus.ErrNotFound) || err == nil && len(group) == 0 {
				break
			}
			if err != nil {
				f.t.Fatal(err)
			}
			for _, m := range group {
				if seen[m.Subject] {
					f.t.Errorf("%s is there twice", m.Subject)
				}
				seen[m.Subject], seq = true, m.Seq+1
			}
		}
		if len(seen) == 0 {
			f.t.Errorf("nothing on %s", subject)
		}
	}
}

// A poisoned release is signed by two people and must stop by itself.
type poisoned struct {
	name    string
	policy  fleetkit.Policy
	change  func(*bundle.Release)
	reason  string // in the halt
	active  bool   // it gets as far as in force on the canary
	verdict policy.Verdict
	rel     *bundle.SignedRelease
}

// poison publishes bad releases, one after the other, under load.
func (f *ringFleet) poison() []*poisoned {
	f.t.Helper()
	now, shadow := bundle.Bake{}, bundle.Bake{Decisions: 1000}
	baked := bundle.Bake{Decisions: 1000}
	denying := patient
	denying.DenyPerMillion = 500_000
	all := []*poisoned{
		{name: "traps", policy: unruly(f.t, 5), change: ringed(now, baked, patient), reason: "stepped back", active: true, verdict: policy.FailAllowFlagged.Verdict()},
		{name: "loops", policy: unruly(f.t, 1), change: ringed(now, baked, patient), reason: "stepped back", active: true, verdict: policy.FailEscalate.Verdict()},
		{name: "denies", policy: says(f.t, policy.Deny, policy.Deny, 0), change: ringed(now, baked, denying), reason: "stepped back", active: true, verdict: policy.Deny},
		{name: "denies, in the shadow", policy: says(f.t, policy.Deny, policy.Deny, 0), change: ringed(shadow, baked, patient), reason: "in the shadow differ"},
		{name: "traps, in the shadow", policy: unruly(f.t, 5), change: ringed(shadow, baked, patient), reason: "in the shadow"},
		{name: "twice as large as may be", policy: says(f.t, policy.Allow, policy.Allow, 8<<20), change: ringed(now, baked, patient), reason: "refused"},
		{name: "vectors that fail", policy: says(f.t, policy.Allow, policy.Deny, 0), change: ringed(now, baked, patient), reason: "vector"},
	}
	base := status(f.t, f.canary).Enforced
	var halted []time.Duration
	for _, p := range all {
		begin := time.Now()
		p.rel = publish(f.t, f.ctx, f.Fleet, p.change, p.policy)
		until(f.t, f.ctx, f.Fleet, p.name+": halted", func(s *assembly.State) bool {
			r := s.View().Rollout
			return r != nil && r.Epoch == p.rel.Epoch && r.State == bundle.RolloutHalted
		})
		halted = append(halted, time.Since(begin))
		var orders []*bundle.SignedOrder // a replica may be a moment behind the one that was asked
		wait(f.t, p.name+": the order that halts", func() bool {
			orders = f.orders(p.rel.Epoch)
			return len(orders) > 0 && orders[len(orders)-1].State == bundle.RolloutHalted
		})
		if why := orders[len(orders)-1].Reason; !strings.Contains(why, p.reason) {
			f.t.Errorf("%s: halted because %q", p.name, why)
		} else {
			f.t.Logf("%s: halted: %s", p.name, why)
		}
		wait(f.t, p.name+": the canary is back", func() bool { st := status(f.t, f.canary); return st.Enforced == base && !st.Shadow })
		for _, m := range []*mailbox{&f.hook, &f.wire} {
			wait(f.t, p.name+": the alarm", func() bool { return m.has(hub.AlarmHalted, "", p.rel.Epoch, false) })
		}
	}
	figures(f.t, "publish of a bad release to its halt, seen", halted)
	// What is good goes on from there, and the alarm of the halt is over.
	s := publish(f.t, f.ctx, f.Fleet, shadowFirst, allow(f.t, "ada"))
	f.phases(s.Epoch, bundle.RolloutComplete, bundle.PhaseActive, bundle.PhaseActive)
	counted(f.t, f.ctx, f.Fleet, 2, 2)
	last := all[len(all)-1].rel.Epoch
	for _, m := range []*mailbox{&f.hook, &f.wire} {
		wait(f.t, "the halt's alarm is resolved", func() bool { return m.has(hub.AlarmHalted, "", last, true) })
	}
	return all
}

// away: a node is killed and two releases go out; the alarm is raised and, when
// it is back with the newest one, resolved.
func (f *ringFleet) away() {
	f.t.Helper()
	f.Process("rest").End(syscall.SIGKILL)
	passed := publish(f.t, f.ctx, f.Fleet, lenient, allow(f.t, "eva"))
	counted(f.t, f.ctx, f.Fleet, 1, 2)
	newest := publish(f.t, f.ctx, f.Fleet, lenient, allow(f.t, "ada"))
	for _, m := range []*mailbox{&f.hook, &f.wire} {
		wait(f.t, "the alarm of a node that is away", func() bool { return m.has(hub.AlarmAway, "rest", 0, false) })
	}
	f.rest = restartEdge(f.t, f.Fleet, "rest")
	wait(f.t, "the newest release", func() bool { return status(f.t, f.rest).Epoch == newest.Epoch })
	counted(f.t, f.ctx, f.Fleet, 2, 2)
	for _, m := range []*mailbox{&f.hook, &f.wire} {
		wait(f.t, "its end", func() bool { return m.has(hub.AlarmAway, "rest", 0, true) })
	}
	wait(f.t, "an answer by it", func() bool { return decideUntil(f.t, f.rest, "ada", policy.Allow).Epoch == newest.Epoch })
	_ = passed
}

// recorded holds what the nodes recorded against what should have happened.
func (f *ringFleet) recorded(bad []*poisoned) {
	f.t.Helper()
	canary, rest := records(f.t, f.Fleet, "canary"), records(f.t, f.Fleet, "rest")
	var back []time.Duration
	for _, p := range bad {
		for _, a := range enforced(rest) {
			if a.Release == p.rel.Digest {
				f.t.Errorf("%s: left ring one: the rest had epoch %d in force", p.name, a.Epoch)
			}
		}
		in := slices.ContainsFunc(enforced(canary), func(a *audit.ActivationRecord) bool { return a.Release == p.rel.Digest })
		if in != p.active {
			f.t.Errorf("%s: in force on the canary: %v", p.name, in)
		}
		if p.active {
			back = append(back, f.wentBack(canary, p))
		}
	}
	figures(f.t, "trigger to the release before, by the canary's records", back)
	if n := len(admins(canary, "fallback")); n != 3 {
		f.t.Errorf("%d records of steps back", n)
	}
	if n := len(admins(rest, "fallback")); n != 0 {
		f.t.Errorf("the rest stepped back %d times", n)
	}
}

// wentBack is the time from the decision that broke the threshold to the
// activation of the release before. Every answer in between is that of the
// declared fail mode.
func (f *ringFleet) wentBack(all []*audit.Record, p *poisoned) time.Duration {
	f.t.Helper()
	var n uint64
	var trigger time.Time
	for _, r := range all {
		switch {
		case r.Kind == audit.KindActivation && r.Activation.Fallback && r.Activation.Epoch == p.rel.Epoch:
			if trigger.IsZero() {
				f.t.Errorf("%s: stepped back after %d decisions", p.name, n)
			}
			return time.Unix(0, r.Time).Sub(trigger)
		case r.Kind == audit.KindDecision && r.Decision.Epoch == p.rel.Epoch:
			if r.Decision.Verdict != p.verdict {
				f.t.Errorf("%s: answered %s", p.name, r.Decision.Verdict)
			}
			if n++; n == p.rel.Halt.Thresholds().MinDecisions {
				trigger = time.Unix(0, r.Time+r.Decision.Latency)
			}
		}
	}
	f.t.Errorf("%s: no record of a step back", p.name)
	return 0
}
