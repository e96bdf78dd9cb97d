// Package edge is one node: it holds the verified set, runs it on requests,
// writes the record of every answer before the answer, and goes on alone when
// nothing else answers.
package edge

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/runtime/watch"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/sparing"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// firstRetry is the first pause before a release that lacked a package is tried again.
const firstRetry = 100 * time.Millisecond

// CodeLogFailure is the reason code of an answer whose record could not be written.
const CodeLogFailure = "log_failure"

// Config says who a node is and where it keeps its things.
type Config struct {
	Tenant, Name string
	// Dir holds the journal, the log key and the last-known-good release.
	Dir string
	// Worker is the program that compiles modules in processes of its own, and
	// what it makes is kept in CodeDir; "" compiles here and keeps nothing.
	Worker string
	// Code is the folder of compiled modules; "" is CodeDir(Dir). Nodes of one user
	// may share one: a module is then compiled once.
	Code string
	// Root is the trust root whose keys must have signed what the node enforces.
	Root *bundle.TrustRoot
	// Source brings releases; nil means that only the node's own folder counts.
	Source loader.Source
	// Secret is the file of the tenant's secret; "" is SecretFile(Dir), which is made
	// when it is not there: values that it masks cannot be joined with other nodes'.
	Secret string
	// JournalFS is the seam for failing disks; nil means the operating system's.
	JournalFS journal.FS
	// JournalQuota bounds what the journal takes of the disk, in bytes; 0 is no
	// bound. Journal changes how it is kept otherwise: the seam for small disks.
	JournalQuota int64
	Journal      func(*journal.Config)
	// Live is told of every recorded decision; nil means nobody is.
	Live func(*audit.Record, audit.Ref)
	// Attest is given what the node says of itself, signed with its log key: a
	// message of audit.SignAttestation. first says that it is the first one of an
	// activation. An error has it sent again. nil means that nobody is told.
	Attest func(ctx context.Context, first bool, epoch uint64, msg []byte) error
	// Regions are where records go beside the node's disk; nil means nowhere.
	Regions Regions
	// DurableWithin bounds how long an answer waits for regions; 0 means 2 s.
	DurableWithin time.Duration
	// Alarm is told of what people should hear of; nil means nobody is. It must
	// not wait.
	Alarm func(kind, text string)
	// Retired is told which regions are retired, at the start and when one more is;
	// nil means that nobody is. It must not wait.
	Retired func(regions []string)
	// Enrolment is the envelope of the node's enrolment when it is at hand; the
	// source brings newer ones. AwaitEnrolment has a node that never had a release
	// in force wait for one, so that it does not begin below its MinEpoch.
	Enrolment      []byte
	AwaitEnrolment bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Wrap stands between the engines and the calls of modules, and Step is told
	// of each step of an activation: the seams for modules and processes that fail.
	Wrap func(m abi.Module, second bool) abi.Module
	Step func(string)
	Log  *slog.Logger
}

// A Node decides. Its methods are safe for concurrent use.
type Node struct {
	cfg    Config
	key    note.Signer
	signed note.Verifier // opens what key or one before it signed
	vkey   string
	secret *Secret
	engine *engine.Engine
	loader *loader.Loader
	log    *slog.Logger

	// live is swapped whole, so that a decision sees one set and the journal
	// that announced it.
	live atomic.Pointer[live]

	// switching serialises activation and the reopening of the journal. It is
	// held over their I/O; no decision ever takes it.
	switching sync.Mutex

	began time.Time // of the monotonic clock
	stop  stop
	count counters

	repeats   *repeats
	decisions atomic.Pointer[decisions]

	candidate  atomic.Pointer[candidate]
	shadowing  *watch.Queue[beside]
	second     second
	triggers   chan trigger
	attestNow  chan struct{}
	binary     atomic.Pointer[wire.Digest]
	heard      atomic.Pointer[wire.Digest] // the last heartbeat's envelope
	notices    chan notice
	vectorsRun atomic.Pointer[audit.VectorRun]

	mu        sync.Mutex // guards what follows
	lost      unrecorded
	shed      unrecorded
	refusals  uint64
	refusedAt time.Time
	enrolment *bundle.SignedEnrolment
	unknown   [][]byte // documents that a newer trust root may verify
	retired   []string // regions, by name
	discarded map[string]bool
	warnings  sparing.Log
	staleness guard.Staleness // as it was last recorded
	alarmed   map[string]bool

	repair chan struct{}

	behind   atomic.Bool // lost has something
	counting sync.Mutex  // held while lost is recorded, over that I/O
}

// live is what is in force.
type live struct {
	journal    *journal.Journal
	set        *decide.Set // nil until a release is in force
	activation uint64      // seq of the set's leaf in the journal's boot
	announced  *audit.ActivationRecord
	*inForce
}

// inForce is what is known of the release that decides; it outlives a journal.
type inForce struct {
	rel      *bundle.SignedRelease
	health   *watch.Health
	tripped  atomic.Bool // a step back was asked for
	inFlight atomic.Int64
	sampled  watch.Sampled
}

// Open takes the node's folder: it opens the journal, which begins a new boot,
// and prepares the engine. The node denies until Run has put a release in force.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	n := &Node{
		cfg: cfg, log: cfg.Log.With("node", cfg.Name), repair: make(chan struct{}, 1), began: cfg.Now(),
		shadowing: watch.NewQueue[beside](shadowQueue), triggers: make(chan trigger, 4), attestNow: make(chan struct{}, 1), notices: make(chan notice, maxNotices),
		alarmed: map[string]bool{}, discarded: map[string]bool{}, repeats: newRepeats(),
	}
	n.cfg.DurableWithin = cmp.Or(cfg.DurableWithin, defaultDurableWithin)
	n.second.queue = watch.NewQueue[beside](secondQueue)
	var err error
	if n.key, n.vkey, err = journal.LoadOrCreateKey(KeyFile(cfg.Dir), audit.NodeKeyName(cfg.Tenant, cfg.Name)); err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	if err := journal.NoteKey(FormerKeysFile(cfg.Dir), n.vkey); err != nil {
		return nil, err
	}
	if n.signed, err = journal.NodeKey(FormerKeysFile(cfg.Dir), n.vkey); err != nil {
		return nil, err
	}
	if n.secret, err = openSecret(&cfg); err != nil {
		return nil, err
	}
	j, err := n.openJournal()
	if err != nil {
		return nil, err
	}
	n.live.Store(&live{journal: j})
	if err := n.prepare(ctx); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return n, nil
}

// KeyFile is where a node whose folder is dir keeps its log key.
func KeyFile(dir string) string { return filepath.Join(dir, "log.key") }

// FormerKeysFile is where a node whose folder is dir keeps the public forms of all
// log keys that it had: what they signed stays its own.
func FormerKeysFile(dir string) string { return filepath.Join(dir, "log.keys") }

// JournalDir is where a node whose folder is dir keeps its journal.
func JournalDir(dir string) string { return filepath.Join(dir, "journal") }

// CodeDir is where a node whose folder is dir keeps compiled modules. Deleting it
// costs compiling again.
func CodeDir(dir string) string { return filepath.Join(dir, "compiled") }

func (n *Node) prepare(ctx context.Context) (err error) {
	n.engine, err = engine.New(ctx, engine.Config{Worker: n.cfg.Worker, Cache: cmp.Or(n.cfg.Code, CodeDir(n.cfg.Dir)), Log: n.log})
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	n.loader, err = loader.New(ctx, loader.Config{
		Dir:    filepath.Join(n.cfg.Dir, "store"),
		Node:   n.cfg.Name,
		Root:   n.cfg.Root,
		Source: n.cfg.Source,
		Engine: n.engine,

		Regions:     n.regions(),
		Activate:    n.activate,
		Refused:     n.refused,
		Rooted:      n.rooted,
		Shadow:      n.shadow,
		SteppedBack: n.steppedBack,
		Event:       n.Record,
		Changed:     n.attestSoon,

		Retry: firstRetry,
		Fresh: n.cfg.AwaitEnrolment,
		Now:   n.cfg.Now,
		Wrap:  n.cfg.Wrap,
		Step:  n.cfg.Step,
		Log:   n.log,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("loader: %w", err), n.engine.Close(ctx))
	}
	if err := errors.Join(n.openStop(), n.openData()); err != nil {
		return errors.Join(err, n.loader.Close(ctx), n.engine.Close(ctx))
	}
	return nil
}

func (n *Node) openJournal() (*journal.Journal, error) {
	cfg := journal.Config{
		Dir: JournalDir(n.cfg.Dir), Tenant: n.cfg.Tenant, Node: n.cfg.Name,
		Key: n.key, Secret: n.secret.ID(), Signed: n.signed, FS: n.cfg.JournalFS, Log: n.log,
		Heartbeat: n.lastHeartbeat, QuotaBytes: n.cfg.JournalQuota, OnSpace: n.spaceChanged, OnDamage: n.damageFound,
	}
	if n.cfg.Journal != nil {
		n.cfg.Journal(&cfg)
	}
	j, err := journal.Open(cfg)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	r := j.Report()
	n.log.Info("boot", "boot", r.Boot, "previous", r.Previous, "torn_bytes", r.TornBytes, "damage", len(r.Damage))
	for _, d := range r.Damage {
		if d.Boot == r.Previous { // that of earlier boots was told of when it was found
			n.damageFound(d)
		} else {
			n.log.Error("journal damage", "err", d)
		}
	}
	return j, nil
}

// Run does what the source brings, watches what is in force, says what it sees,
// and reopens a journal whose disk failed, until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	for _, work := range []func(context.Context){
		n.repairJournal, n.follow, n.tick, n.stepBackTriggered, n.runShadow, n.runSecond, n.runVectors, n.attest, n.hashBinary, n.tellNotices,
	} {
		wait.Go(func() { work(ctx) })
	}
	err := n.loader.Run(ctx)
	wait.Wait()
	n.second.close(context.WithoutCancel(ctx))
	return errors.Join(err, n.saveHeard())
}

// Close writes the closing checkpoint. Run must have returned.
func (n *Node) Close(ctx context.Context) error {
	return errors.Join(n.closeJournal(), n.loader.Close(ctx), n.engine.Close(ctx))
}

// closeJournal returns what poisoned a journal rather than that it is closed:
// an attempt to repair it may have closed it already.
func (n *Node) closeJournal() error {
	j := n.Journal()
	if err := j.Poisoned(); err != nil {
		_ = j.Close() // its error is the poison, or ErrClosed
		return err
	}
	return errors.Join(n.recordLostNow(j), j.Close())
}

// Journal is the running journal; after a disk failure it is another one.
func (n *Node) Journal() *journal.Journal { return n.live.Load().journal }

// VerifierKey is the public form of the node's log key, for public.keys.
func (n *Node) VerifierKey() string { return n.vkey }

// LogKey opens what the node signed, also with the log keys that it had before.
func (n *Node) LogKey() note.Verifier { return n.signed }

// Ready returns why the node only denies, or nil.
func (n *Node) Ready() error {
	l := n.live.Load()
	if l.set == nil {
		return errors.New("no verified release is in force")
	}
	if err := l.journal.Poisoned(); err != nil {
		return fmt.Errorf("the journal cannot be written: %w", err)
	}
	return nil
}

// Decide answers a request: it looks at kills and the lease, runs the point's
// policies, checks obligations, writes the record and only then returns. The
// error wraps policy.ErrUnknownPoint, or is a *policy.SyntaxError; every other
// trouble is a decision by the point's fail mode.
func (n *Node) Decide(_ context.Context, req *policy.Request) (policy.Answer, error) {
	start := n.cfg.Now()
	l := n.live.Load()
	if req.ClaimsNode() {
		return policy.Answer{}, &policy.SyntaxError{Line: 1, Col: 1, Pointer: "/context/" + policy.ContextNode, Reason: "only the node itself says this"}
	}
	if l.set == nil {
		return n.answer(l, notReady, &asked{req: req, outcome: decide.NotReady(), start: start}), nil
	}
	point, ok := l.set.Points[req.Point]
	if !ok {
		return policy.Answer{}, fmt.Errorf("%w: %.80q; the release in force has %q", policy.ErrUnknownPoint, req.Point, l.set.PointNames())
	}
	a := &asked{req: req, start: start}
	return n.ask(l, point, a), nil
}

// answer checks obligations and writes the record of what was decided, or does
// as the point says when it cannot be written.
func (n *Node) answer(l *live, point *decide.Point, a *asked) policy.Answer {
	a.outcome.Decision = guard.Obligations(a.req, a.outcome.Decision)
	a.took = n.cfg.Now().Sub(a.start)
	ref, err := n.record(l, point, a)
	if errors.Is(err, journal.ErrTooLarge) {
		a.outcome = decide.TooLarge(a.outcome)
		ref, err = n.record(l, point, a)
	}
	answer := policy.Answer{Decision: a.outcome.Decision, Node: n.cfg.Name}
	met := policy.NotRecorded
	if err == nil {
		if met = n.durable(point, ref); met < point.Durability {
			answer.Decision, ref, err = n.answerInstead(l, point, a, ref, met)
			met = policy.Synced
		}
	}
	if err != nil {
		answer.Decision = n.unrecordedDecision(point, answer.Decision, err)
	} else {
		answer.Recorded, answer.Durability = true, met
		answer.Boot, answer.Seq, answer.Leaf = ref.Boot, ref.Seq, hex.EncodeToString(ref.Leaf[:])
	}
	answer.Timing = policy.Timing{Decide: a.took, Record: n.cfg.Now().Sub(a.start) - a.took}
	n.observe(l, point, a, &answer)
	return answer
}

// record writes the record of an outcome on the node's disk, as durably as the
// point demands there.
func (n *Node) record(l *live, p *decide.Point, a *asked) (audit.Ref, error) {
	rec, err := n.newRecord(l, p, a)
	if err != nil {
		return audit.Ref{}, err
	}
	return n.append(l, p, rec, min(p.Durability, policy.Synced))
}

func (n *Node) append(l *live, p *decide.Point, rec *audit.Record, class policy.Durability) (audit.Ref, error) {
	if n.behind.Load() { // the count of what has no record comes first
		if err := n.recordLost(l.journal); err != nil {
			return audit.Ref{}, err
		}
	}
	ref, err := l.journal.Append(context.Background(), rec, class)
	if err != nil {
		return ref, err
	}
	n.decided(p, ref)
	if n.cfg.Live != nil {
		n.cfg.Live(rec, ref)
	}
	return ref, nil
}

// notReady stands in for the point while no release is in force.
var notReady = &decide.Point{Durability: policy.Synced}
