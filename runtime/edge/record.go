package edge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/mask"
	"github.com/holdfast-policy/holdfast/runtime/watch"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// newRecord describes an answer before it is given. What the release masks is in
// no part of it.
func (n *Node) newRecord(l *live, p *decide.Point, a *asked) (*audit.Record, error) {
	out := &a.outcome
	kept, err := n.toRecord(l, p, a.req)
	if err != nil {
		return nil, fmt.Errorf("record the request: %w", err)
	}
	r := &audit.Record{Kind: audit.KindDecision, Time: a.start.UnixNano()}
	r.Key = n.secret.partKey(n.cfg.Name)
	d := &audit.DecisionRecord{
		Point:     point(p, a.req),
		RequestID: short(kept.ID),
		Subject:   audit.Entity{Type: short(kept.Subject.Type), ID: short(kept.Subject.ID)},
		Action:    short(kept.Action.Name),
		Resource:  audit.Entity{Type: short(kept.Resource.Type), ID: short(kept.Resource.ID)},
		Request:   audit.NewPart(r.Key, kept.json),
		Said:      said(kept.Request),

		Verdict:    out.Decision.Verdict,
		Epoch:      out.Decision.Epoch,
		Activation: l.activation,
		Durability: p.Durability,
		Latency:    a.took.Nanoseconds(),
		Failure:    a.failure,
		Stale:      a.stale,
	}
	r.Decision = d
	d.Trace, d.Span = trace(kept.Context)
	if d.Request != nil {
		d.Request.Slots = n.repeats.slots(d.Request.Bytes)
	}
	if kept.red.Masked() {
		d.Replay = audit.ReplayMasked
	}
	if a.kill != nil {
		d.Kill = &a.kill.Digest
	}
	red := kept.red
	if p == notReady { // nothing but the node has spoken
		red = nil
	}
	return r, errors.Join(recordSaid(r, &out.Decision, red), recordRuns(r, p, out.Runs, red))
}

// point is the point's name as the release has it. While there is none, a name
// that is not one of Holdfast's own may be anything, and is not repeated.
func point(p *decide.Point, req *policy.Request) string {
	if p == notReady && !slices.Contains(policy.Points(), req.Point) {
		return policy.PointCustom
	}
	return req.Point
}

// recordSaid records what the policies said.
func recordSaid(r *audit.Record, decision *policy.Decision, red *mask.Redaction) (err error) {
	d := r.Decision
	for _, reason := range decision.Reasons {
		d.Reasons = append(d.Reasons, audit.Reason{Code: red.Text(reason.Code), Text: red.Text(reason.Text)})
	}
	d.Obligations = decision.Obligations
	if red.Masked() && len(d.Obligations) > 0 {
		d.Obligations = nil // those of the answer stay as they are
		for _, o := range decision.Obligations {
			d.Obligations = append(d.Obligations, policy.Obligation{ID: red.Text(o.ID), Type: red.Text(o.Type), Properties: red.Members(o.Properties)})
		}
	}
	if decision.Value != nil {
		if d.Value, err = part(r.Key, red.Value(decision.Value)); err != nil {
			return fmt.Errorf("record the value: %w", err)
		}
	}
	return nil
}

// maxShort bounds the members of a record that repeat the request, in bytes;
// the request itself is there in full.
const maxShort = 256

// short cuts a text to maxShort bytes, between characters, and marks the cut.
func short(s string) string {
	if len(s) <= maxShort {
		return s
	}
	return strings.ToValidUTF8(s[:maxShort], "") + "..."
}

// recordRuns records what each module did.
func recordRuns(r *audit.Record, p *decide.Point, runs []decide.Run, red *mask.Redaction) (err error) {
	d := r.Decision
	var logs []abi.Log
	d.Runs = make([]audit.Run, len(runs))
	for i, run := range runs {
		m := &p.Modules[i]
		d.Runs[i] = audit.Run{Module: m.Index, Verdict: run.Decision.Verdict, Fuel: run.Fuel, Trap: string(run.Trap)}
		for _, l := range run.Logs {
			logs = append(logs, abi.Log{Level: l.Level, Text: red.Text(l.Text)})
		}
		if run.Trap != "" && d.Failure == nil {
			d.Failure = &audit.Failure{Mode: run.FailMode, Cause: run.Cause(), Trap: string(run.Trap), Module: &m.Digest}
		}
	}
	if len(logs) > 0 {
		if d.Logs, err = part(r.Key, logs); err != nil {
			return fmt.Errorf("record the logs: %w", err)
		}
	}
	return nil
}

func part(key audit.PartKey, v any) (*audit.Part, error) {
	b, err := wire.Marshal(v)
	if err != nil {
		return nil, err
	}
	return audit.NewPart(key, b), nil
}

// activate is the loader's last step: it writes the activation leaf and puts
// the set in force. When the leaf cannot be written, the old set stays; but a
// step back is taken all the same: the reopened journal announces it.
func (n *Node) activate(_ context.Context, set *decide.Set, rel *bundle.SignedRelease) error {
	n.switching.Lock()
	defer n.switching.Unlock()
	if err := n.beginLease(); err != nil {
		return err
	}
	j := n.live.Load().journal
	rec := activationRecord(set, rel)
	next, err := announce(j, set, rec)
	switch {
	case err != nil && !set.Fallback:
		return err
	case err != nil:
		n.log.Error("step back taken without its record, which follows", "err", err)
		next = &live{journal: j, set: set, announced: rec}
	}
	next.inForce = n.newInForce(set, rel)
	n.live.Store(next)
	n.vectorsRun.Store(&audit.VectorRun{Passed: uint64(set.Vectors), At: n.cfg.Now().UnixNano()})
	n.count.activations.Add(1)
	return nil
}

func (n *Node) newInForce(set *decide.Set, rel *bundle.SignedRelease) *inForce {
	var bake bundle.Bake
	if ring := rel.RingOf(n.cfg.Name, n.labels()); ring >= 0 && ring < len(rel.Rings) && !set.Fallback {
		bake = rel.Rings[ring].Bake
	}
	return &inForce{rel: rel, health: watch.NewHealth(rel.Halt, bake, n.cfg.Now())}
}

// announce writes a set's activation leaf, durably, before the set decides.
func announce(j *journal.Journal, set *decide.Set, rec *audit.ActivationRecord) (*live, error) {
	ref, err := j.Append(context.Background(), &audit.Record{
		Kind: audit.KindActivation, Time: time.Now().UnixNano(), Activation: rec,
	}, policy.Synced)
	if err != nil {
		return nil, fmt.Errorf("write the activation of epoch %d: %w", set.Epoch, err)
	}
	return &live{journal: j, set: set, activation: ref.Seq, announced: rec}, nil
}

// retentionOf is how long the records of a point are kept; nil for ever.
func retentionOf(rel *bundle.SignedRelease, point string) *audit.Retention {
	for i := range rel.Points {
		if p := &rel.Points[i]; p.Name == point && p.Retention != (bundle.Retention{}) {
			return &audit.Retention{Class: p.Retention.Class, RecordsDays: p.Retention.RecordsDays, PartsDays: p.Retention.PartsDays}
		}
	}
	return nil
}

// activationRecord names every package once and gives each module its index.
func activationRecord(set *decide.Set, rel *bundle.SignedRelease) *audit.ActivationRecord {
	rec := &audit.ActivationRecord{Epoch: set.Epoch, Release: set.Release, Fallback: set.Fallback, Author: rel.Author, Approver: rel.Approver}
	type use struct{ pkg, params wire.Digest }
	index := map[use]uint64{}
	for _, name := range set.PointNames() {
		p := set.Points[name]
		point := audit.Point{Name: name, Retention: retentionOf(rel, name)}
		for i := range p.Modules {
			m := &p.Modules[i]
			u := use{m.Digest, m.Params}
			at, ok := index[u]
			if !ok {
				at = uint64(len(rec.Modules))
				index[u] = at
				entry := audit.Module{Name: m.Name, Package: m.Digest, Module: m.Wasm}
				if !m.Params.IsZero() {
					entry.Params = &m.Params
				}
				rec.Modules = append(rec.Modules, entry)
			}
			if m.Index != at { // of a way back it is set, and may be read, already
				m.Index = at
			}
			point.Modules = append(point.Modules, at)
		}
		rec.Points = append(rec.Points, point)
	}
	return rec
}

// refusalInterval is how often the refusal of a release becomes a record of its
// own; those in between are counted in the next one. Anybody who reaches the bus
// can offer junk, and the journal must not grow with it.
const refusalInterval = time.Second

// refused records that a release was not taken.
func (n *Node) refused(digest wire.Digest, why error) {
	n.mu.Lock()
	n.refusals++
	count := n.refusals
	now := n.cfg.Now()
	if now.Sub(n.refusedAt) < refusalInterval {
		n.mu.Unlock()
		return
	}
	n.refusedAt, n.refusals = now, 0
	n.mu.Unlock()
	n.Record(&audit.AdminRecord{
		Event: "release_refused", Text: why.Error(), Count: count, Detail: map[string]any{"release": digest.String()},
	})
}

// Record writes an administrative record, if the journal can be written; what
// it tells is in the log as well.
func (n *Node) Record(rec *audit.AdminRecord) {
	if err := n.Write(rec); err != nil {
		n.log.Error("administrative record not written", "event", rec.Event, "err", err)
	}
}

// Write writes an administrative record; nil promises that it is on the disk.
func (n *Node) Write(rec *audit.AdminRecord) error {
	_, err := n.Journal().Append(context.Background(), &audit.Record{Kind: audit.KindAdmin, Time: time.Now().UnixNano(), Admin: rec}, policy.Synced)
	return err
}
