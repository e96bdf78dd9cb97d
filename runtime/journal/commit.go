package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A group is what one commit writes: everything that was appended while the
// commit before it was under way.
type group struct {
	first  uint64
	bytes  []byte // header and payload
	leaves []tlog.Hash
	// Each error is set before its channel is closed.
	written, synced     chan struct{}
	writeErr, syncError error
}

func (g *group) full(more int) bool {
	return len(g.leaves) == audit.MaxBatchRecords || len(g.bytes)+more > audit.MaxGroupBytes
}

func (g *group) wait(ctx context.Context, class policy.Durability) error {
	done, err := g.synced, &g.syncError
	if class == policy.Written {
		done, err = g.written, &g.writeErr
	}
	select {
	case <-done:
		return *err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enqueue numbers a record and puts it into the youngest group. The work under
// the lock overlaps with the fsync in flight.
func (j *Journal) enqueue(body []byte, stored *audit.Stored, size int) (*group, audit.Ref, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.poison != nil:
		return nil, audit.Ref{}, j.poison
	case j.closed:
		return nil, audit.Ref{}, ErrClosed
	}
	var g *group
	if n := len(j.queue); n > 0 && !j.queue[n-1].full(size) {
		g = j.queue[n-1]
	} else {
		g = &group{first: j.next, written: make(chan struct{}), synced: make(chan struct{})}
		g.bytes, j.spare = append(j.spare[:0], make([]byte, audit.GroupHeaderBytes)...), nil
		j.queue = append(j.queue, g)
	}
	ref := audit.Ref{Boot: j.boot.id, Seq: j.next}
	j.next++
	j.scratch = audit.AppendLeaf(j.scratch[:0], body, ref.Seq)
	ref.Leaf = tlog.RecordHash(j.scratch)
	g.leaves = append(g.leaves, ref.Leaf)
	g.bytes = audit.AppendEntry(g.bytes, audit.Entry{
		Leaf: j.scratch, Parts: stored.Parts, Key: stored.Key, Blobs: stored.Introduce(&j.window, ref.Seq),
	})
	return g, ref, nil
}

// signal marks c, which has room for one mark.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// lead commits the caller's own group in the caller's goroutine when nobody
// commits at the moment, which saves two switches between goroutines for each
// record. Otherwise, and for a caller who does not wait for the fsync, the writer
// is told.
func (j *Journal) lead(g *group, class policy.Durability) {
	if class != policy.Synced {
		signal(j.wake)
		return
	}
	select {
	case j.commit <- struct{}{}:
		runtime.Gosched() // who is about to append shares the fsync
		j.drain(g)
		<-j.commit
	default:
		signal(j.wake)
	}
}

// write commits what nobody led, until the journal is closed and the queue is
// empty.
func (j *Journal) write() {
	defer close(j.writer)
	for stopped := false; !stopped; {
		select {
		case <-j.wake:
		case <-j.stop:
			stopped = true // nothing is appended any more
		}
		j.commit <- struct{}{}
		j.drain(nil)
		<-j.commit
	}
}

// drain commits groups until the queue is empty or last is durable; an error
// poisons the journal. The token is held.
func (j *Journal) drain(last *group) {
	for g := j.take(); g != nil; g = j.take() {
		if err := j.sync(g); err != nil {
			j.fail(g, err)
			return
		}
		if g == last {
			return
		}
	}
}

// take returns the oldest group, when there is one.
func (j *Journal) take() *group {
	j.gather()
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) == 0 {
		return nil
	}
	g := j.queue[0]
	j.queue = j.queue[1:]
	return g
}

// gather lets those whose group was just committed come back with their next
// records, so that they share the next fsync instead of every other one: it waits
// an eighth of what the last fsync took at most. One caller has nobody to wait for,
// and many share an fsync well without.
func (j *Journal) gather() {
	if j.gathered <= 1 || j.gathered > 32 {
		return
	}
	for began := time.Now(); time.Since(began) < j.fsync/8; runtime.Gosched() {
		j.mu.Lock()
		n := 0
		if len(j.queue) > 0 {
			n = len(j.queue[0].leaves)
		}
		j.mu.Unlock()
		if n >= j.gathered {
			return
		}
	}
}

// sync writes and syncs one group and tells those who wait for it.
func (j *Journal) sync(g *group) error {
	// Only the token's holder changes durable, so that it may read it without the lock.
	audit.SealGroup(g.bytes, j.boot.salt, g.first, j.durable.Size(), len(g.leaves))
	if err := j.out.write(g.bytes, &j.durable); err != nil {
		return err
	}
	close(g.written)
	began := time.Now()
	if err := j.out.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", j.out.segment.path, err)
	}
	j.fsync, j.gathered = time.Since(began), len(g.leaves)
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, leaf := range g.leaves {
		j.durable.Append(leaf)
	}
	if cap(g.bytes) <= maxSpareBytes {
		j.spare = g.bytes
	}
	if j.durable.Size()-j.signed >= j.cfg.CheckpointRecords {
		signal(j.due)
	}
	j.notify()
	close(g.synced)
	return nil
}

// maxSpareBytes bounds the memory that is kept for the next group.
const maxSpareBytes = 1 << 20

// fail poisons the journal: neither g nor any group behind it is acknowledged.
func (j *Journal) fail(g *group, cause error) {
	j.cfg.Log.Error("journal poisoned", "boot", j.boot.id, "error", cause)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.poison = fmt.Errorf("%w: %w", ErrPoisoned, cause)
	for _, g := range append([]*group{g}, j.queue...) {
		g.syncError = j.poison
		select {
		case <-g.written:
		default:
			g.writeErr = j.poison
			close(g.written)
		}
		close(g.synced)
	}
	j.queue = nil
	j.notify()
}

// notify wakes those who wait on Changed. The lock is held.
func (j *Journal) notify() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// signDue stores a checkpoint when records are due for one, and when nothing
// happened for IdleInterval.
func (j *Journal) signDue() {
	defer close(j.signer)
	tick := time.NewTicker(j.cfg.CheckpointInterval)
	defer tick.Stop()
	idle := time.NewTimer(j.cfg.IdleInterval)
	defer idle.Stop()
	for {
		select {
		case <-j.stop:
			return
		case <-j.due:
		case <-idle.C:
		case <-tick.C:
			if !j.unsigned() {
				continue
			}
		}
		if _, err := j.Checkpoint(); err != nil && !errors.Is(err, ErrPoisoned) {
			j.cfg.Log.Error("journal checkpoint", "boot", j.boot.id, "error", err)
		}
		idle.Reset(j.cfg.IdleInterval)
	}
}

func (j *Journal) unsigned() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.durable.Size() > j.signed
}

// Checkpoint signs and stores a checkpoint of the durable prefix now.
func (j *Journal) Checkpoint() ([]byte, error) {
	j.signing.Lock()
	defer j.signing.Unlock()
	j.mu.Lock()
	tree, poison := j.durable.Clone(), j.poison
	j.mu.Unlock()
	if poison != nil {
		return nil, poison
	}
	msg, err := j.cfg.checkpoint(j.boot.id, &tree)
	if err != nil {
		return nil, err
	}
	if err := replaceFile(j.cfg.FS, filepath.Join(j.boot.path, checkpointFile), msg); err != nil {
		return nil, fmt.Errorf("store checkpoint: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.note, j.signed = msg, tree.Size()
	j.notify()
	return msg, nil
}

// An output is the segment that is being written. The writer owns it.
type output struct {
	cfg     *Config
	boot    bootDir
	segment segment
	file    File
	off     int64
	size    int64 // at which another segment begins
	// full: decisions are refused; filled is marked when room was taken.
	full   atomic.Bool
	filled chan struct{}
}

// begin creates the boot's folder and its first segment.
func (o *output) begin(cfg *Config, boot bootDir, full bool) error {
	o.cfg, o.boot, o.filled = cfg, boot, make(chan struct{}, 1)
	if !full {
		err := cfg.reserve()
		if full = isFull(err); err != nil && !full {
			return err
		}
	}
	o.full.Store(full)
	if err := cfg.FS.Mkdir(boot.path, 0o700); err != nil {
		return err
	}
	if err := cfg.FS.SyncDir(cfg.Dir); err != nil {
		return err
	}
	return o.roomy(&audit.Frontier{}, predecessor{})
}

// create begins the segment behind the tree; when it returns, its name and
// header are durable.
func (o *output) create(tree *audit.Frontier, before predecessor, size int64) error {
	s := o.boot.segment(tree.Size() + 1)
	f, err := o.cfg.FS.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = f.Preallocate(size); err == nil {
		err = writeAll(f, segmentHeader(o.boot.salt, tree, before), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = o.cfg.FS.SyncDir(o.boot.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create %s: %w", s.path, err), f.Close(), o.cfg.FS.Remove(s.path))
	}
	o.segment, o.file, o.off, o.size = s, f, segmentHeaderBytes, size
	return nil
}

// write appends a sealed group, in a new segment when this one is full. tree is
// that of the records before the group, all durable.
func (o *output) write(group []byte, tree *audit.Frontier) error {
	if o.off > segmentHeaderBytes && o.off+int64(len(group)) > o.size {
		if err := o.close(); err != nil {
			return err
		}
		if err := o.roomy(tree, predecessor{o.segment.first, o.off}); err != nil {
			return err
		}
	}
	if err := writeAll(o.file, group, o.off); err != nil {
		return fmt.Errorf("write %s: %w", o.segment.path, err)
	}
	o.off += int64(len(group))
	return nil
}

// close gives back the space that was reserved and not used.
func (o *output) close() error {
	if o.file == nil {
		return nil
	}
	err := errors.Join(o.file.Truncate(o.off), o.file.Close())
	o.file = nil
	return err
}

func writeAll(f File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}
