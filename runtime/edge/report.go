package edge

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/mask"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// rememberedDecisions is how many of the running boot's newest records a node
// tells apart when results are reported. Of older ones it knows that they exist.
const rememberedDecisions = 1 << 14

// decisions says which of a boot's newest records are decisions.
type decisions struct {
	boot    string
	highest atomic.Uint64
	// recent holds, at seq modulo its length, twice the seq of a decision, plus one
	// when its point has masks.
	recent [rememberedDecisions]atomic.Uint64
}

// decided notes a decision's record.
func (n *Node) decided(p *decide.Point, ref audit.Ref) {
	d := n.decisions.Load()
	for d == nil || d.boot != ref.Boot {
		next := &decisions{boot: ref.Boot}
		if n.decisions.CompareAndSwap(d, next) {
			d = next
			break
		}
		d = n.decisions.Load()
	}
	for have := d.highest.Load(); have < ref.Seq && !d.highest.CompareAndSwap(have, ref.Seq); have = d.highest.Load() {
	}
	entry := 2 * ref.Seq
	if p.Masks != nil {
		entry++
	}
	d.recent[ref.Seq%rememberedDecisions].Store(entry)
}

// find reports whether seq is a decision, whether its point has masks, and
// whether that is known.
func (d *decisions) find(seq uint64) (is, masks, known bool) {
	if d == nil || seq+rememberedDecisions <= d.highest.Load() {
		return false, false, false
	}
	entry := d.recent[seq%rememberedDecisions].Load()
	return entry/2 == seq, entry%2 == 1, true
}

// Report records what became of a decision and returns the name of that record.
// The error wraps policy.ErrUnknownRecord when the node did not decide it; of a
// boot that was trimmed, and of what is older than the newest records, it takes
// the reporter's word. Every other error means that nothing was recorded.
func (n *Node) Report(_ context.Context, r *policy.Result) (policy.Reported, error) {
	l := n.live.Load()
	masks, err := n.reported(l, r)
	if err != nil {
		return policy.Reported{}, err
	}
	rec, err := n.resultRecord(l, r, masks)
	if err != nil {
		return policy.Reported{}, err
	}
	ref, err := l.journal.Append(context.Background(), rec, policy.Synced)
	if err != nil {
		return policy.Reported{}, fmt.Errorf("the result could not be recorded: %w", err)
	}
	return policy.Reported{
		Recorded: true, Durability: policy.Synced, Node: n.cfg.Name, Boot: ref.Boot, Seq: ref.Seq, Leaf: hex.EncodeToString(ref.Leaf[:]),
	}, nil
}

// reported reports whether the texts of a result are to be masked, or why it is of
// no decision of this node.
func (n *Node) reported(l *live, r *policy.Result) (masks bool, err error) {
	unknown := func(format string, args ...any) (bool, error) {
		return false, fmt.Errorf("%w: "+format, append([]any{policy.ErrUnknownRecord}, args...)...)
	}
	if r.Node != "" && r.Node != n.cfg.Name {
		return unknown("this is node %s, not %.80q", n.cfg.Name, r.Node)
	}
	counter, _, err := audit.ParseBootID(r.Boot)
	if err != nil {
		return unknown("%.80q is no boot", r.Boot)
	}
	// Which point it was is not known of an older one: one mask is enough.
	masks = l.set == nil || l.set.Masks != nil
	if d := n.decisions.Load(); d != nil && d.boot == r.Boot {
		if is, masked, known := d.find(r.Seq); known {
			if !is {
				return unknown("record %d of boot %s is no decision", r.Seq, r.Boot)
			}
			masks = masked
		}
		return masks, nil
	}
	boots := l.journal.Boots()
	if i := slices.IndexFunc(boots, func(b journal.Boot) bool { return b.ID == r.Boot }); i >= 0 {
		if r.Seq > boots[i].Size {
			return unknown("boot %s has %d records, not %d", r.Boot, boots[i].Size, r.Seq)
		}
		return masks, nil
	}
	if oldest, _, err := audit.ParseBootID(boots[0].ID); err == nil && counter < oldest {
		return masks, nil // it was trimmed
	}
	return unknown("this node has no boot %s", r.Boot)
}

// resultRecord describes a result. Texts that a workload writes freely may repeat
// the request, whose masked values are gone by now: of a point with masks they are
// not recorded, but for common reasons of finishing, names of models and types of
// obligations.
func (n *Node) resultRecord(l *live, r *policy.Result, masks bool) (*audit.Record, error) {
	var red *mask.Redaction
	if masks {
		red = mask.Blind()
	}
	res := &audit.ResultRecord{
		Seq: r.Seq, Finish: short(r.FinishReason), Error: short(red.Text(r.Error)), Served: short(r.Served),
	}
	if !slices.Contains(finishReasons[:], r.FinishReason) {
		res.Finish = short(red.Text(r.FinishReason))
	}
	if !of(r.Served, wordBytes+"0123456789.:/") {
		res.Served = short(red.Text(r.Served))
	}
	if r.Boot != l.journal.Boot() {
		res.Boot = r.Boot
	}
	if !r.EndedAt.IsZero() {
		res.Ended = r.EndedAt.UnixNano()
	}
	if u := r.Usage; u != nil {
		res.Usage = some(audit.Usage{Input: u.InputTokens, Output: u.OutputTokens, Cost: u.CostMicros, Currency: u.Currency})
	}
	if r.OutputDigest != "" {
		d, err := wire.ParseDigest(r.OutputDigest)
		if err != nil {
			return nil, fmt.Errorf("output_digest: %w", err)
		}
		res.Output = &d
	}
	for _, o := range r.Obligations {
		kind := o.Type
		if !of(kind, wordBytes) {
			kind = red.Text(kind)
		}
		res.Obligations = append(res.Obligations, audit.ObligationResult{
			ID: short(red.Text(o.ID)), Type: short(kind), Status: o.Status, Error: short(red.Text(o.Error)),
		})
	}
	return &audit.Record{Kind: audit.KindResult, Time: n.cfg.Now().UnixNano(), Result: res}, nil
}

// wordBytes are what types of obligations are made of.
const wordBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-"

// of reports whether s has no other bytes than those.
func of(s, bytes string) bool { return strings.Trim(s, bytes) == "" && len(s) <= maxShort }

// finishReasons are those that models' interfaces give; they say nothing of the
// request.
var finishReasons = [...]string{
	"", "stop", "length", "tool_calls", "content_filter", "end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "cancelled", "error", "timeout",
}
