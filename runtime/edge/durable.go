package edge

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Regions are where a node's records go beside its disk.
type Regions interface {
	// Count is how many there are.
	Count() int
	// Await returns nil when the record, durable on the node's disk, is as durable
	// as class says, and an error when it is not before ctx ends or cannot become so.
	Await(ctx context.Context, boot string, seq uint64, class policy.Durability) error
	// Met is the class that such a record has now.
	Met(boot string, seq uint64) policy.Durability
}

const defaultDurableWithin = 2 * time.Second

func (n *Node) regions() int {
	if n.cfg.Regions == nil {
		return 0
	}
	return n.cfg.Regions.Count()
}

// durable waits, a bounded time, until a record is as durable as its point
// demands, and returns the class that it met.
func (n *Node) durable(p *decide.Point, ref audit.Ref) policy.Durability {
	if p.Durability <= policy.Synced {
		return p.Durability
	}
	if n.cfg.Regions == nil {
		return policy.Synced
	}
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.DurableWithin)
	defer cancel()
	if n.cfg.Regions.Await(ctx, ref.Boot, ref.Seq, p.Durability) == nil {
		return p.Durability
	}
	return min(n.cfg.Regions.Met(ref.Boot, ref.Seq), p.Durability)
}

// answerInstead has the point's on_log_failure answer for a decision whose record
// met less than its point demands, and writes that answer down, naming the record
// in whose place it is: what was told is what the ledger says. The outcome stays what
// the policies decided.
func (n *Node) answerInstead(l *live, p *decide.Point, a *asked, of audit.Ref, met policy.Durability) (policy.Decision, audit.Ref, error) {
	n.count.notDurable.Add(1)
	a.failure = &audit.Failure{Mode: p.OnLogFailure, Cause: "durability"}
	told := *a
	told.outcome.Decision = guard.Instead(p.OnLogFailure, a.outcome.Decision, policy.Reason{
		Code: guard.CodeNotDurable, Text: fmt.Sprintf("record %d met %s, not %s", of.Seq, met, p.Durability),
	})
	rec, err := n.newRecord(l, p, &told)
	if err != nil {
		return told.outcome.Decision, audit.Ref{}, err
	}
	d := rec.Decision
	d.Instead = of.Seq
	d.Request, d.Value, d.Logs, d.Runs, d.Replay, rec.Key = nil, nil, nil, nil, 0, nil // they are in the record of the decision
	ref, err := n.append(l, p, rec, policy.Synced)
	return told.outcome.Decision, ref, err
}
