package edge

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// counters count since the node was opened.
type counters struct {
	verdicts [5]atomic.Uint64

	killed, stale, overload, unrecorded atomic.Uint64
	notDurable                          atomic.Uint64
	traps, fuel                         atomic.Uint64
	activations, fallbacks              atomic.Uint64
	heartbeats, discarded               atomic.Uint64
	shadowed, shadowDiffer              atomic.Uint64
	second, secondDisagreed             atomic.Uint64
	secondFailed, secondSkipped         atomic.Uint64
	vectors, vectorsFailed              atomic.Uint64
	attested, attestFailed, alarms      atomic.Uint64

	killsBehind   atomic.Bool
	stepBackNanos atomic.Int64
}

// Metrics are a node's counters since it was opened, and its gauges.
type Metrics struct {
	Decisions [5]uint64 // answers by policy.Verdict
	// Killed answers were stopped by a kill, Stale ones given while the node was
	// not fresh, Overload ones by on_overload, Unrecorded ones without a record,
	// NotDurable ones by on_log_failure because regions were not reached in time.
	Killed, Stale, Overload, Unrecorded, NotDurable uint64
	Traps, Fuel                                     uint64 // of module calls
	Activations, Fallbacks                          uint64
	StepBack                                        time.Duration // the last step back, from its trigger
	// Heartbeats counted as news; Discarded are documents that were not believed.
	Heartbeats, Discarded uint64
	// Shadowed decisions were made on the candidate too, ShadowDiffer of them
	// differently; ShadowDropped had no room.
	Shadowed, ShadowDiffer, ShadowDropped uint64
	// Second decisions were made on the second engine too; for SecondDropped there
	// was no time, for SecondSkipped no memory, and SecondFailed could not be made.
	Second, SecondDisagreed, SecondDropped, SecondSkipped, SecondFailed uint64
	Vectors, VectorsFailed                                              uint64
	Attested, AttestFailed, Alarms                                      uint64

	Epoch, RootVersion uint64
	Ready, Fallback    bool
	WarmBack           bool // the way back's modules are open
	Staleness          guard.Staleness
	HeartbeatAge       time.Duration // negative: none was ever heard
	Kills              int           // kills and lifts
	KillsBehind        bool          // the last heartbeat knew other kills
	InFlight           int64
	Journal            uint64 // durable records of the running boot
	JournalPoisoned    bool
	Live, Shadow       audit.Observed
}

// Metrics returns the node's counters and gauges.
func (n *Node) Metrics() Metrics {
	c, l, st := &n.count, n.live.Load(), n.loader.Status()
	state, age := n.Staleness()
	m := Metrics{
		Killed: c.killed.Load(), Stale: c.stale.Load(), Overload: c.overload.Load(), Unrecorded: c.unrecorded.Load(), NotDurable: c.notDurable.Load(),
		Traps: c.traps.Load(), Fuel: c.fuel.Load(), Activations: c.activations.Load(), Fallbacks: c.fallbacks.Load(),
		StepBack:   time.Duration(c.stepBackNanos.Load()),
		Heartbeats: c.heartbeats.Load(), Discarded: c.discarded.Load(),
		Shadowed: c.shadowed.Load(), ShadowDiffer: c.shadowDiffer.Load(), ShadowDropped: n.shadowing.Dropped(),
		Second: c.second.Load(), SecondDisagreed: c.secondDisagreed.Load(), SecondDropped: n.second.queue.Dropped(), SecondSkipped: c.secondSkipped.Load(), SecondFailed: c.secondFailed.Load(),
		Vectors: c.vectors.Load(), VectorsFailed: c.vectorsFailed.Load(),
		Attested: c.attested.Load(), AttestFailed: c.attestFailed.Load(), Alarms: c.alarms.Load(),
		Epoch: st.Epoch, RootVersion: st.RootVersion, Ready: n.Ready() == nil, Fallback: st.Fallback, WarmBack: st.Warm,
		Staleness: state, HeartbeatAge: time.Duration(age), Kills: n.stop.set.Len(), KillsBehind: c.killsBehind.Load(),
		JournalPoisoned: l.journal.Poisoned() != nil,
	}
	for i := range m.Decisions {
		m.Decisions[i] = c.verdicts[i].Load()
	}
	if l.set != nil {
		m.InFlight, m.Live = l.inFlight.Load(), l.health.Observed()
	}
	if cand := n.candidate.Load(); cand != nil {
		m.Shadow = cand.health.Observed()
	}
	if boots := l.journal.Boots(); len(boots) > 0 {
		m.Journal = boots[len(boots)-1].Size
	}
	return m
}

// Status says what is in force.
func (n *Node) Status() policy.Status {
	st, l := n.loader.Status(), n.live.Load()
	state, age := n.Staleness()
	s := policy.Status{
		Node: n.cfg.Name, Boot: l.journal.Boot(), Epoch: st.Epoch, Ready: n.Ready() == nil,
		Fallback: st.Fallback, RootVersion: st.RootVersion, Ring: st.Ring, Shadow: st.Shadow,
		Staleness: state.String(), HeartbeatAge: age, Kills: len(n.stop.set.Active()),
	}
	if age > 0 {
		s.HeartbeatAge = age / int64(time.Second)
	}
	if st.Epoch != 0 {
		s.Release, s.Since, s.Enforced = st.Release.String(), st.Since, st.Enforced.String()
	}
	if !st.Back.IsZero() && !st.Fallback {
		s.Back = st.Back.String()
	}
	if !st.Candidate.IsZero() {
		s.Candidate = st.Candidate.String()
	}
	if st.Refusal != nil {
		s.Refused = st.Refusal.Reason
	}
	if l.set != nil {
		s.Points = l.set.PointNames()
	}
	return s
}

// Staleness is the node's: that of the point with the shortest lease. The age is
// that of the youngest heartbeat in nanoseconds, -1 when none was ever heard.
func (n *Node) Staleness() (guard.Staleness, int64) {
	lease, now := n.stop.lease.Load(), n.instant(n.cfg.Now())
	age := int64(-1)
	if len(lease.Regions) > 0 {
		age = int64(lease.Age(now, 1))
	}
	l := n.live.Load()
	if l.set == nil {
		if lease.Began.Time == 0 && age < 0 { // its first lease begins with its first release
			return guard.Unleased, age
		}
		state, _ := lease.Judge(now, bundle.Staleness{}, bundle.DefaultLease)
		return state, age
	}
	shortest := time.Duration(1<<63 - 1)
	for _, p := range l.set.Points {
		shortest = min(shortest, p.Lease)
	}
	state, _ := lease.Judge(now, l.rel.Staleness, shortest)
	return state, age
}

// tick does what is done once a second.
func (n *Node) tick(ctx context.Context) {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			n.recordShed()
			return
		case <-every.C:
			n.onceASecond()
		}
	}
}

func (n *Node) onceASecond() {
	n.recordShed()
	n.recordStaleness()
	n.stop.hearing.Lock()
	due := n.stop.dirty && n.cfg.Now().Sub(n.stop.saved) >= saveHeardEvery
	n.stop.hearing.Unlock()
	if due {
		if err := n.saveHeard(); err != nil {
			n.log.Error("what was heard is not stored", "err", err)
		}
	}
}

// recordStaleness writes each change of the node's staleness once.
func (n *Node) recordStaleness() {
	if n.live.Load().set == nil {
		return
	}
	state, age := n.Staleness()
	n.mu.Lock()
	before := n.staleness
	n.staleness = state
	n.mu.Unlock()
	if before == state || state <= guard.Fresh && before <= guard.Fresh {
		return
	}
	n.log.Warn("staleness", "from", before.String(), "to", state.String(), "age", time.Duration(age))
	n.Record(&audit.AdminRecord{Event: "staleness", Text: state.String(), Detail: map[string]any{"from": before.String(), "age_ns": age}})
	if state == guard.Stale {
		n.alarm("stale", "no heartbeat within the shortest lease")
	}
	n.attestSoon()
}
