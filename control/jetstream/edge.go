package jetstream

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// localStream is the edge's own stream of policies.
const localStream = "POLICY"

// checkFeeds is how often an edge looks whether its consumers are still there:
// a region may have lost its streams.
const checkFeeds = 15 * time.Second

// A Source gives an edge the releases of its tenant. A stream on the edge's own
// server sources the policies of every region, so that either region suffices
// and what has arrived needs neither. It is a runtime/loader.Source.
type Source struct {
	// Conn is a connection to the edge's own server.
	Conn         *bus.Conn
	Tenant, Node string
	// Regions are the names of the regions.
	Regions []string
	Log     *slog.Logger
}

func (s *Source) local() *bus.Stream { return s.Conn.Stream(s.Node, localStream) }

func (s *Source) region(name string) Region { return Region{s.Conn, s.Tenant, name} }

// feed is how the local stream reads a region's policies.
func (s *Source) feed(region string) bus.Source {
	return bus.Source{
		Domain: region, Stream: policyStream(s.Tenant),
		Consumer: "EDGE_" + s.Node, Deliver: "hf." + s.Tenant + "." + region + ".deliver." + s.Node,
	}
}

// Watch calls release with the envelope of every release that is there and of
// those which come, each once, those that are there in the order of their
// epochs, until ctx ends. A release's packages are there before it. Envelopes
// are not verified.
func (s *Source) Watch(ctx context.Context, release func(envelope []byte)) error {
	if err := s.local().Ensure(ctx, bus.StreamConfig{MaxMsgSize: maxMessage, Announce: announce(s.Tenant, s.Node)}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var feeding sync.WaitGroup
	defer feeding.Wait()
	defer cancel()
	feeding.Go(func() { s.keepFed(ctx) })
	seen := map[wire.Digest]bool{}
	releases := "hf." + s.Tenant + ".*.pol.rel.*"
	return s.local().Follow(ctx, 1, releases, announce(s.Tenant, s.Node)+"."+releases, poll, func(group []bus.Msg) error {
		for _, m := range inOrder(group) {
			if d := wire.Sum(m.Data); !seen[d] {
				seen[d] = true
				release(m.Data)
			}
		}
		return nil
	})
}

// inOrder returns the releases of a group by their epochs.
func inOrder(group []bus.Msg) []bus.Msg {
	type entry struct {
		epoch uint64
		msg   bus.Msg
	}
	var entries []entry
	for _, m := range group {
		if epoch, ok := parseRelease(m.Subject); ok {
			entries = append(entries, entry{epoch, m})
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.epoch, b.epoch) })
	out := make([]bus.Msg, len(entries))
	for i, e := range entries {
		out[i] = e.msg
	}
	return out
}

// keepFed makes each region's durable consumer as soon as the region can be
// reached, and again if it is lost.
func (s *Source) keepFed(ctx context.Context) {
	var feeding sync.WaitGroup
	defer feeding.Wait()
	var adding sync.Mutex // a stream's sources are read, then written
	for _, region := range s.Regions {
		feeding.Go(func() {
			for ctx.Err() == nil {
				wait := checkFeeds
				if err := s.feedFrom(ctx, region, &adding); err != nil {
					s.Log.Debug("policy source", "region", region, "err", err)
					wait = retry
				}
				sleep(ctx, wait)
			}
		})
	}
}

func (s *Source) feedFrom(ctx context.Context, region string, adding *sync.Mutex) error {
	src := s.feed(region)
	if err := s.region(region).policies().Feed(ctx, src); err != nil {
		return err
	}
	adding.Lock()
	defer adding.Unlock()
	return s.local().AddSource(ctx, src)
}

// Package returns the package (.hfp) with that digest, which is at most maxSize
// bytes uncompressed, from the edge's own stream. Its content has that digest.
func (s *Source) Package(ctx context.Context, digest wire.Digest, maxSize uint64) ([]byte, error) {
	var errs []error
	for _, name := range s.Regions {
		content, err := s.region(name).fetch(ctx, s.local(), digest, maxSize)
		if err == nil {
			return wire.Compress(content), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// A Sink ships an edge's records to one region. It is a runtime/ship.Sink.
type Sink struct {
	Region
	// Node is the key of the node's log, Ledger that of the region's ledger.
	Node, Ledger note.Verifier
}

// Head returns the last record that the region has of a boot and the fence for
// the batch after it, both 0 when it has none. It believes only what the node
// signed: when somebody else has written on the subject, the head is what the
// ledger has counter-signed, and what follows is shipped again behind the junk.
func (s Sink) Head(ctx context.Context, node, boot string) (last, fence uint64, err error) {
	m, err := s.records().Last(ctx, s.record(node, boot))
	if errors.Is(err, bus.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if b, err := audit.DecodeBatch(m.Data); err == nil && b.Tenant == s.Tenant && b.Node == node && b.Boot == boot {
		if _, _, err := b.Verify(s.Node); err == nil {
			return b.Last(), m.Seq, nil
		}
	}
	last, err = s.cosigned(ctx, node, boot)
	return last, m.Seq, err
}

// cosigned is how much of a boot the region's ledger has counter-signed.
func (s Sink) cosigned(ctx context.Context, node, boot string) (uint64, error) {
	m, err := s.receipts().Last(ctx, s.receipt(node, boot))
	if errors.Is(err, bus.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	r, err := audit.OpenReceipt(m.Data, s.Node, s.Ledger)
	if err != nil || r.Tenant != s.Tenant || r.Node != node || r.Boot != boot {
		return 0, nil // as good as none: the ledger takes again what it has
	}
	return r.Size, nil
}

// Publish stores the frame behind the fence and returns the next fence. A nil
// error means that the region has it on disk. After an error the frame may be
// there or not: Head tells.
func (s Sink) Publish(ctx context.Context, node, boot string, fence uint64, frame []byte) (uint64, error) {
	return s.records().Append(ctx, s.record(node, boot), frame, fence)
}

// Receipts calls f with the last receipt of each boot of the node and with
// those that come, until ctx ends. Receipts are not verified.
func (s Sink) Receipts(ctx context.Context, node string, f func(receipt []byte)) error {
	subject := s.receipt(node, "*")
	return s.receipts().Follow(ctx, 1, subject, s.stored(subject), poll, func(group []bus.Msg) error {
		for _, m := range group {
			f(m.Data)
		}
		return nil
	})
}
