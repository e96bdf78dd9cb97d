// Package ledger is a region's copy of every node's journal: each batch is
// verified, archived once and for ever, and counter-signed. Its truth is its
// folder; the region's stream only brings what the folder lacks.
//
// Every hub server of a region runs one, and all of them archive. The one that
// leads signs, and what it signs follows from what the region signed before.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// An Input is the region's streams of record batches and receipts.
type Input interface {
	// Records calls take with each batch, in the stream's order, beginning after
	// position ("" for all there is), and settled with the position reached
	// after every group of them. It ends with the first error of either, or the
	// context's.
	Records(ctx context.Context, position string, take func(node, boot string, frame []byte) error, settled func(position string) error) error
	// Stored calls take with the batches of a boot that the stream holds now and
	// that do not end before record from, in their order, until take returns true.
	Stored(ctx context.Context, node, boot string, from uint64, take func(frame []byte) (enough bool)) error
	// Receipt replaces the last receipt of a boot (nil for none) by what next makes
	// of it; next is asked again when another was faster, and nil leaves what is
	// there. A nil error promises that the region keeps it until the next one.
	Receipt(ctx context.Context, node, boot string, next func(last []byte) ([]byte, error)) error
}

// Peers are the other servers that archive, of this region and of others.
type Peers interface {
	// Receipts calls take with the last receipt of each boot in every region, and
	// with those that come, until ctx ends. Receipts are not verified.
	Receipts(ctx context.Context, take func(region, node, boot string, receipt []byte)) error
	// Fetch calls take with archived batches of a boot that hold record from and
	// what follows, of one server after another, until take returns true.
	Fetch(ctx context.Context, node, boot string, from uint64, take func(frame []byte) (enough bool)) error
	// FetchBlobs is Fetch from servers that have the blobs of the first batch.
	FetchBlobs(ctx context.Context, node, boot string, from uint64, take func(frame []byte) (enough bool)) error
}

// Config of a Ledger.
type Config struct {
	Dir            string
	Tenant, Region string
	// Key is the region's, the same on all of its servers; its name must be
	// audit.RegionKeyName.
	Key note.Signer
	// Keys are those of the nodes, and of regions as far as they are known. More
	// may come, none may change.
	Keys  *audit.Keys
	Input Input
	// Peers is nil for a region of one server that knows no other.
	Peers Peers
	// Leading reports whether this server signs for the region; nil: it always does.
	Leading func() bool
	// Alarm is told what people should look at; nil for nobody. It must not block.
	Alarm func(Alarm)
	// Step is the seam for tests that kill the process: it is called where a crash
	// could tear something apart. Nil for nothing.
	Step func(point string)
	Log  *slog.Logger
}

// An Alarm is a contradiction that somebody signed, or a loss. It is raised once
// in the life of a ledger.
type Alarm struct {
	Node, Boot string
	// Reason is that of the evidence, such as fork.
	Reason, Text string
}

const (
	retry        = time.Second
	savePosition = time.Second // reading a little again after a restart is free
	lanes        = 8           // boots that are worked on at a time
)

// A Ledger is one server's. Its methods are safe for concurrent use, Run may be
// called once.
type Ledger struct {
	cfg      Config
	archive  archive
	position string    // of Run
	saved    time.Time // when position was last saved; of Run
	unread   []string  // nodes whose archive waits for their key; of Open and mend
	lanes    [lanes]lane
	wake     chan struct{} // there may be something to sign
	look     chan struct{} // something may be missing
	pending  sync.WaitGroup

	documents documents

	mu       sync.Mutex // guards what follows
	boots    map[bootKey]*bootState
	settled  string
	evidence int
	kept     map[string]int // evidence files, by node
	alarmed  map[string]bool
	err      error
	failed   error // of a lane, since the last settle
	anew     bool  // the region's receipts may be gone: sign all of them again
}

type bootKey struct{ node, boot string }

// Open reads the folder and rebuilds what it proves. What is missing or damaged
// in it is read again from the region's stream and from peers.
func Open(c Config) (*Ledger, error) {
	if !audit.ValidName(c.Tenant) || !audit.ValidName(c.Region) || c.Key == nil || c.Key.Name() != audit.RegionKeyName(c.Tenant, c.Region) {
		return nil, fmt.Errorf("ledger: tenant %q, region %q: needs names and the region's own key", c.Tenant, c.Region)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Leading == nil {
		c.Leading = func() bool { return true }
	}
	if c.Alarm == nil {
		c.Alarm = func(Alarm) {}
	}
	if c.Step == nil {
		c.Step = func(string) {}
	}
	l := &Ledger{
		cfg: c, archive: archive(c.Dir), wake: make(chan struct{}, 1), look: make(chan struct{}, 1),
		boots: map[bootKey]*bootState{}, kept: map[string]int{}, alarmed: map[string]bool{},
	}
	for i := range l.lanes {
		l.lanes[i] = newLane()
	}
	if err := makeDir(filepath.Join(c.Dir, evidenceDir)); err != nil {
		return nil, fmt.Errorf("ledger %s: %w", c.Region, err)
	}
	if err := errors.Join(l.documents.open(l.archive), l.openSweeps(), l.rebuild(), l.recall()); err != nil {
		return nil, fmt.Errorf("ledger %s: %w", c.Region, err)
	}
	return l, nil
}

// rebuild finds what the archive proves of every boot.
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
			l.cfg.Log.Warn("archive of an unknown node", "node", node)
			l.unread = append(l.unread, node)
			continue
		}
		for _, boot := range boots {
			if err := l.load(bootKey{node, boot}, l.state(bootKey{node, boot}), key); err != nil {
				return err
			}
		}
	}
	return nil
}

// Run takes what the stream brings until ctx ends and returns its error. Other
// errors, such as a full disk, are logged, shown in Status and retried.
func (l *Ledger) Run(ctx context.Context) error {
	var working, helping sync.WaitGroup
	stop := make(chan struct{})
	for i := range l.lanes {
		working.Go(func() { l.lanes[i].work(stop) })
	}
	helping.Go(func() { l.sign(ctx) })
	helping.Go(func() { l.mend(ctx) })
	helping.Go(func() { l.scrub(ctx) })
	helping.Go(func() { l.erase(ctx) })
	helping.Go(func() { l.retain(ctx) })
	if l.cfg.Peers != nil {
		helping.Go(func() { l.listen(ctx) })
	}
	l.follow(ctx)
	helping.Wait()
	close(stop) // nobody asks the lanes for anything any more
	working.Wait()
	return errors.Join(ctx.Err(), l.storeReceipts())
}

// follow reads the stream until ctx ends.
func (l *Ledger) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.cfg.Input.Records(ctx, l.position, l.take, l.settle)
		if ctx.Err() != nil {
			return
		}
		l.pending.Wait()
		l.setErr(err)
		l.cfg.Log.Error("ledger stands still", "err", err)
		pause(ctx, retry)
	}
}

// take has the boot's lane archive what one message adds.
func (l *Ledger) take(node, boot string, frame []byte) error {
	key := bootKey{node, boot}
	l.pending.Add(1)
	l.lane(key).queue <- func() {
		defer l.pending.Done()
		if err := l.admit(key, frame, fromStream); err != nil {
			l.fail(err)
		}
	}
	return nil
}

// settle makes what a group added durable under its name, so that it may be
// signed. An error is about this machine, never about a message.
func (l *Ledger) settle(position string) error {
	l.pending.Wait()
	l.mu.Lock()
	err := l.failed
	l.failed = nil
	l.mu.Unlock()
	if err == nil {
		err = l.syncTouched()
	}
	if err != nil {
		return err
	}
	l.cfg.Step("synced")
	l.mu.Lock()
	l.settled, l.err = position, nil
	l.mu.Unlock()
	l.position = position
	wake(l.wake)
	if time.Since(l.saved) < savePosition {
		return nil
	}
	l.saved = time.Now()
	l.cfg.Step("position")
	return l.archive.setPosition(position)
}

// fail keeps the first error of a lane for settle.
func (l *Ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
	}
}

func (l *Ledger) setErr(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// alarm is told once of each reason and boot.
func (l *Ledger) alarm(key bootKey, why reason, text string) {
	l.mu.Lock()
	id := string(why) + " " + key.node + " " + key.boot
	told := l.alarmed[id]
	l.alarmed[id] = true
	l.mu.Unlock()
	if !told {
		l.cfg.Alarm(Alarm{Node: key.node, Boot: key.boot, Reason: string(why), Text: text})
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
