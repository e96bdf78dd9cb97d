// Package hub leads a region. Of its hub servers one at a time holds the
// region's lease: it says the region's heartbeat, moves rollouts along and raises
// alarms. Every server reads the same, and any of them carries on from what is
// stored: a rollout's state is its newest order, and an order is created once.
package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// ErrTaken is what Writer.Order returns when the order exists already.
var ErrTaken = errors.New("the order exists already")

// A Reader reads what the region holds.
type Reader interface {
	// Objects calls take with every signed object that the region has and gets,
	// and the time at which the region stored it, until ctx ends. Objects are not
	// verified.
	Objects(ctx context.Context, take func(envelope []byte, at time.Time)) error
	// Attestations does the same for attestations: the newest of each node, and
	// with first set the first of a node and epoch.
	Attestations(ctx context.Context, take func(node string, first bool, epoch uint64, msg []byte, at time.Time)) error
	// Leader returns the region in which the release of an epoch was published,
	// whose hubs lead its rollout; "" when that is not stored.
	Leader(ctx context.Context, epoch uint64) (region string, err error)
}

// A Writer writes what the leading server says.
type Writer interface {
	// Heartbeat tells the tenant's nodes. A nil error promises nothing.
	Heartbeat(ctx context.Context, envelope []byte) error
	// Order creates an order. A nil error means that the region has it on disk;
	// ErrTaken that somebody created this serial before.
	Order(ctx context.Context, epoch, serial uint64, envelope []byte) error
	// Lease takes or renews the region's lease for a term. A nil error and true
	// mean that nobody else can hold it before the term, from the call on, is over.
	Lease(ctx context.Context, holder string, term time.Duration) (held bool, err error)
}

// Config is what New needs.
type Config struct {
	Tenant, Region string
	// Server is this hub server's name, which no other has.
	Server string
	Root   *bundle.TrustRoot
	// Key signs heartbeats and orders: role heartbeat, of the person that is
	// called like the region. Nil: this server leads nothing but alarms.
	Key    *bundle.PrivateKey
	Reader Reader
	Writer Writer
	// Beat is the time between heartbeats; 0 means two seconds. Life is how far
	// ahead their expiry is; 0 means 15 minutes.
	Beat, Life time.Duration
	// Alarm is told of every alarm that is raised or resolved, by the server that
	// leads; nil for nobody. It must not block.
	Alarm func(Alarm)
	// Enrolled is told of a node's newest enrolment whenever one comes; nil for
	// nobody. It must not block.
	Enrolled func(*bundle.SignedEnrolment)
	Log      *slog.Logger
}

// Terms of the lease: it is renewed each third of it.
const (
	leaseTerm  = 3 * time.Second
	renewEvery = leaseTerm / 3
	// stepEvery bounds how long a rollout waits for what only time brings.
	stepEvery = 250 * time.Millisecond
)

// A Hub is one server's part in leading the region. It is safe for concurrent use.
type Hub struct {
	cfg     Config
	changed chan struct{} // something was read
	until   atomic.Int64  // the lease holds until then, ns of the monotonic clock since began
	began   time.Time

	mu           sync.Mutex // guards what follows
	fleet        *registry.Fleet
	attestations map[string][]registry.Stored
	activations  map[string]map[uint64][]registry.Stored // first ones, by node and epoch
	told         map[string]bool                         // refusals that were logged

	raised map[string]Alarm // of the leading goroutine
}

// New returns a hub that Run brings to life.
func New(cfg Config) (*Hub, error) {
	if cfg.Root == nil || cfg.Reader == nil || cfg.Writer == nil || cfg.Server == "" {
		return nil, errors.New("hub: Root, Reader, Writer and Server are required")
	}
	if cfg.Key != nil && (cfg.Key.Role != bundle.RoleHeartbeat || cfg.Key.Person != cfg.Region) {
		return nil, fmt.Errorf("hub: the heartbeat key is of %s %s, not of %s %s", cfg.Key.Role, cfg.Key.Person, bundle.RoleHeartbeat, cfg.Region)
	}
	if cfg.Beat == 0 {
		cfg.Beat = registry.AttestEvery
	}
	if cfg.Life == 0 {
		cfg.Life = 15 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Log = cfg.Log.With("server", cfg.Server)
	return &Hub{
		cfg: cfg, changed: make(chan struct{}, 1), began: time.Now(), fleet: registry.NewFleet(cfg.Root),
		attestations: map[string][]registry.Stored{}, activations: map[string]map[uint64][]registry.Stored{},
		told: map[string]bool{}, raised: map[string]Alarm{},
	}, nil
}

// Run reads, and leads whenever this server holds the lease, until ctx ends. It
// returns nil.
func (h *Hub) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { h.keep(ctx, "objects", func() error { return h.cfg.Reader.Objects(ctx, h.object) }) })
	running.Go(func() {
		h.keep(ctx, "attestations", func() error { return h.cfg.Reader.Attestations(ctx, h.attestation) })
	})
	running.Go(func() { h.renew(ctx) })
	running.Go(func() { h.beat(ctx) })
	h.lead(ctx)
	running.Wait()
	return nil
}

// keep has a reader go on when it ends early.
func (h *Hub) keep(ctx context.Context, what string, read func() error) {
	for ctx.Err() == nil {
		if err := read(); ctx.Err() == nil {
			h.cfg.Log.Warn("reading ended; again in a second", "what", what, "err", err)
			sleep(ctx, time.Second)
		}
	}
}

// Leading reports whether this server holds the region's lease.
func (h *Hub) Leading() bool { return h.until.Load() > int64(time.Since(h.began)) }

// renew takes the lease, and keeps it.
func (h *Hub) renew(ctx context.Context) {
	for ctx.Err() == nil {
		asked := time.Since(h.began)
		held, err := h.cfg.Writer.Lease(ctx, h.cfg.Server, leaseTerm)
		was := h.Leading()
		switch {
		case held && err == nil:
			h.until.Store(int64(asked + leaseTerm))
			if !was {
				h.cfg.Log.Info("leads the region")
				h.wake()
			}
		case err == nil && was:
			h.until.Store(0)
			h.cfg.Log.Info("no longer leads the region")
		case err != nil && ctx.Err() == nil:
			h.cfg.Log.Debug("lease", "err", err)
		}
		sleep(ctx, renewEvery)
	}
}

// beat says the region's heartbeat while this server leads.
func (h *Hub) beat(ctx context.Context) {
	tick := time.NewTicker(h.cfg.Beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !h.Leading() || h.cfg.Key == nil {
			continue
		}
		envelope, err := bundle.SignHeartbeat(h.heartbeat(time.Now()), h.cfg.Key)
		if err == nil {
			err = h.cfg.Writer.Heartbeat(ctx, envelope)
		}
		if err != nil && ctx.Err() == nil {
			h.cfg.Log.Warn("heartbeat", "err", err)
		}
	}
}

// heartbeat says what the region knows. Its serial is its time, so that it rises
// whichever server says it.
func (h *Hub) heartbeat(now time.Time) *bundle.Heartbeat {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := &bundle.Heartbeat{
		Tenant: h.cfg.Tenant, Region: h.cfg.Region, Serial: uint64(now.UnixNano()), Time: now.UnixNano(), Expires: now.Add(h.cfg.Life).UnixNano(),
		RootVersion: h.fleet.Root().Version, Kills: h.fleet.Kills().Digest(), KillCount: uint64(h.fleet.Kills().Len()),
	}
	if r := h.fleet.Newest(); r != nil {
		b.Epoch, b.Release = r.Epoch, r.Digest
		if o := h.fleet.Order(r.Digest); o != nil {
			b.Order = o.Serial
		}
	}
	return b
}

// object takes a signed object that the region holds.
func (h *Hub) object(envelope []byte, at time.Time) {
	if news, err := h.add(envelope, at); news {
		h.cfg.Log.Warn("stored object is not believed", "type", bundle.Type(envelope), "err", err)
	}
}

// add takes a signed object into account; news says that it was not believed
// for a cause that was not logged yet.
func (h *Hub) add(envelope []byte, at time.Time) (news bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.fleet.Add(envelope, at); err != nil {
		why := err.Error()
		news := !h.told[why] && len(h.told) < maxTold
		if news {
			h.told[why] = true
		}
		return news, err
	}
	if h.cfg.Enrolled != nil && bundle.Type(envelope) == bundle.EnrolmentType {
		if e, err := h.fleet.Root().OpenEnrolment(envelope); err == nil {
			h.cfg.Enrolled(h.fleet.Enrolment(e.Node))
		}
	}
	h.wake()
	return false, nil
}

// maxTold bounds the causes that are remembered so as to be logged once.
const maxTold = 1024

// attestation takes what is stored of a node. Two regions may store one each.
func (h *Hub) attestation(node string, first bool, epoch uint64, msg []byte, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fleet.Enrolment(node) == nil && max(len(h.attestations), len(h.activations)) >= maxUnknown {
		return // of nobody: bounded, in case its enrolment comes later
	}
	s := registry.Stored{Data: msg, At: at}
	if !first {
		h.attestations[node] = keepNewest(h.attestations[node], s)
		h.wake()
		return
	}
	epochs := h.activations[node]
	if epochs == nil {
		epochs = map[uint64][]registry.Stored{}
		h.activations[node] = epochs
	}
	epochs[epoch] = keepNewest(epochs[epoch], s)
	if len(epochs) > keptEpochs {
		delete(epochs, slices.Min(slices.Collect(maps.Keys(epochs))))
	}
}

const (
	maxUnknown = 4096
	keptEpochs = 16 // of each node, whose first attestations are remembered: the newest
)

// keepNewest keeps the newest two of a node: one that does not verify must not
// push out the one that does. What is read again changes nothing.
func keepNewest(have []registry.Stored, s registry.Stored) []registry.Stored {
	if slices.ContainsFunc(have, func(h registry.Stored) bool { return h.At.Equal(s.At) && bytes.Equal(h.Data, s.Data) }) {
		return have
	}
	if len(have) < 2 {
		return append(have, s)
	}
	return []registry.Stored{have[1], s}
}

// View is what is in force, as this server knows it.
func (h *Hub) View() registry.View {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.view(time.Now())
}

func (h *Hub) view(now time.Time) registry.View {
	first := map[string][]registry.Stored{}
	if target := h.fleet.Target(); target != nil {
		for node, epochs := range h.activations {
			first[node] = epochs[target.Epoch]
		}
	}
	return h.fleet.View(h.attestations, first, now)
}

// wake has the leading goroutine look again.
func (h *Hub) wake() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
