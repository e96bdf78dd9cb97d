package replay

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// work decides a job's records again.
func (r *Replayer) work(j *job) {
	for _, rec := range j.records {
		j.out.Decisions++
		d := rec.Decision
		switch {
		case d.Instead != 0:
			r.judge(j, rec, JudgedInstead, instead(rec))
		case d.Kill != nil:
			r.judge(j, rec, JudgedKill, killed(d))
		case d.Activation == 0:
			r.judge(j, rec, JudgedNotReady, notReady(d))
		case masked(d):
			j.out.Masked++
		case d.Request == nil || d.Request.Bytes == nil:
			j.out.Erased++
		case slices.ContainsFunc(d.Runs, func(run audit.Run) bool { return run.Trap == string(abi.TrapHost) }):
			r.judge(j, rec, JudgedHost, true)
		case r.candidate != nil && late(d):
			r.judge(j, rec, JudgedStale, true)
		default:
			r.again(j, rec)
		}
	}
}

// masked reports whether the node left something out before it wrote the record.
func masked(d *audit.DecisionRecord) bool { return d.Replay != audit.ReplayExact }

// late reports whether the node answered as its point does when it is stale.
func late(d *audit.DecisionRecord) bool { return d.Failure != nil && d.Failure.Cause == "stale" }

// killed and notReady are what the record of such an answer must say.
func killed(d *audit.DecisionRecord) bool {
	return d.Verdict == policy.Deny && len(d.Runs) == 0 && len(d.Reasons) == 1 && d.Reasons[0].Code == guard.CodeKilled
}

func notReady(d *audit.DecisionRecord) bool {
	return d.Verdict == policy.Deny && len(d.Runs) == 0 && len(d.Reasons) == 1 && d.Reasons[0].Code == decide.CodeNotReady
}

// instead reports whether a record in the place of a decision says no more than
// its fail mode may.
func instead(rec *audit.Record) bool {
	d := rec.Decision
	if d.Instead >= rec.Seq || d.Failure == nil || d.Failure.Cause != "durability" || len(d.Reasons) == 0 || d.Reasons[len(d.Reasons)-1].Code != guard.CodeNotDurable {
		return false
	}
	return d.Failure.Mode == policy.FailAllowFlagged || d.Verdict <= d.Failure.Mode.Verdict() && len(d.Reasons) == 1 && len(d.Obligations) == 0
}

// judge counts a record that no policy decided. One that does not say what the
// rule says is different.
func (r *Replayer) judge(j *job, rec *audit.Record, as string, ok bool) {
	if ok {
		j.out.Judged[as]++
		return
	}
	j.differ(rec, []string{as}, said(rec.Decision))
}

// again decides one record once more.
func (r *Replayer) again(j *job, rec *audit.Record) {
	l, a := r.candidate, j.activations[rec.Decision.Activation]
	if l == nil {
		if a == nil || a.set == nil {
			j.out.Unknown++
			if a == nil {
				j.out.problem(j.node, j.boot, rec.Seq, errors.New("the activation that it names is not in the export"))
			}
			return
		}
		l = a.set
	}
	req, err := policy.ParseRequest(rec.Decision.Point, rec.Decision.Request.Bytes)
	if err != nil {
		j.out.problem(j.node, j.boot, rec.Seq, err)
		j.differ(rec, []string{"request"}, said(rec.Decision))
		return
	}
	var what []string
	var now *audit.DecisionRecord
	for _, ask := range asks(l.Set, req) {
		point, out := ask(rec.Time)
		if now, err = describe(l, point, a, rec.Decision, req, out); err != nil {
			j.out.problem(j.node, j.boot, rec.Seq, err)
			j.differ(rec, []string{"record"}, said(rec.Decision))
			return
		}
		if what = differs(rec.Decision, now, r.candidate == nil); what == nil {
			j.out.Exact++
			return
		}
	}
	j.differ(rec, what, said(now))
}

// An ask decides a request at an instant.
type ask func(now int64) (*decide.Point, decide.Outcome)

// unknownPoint is what answers where a release has no such point.
var unknownPoint = &decide.Point{}

// CodeNoPoint is the reason code of a decision for which a candidate has no point.
const CodeNoPoint = "no_such_point"

// asks are the ways in which a node may have been asked the request: by its own
// API, or, when it looks like that, by OPA's data API first.
func asks(set *decide.Set, req *policy.Request) (out []ask) {
	if req.Bare && req.Resource.Type == "data" {
		path := strings.Split(req.Resource.ID, "/")
		out = append(out, func(now int64) (*decide.Point, decide.Outcome) {
			p := set.PointOf(path)
			if p == nil {
				return unknownPoint, decide.UnknownPath()
			}
			o, _ := p.Data(req, path, now)
			return p, o
		})
	}
	return append(out, func(now int64) (*decide.Point, decide.Outcome) {
		p := set.Points[req.Point]
		if p == nil {
			return unknownPoint, decide.Outcome{Decision: policy.Decision{Reasons: []policy.Reason{{Code: CodeNoPoint, Text: "the release has no such point"}}}}
		}
		return p, p.Evaluate(req, now)
	})
}

// describe makes the record of an outcome as a node does: what stands after the
// policies comes from the old record, because it was the node's state, not theirs.
func describe(l *loaded, p *decide.Point, a *activation, old *audit.DecisionRecord, req *policy.Request, out decide.Outcome) (*audit.DecisionRecord, error) {
	now := &audit.DecisionRecord{Point: p.Name, Epoch: old.Epoch}
	if late(old) {
		if p.OnStale == policy.FailDeny {
			out = decide.Outcome{}
		}
		out.Decision = guard.Late(p.OnStale, out.Decision, time.Duration(old.Stale.Age))
		now.Failure = &audit.Failure{Mode: p.OnStale, Cause: "stale"}
	}
	out.Decision = guard.Obligations(req, out.Decision)
	if a != nil {
		now.Epoch = a.record.Epoch
	}
	if len(old.Reasons) == 1 && old.Reasons[0].Code == decide.CodeTooLarge {
		out = decide.TooLarge(out)
	}
	return now, fill(now, p, a, out)
}

func fill(d *audit.DecisionRecord, p *decide.Point, a *activation, out decide.Outcome) (err error) {
	d.Verdict, d.Obligations = out.Decision.Verdict, out.Decision.Obligations
	for _, r := range out.Decision.Reasons {
		d.Reasons = append(d.Reasons, audit.Reason{Code: r.Code, Text: r.Text})
	}
	if out.Decision.Value != nil {
		if d.Value, err = part(out.Decision.Value); err != nil {
			return err
		}
	}
	var logs []abi.Log
	for i := range out.Runs {
		r := &out.Runs[i]
		d.Runs = append(d.Runs, audit.Run{Module: a.index(p, i), Verdict: r.Decision.Verdict, Fuel: r.Fuel, Trap: string(r.Trap)})
		logs = append(logs, r.Logs...)
		if r.Trap != "" && d.Failure == nil {
			d.Failure = &audit.Failure{Mode: r.FailMode, Cause: r.Cause(), Trap: string(r.Trap), Module: &p.Modules[i].Digest}
		}
	}
	if len(logs) > 0 {
		d.Logs, err = part(logs)
	}
	return err
}

// index is the number of a point's i-th module in the activation leaf.
func (a *activation) index(p *decide.Point, i int) uint64 {
	if a == nil {
		return uint64(i)
	}
	for _, named := range a.record.Points {
		if named.Name == p.Name && i < len(named.Modules) {
			return named.Modules[i]
		}
	}
	return uint64(i)
}

func part(v any) (*audit.Part, error) {
	b, err := wire.Marshal(v)
	if err != nil {
		return nil, err
	}
	return audit.NewPart(nil, b), nil
}

// differs names what is not the same. With the same release everything that the
// record says of the decision must be; a candidate's modules may use other fuel.
func differs(old, now *audit.DecisionRecord, all bool) (what []string) {
	add := func(name string, same bool) {
		if !same {
			what = append(what, name)
		}
	}
	add("verdict", old.Verdict == now.Verdict)
	if all {
		add("reasons", slices.Equal(old.Reasons, now.Reasons))
	} else {
		add("reasons", slices.Equal(codes(old), codes(now)))
	}
	add("obligations", sameObligations(old.Obligations, now.Obligations))
	add("value", samePart(old.Value, now.Value))
	if !all {
		return what
	}
	add("point", old.Point == now.Point || now.Point == "")
	add("epoch", old.Epoch == now.Epoch)
	add("runs", slices.Equal(old.Runs, now.Runs))
	add("failure", reflect.DeepEqual(old.Failure, now.Failure))
	add("logs", samePart(old.Logs, now.Logs))
	return what
}

// sameObligations compares encodings when values are not the same as they are:
// an empty map and none are one in a record.
func sameObligations(old, now []policy.Obligation) bool {
	if len(old) == 0 && len(now) == 0 || reflect.DeepEqual(old, now) {
		return true
	}
	a, errA := wire.Marshal(old)
	b, errB := wire.Marshal(now)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// samePart compares bytes; of a part that was erased, only its size is left.
func samePart(old, now *audit.Part) bool {
	switch {
	case old == nil || now == nil:
		return old == now
	case old.Bytes == nil:
		return old.Size == now.Size
	}
	return bytes.Equal(old.Bytes, now.Bytes)
}

func codes(d *audit.DecisionRecord) []string {
	out := make([]string, len(d.Reasons))
	for i, r := range d.Reasons {
		out[i] = r.Code
	}
	return out
}

func said(d *audit.DecisionRecord) Said {
	s := Said{Verdict: d.Verdict.String(), Reasons: codes(d)}
	for _, r := range d.Runs {
		s.Fuel += r.Fuel
	}
	return s
}

func (j *job) differ(rec *audit.Record, what []string, now Said) {
	d := rec.Decision
	diff := &Difference{
		Node: j.node, Boot: j.boot, Seq: rec.Seq, Time: rec.Time, Point: d.Point, Request: d.RequestID,
		Subject: d.Subject, Action: d.Action, Resource: d.Resource, What: what, Recorded: said(d), Now: now,
	}
	j.out.count(diff)
	j.different = append(j.different, diff)
}
