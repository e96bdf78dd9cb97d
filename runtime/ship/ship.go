// Package ship drains a node's journal to the regions: each batch once, in
// order, behind a fence, to every region on its own. It keeps no state on disk;
// where to go on is asked of the region.
package ship

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A Sink is one region's stream of record batches.
type Sink interface {
	// Head returns the last record that the region has of a boot and the fence
	// for the batch after it, both 0 when it has none.
	Head(ctx context.Context, node, boot string) (last, fence uint64, err error)
	// Publish stores the frame behind the fence and returns the next fence. A
	// nil error promises that the region has it on disk; after an error the
	// frame may be there or not.
	Publish(ctx context.Context, node, boot string, fence uint64, frame []byte) (next uint64, err error)
	// Receipts calls f with the receipts of the node until ctx ends. The last
	// one of each boot comes again on every call.
	Receipts(ctx context.Context, node string, f func(receipt []byte)) error
}

// A Journal is what is shipped; *journal.Journal is one.
type Journal interface {
	Boots() []journal.Boot
	ReadBatch(boot string, from uint64, maxRecords, maxBytes int) (*audit.Batch, error)
	Changed() <-chan struct{}
}

// A Region is where to ship to.
type Region struct {
	Name string
	Sink Sink
	// Key is the key of the region's ledger.
	Key note.Verifier
}

// Config of a Shipper.
type Config struct {
	Node string
	// Key is the node's own log key.
	Key     note.Verifier
	Journal Journal
	Regions []Region
	// Linger is how long records may wait for others to share their batch; 0
	// means 50 ms. It is cut short by Wait.
	Linger time.Duration
	// MaxWaiting bounds the calls of Wait and Await at a time; 0 means 65,536. Each
	// holds about 200 bytes.
	MaxWaiting int
	// Step is told of each step of a batch's way: the seam for processes that are
	// killed. nil means that nobody is.
	Step func(string)
	// OnEvidence is called, once for each region and boot, when a region holds
	// what the journal does not. Shipping of that boot has then ended there.
	OnEvidence func(Evidence)
	Log        *slog.Logger
}

// Evidence says that a region knows more of a boot than the journal: the
// journal lost its tail, or somebody else writes in the node's name.
type Evidence struct {
	Region, Boot string
	// The last record of each.
	RegionLast, JournalLast uint64
}

// Status is how far one region is.
type Status struct {
	Region string
	Boots  map[string]BootStatus
	// Err is why the last attempt failed; nil when it went well.
	Err error
}

// BootStatus is how far one boot is in one region.
type BootStatus struct {
	// Shipped is the last record that the region's stream has acknowledged or
	// was found to hold.
	Shipped uint64
	// Cosigned is the last record that the region's ledger has counter-signed.
	Cosigned uint64
	// Stopped is set when there is Evidence about this boot.
	Stopped bool
}

// A Shipper ships a journal. Its methods are safe for concurrent use.
type Shipper struct {
	cfg     Config
	regions []*region
	waiting waiting
}

const (
	defaultLinger     = 50 * time.Millisecond
	defaultMaxWaiting = 1 << 16
	minBackoff        = 20 * time.Millisecond
	maxBackoff        = time.Second
)

// New returns a shipper that does nothing until Run.
func New(c Config) (*Shipper, error) {
	if !audit.ValidName(c.Node) || c.Journal == nil || c.Key == nil {
		return nil, fmt.Errorf("ship: node %q needs a name, a journal and a key", c.Node)
	}
	c.Linger, c.MaxWaiting = cmp.Or(c.Linger, defaultLinger), cmp.Or(c.MaxWaiting, defaultMaxWaiting)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OnEvidence == nil {
		c.OnEvidence = func(Evidence) {}
	}
	if c.Step == nil {
		c.Step = func(string) {}
	}
	s := &Shipper{cfg: c, waiting: waiting{queues: map[waitKey]*queue{}, stalled: map[Need]stall{}}}
	for _, r := range c.Regions {
		if r.Sink == nil || r.Key == nil {
			return nil, fmt.Errorf("ship: region %q needs a sink and a key", r.Name)
		}
		s.regions = append(s.regions, &region{
			Region: r, shipper: s, lanes: map[string]*lane{}, hurry: make(chan struct{}, 1), boots: map[string]BootStatus{},
		})
	}
	return s, nil
}

// Run ships until ctx ends and returns its error. For each region it holds at
// most four frames of audit.MaxFrameBytes, two boots' at a time, and what is read
// of the journal for one of them.
func (s *Shipper) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, r := range s.regions {
		running.Go(func() { r.ship(ctx) })
		running.Go(func() { r.receive(ctx) })
	}
	running.Wait()
	return ctx.Err()
}

// Status tells how far each region is, in the order of the configuration.
func (s *Shipper) Status() []Status {
	out := make([]Status, len(s.regions))
	for i, r := range s.regions {
		out[i] = r.known()
	}
	return out
}

// backoff grows to maxBackoff; the wait is a random part of it, at least half.
type backoff time.Duration

func (b *backoff) next() time.Duration {
	*b = min(max(2**b, backoff(minBackoff)), backoff(maxBackoff))
	return time.Duration(*b)/2 + rand.N(time.Duration(*b)/2)
}

// pause ends after d, with early, or with the context.
func pause(ctx context.Context, d time.Duration, early <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-early:
	case <-t.C:
	}
	return nil
}
