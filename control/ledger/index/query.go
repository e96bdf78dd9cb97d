package index

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/inorder"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A Query says which records are wanted; the zero member wants all.
type Query struct {
	Node, Boot string
	// Seqs are first and last; 0 is no bound.
	Seqs audit.Range
	// From and To bound the records' times, in nanoseconds since 1970; To is not
	// included, and 0 is no bound.
	From, To int64
	Kinds    []audit.Kind
	// What follows wants decisions.
	Point    string
	Verdicts []policy.Verdict
	// Code is a reason code.
	Code string
	// Subject is an id, or type and id with a colon between.
	Subject string
	// Policy is the name of a package, or its digest or that of its module, that
	// was asked.
	Policy    string
	RequestID string
	Trace     []byte
}

// decisions reports whether only decisions can match.
func (q *Query) decisions() bool {
	return q.Point != "" || len(q.Verdicts) > 0 || q.Code != "" || q.Subject != "" || q.Policy != "" || q.RequestID != "" || len(q.Trace) > 0
}

// may reports whether a batch may hold what is wanted.
func (q *Query) may(s *summary, seen map[uint64]*audit.ActivationRecord) bool {
	if s.Damage != "" {
		return true
	}
	if q.Seqs.From > s.Last || q.Seqs.To != 0 && q.Seqs.To < s.First || q.From != 0 && s.To < q.From || q.To != 0 && s.From >= q.To {
		return false
	}
	if len(q.Kinds) > 0 && !slices.ContainsFunc(q.Kinds, func(k audit.Kind) bool { return s.Kinds&(1<<k) != 0 }) {
		return false
	}
	if !q.decisions() {
		return true
	}
	return s.Kinds&(1<<audit.KindDecision) != 0 && q.mayDecide(s) &&
		(q.Policy == "" || slices.ContainsFunc(s.Uses, func(seq uint64) bool { return seq != 0 && (seen[seq] == nil || q.asks(seen[seq], "")) }))
}

func (q *Query) mayDecide(s *summary) bool {
	switch {
	case q.Point != "" && s.Points != nil && !slices.Contains(s.Points, q.Point),
		q.Code != "" && s.Codes != nil && !slices.Contains(s.Codes, q.Code),
		len(q.Verdicts) > 0 && !slices.ContainsFunc(q.Verdicts, func(v policy.Verdict) bool { return s.Verdicts&(1<<v) != 0 }),
		q.RequestID != "" && !s.holds(term(termRequest, q.RequestID)),
		len(q.Trace) > 0 && !s.holds(term(termTrace, string(q.Trace))):
		return false
	}
	return q.Subject == "" || slices.ContainsFunc(q.subjectIDs(), func(id string) bool { return s.holds(term(termSubject, id)) })
}

// subjectIDs are the ids that the wanted subject may have: a colon may be part of
// one.
func (q *Query) subjectIDs() []string {
	ids := []string{q.Subject}
	for i := range len(q.Subject) {
		if q.Subject[i] == ':' {
			ids = append(ids, q.Subject[i+1:])
		}
	}
	return ids
}

// asks reports whether the policy is among those of an activation, at a point
// unless that is "".
func (q *Query) asks(a *audit.ActivationRecord, point string) bool {
	if a == nil {
		return false
	}
	for _, p := range a.Points {
		if point != "" && p.Name != point {
			continue
		}
		for _, i := range p.Modules {
			if i < uint64(len(a.Modules)) {
				if m := &a.Modules[i]; m.Name == q.Policy || m.Package.String() == q.Policy || m.Module.String() == q.Policy {
					return true
				}
			}
		}
	}
	return false
}

// Matches reports whether a record is wanted; a is the activation that it names,
// if it is known.
func (q *Query) Matches(r *audit.Record, a *audit.ActivationRecord) bool {
	if r.Seq < q.Seqs.From || q.Seqs.To != 0 && r.Seq > q.Seqs.To || q.From != 0 && r.Time < q.From || q.To != 0 && r.Time >= q.To {
		return false
	}
	if len(q.Kinds) > 0 && !slices.Contains(q.Kinds, r.Kind) {
		return false
	}
	d := r.Decision
	if !q.decisions() || d == nil {
		return !q.decisions()
	}
	switch {
	case q.Point != "" && d.Point != q.Point,
		len(q.Verdicts) > 0 && !slices.Contains(q.Verdicts, d.Verdict),
		q.Code != "" && !slices.ContainsFunc(d.Reasons, func(r audit.Reason) bool { return r.Code == q.Code }),
		q.Subject != "" && q.Subject != d.Subject.ID && q.Subject != d.Subject.Type+":"+d.Subject.ID,
		q.RequestID != "" && d.RequestID != q.RequestID,
		len(q.Trace) > 0 && !bytes.Equal(d.Trace, q.Trace),
		q.Policy != "" && !q.asks(a, d.Point):
		return false
	}
	return true
}

// A Hit is a record that was found. It is what a batch holds; whether the batch
// is what its node signed is for Verify or a proof to say.
type Hit struct {
	Node, Boot string
	Record     *audit.Record
	Leaf       tlog.Hash
}

// Stats say what a query cost.
type Stats struct {
	Batches int // that were read
	Records uint64
	Hits    uint64
	// Unknown are decisions that name an activation which is not there: whether the
	// wanted policy was asked is not known.
	Unknown uint64
	// Damaged are batches that could not be read: what they hold is not known.
	Damaged []string
}

// Find brings the index up to date and yields what matches, node by node, boot by
// boot, in order of seq. The last pair may hold an error. stats is complete when
// the iteration is. check is asked whether a batch that was read is to be believed;
// nil believes all.
func (x *Index) Find(ctx context.Context, q *Query, stats *Stats, check func(*audit.Batch) error) iter.Seq2[*Hit, error] {
	return func(yield func(*Hit, error) bool) {
		u, err := x.Update(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		only := func(node, boot string) bool {
			return (q.Node == "" || node == q.Node) && (q.Boot == "" || boot == q.Boot)
		}
		for b, err := range x.boots(only) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !x.search(ctx, b, u, q, stats, check, yield) {
				return
			}
		}
	}
}

// A read is a batch that was looked through.
type read struct {
	file    audit.BatchFile
	err     error
	records uint64
	unknown uint64
	hits    []*Hit
}

// search yields the hits of a boot, and reports whether to go on.
func (x *Index) search(ctx context.Context, b *boot, u *Updated, q *Query, stats *Stats, check func(*audit.Batch) error, yield func(*Hit, error) bool) bool {
	type candidate struct {
		file        audit.BatchFile
		activations map[uint64]*audit.ActivationRecord
	}
	candidates := func(yield func(candidate) bool) {
		seen := map[uint64]*audit.ActivationRecord{}
		at := 0
		for s := range x.summaries(b, u) {
			for at < len(b.batches) && !s.of(&b.batches[at]) {
				at++
			}
			if at == len(b.batches) {
				return
			}
			for i := range s.Activations {
				seen = withActivation(seen, &s.Activations[i])
			}
			if q.may(s, seen) && !yield(candidate{b.batches[at], seen}) {
				return
			}
			at++
		}
	}
	for r := range inorder.Map(x.workers(), candidates, func(c candidate) *read { return x.look(c.file, q, c.activations, check) }) {
		if err := ctx.Err(); err != nil {
			yield(nil, err)
			return false
		}
		stats.Batches++
		stats.Records += r.records
		stats.Unknown += r.unknown
		if r.err != nil {
			stats.Damaged = append(stats.Damaged, fmt.Sprintf("%s: %v", r.file.Name, r.err))
		}
		for _, h := range r.hits {
			stats.Hits++
			if !yield(h, nil) {
				return false
			}
		}
	}
	return true
}

// withActivation returns the map with one more: others read the one before.
func withActivation(seen map[uint64]*audit.ActivationRecord, a *activated) map[uint64]*audit.ActivationRecord {
	out := make(map[uint64]*audit.ActivationRecord, len(seen)+1)
	for seq, r := range seen {
		out[seq] = r
	}
	out[a.Seq] = &a.Record
	return out
}

// summaries yields what the index knows of a boot, also what could not be saved.
func (x *Index) summaries(b *boot, u *Updated) iter.Seq[*summary] {
	return func(yield func(*summary) bool) {
		whole := true
		for s := range x.stored(b, &whole) {
			if !yield(s) {
				return
			}
		}
		for _, s := range u.unsaved[x.file(b)] {
			if !yield(s) {
				return
			}
		}
	}
}

// look reads a batch and finds what is wanted in it.
func (x *Index) look(f audit.BatchFile, q *Query, activations map[uint64]*audit.ActivationRecord, check func(*audit.Batch) error) *read {
	out := &read{file: f}
	batch, err := x.Folder.Read(f)
	if err == nil && check != nil {
		err = check(batch)
	}
	if err != nil {
		out.err = err
		return out
	}
	for i := range batch.Entries {
		e := &batch.Entries[i]
		r, err := e.Record(nil)
		if err != nil {
			out.err = err
			continue
		}
		out.records++
		var a *audit.ActivationRecord
		if r.Decision != nil {
			a = activations[r.Decision.Activation]
			if q.Policy != "" && a == nil && r.Decision.Activation != 0 {
				out.unknown++
			}
		}
		if q.Matches(r, a) {
			out.hits = append(out.hits, &Hit{f.Node, f.Boot, r, e.Hash()})
		}
	}
	return out
}
