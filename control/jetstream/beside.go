package jetstream

import (
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
)

// A Ledger is what a gate must know of the one beside it.
type Ledger interface {
	// Held is the newest checkpoint of what is archived of a boot, nil for nothing.
	Held(node, boot string) (checkpoint []byte)
	// Lacking reports whether records are missing that no server has, and how many
	// there are before them.
	Lacking(node, boot string) (held uint64, lacking bool)
	// Leaves returns the leaf hashes of at most so many records from one on.
	Leaves(node, boot string, from uint64, most int) ([]byte, error)
}

// Beside has the gate tell nodes what the ledger beside it lacks, and give leaf
// hashes to witnesses. It is called before Run.
func (g *Gate) Beside(l Ledger) { g.ledger = l }

// held answers with what the ledger beside the gate proves to have of a boot.
func (g *Gate) held(node, boot string) *bus.Answer {
	if g.ledger == nil {
		return &bus.Answer{Status: statusNone}
	}
	a := &bus.Answer{Data: g.ledger.Held(node, boot)}
	if held, lacking := g.ledger.Lacking(node, boot); lacking {
		a.Number = decimal(held)
	}
	if a.Data == nil && a.Number == "" {
		return &bus.Answer{Status: statusNone}
	}
	return a
}

// maxLeaves bounds the leaf hashes of one answer.
const maxLeaves = 1 << 14

// leaves answers with leaf hashes, which show nothing of the records.
func (g *Gate) leaves(of []string, from string) *bus.Answer {
	first, ok := number(from)
	if g.ledger == nil || len(of) != 2 || !ok || first == 0 {
		return bad("leaves of %.80q from %.40q", of, from)
	}
	hashes, err := g.ledger.Leaves(of[0], of[1], first, maxLeaves)
	if err != nil {
		return bad("%.200v", err)
	}
	return &bus.Answer{Data: hashes}
}

// nudges has nodes ask where the region is, when its ledger misses records that
// no server has. A node that has given them up cannot help, so each boot is
// nudged less and less often.
type nudges struct {
	mu   sync.Mutex // guards what follows
	next map[string]nudge
}

type nudge struct {
	at   time.Time
	wait time.Duration
}

const (
	firstNudge = 15 * time.Second
	lastNudge  = 24 * time.Hour
	maxNudges  = 4096
)

// due reports whether a batch that does not close the gap is to be refused.
func (n *nudges) due(l Ledger, node, boot string, frame []byte) bool {
	if l == nil {
		return false
	}
	held, lacking := l.Lacking(node, boot)
	n.mu.Lock()
	defer n.mu.Unlock()
	key := node + "." + boot
	if !lacking {
		delete(n.next, key)
		return false
	}
	b, err := audit.DecodeBatch(frame)
	if err != nil || b.First <= held+1 {
		return false
	}
	now, next := time.Now(), n.next[key]
	if now.Before(next.at) || len(n.next) >= maxNudges {
		return false
	}
	if n.next == nil {
		n.next = map[string]nudge{}
	}
	next.wait = min(max(2*next.wait, firstNudge), lastNudge)
	next.at = now.Add(next.wait)
	n.next[key] = next
	return true
}
