// Package loader brings releases into force on a node. It verifies what a
// Source delivers, fetches and stores the packages, admits and tests them, and
// swaps the set whole. Whatever it refuses changes nothing: the release in force
// stays. What it has once put in force it can put in force again with nothing but
// its own folder.
package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Source delivers releases and packages. Nothing that it says is believed
// before it is verified.
type Source interface {
	// Watch calls release with the envelope of every release that is there or
	// comes, the newest last, until ctx ends. release may block while a release
	// is put in force; the same envelope may come again.
	Watch(ctx context.Context, release func(envelope []byte)) error
	// Package returns the file of package d, whose uncompressed size is at most maxSize.
	Package(ctx context.Context, d wire.Digest, maxSize uint64) ([]byte, error)
}

// Config is what New needs.
type Config struct {
	Dir    string // the loader's own folder; created when it is missing
	Root   *bundle.TrustRoot
	Engine *engine.Engine
	Source Source // nil: only what is in Dir
	// Activate records, durably, that the set comes into force; the set is its
	// to complete until it returns. Its error leaves the old set in force.
	Activate func(context.Context, *decide.Set, *bundle.SignedRelease) error
	// Refused, if set, is told of each release that did not come into force,
	// once for each cause. The digest is that of the release when its signatures
	// verified, else that of the envelope's bytes.
	Refused func(wire.Digest, error)
	Now     func() time.Time // nil: time.Now
	Log     *slog.Logger     // nil: slog.Default
	// Retry is the first pause before what failed for want of a package, a disk
	// or a journal is tried again; it doubles up to 64 times. 0 means one second.
	Retry time.Duration
	// Grace is how long the modules of a replaced set stay open for the
	// decisions that had begun with it. 0 means ten seconds.
	Grace time.Duration
}

// Status says what is in force.
type Status struct {
	Epoch   uint64 // 0: nothing is in force
	Release wire.Digest
	Since   time.Time
	// Refusal is the last release that did not come into force, nil for none.
	Refusal *Refusal
	// ClockBehind is how far the wall clock is before a time that has already
	// passed; 0 when it is not.
	ClockBehind time.Duration
}

// A Refusal is a release that did not come into force, and why.
type Refusal struct {
	Digest wire.Digest // as for Config.Refused
	Reason string
	At     time.Time
}

// A Loader holds the set in force. It is safe for concurrent use.
type Loader struct {
	config Config
	store  store
	set    atomic.Pointer[decide.Set]

	turn    sync.Mutex // one release at a time; guards what follows
	ratchet bundle.Ratchet
	open    modules // of the set in force
	retired []retired
	pending [][]byte // envelopes to be tried again
	told    map[wire.Digest]string

	mu     sync.Mutex // guards what follows
	status Status
	passed bundle.Ratchet // the ratchet, for its time
}

// retired are the modules of a replaced set, to be closed at a time.
type retired struct {
	modules modules
	at      time.Time
}

const (
	maxPending = 16
	maxTold    = 1024
)

// temporary marks what may succeed later without a new release.
type temporary struct{ error }

func (t temporary) Unwrap() error { return t.error }

// New opens the loader's folder and puts the release that was last in force into
// force again, from that folder alone. When that does not succeed, Set is nil
// and Status says why: Run will try again. Errors are of the folder or of config.
func New(ctx context.Context, config Config) (*Loader, error) {
	if config.Root == nil || config.Engine == nil || config.Activate == nil || config.Dir == "" {
		return nil, errors.New("loader: Dir, Root, Engine and Activate are required")
	}
	if err := config.Root.Validate(); err != nil {
		return nil, fmt.Errorf("loader: %w", err)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.Default()
	}
	if config.Retry == 0 {
		config.Retry = time.Second
	}
	if config.Grace == 0 {
		config.Grace = 10 * time.Second
	}
	s, err := openStore(config.Dir)
	if err != nil {
		return nil, err
	}
	l := &Loader{config: config, store: s, told: map[wire.Digest]string{}}
	if err := l.coldStart(ctx); err != nil {
		return nil, errors.Join(err, l.Close(ctx))
	}
	return l, nil
}

// Set returns the set in force, nil while there is none. Its modules stay open
// for Config.Grace after it is replaced.
func (l *Loader) Set() *decide.Set { return l.set.Load() }

// Status returns what is in force and what was refused last.
func (l *Loader) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	s.ClockBehind = l.passed.ClockBehind(l.config.Now())
	return s
}

// Offer puts the release of an envelope into force, or returns why not; then
// what was in force still is. A release that is in force already is no error.
func (l *Loader) Offer(ctx context.Context, envelope []byte) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	return l.offer(ctx, envelope, l.config.Source)
}

// Run follows the source until ctx ends, and tries again what failed for a
// passing cause. It returns nil.
func (l *Loader) Run(ctx context.Context) error {
	envelopes := make(chan []byte)
	var watching sync.WaitGroup
	defer watching.Wait()
	if l.config.Source != nil {
		watching.Go(func() { l.watch(ctx, envelopes) })
	}
	wait := l.config.Retry
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case env := <-envelopes:
			l.Offer(ctx, env) // it has logged its own error
			wait = l.config.Retry
		case <-timer.C:
			l.again(ctx)
			wait = min(2*wait, 64*l.config.Retry)
		}
		l.sweep(ctx)
		timer.Reset(wait)
	}
}

// Close takes the set out of force and closes all modules, after the calls that
// are in flight. Nothing may use the loader any more.
func (l *Loader) Close(ctx context.Context) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.set.Store(nil)
	err := l.open.close(ctx)
	for _, r := range l.retired {
		err = errors.Join(err, r.modules.close(ctx))
	}
	l.open, l.retired = nil, nil
	return err
}

// watch keeps the source's Watch going, and tells once of each error that ends it.
func (l *Loader) watch(ctx context.Context, envelopes chan<- []byte) {
	for told := ""; ctx.Err() == nil; {
		err := l.config.Source.Watch(ctx, func(env []byte) {
			select {
			case envelopes <- env:
			case <-ctx.Done():
			}
		})
		if ctx.Err() != nil {
			return
		}
		if why := fmt.Sprint(err); why != told {
			l.config.Log.Warn("release source ended", "error", err)
			told = why
		}
		select {
		case <-time.After(l.config.Retry):
		case <-ctx.Done():
		}
	}
}

// again offers once more what failed for a passing cause.
func (l *Loader) again(ctx context.Context) {
	l.turn.Lock()
	defer l.turn.Unlock()
	pending := l.pending
	l.pending = nil
	for _, env := range pending {
		l.offer(ctx, env, l.config.Source)
	}
}

// sweep closes the modules whose grace is over.
func (l *Loader) sweep(ctx context.Context) {
	l.turn.Lock()
	defer l.turn.Unlock()
	for len(l.retired) > 0 && !l.config.Now().Before(l.retired[0].at) {
		if err := l.retired[0].modules.close(ctx); err != nil {
			l.config.Log.Warn("close replaced modules", "error", err)
		}
		l.retired = l.retired[1:]
	}
}
