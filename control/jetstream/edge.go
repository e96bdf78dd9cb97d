package jetstream

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Source gives an edge the signed objects of its tenant, of every region, so
// that either region suffices, and takes its attestations. It is a
// runtime/loader.Source.
type Source struct {
	// Conn is a connection to the edge's own server, or to servers that the user
	// runs.
	Conn         *bus.Conn
	Tenant, Node string
	// Regions are the names of the regions, the home region first.
	Regions []string
	Log     *slog.Logger
}

func (s *Source) region(name string) link { return up(s.Conn, s.Tenant, name, s.Node) }

// Watch calls deliver with the envelope of every signed object that any region
// has for this node and of those which come - trust roots, kills and lifts,
// releases, rollout orders, the node's own enrolments, and heartbeats - until ctx
// ends, possibly from several goroutines. What is there comes in the order in
// which it can be believed; the same object may come more than once. A release's
// packages are in the region before it. Envelopes are not verified.
func (s *Source) Watch(ctx context.Context, deliver func(envelope []byte)) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	seen := &recent{}
	once := func(envelope []byte) {
		if seen.add(wire.Sum(envelope)) {
			deliver(envelope)
		}
	}
	for _, region := range s.Regions {
		wake := make(chan struct{}, 1)
		if err := s.listen(ctx, region, once, deliver, wake); err != nil {
			return err
		}
		running.Go(func() {
			s.region(region).follow(ctx, askObjects, wake, func(items []item) error { // ends with ctx only
				objects := make([]Object, len(items))
				for i, it := range items {
					objects[i] = Object{Name: it.Name, Seq: it.Seq, Data: it.Data}
				}
				inOrder(objects)
				for _, o := range objects {
					once(o.Data)
				}
				return nil
			})
		})
	}
	<-ctx.Done()
	return ctx.Err()
}

// listen delivers what a region says by itself. The first heartbeat after a
// silence wakes: something may have been missed.
func (s *Source) listen(ctx context.Context, region string, once, deliver func([]byte), wake chan<- struct{}) error {
	p := prefix(s.Tenant, region)
	announced := announce(s.Tenant, region) + "." + p + "pol."
	var heard time.Time // of the heartbeats' goroutine
	subscribe := func(subject string, f func([]byte)) error {
		stop, err := s.Conn.Subscribe(ctx, subject, func(m bus.Msg) { f(m.Data) })
		if err == nil {
			context.AfterFunc(ctx, stop)
		}
		return err
	}
	errs := []error{
		subscribe(p+"hb", func(env []byte) {
			if time.Since(heard) > askEvery+askEvery/2 {
				select {
				case wake <- struct{}{}:
				default:
				}
			}
			heard = time.Now()
			deliver(env)
		}),
		subscribe(p+"kill", once),
	}
	for _, kind := range []string{kindRoot + ".*", kindRelease + ".*", kindOrder + ".>", kindKill + ".*", kindLift + ".*", kindEnrolment + "." + s.Node + ".*"} {
		errs = append(errs, subscribe(announced+kind, once))
	}
	return errors.Join(errs...)
}

// recent remembers the digests of what was delivered, up to a bound: beyond it
// the oldest half is forgotten, and comes again.
type recent struct {
	mu         sync.Mutex
	young, old map[wire.Digest]bool
}

const maxRecent = 1 << 14

// add reports whether d is new.
func (r *recent) add(d wire.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young[d] || r.old[d] {
		return false
	}
	if r.young == nil || len(r.young) >= maxRecent/2 {
		r.old, r.young = r.young, map[wire.Digest]bool{}
	}
	r.young[d] = true
	return true
}

// Package returns the package (.hfp) with that digest, which is at most maxSize
// bytes uncompressed, from the first region that has it. Its content has that
// digest.
func (s *Source) Package(ctx context.Context, digest wire.Digest, maxSize uint64) ([]byte, error) {
	var errs []error
	for _, name := range s.Regions {
		content, err := s.region(name).fetch(ctx, digest, maxSize)
		if err == nil {
			return wire.Compress(content), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// Attest stores the node's newest attestation in every region; with first, also
// as the first one of an epoch, unless there is one. Nil means that at least one
// region has it on disk. It takes attestWithin at most.
func (s *Source) Attest(ctx context.Context, first bool, epoch uint64, msg []byte) error {
	ctx, cancel := context.WithTimeout(ctx, attestWithin)
	defer cancel()
	of := ""
	if first {
		of = decimal(epoch)
	}
	errs := make([]error, len(s.Regions))
	var asking sync.WaitGroup
	for i, region := range s.Regions {
		asking.Go(func() { _, errs[i] = s.region(region).ask(ctx, askAttest, of, msg) })
	}
	asking.Wait()
	for _, err := range errs {
		if err == nil {
			return nil
		}
	}
	return errors.Join(errs...)
}

// attestWithin bounds an attestation's way.
const attestWithin = time.Second

// A Sink ships an edge's records to one region. It is a runtime/ship.Sink.
type Sink struct {
	Region
	// Node is the key of the node's log, Ledger that of the region's ledger.
	Node, Ledger note.Verifier
}

// Head returns the last record that the region has of a boot and the fence for
// the batch after it, both 0 when it has none. It believes only what the node
// signed: the last batch in the stream, or what the ledger holds or has
// counter-signed when the stream was made anew or somebody else has written on
// the subject. Where the ledger misses records that no server has, the head is
// before them, and what follows is shipped again.
func (s Sink) Head(ctx context.Context, node, boot string) (last, fence uint64, err error) {
	a, err := s.up(node).ask(ctx, askHead+"."+boot, "", nil)
	none := errors.Is(err, bus.ErrNotFound)
	if err != nil && !none {
		return 0, 0, err
	}
	if !none {
		var ok bool
		if fence, ok = number(a.Number); !ok {
			return 0, 0, errors.New("region " + s.Name + ": the head has no sequence")
		}
	}
	held, lacking, err := s.held(ctx, node, boot)
	if err != nil {
		return 0, 0, err
	}
	if lacking {
		return held, fence, nil
	}
	if b, err := audit.DecodeBatch(a.Data); err == nil && b.Tenant == s.Tenant && b.Node == node && b.Boot == boot {
		if _, _, err := b.VerifyFirst(s.Node); err == nil {
			return b.Last(), fence, nil
		}
	}
	if held > 0 {
		return held, fence, nil
	}
	last, err = s.cosigned(ctx, node, boot)
	return last, fence, err
}

// held is how much the region's ledger holds of a boot; lacking is set when it
// misses what follows, and knows that it does.
func (s Sink) held(ctx context.Context, node, boot string) (size uint64, lacking bool, err error) {
	a, err := s.up(node).ask(ctx, askHeld+"."+boot, "", nil)
	if errors.Is(err, bus.ErrNotFound) || errors.Is(err, errQuestion) {
		return 0, false, nil // nothing, or a gate without a ledger
	}
	if err != nil {
		return 0, false, err
	}
	if size, lacking = number(a.Number); lacking {
		return size, true, nil
	}
	c, err := audit.OpenCheckpoint(a.Data, s.Node)
	if err != nil || c.Tenant != s.Tenant || c.Node != node || c.Boot != boot {
		return 0, false, nil // as good as none
	}
	return c.Size, false, nil
}

func (s Sink) up(node string) link { return up(s.Conn, s.Tenant, s.Name, node) }

// cosigned is how much of a boot the region's ledger has counter-signed.
func (s Sink) cosigned(ctx context.Context, node, boot string) (size uint64, err error) {
	for cursor := ""; ; {
		items, next, err := s.up(node).list(ctx, askReceipts, cursor)
		if err != nil || len(items) == 0 {
			return size, err
		}
		for _, it := range items {
			r, err := audit.OpenReceipt(it.Data, s.Node, s.Ledger)
			if err == nil && r.Tenant == s.Tenant && r.Node == node && r.Boot == boot { // others are as good as none
				size = max(size, r.Size)
			}
		}
		if cursor = next; ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
}

// Publish stores the frame behind the fence and returns the next fence. A nil
// error means that the region has it on disk. After an error the frame may be
// there or not: Head tells.
func (s Sink) Publish(ctx context.Context, node, boot string, fence uint64, frame []byte) (uint64, error) {
	a, err := s.up(node).ask(ctx, askRecords+"."+boot, decimal(fence), frame)
	if err != nil {
		return 0, err
	}
	seq, ok := number(a.Number)
	if !ok {
		return 0, errors.New("region " + s.Name + ": the batch has no sequence")
	}
	return seq, nil
}

// Receipts calls f with the last receipt of each boot of the node and with
// those that come, until ctx ends. Receipts are not verified.
func (s Sink) Receipts(ctx context.Context, node string, f func(receipt []byte)) error {
	var giving sync.Mutex // f is called by one at a time
	give := func(receipt []byte) {
		giving.Lock()
		defer giving.Unlock()
		f(receipt)
	}
	stop, err := s.Conn.Subscribe(ctx, s.stored(s.receipt(node, "*")), func(m bus.Msg) { give(m.Data) })
	if err != nil {
		return err
	}
	defer stop()
	return s.up(node).follow(ctx, askReceipts, nil, func(items []item) error {
		for _, it := range items {
			if strings.HasPrefix(it.Name, "rcpt.") {
				give(it.Data)
			}
		}
		return nil
	})
}
