// Package ledger is a region's copy of every node's journal: each batch is
// verified, archived once and for ever, and counter-signed. Its truth is its
// folder; the region's stream only brings what the folder lacks.
//
// One ledger signs for a region.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// An Input is the region's stream of record batches.
type Input interface {
	// Records calls take with each batch, in the stream's order, beginning after
	// position ("" for all there is), and settled with the position reached
	// after every group of them. It ends with the first error of either, or the
	// context's.
	Records(ctx context.Context, position string, take func(node, boot string, frame []byte) error, settled func(position string) error) error
	// Receipt hands a boot's receipt to its node. A nil error promises that the
	// region keeps it until the next one.
	Receipt(ctx context.Context, node, boot string, receipt []byte) error
}

// Config of a Ledger.
type Config struct {
	Dir            string
	Tenant, Region string
	// Key is the region's; its name must be audit.RegionKeyName.
	Key note.Signer
	// Keys are those of the nodes. They must not change.
	Keys  *audit.Keys
	Input Input
	Log   *slog.Logger
}

// Status is what a ledger holds.
type Status struct {
	Region string
	// Cosigned is the number of records of each node and boot that are archived
	// and counter-signed.
	Cosigned map[string]map[string]uint64
	// Records is their sum.
	Records uint64
	// Evidence is the number of batches that were refused.
	Evidence int
	// Err is why the ledger stands still; nil while it works.
	Err error
}

// maxEvidence bounds the batches that are kept as evidence; beyond it they are
// logged and counted only.
const maxEvidence = 1000

const (
	retry        = time.Second
	savePosition = time.Second // reading a little again after a restart is free
)

// errRewind asks for the stream to be read from its beginning.
var errRewind = errors.New("records are missing; reading the stream from its beginning")

// A Ledger is one region's. Run owns what has no other guard.
type Ledger struct {
	cfg      Config
	archive  archive
	position string
	touched  map[bootKey][]byte // checkpoints to counter-sign when a group is archived
	rewound  bool
	saved    time.Time // when position was last saved

	mu       sync.Mutex // guards what follows
	heads    map[bootKey]*bootState
	evidence int
	err      error
}

type bootKey struct{ node, boot string }

type bootState struct {
	head     head
	cosigned uint64
	forked   bool
}

// Open reads the folder and rebuilds what it proves. Archived batches that do
// not follow one another, or the last of which is damaged, count only up to
// there; the rest is read again from the region's stream.
func Open(c Config) (*Ledger, error) {
	if !audit.ValidName(c.Tenant) || !audit.ValidName(c.Region) || c.Key == nil || c.Key.Name() != audit.RegionKeyName(c.Tenant, c.Region) {
		return nil, fmt.Errorf("ledger: tenant %q, region %q: needs names and the region's own key", c.Tenant, c.Region)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &Ledger{cfg: c, archive: archive(c.Dir), touched: map[bootKey][]byte{}, heads: map[bootKey]*bootState{}}
	if err := makeDir(filepath.Join(c.Dir, evidenceDir)); err != nil {
		return nil, fmt.Errorf("ledger %s: %w", c.Region, err)
	}
	if err := errors.Join(l.rebuild(), l.recall()); err != nil {
		return nil, fmt.Errorf("ledger %s: %w", c.Region, err)
	}
	return l, nil
}

// rebuild finds the heads of every boot in the archive.
func (l *Ledger) rebuild() (err error) {
	if l.position, err = l.archive.position(); err != nil {
		return err
	}
	nodes, err := l.archive.boots()
	if err != nil {
		return err
	}
	for node, boots := range nodes {
		key := l.cfg.Keys.Node(l.cfg.Tenant, node)
		if key == nil {
			l.cfg.Log.Warn("archive of an unknown node", "region", l.cfg.Region, "node", node)
			continue
		}
		for _, boot := range boots {
			h, broken, err := l.archive.head(node, boot, key)
			if err != nil {
				return err
			}
			if broken {
				l.cfg.Log.Error("archive is damaged", "region", l.cfg.Region, "node", node, "boot", boot, "good_to", h.size)
				l.position = ""
			}
			l.heads[bootKey{node, boot}] = &bootState{head: h, cosigned: l.cosigned(node, boot, key)}
		}
	}
	return nil
}

// cosigned is the size that the stored receipt proves; 0 without one.
func (l *Ledger) cosigned(node, boot string, key note.Verifier) uint64 {
	msg, err := l.archive.receipt(node, boot)
	if err != nil || msg == nil {
		return 0
	}
	c, err := audit.OpenCheckpoint(msg, key)
	if err != nil || c.Node != node || c.Boot != boot {
		l.cfg.Log.Error("receipt is damaged", "region", l.cfg.Region, "node", node, "boot", boot, "err", err)
		return 0
	}
	return c.Size
}

// recall counts the evidence and quarantines the boots that forked.
func (l *Ledger) recall() error {
	dir := filepath.Join(l.cfg.Dir, evidenceDir)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		why, ok := isBatch(e.Name())
		if !ok {
			continue
		}
		l.evidence++
		if why != fork {
			continue
		}
		frame, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		b, err := audit.DecodeBatch(frame)
		if err != nil {
			l.cfg.Log.Error("evidence is damaged", "region", l.cfg.Region, "file", e.Name(), "err", err)
			continue
		}
		l.state(bootKey{b.Node, b.Boot}).forked = true
	}
	return err
}

// Run takes what the stream brings until ctx ends and returns its error. Other
// errors, such as a full disk, are logged, shown in Status and retried.
func (l *Ledger) Run(ctx context.Context) error {
	for {
		err := l.cfg.Input.Records(ctx, l.position, l.take, func(position string) error { return l.settle(ctx, position) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errRewind) {
			l.cfg.Log.Warn("ledger", "region", l.cfg.Region, "err", err)
			l.position = ""
			continue
		}
		l.setErr(err)
		l.cfg.Log.Error("ledger stands still", "region", l.cfg.Region, "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
}

// take archives what one message adds, or keeps it as evidence. Its error is
// about this machine, never about the message.
func (l *Ledger) take(node, boot string, frame []byte) error {
	err := l.admit(node, boot, frame)
	var no *refusal
	if !errors.As(err, &no) {
		return err
	}
	if no.reason == gap && !l.rewound {
		l.rewound = true
		return errRewind
	}
	l.cfg.Log.Error("batch refused", "region", l.cfg.Region, "node", node, "boot", boot, "reason", no.reason, "why", no.text)
	if no.reason == fork {
		l.state(bootKey{node, boot}).forked = true
	}
	return l.keepEvidence(frame, node+"/"+boot, no)
}

func (l *Ledger) admit(node, boot string, frame []byte) error {
	b, c, err := l.verify(node, boot, frame)
	if err != nil {
		return err
	}
	key := bootKey{node, boot}
	state := l.state(key)
	if known := b.Last() <= state.head.size; !known || !l.archive.holds(b, frame) {
		fresh, err := judge(state.head, b, c, func(size uint64) (tlog.Hash, bool) { return l.rootAt(key, size) })
		if err != nil {
			return err
		}
		if fresh != nil && state.forked {
			return refuse(quarantined, "boot %s has forked", boot)
		}
		if err := l.keep(state, b, fresh, frame, c); err != nil {
			return err
		}
	}
	if c.Size == state.head.size && !state.forked {
		l.touched[key] = b.Checkpoint
	}
	return nil
}

// keep archives what of b is fresh, in b's own frame if that is all of it.
func (l *Ledger) keep(state *bootState, b, fresh *audit.Batch, frame []byte, c audit.Checkpoint) (err error) {
	if fresh == nil {
		return nil
	}
	if fresh != b {
		if frame, err = fresh.Encode(); err != nil {
			return err
		}
	}
	if err := l.archive.keep(fresh, frame); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	state.head = head{c.Size, c.Root}
	return nil
}

func (l *Ledger) rootAt(key bootKey, size uint64) (tlog.Hash, bool) {
	root, err := l.archive.rootAt(key.node, key.boot, size)
	if err != nil {
		l.cfg.Log.Error("archive is damaged", "region", l.cfg.Region, "node", key.node, "boot", key.boot, "err", err)
	}
	return root, err == nil
}

// verify proves a message to be a batch of the node that its subject names.
func (l *Ledger) verify(node, boot string, frame []byte) (*audit.Batch, audit.Checkpoint, error) {
	b, err := audit.DecodeBatch(frame)
	if err != nil {
		return nil, audit.Checkpoint{}, refuse(malformed, "%v", err)
	}
	if b.Tenant != l.cfg.Tenant || b.Node != node || b.Boot != boot {
		return nil, audit.Checkpoint{}, refuse(malformed, "batch of %s/%s/%s on the subject of %s/%s", b.Tenant, b.Node, b.Boot, node, boot)
	}
	key := l.cfg.Keys.Node(l.cfg.Tenant, node)
	if key == nil {
		return nil, audit.Checkpoint{}, refuse(unknownNode, "%s", node)
	}
	c, _, err := b.Verify(key, nil)
	if err != nil {
		return nil, audit.Checkpoint{}, refuse(forged, "%v", err)
	}
	return b, c, nil
}

// settle counter-signs what a group added: on disk first, then published.
func (l *Ledger) settle(ctx context.Context, position string) error {
	for key, checkpoint := range l.touched {
		if err := l.cosign(ctx, key, checkpoint); err != nil {
			return err
		}
		delete(l.touched, key)
	}
	l.position = position
	l.setErr(nil)
	if time.Since(l.saved) < savePosition {
		return nil
	}
	l.saved = time.Now()
	return l.archive.setPosition(position)
}

// cosign never takes back a receipt for more, which a damaged archive had.
func (l *Ledger) cosign(ctx context.Context, key bootKey, checkpoint []byte) error {
	state := l.state(key)
	if state.head.size < state.cosigned {
		return nil
	}
	receipt, err := audit.Cosign(checkpoint, l.cfg.Keys.Node(l.cfg.Tenant, key.node), l.cfg.Key)
	if err != nil {
		return err
	}
	if err := l.archive.settle(key.node, key.boot, receipt); err != nil {
		return err
	}
	if err := l.cfg.Input.Receipt(ctx, key.node, key.boot, receipt); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	state.cosigned = state.head.size
	return nil
}

// keepEvidence stores a refused batch and why, once.
func (l *Ledger) keepEvidence(frame []byte, subject string, no *refusal) error {
	path := l.archive.evidence(no.reason, frame)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if l.Status().Evidence < maxEvidence {
		note := []byte(subject + "\n" + no.Error() + "\n")
		if err := errors.Join(create(path, frame), replace(strings.TrimSuffix(path, ".batch")+".txt", note)); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.evidence++
	return nil
}

func (l *Ledger) state(key bootKey) *bootState {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.heads[key]
	if s == nil {
		s = &bootState{}
		l.heads[key] = s
	}
	return s
}

func (l *Ledger) setErr(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// Status tells what the ledger holds.
func (l *Ledger) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Region: l.cfg.Region, Cosigned: map[string]map[string]uint64{}, Evidence: l.evidence, Err: l.err}
	for key, state := range l.heads {
		if s.Cosigned[key.node] == nil {
			s.Cosigned[key.node] = map[string]uint64{}
		}
		n := min(state.cosigned, state.head.size)
		s.Cosigned[key.node][key.boot] = n
		s.Records += n
	}
	return s
}
