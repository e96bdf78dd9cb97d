package edge

import (
	"fmt"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// CodeOverload is the reason code of an answer to what is beyond the release's
// limits.
const CodeOverload = "overload"

// asked is one request on its way to its answer.
type asked struct {
	req    *policy.Request
	path   []string // of OPA's data API
	isData bool
	start  time.Time

	outcome decide.Outcome
	doc     decide.Document
	took    time.Duration
	kill    *guard.Kill
	stale   *audit.NotFresh
	failure *audit.Failure // of a fail mode that is not a module's
	stopped bool           // no policy was asked
}

// ask decides at a point of the set in force: kills first, then the lease, then
// what is in flight, then the policies.
func (n *Node) ask(l *live, point *decide.Point, a *asked) policy.Answer {
	if kill := n.stop.kills.Load().Stops(a.req, point.Packages); kill != nil {
		a.kill, a.stopped = kill, true
		a.outcome.Decision = kill.Decision()
		a.outcome.Decision.Epoch = l.set.Epoch
		n.count.killed.Add(1)
		return n.answer(l, point, a)
	}
	state, age := n.stop.lease.Load().Judge(n.instant(a.start), l.rel.Staleness, point.Lease)
	if state >= guard.Aging {
		n.notFresh(l, a, state, age)
	}
	late := state == guard.Stale
	if late && point.OnStale == policy.FailDeny {
		a.stopped = true
	} else if over := n.enter(l, point, a.req); over != "" {
		return n.overloaded(l, point, a, over, late)
	} else {
		n.evaluate(l, point, a)
		defer n.leave(l, point)
	}
	if late {
		a.outcome.Decision = guard.Late(point.OnStale, a.outcome.Decision, age)
		a.failure = &audit.Failure{Mode: point.OnStale, Cause: "stale"}
	}
	a.outcome.Decision.Epoch = l.set.Epoch
	return n.answer(l, point, a)
}

func (n *Node) evaluate(l *live, point *decide.Point, a *asked) {
	switch {
	case point == unknownPath:
		a.outcome = decide.UnknownPath()
	case a.isData:
		a.outcome, a.doc = point.Data(a.req, a.path, a.start.UnixNano())
	default:
		a.outcome = point.Evaluate(a.req, a.start.UnixNano())
	}
}

// notFresh tells the policies and the record how long nothing was heard.
func (n *Node) notFresh(l *live, a *asked, state guard.Staleness, age time.Duration) {
	n.count.stale.Add(1)
	a.stale = &audit.NotFresh{State: state.String(), Age: int64(age), Heard: n.stop.lease.Load().Heard(n.instant(a.start), l.rel.Staleness.Aging())}
	told, err := a.req.WithNode(map[string]any{"staleness": state.String(), "age_s": int64(age / time.Second)})
	if err != nil { // no request that was parsed is one of these
		n.log.Error("policies are not told of the staleness", "err", err)
		return
	}
	a.req = told
}

// enter lets a request in, or says what is over its limit.
func (n *Node) enter(l *live, point *decide.Point, req *policy.Request) string {
	if most := point.MaxRequestBytes; most != 0 && uint64(req.Size()) > most {
		return fmt.Sprintf("request of %d bytes; at most %d", req.Size(), most)
	}
	all := l.inFlight.Add(1)
	if most := l.rel.Limits.MaxInFlight; most != 0 && uint64(all) > most {
		l.inFlight.Add(-1)
		return fmt.Sprintf("more than %d requests in flight on this node", most)
	}
	if !point.Enter() {
		l.inFlight.Add(-1)
		return fmt.Sprintf("more than %d requests in flight at %s", point.MaxInFlight, point.Name)
	}
	return ""
}

func (n *Node) leave(l *live, point *decide.Point) {
	point.Leave()
	l.inFlight.Add(-1)
}

// overloaded answers what was not let in by the point's on_overload. It is not
// recorded one by one: the load that is shed is one counted record a second.
func (n *Node) overloaded(l *live, point *decide.Point, a *asked, why string, late bool) policy.Answer {
	verdict := point.OnOverload.Verdict()
	if late {
		verdict = min(verdict, point.OnStale.Verdict())
	}
	n.count.overload.Add(1)
	n.count.verdicts[verdict].Add(1)
	now := a.start.UnixNano()
	n.mu.Lock()
	if n.shed.count == 0 {
		n.shed.from = now
	}
	n.shed.count++
	n.shed.to = now
	n.mu.Unlock()
	a.stopped = true
	took := n.cfg.Now().Sub(a.start)
	return policy.Answer{
		Decision: policy.Decision{Verdict: verdict, Epoch: l.set.Epoch, Reasons: []policy.Reason{{Code: CodeOverload, Text: why}}},
		Node:     n.cfg.Name, Timing: policy.Timing{Decide: took},
	}
}

// recordShed writes how many requests were answered by on_overload.
func (n *Node) recordShed() {
	n.mu.Lock()
	shed := n.shed
	n.shed = unrecorded{}
	n.mu.Unlock()
	if shed.count > 0 {
		n.Record(&audit.AdminRecord{Event: "overload", Count: shed.count, From: shed.from, To: shed.to})
	}
}

// observe counts an answer and leaves it to those who look at it afterwards.
func (n *Node) observe(l *live, point *decide.Point, a *asked, answer *policy.Answer) {
	n.count.verdicts[answer.Verdict].Add(1)
	if !answer.Recorded {
		n.count.unrecorded.Add(1)
	}
	if l.set == nil || a.stopped {
		return
	}
	trapped := false
	for i := range a.outcome.Runs {
		r := &a.outcome.Runs[i]
		n.count.fuel.Add(r.Fuel)
		if r.Trap != "" {
			n.count.traps.Add(1)
			trapped = trapped || r.Trap != abi.TrapInput
		}
	}
	if l.health.Add(answer.Verdict, trapped, a.took) && l.health.Baking(n.cfg.Now()) {
		if why := l.health.Broken(); why != "" {
			n.trip(l, why)
		}
	}
	n.shadowLater(point, a, answer)
	n.secondLater(l, point, a)
}
