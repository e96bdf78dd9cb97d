// Package loader brings releases into force on a node. It verifies what a
// Source delivers, fetches and stores the packages, admits and tests them, and
// swaps the set whole. Whatever it refuses changes nothing: the release in force
// stays. What it has once put in force it can put in force again with nothing but
// its own folder, and it keeps one way back from it.
package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/sparing"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Source delivers signed documents and packages. Nothing that it says is
// believed before it is verified.
type Source interface {
	// Watch calls deliver with the envelope of every signed object for this node
	// that is there or comes - trust roots, releases, rollout orders, kills, lifts,
	// the node's enrolments, heartbeats - until ctx ends. It may do so from several
	// goroutines, in any order, and the same envelope may come again. deliver does
	// not wait for a release to come into force.
	Watch(ctx context.Context, deliver func(envelope []byte)) error
	// Package returns the file of package d, whose uncompressed size is at most maxSize.
	Package(ctx context.Context, d wire.Digest, maxSize uint64) ([]byte, error)
}

// Config is what New needs.
type Config struct {
	Dir    string // the loader's own folder; created when it is missing
	Node   string // the node's name, by which rings choose it
	Root   *bundle.TrustRoot
	Engine *engine.Engine
	Source Source // of packages; nil: only what is in Dir
	// Regions is how many regions the node ships its records to: a release whose
	// points need more is refused.
	Regions int
	// Activate records, durably, that the set comes into force; the set is its
	// to complete until it returns. Its error leaves the old set in force.
	Activate func(context.Context, *decide.Set, *bundle.SignedRelease) error
	// Refused, if set, is told of each release that did not come into force,
	// once for each cause. The digest is that of the release when its signatures
	// verified, else that of the envelope's bytes.
	Refused func(wire.Digest, error)
	// Rooted, if set, is told of each trust root that replaces another.
	Rooted func(*bundle.TrustRoot)
	// Shadow, if set, is told of the set that is to be evaluated beside the one in
	// force; nil ends it. The modules stay open for Grace afterwards.
	Shadow func(*decide.Set, *bundle.SignedRelease)
	// SteppedBack, if set, is told why an order had the node step back, and
	// whether that succeeded.
	SteppedBack func(cause string, err error)
	// Event, if set, is told of what is worth an administrative record; Changed of
	// whatever changes Status.
	Event   func(*audit.AdminRecord)
	Changed func()
	// Fresh: a node that has never had a release in force waits for Enrol first.
	Fresh bool
	Now   func() time.Time // nil: time.Now
	Log   *slog.Logger     // nil: slog.Default
	// Retry is the first pause before what failed for want of a package, a disk
	// or a journal is tried again; it doubles up to 64 times. 0 means one second.
	Retry time.Duration
	// Grace is how long the modules of a replaced set stay open for the
	// decisions that had begun with it. 0 means ten seconds.
	Grace time.Duration
	// Warm is how long the modules of the way back stay open. 0 means one hour.
	// At most three sets are open at once besides those in their grace: the one
	// in force, the way back, and one that is shadowed or about to come into force.
	// Modules that they have in common are open once.
	Warm time.Duration
	// Wrap, if set, stands between the engines and what calls modules: the seam
	// for modules that fail. second is true for those of a Twin.
	Wrap func(m abi.Module, second bool) abi.Module
	// Step, if set, is told of each step before it is taken: the seam for crashes.
	Step func(string)
}

// Status says what is in force.
type Status struct {
	Epoch    uint64      // 0: nothing is in force
	Release  wire.Digest // of Epoch
	Fallback bool        // the node stepped back from Release
	Enforced wire.Digest // the release that decides
	Since    time.Time
	// Back is the way back, zero for none; Warm says that its modules are open.
	Back wire.Digest
	Warm bool
	// RootVersion is that of the trust root in use.
	RootVersion uint64
	// Ring is the node's ring of the newest release that it knows, "" for none.
	Ring string
	// Candidate is the newest release for this node that is known and not in force,
	// CandidateRefused why it never will be; Shadow says that it is evaluated beside.
	Candidate        wire.Digest
	CandidateRefused string
	Shadow           bool
	// Order is the serial of the newest rollout order taken, of OrderEpoch.
	Order, OrderEpoch uint64
	// Rolling: a rollout that is not complete touches this node.
	Rolling bool
	Timing  audit.ActivationTiming
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
	shelf  shelf
	wake   chan struct{} // the state changed: plan again

	// building is held while one release is built; nothing else waits for it.
	building sync.Mutex

	// swapping is held while what is in force or the trust root changes, over the
	// I/O of that, which is short. It guards what follows.
	swapping  sync.Mutex
	ratchet   bundle.Ratchet
	active    *held
	back      *held // the way back, while it is warm
	backUntil time.Time
	candidate *held // shadowed
	retired   []retired

	ordering sync.Mutex // held while a rollout order is stored

	mu       sync.Mutex // guards what follows; never held over I/O
	state    state
	told     map[wire.Digest]string
	warnings sparing.Log
	status   Status
	target   *offer // being built
	cancel   context.CancelFunc
	cut      int // builds cancelled since the last that ended
}

// held is a set with its modules.
type held struct {
	set    *decide.Set
	rel    *bundle.SignedRelease
	open   modules
	timing audit.ActivationTiming
}

// retired are the modules of a replaced set, to be closed at a time.
type retired struct {
	modules modules
	at      time.Time
}

const (
	maxTold = 1024
	// maxCut is how many builds in a row a newer release may cut short, so that a
	// stream of releases does not keep every one of them out.
	maxCut = 8
	// A burst of documents is let in before one is built: until none has come for
	// settle, or for maxSettle.
	settle    = 5 * time.Millisecond
	maxSettle = 50 * time.Millisecond
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
	config.defaults()
	s, err := openStore(config.Dir, config.Step)
	if err != nil {
		return nil, err
	}
	l := &Loader{config: config, store: s, told: map[wire.Digest]string{}, wake: make(chan struct{}, 1)}
	l.shelf.open = map[moduleKey]*shelved{}
	l.state = state{node: config.Node, root: config.Root, offers: map[uint64]*offer{}, orders: map[uint64]*bundle.SignedOrder{}, unenrolled: config.Fresh}
	if err := l.coldStart(ctx); err != nil {
		return nil, errors.Join(err, l.Close(ctx))
	}
	return l, nil
}

func (c *Config) defaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Retry == 0 {
		c.Retry = time.Second
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	if c.Warm == 0 {
		c.Warm = time.Hour
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.Event == nil {
		c.Event = func(*audit.AdminRecord) {}
	}
	if c.Shadow == nil {
		c.Shadow = func(*decide.Set, *bundle.SignedRelease) {}
	}
	if c.Rooted == nil {
		c.Rooted = func(*bundle.TrustRoot) {}
	}
	if c.Step == nil {
		c.Step = func(string) {}
	}
}

// Set returns the set in force, nil while there is none. Its modules stay open
// for Config.Grace after it is replaced.
func (l *Loader) Set() *decide.Set { return l.set.Load() }

// Root returns the trust root in use.
func (l *Loader) Root() *bundle.TrustRoot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.root
}

// Roots returns every trust root that the node has used since the configured
// one, the newest first.
func (l *Loader) Roots() []*bundle.TrustRoot {
	newest := l.Root()
	roots := []*bundle.TrustRoot{newest}
	for root := l.config.Root; root != nil && root.Version < newest.Version; root = l.storedAfter(root) {
		roots = slices.Insert(roots, 1, root)
	}
	return roots
}

// Ratchet returns how far the node has come.
func (l *Loader) Ratchet() bundle.Ratchet {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.ratchet
}

// Status returns what is in force and what was refused last.
func (l *Loader) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	s.RootVersion = l.state.root.Version
	s.ClockBehind = l.state.ratchet.ClockBehind(l.config.Now())
	s.Back = l.state.ratchet.Back
	l.state.describe(&s)
	return s
}

// Offer puts the release of an envelope into force, or returns why not; then
// what was in force still is. A release that is in force already is no error;
// one whose ring has no order yet is ErrWaiting.
func (l *Loader) Offer(ctx context.Context, envelope []byte) error {
	o, err := l.takeRelease(envelope)
	if err != nil {
		return err
	}
	l.building.Lock()
	defer l.building.Unlock()
	l.mu.Lock()
	want := l.state.phase(o)
	l.mu.Unlock()
	if want != bundle.PhaseActive {
		return fmt.Errorf("%w: epoch %d", ErrWaiting, o.rel.Epoch)
	}
	return l.bring(ctx, o, l.config.Source)
}

// Deliver takes a trust root, a release or a rollout order for Run to act on. It
// never waits for a release that is being built.
func (l *Loader) Deliver(envelope []byte) {
	switch bundle.Type(envelope) {
	case bundle.TrustRootType:
		l.takeRoot(envelope)
	case bundle.OrderType:
		l.takeOrder(envelope)
	default:
		l.takeRelease(envelope) // it has told its own error
	}
}

// Enrol tells the loader what the node's enrolment says: labels, which choose
// it for rings and releases, and the lowest epoch that it may begin with.
func (l *Loader) Enrol(labels map[string]string, minEpoch uint64) {
	l.swapping.Lock()
	if next := l.ratchet.Pin(minEpoch); next != l.ratchet {
		if err := l.store.putRatchet(next); err != nil {
			l.config.Log.Error("the epoch to begin with is not stored; it is kept while this process runs", "error", err)
		}
		l.setRatchet(next)
	}
	l.swapping.Unlock()
	l.mu.Lock()
	l.state.labels, l.state.unenrolled = labels, false
	l.mu.Unlock()
	l.changed()
}

// changed has the plan made again, and ends the building of what it no longer
// wants or, a bounded number of times in a row, of what a newer one replaces.
func (l *Loader) changed() {
	l.mu.Lock()
	if t := l.target; t != nil {
		p := l.state.plan()
		if l.state.phase(t) == bundle.PhaseWaiting || p.activate != t && p.shadow != t && l.cut < maxCut {
			l.cut++
			l.cancel()
			l.target = nil
		}
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run acts on what was delivered until ctx ends, and tries again what failed for
// a passing cause. It returns nil.
func (l *Loader) Run(ctx context.Context) error {
	var backing sync.WaitGroup
	defer backing.Wait()
	wait := l.config.Retry
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			wait = l.config.Retry
			l.letIn(ctx)
		case <-timer.C:
			l.again()
			wait = min(2*wait, 64*l.config.Retry)
		}
		if l.halted() {
			backing.Go(func() { l.stepBackOrdered(ctx) })
		}
		l.sweep(ctx)
		working := make(chan struct{})
		go func() {
			defer close(working)
			l.work(ctx)
		}()
		l.attend(ctx, working, &backing)
		timer.Reset(wait)
	}
}

// letIn waits for the end of a burst; an order to step back ends it at once.
func (l *Loader) letIn(ctx context.Context) {
	end := time.After(maxSettle)
	for !l.halted() {
		select {
		case <-l.wake:
		case <-time.After(settle):
			return
		case <-end:
			return
		case <-ctx.Done():
			return
		}
	}
}

// attend obeys orders to step back while a release is being built.
func (l *Loader) attend(ctx context.Context, working <-chan struct{}, backing *sync.WaitGroup) {
	missed := false
	for {
		select {
		case <-working:
			if missed {
				l.changed()
			}
			return
		case <-l.wake:
			missed = true
			if l.halted() {
				backing.Go(func() { l.stepBackOrdered(ctx) })
			}
		}
	}
}

func (l *Loader) halted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.plan().back != ""
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Close takes the set out of force and closes all modules, after the calls that
// are in flight. Nothing may use the loader any more.
func (l *Loader) Close(ctx context.Context) error {
	l.building.Lock()
	defer l.building.Unlock()
	l.swapping.Lock()
	defer l.swapping.Unlock()
	l.set.Store(nil)
	var errs []error
	for _, h := range []*held{l.active, l.back, l.candidate} {
		if h != nil {
			errs = append(errs, h.open.close(ctx))
		}
	}
	for _, r := range l.retired {
		errs = append(errs, r.modules.close(ctx))
	}
	l.active, l.back, l.candidate, l.retired = nil, nil, nil, nil
	return errors.Join(errs...)
}

// again lets what failed for a passing cause be tried once more.
func (l *Loader) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.state.offers {
		o.deferred = false
	}
	l.state.backFailed = false
}

// sweep closes the modules whose grace is over, and those of a way back that is
// no longer kept warm.
func (l *Loader) sweep(ctx context.Context) {
	l.swapping.Lock()
	now := l.config.Now()
	if l.back != nil && !now.Before(l.backUntil) {
		l.retire(l.back)
		l.back = nil
		l.setWarm(false)
	}
	var over []modules
	for len(l.retired) > 0 && !now.Before(l.retired[0].at) {
		over = append(over, l.retired[0].modules)
		l.retired = l.retired[1:]
	}
	l.swapping.Unlock()
	for _, m := range over {
		if err := m.close(ctx); err != nil {
			l.config.Log.Warn("close replaced modules", "error", err)
		}
	}
}

// retire closes a set's modules after the grace. The caller holds swapping.
func (l *Loader) retire(h *held) {
	if h != nil {
		l.retired = append(l.retired, retired{modules: h.open, at: l.config.Now().Add(l.config.Grace)})
	}
}

func (l *Loader) setWarm(warm bool) {
	l.mu.Lock()
	l.status.Warm = warm
	l.mu.Unlock()
}

// Follow keeps a source's Watch going until ctx ends, and tells once of each
// error that ends it.
func Follow(ctx context.Context, source Source, deliver func([]byte), retry time.Duration, log *slog.Logger) {
	for told := ""; ctx.Err() == nil; {
		err := source.Watch(ctx, deliver)
		if ctx.Err() != nil {
			return
		}
		if why := fmt.Sprint(err); why != told {
			log.Warn("source ended", "error", err)
			told = why
		}
		pause(ctx, retry)
	}
}
