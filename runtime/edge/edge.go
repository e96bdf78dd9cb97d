// Package edge is one node: it holds the verified set, runs it on requests,
// writes the record of every answer before the answer, and goes on alone when
// nothing else answers.
package edge

import (
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
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

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
	// Root is the trust root whose keys must have signed what the node enforces.
	Root *bundle.TrustRoot
	// Source brings releases; nil means that only the node's own folder counts.
	Source loader.Source
	// JournalFS is the seam for failing disks; nil means the operating system's.
	JournalFS journal.FS
	// Live is told of every recorded decision; nil means nobody is.
	Live func(*audit.Record, audit.Ref)
	Log  *slog.Logger
}

// A Node decides. Its methods are safe for concurrent use.
type Node struct {
	cfg    Config
	key    note.Signer
	vkey   string
	engine *engine.Engine
	loader *loader.Loader
	log    *slog.Logger

	// live is swapped whole, so that a decision sees one set and the journal
	// that announced it.
	live atomic.Pointer[live]

	// switching serialises activation and the reopening of the journal. It is
	// held over their I/O; no decision ever takes it.
	switching sync.Mutex

	// of the loader's goroutine
	refusals  uint64
	refusedAt time.Time

	mu     sync.Mutex // guards lost
	lost   unrecorded
	repair chan struct{}
}

// live is what is in force.
type live struct {
	journal    *journal.Journal
	set        *decide.Set // nil until a release is in force
	activation uint64      // seq of the set's leaf in the journal's boot
	announced  *audit.ActivationRecord
}

// Open takes the node's folder: it opens the journal, which begins a new boot,
// and prepares the engine. The node denies until Run has put a release in force.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	n := &Node{cfg: cfg, log: cfg.Log.With("node", cfg.Name), repair: make(chan struct{}, 1)}
	var err error
	if n.key, n.vkey, err = journal.LoadOrCreateKey(KeyFile(cfg.Dir), audit.NodeKeyName(cfg.Tenant, cfg.Name)); err != nil {
		return nil, fmt.Errorf("log key: %w", err)
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

// JournalDir is where a node whose folder is dir keeps its journal.
func JournalDir(dir string) string { return filepath.Join(dir, "journal") }

// CodeDir is where a node whose folder is dir keeps compiled modules. Deleting it
// costs compiling again.
func CodeDir(dir string) string { return filepath.Join(dir, "compiled") }

func (n *Node) prepare(ctx context.Context) (err error) {
	n.engine, err = engine.New(ctx, engine.Config{Worker: n.cfg.Worker, Cache: CodeDir(n.cfg.Dir), Log: n.log})
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	n.loader, err = loader.New(ctx, loader.Config{
		Dir:      filepath.Join(n.cfg.Dir, "store"),
		Root:     n.cfg.Root,
		Source:   n.cfg.Source,
		Engine:   n.engine,
		Activate: n.activate,
		Refused:  n.refused,
		Log:      n.log,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("loader: %w", err), n.engine.Close(ctx))
	}
	return nil
}

func (n *Node) openJournal() (*journal.Journal, error) {
	j, err := journal.Open(journal.Config{
		Dir: JournalDir(n.cfg.Dir), Tenant: n.cfg.Tenant, Node: n.cfg.Name,
		Key: n.key, FS: n.cfg.JournalFS, Log: n.log,
	})
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	r := j.Report()
	n.log.Info("boot", "boot", r.Boot, "previous", r.Previous, "torn_bytes", r.TornBytes, "damage", len(r.Damage))
	for _, d := range r.Damage {
		n.log.Error("journal damage", "err", d)
	}
	return j, nil
}

// Run puts the last-known-good release in force and then whatever the source
// brings, and reopens a journal whose disk failed, until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	wait.Go(func() { n.repairJournal(ctx) })
	err := n.loader.Run(ctx)
	wait.Wait()
	return err
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
	return errors.Join(n.recordLost(j), j.Close())
}

// Journal is the running journal; after a disk failure it is another one.
func (n *Node) Journal() *journal.Journal { return n.live.Load().journal }

// VerifierKey is the public form of the node's log key, for public.keys.
func (n *Node) VerifierKey() string { return n.vkey }

// Status says what is in force.
func (n *Node) Status() policy.Status {
	st := n.loader.Status()
	s := policy.Status{Node: n.cfg.Name, Boot: n.Journal().Boot(), Epoch: st.Epoch, Ready: n.Ready() == nil}
	if st.Epoch != 0 {
		s.Release, s.Since = st.Release.String(), st.Since
	}
	if st.Refusal != nil {
		s.Refused = st.Refusal.Reason
	}
	if set := n.live.Load().set; set != nil {
		s.Points = set.PointNames()
	}
	return s
}

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

// Decide answers a request: it runs the point's policies, checks obligations,
// writes the record and only then returns. The error wraps
// policy.ErrUnknownPoint; every other trouble is a decision by the point's fail
// mode.
func (n *Node) Decide(_ context.Context, req *policy.Request) (policy.Answer, error) {
	start := time.Now()
	l := n.live.Load()
	point, outcome := notReady, decide.NotReady()
	if l.set != nil {
		var ok bool
		if point, ok = l.set.Points[req.Point]; !ok {
			return policy.Answer{}, fmt.Errorf("%w: %.80q; the release in force has %q", policy.ErrUnknownPoint, req.Point, l.set.PointNames())
		}
		outcome = point.Evaluate(req, start.UnixNano())
		outcome.Decision.Epoch = l.set.Epoch
	}
	return n.answer(l, point, req, outcome, start), nil
}

// answer checks obligations and writes the record of what was decided, or does
// as the point says when it cannot be written.
func (n *Node) answer(l *live, point *decide.Point, req *policy.Request, outcome decide.Outcome, start time.Time) policy.Answer {
	outcome.Decision = guard.Obligations(req, outcome.Decision)
	decided := time.Since(start)
	ref, err := n.record(l, point, req, outcome, start, decided)
	if errors.Is(err, journal.ErrTooLarge) {
		outcome = tooLarge(outcome)
		ref, err = n.record(l, point, req, outcome, start, decided)
	}
	answer := policy.Answer{Decision: outcome.Decision, Node: n.cfg.Name}
	if err != nil {
		answer.Decision = n.unrecordedDecision(point, answer.Decision, err)
	} else {
		answer.Recorded, answer.Durability = true, point.Durability
		answer.Boot, answer.Seq, answer.Leaf = ref.Boot, ref.Seq, hex.EncodeToString(ref.Leaf[:])
	}
	answer.Timing = policy.Timing{Decide: decided, Record: time.Since(start) - decided}
	return answer
}

// record writes the record of an outcome, as durably as the point demands.
func (n *Node) record(l *live, p *decide.Point, req *policy.Request, out decide.Outcome, start time.Time, took time.Duration) (audit.Ref, error) {
	rec, err := newRecord(l, p, req, out, start, took)
	if err != nil {
		return audit.Ref{}, err
	}
	ref, err := l.journal.Append(context.Background(), rec, p.Durability)
	if err == nil && n.cfg.Live != nil {
		n.cfg.Live(rec, ref)
	}
	return ref, err
}

// notReady stands in for the point while no release is in force.
var notReady = &decide.Point{Durability: policy.Synced}
