package edge

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// repairInterval is how often the journal is looked at, and opened again when
// its disk failed.
const repairInterval = 500 * time.Millisecond

// unrecorded counts answers that were given without a record.
type unrecorded struct {
	count    uint64
	from, to int64 // ns since 1970
}

// unrecordedDecision is what the point answers when the record of d could not
// be written: its on_log_failure. The answer is counted, and the count is the
// first record once the journal can be written again.
func (n *Node) unrecordedDecision(p *decide.Point, d policy.Decision, cause error) policy.Decision {
	now := time.Now().UnixNano()
	n.mu.Lock()
	if n.lost.count == 0 {
		n.lost.from = now
		n.log.Error("answers are not recorded", "point", p.Name, "on_log_failure", p.OnLogFailure, "err", cause)
	}
	n.lost.count++
	n.lost.to = now
	n.behind.Store(true)
	n.mu.Unlock()
	select {
	case n.repair <- struct{}{}:
	default:
	}
	return guard.Instead(p.OnLogFailure, d, policy.Reason{Code: CodeLogFailure, Text: "the record of this decision could not be written"})
}

// repairJournal opens a poisoned journal again, as a new boot, until ctx ends.
func (n *Node) repairJournal(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.repair: // a decision could not be recorded
		case <-time.After(repairInterval):
		}
		if n.Journal().Poisoned() == nil {
			// An answer may have met the old journal after its successor began.
			if err := n.recordLost(n.Journal()); err != nil {
				n.log.Error("count of unrecorded answers not written", "err", err)
			}
			continue
		}
		if err := n.reopen(); err != nil {
			n.log.Error("journal not reopened", "err", err)
		}
	}
}

// reopen begins a new boot after a disk failure. Its first records are the
// count of the answers that have none and the activation of what is in force.
func (n *Node) reopen() error {
	n.switching.Lock()
	defer n.switching.Unlock()
	old := n.live.Load()
	if err := old.journal.Close(); err != nil && !errors.Is(err, journal.ErrPoisoned) && !errors.Is(err, journal.ErrClosed) {
		n.log.Error("close the poisoned journal", "err", err)
	}
	j, err := n.openJournal()
	if err != nil {
		return err
	}
	next, err := n.resume(j, old)
	if err != nil {
		return errors.Join(err, j.Close())
	}
	n.live.Store(next)
	return nil
}

func (n *Node) resume(j *journal.Journal, old *live) (*live, error) {
	if err := n.recordLost(j); err != nil {
		return nil, err
	}
	if old.set == nil {
		return &live{journal: j}, nil
	}
	next, err := announce(j, old.set, old.announced)
	if err == nil {
		next.inForce = old.inForce
	}
	return next, err
}

// recordLost writes how many answers have no record, if there are any: when it
// returns nil, that record comes before any that is appended later. On a full disk
// it waits for room, so that one record counts them all.
func (n *Node) recordLost(j *journal.Journal) error {
	if j.Full() {
		return nil
	}
	return n.recordLostNow(j)
}

func (n *Node) recordLostNow(j *journal.Journal) error {
	n.counting.Lock()
	defer n.counting.Unlock()
	lost := n.takeLost()
	if lost.count == 0 {
		return nil
	}
	_, err := j.Append(context.Background(), &audit.Record{Kind: audit.KindAdmin, Time: time.Now().UnixNano(), Admin: &audit.AdminRecord{
		Event: "unrecorded_answers", Count: lost.count, From: lost.from, To: lost.to,
	}}, policy.Synced)
	if err != nil {
		n.giveBack(lost)
		return err
	}
	n.mu.Lock()
	n.behind.Store(n.lost.count > 0)
	n.mu.Unlock()
	return nil
}

func (n *Node) takeLost() unrecorded {
	n.mu.Lock()
	defer n.mu.Unlock()
	lost := n.lost
	n.lost = unrecorded{}
	return lost
}

func (n *Node) giveBack(lost unrecorded) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost.count == 0 {
		n.lost.to = lost.to
	}
	if lost.count > 0 {
		n.lost.from = lost.from
	}
	n.lost.count += lost.count
}
