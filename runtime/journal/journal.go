// Package journal is a node's write-ahead log. What it acknowledges as synced
// is on disk, in order, without gaps; what it finds damaged later it reports
// and never repairs by forgetting.
//
// A journal is a folder with one folder per boot: segment files of groups (see
// audit.Group) named by their first seq, and the file "checkpoint" with the
// last signed checkpoint. One process owns it, by a lock.
package journal

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Errors that callers branch on.
var (
	// ErrPoisoned: a write or fsync failed before. Nothing is acknowledged any
	// more; only closing the journal and opening it again, which begins a new
	// boot, helps. The error that poisoned it is wrapped beside it.
	ErrPoisoned = errors.New("journal is poisoned")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("journal is closed")
	// ErrLocked: another process owns the folder.
	ErrLocked = errors.New("journal is in use by another process")
	// ErrDurability: the class is not one that a journal can meet.
	ErrDurability = errors.New("durability class is not offered by the journal")
	// ErrTooLarge: the record is longer than audit.MaxEntryBytes. Nothing is
	// poisoned; a shorter one can be appended.
	ErrTooLarge = errors.New("record is too large")
	// ErrNoRecords: there is no durable record at that place yet.
	ErrNoRecords = errors.New("no durable records there")
)

const lockFile = "lock"

// A Boot is what a journal holds of one boot.
type Boot struct {
	ID string
	// Size is the seq of the last durable record that ReadBatch gives out. Records
	// up to TrimmedThrough are gone, and what Damage says cannot be read.
	Size, TrimmedThrough uint64
	// Closed is false for the running boot only.
	Closed bool
	// Damage is the first damage in the boot, if there is any.
	Damage *Damage
}

// Damage is an error: a place of the journal which no longer holds what it
// durably held. It is never cut.
type Damage struct{ audit.Damage }

func (d *Damage) Error() string { return d.Reason }

// A Report says what opening found.
type Report struct {
	// Boot is the new boot, Previous the one before it, if there is one.
	Boot, Previous string
	// TornBytes is the length of the tail that was cut from Previous: a commit
	// that a crash interrupted, never acknowledged as synced.
	TornBytes uint64
	// Damage lists the first damage of every damaged boot.
	Damage []*Damage
}

// A Journal appends records and gives out its durable prefix. Its methods are
// safe for concurrent use.
type Journal struct {
	cfg    Config
	boot   bootDir
	report Report
	unlock func() error
	wake   chan struct{} // tells the writer that there is a group
	due    chan struct{} // tells the checkpointer that one is due
	stop   chan struct{} // closed by Close
	writer chan struct{} // closed when the writer has ended
	commit chan struct{} // holds one token while somebody commits
	signer chan struct{} // closed when the checkpointer has ended
	// closed when the one that looks at the room has ended, and the scrub
	watcher, scrubber chan struct{}
	out               output // of whoever holds the token
	// fsync is what the last one took, gathered how many records shared it; of
	// whoever holds the token.
	fsync    time.Duration
	gathered int

	mu      sync.Mutex
	past    []pastBoot
	next    uint64   // seq of the next record
	queue   []*group // not yet taken by the writer
	spare   []byte   // memory of a group that was committed
	scratch []byte
	closed  bool
	poison  error
	window  audit.Window // the blobs of next's window
	durable audit.Frontier
	changed chan struct{}
	note    []byte // the last checkpoint, and its size
	signed  uint64
	running bootState // but for its size

	trimming sync.Mutex // held over the I/O of Trim

	signing sync.Mutex // held while a checkpoint is signed and stored

	reading sync.Mutex
	cursors []*cursor // where earlier calls of ReadBatch ended, oldest first
}

// Open takes the folder, recovers what is there, and begins a new boot. Damage
// does not stop it: it is in the Report and in the new boot's first leaf, and
// the damaged boot is given out up to the damage only. Open returns ErrLocked
// when another process owns the folder.
func Open(cfg Config) (*Journal, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	unlock, err := lock(filepath.Join(cfg.Dir, lockFile))
	if err != nil {
		return nil, err
	}
	j, err := begin(cfg, unlock, false)
	if isFull(err) { // recovery needs room as well
		if err = cfg.release(); err == nil {
			j, err = begin(cfg, unlock, true)
		}
	}
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	return j, nil
}

// begin recovers the past, then starts the new boot with its record and its
// first checkpoint. full: the disk is known to be full.
func begin(cfg Config, unlock func() error, full bool) (*Journal, error) {
	past, err := cfg.past()
	if err != nil {
		return nil, err
	}
	counter, random := uint64(1), make([]byte, 8)
	if len(past) > 0 {
		counter = past[len(past)-1].counter + 1
	}
	rand.Read(random)
	boot, err := newBootDir(cfg.FS, cfg.Dir, audit.BootID(counter, binary.BigEndian.Uint64(random)))
	if err != nil {
		return nil, err
	}
	j := &Journal{
		cfg: cfg, boot: boot, past: past, report: reportOf(boot, past), unlock: unlock,
		wake: make(chan struct{}, 1), due: make(chan struct{}, 1), stop: make(chan struct{}),
		writer: make(chan struct{}), signer: make(chan struct{}), watcher: make(chan struct{}), scrubber: make(chan struct{}), commit: make(chan struct{}, 1),
		next: 1, changed: make(chan struct{}),
	}
	if err := j.out.begin(&j.cfg, boot, full); err != nil {
		return nil, fmt.Errorf("begin boot %s: %w", boot.id, err)
	}
	go j.write()
	go j.signDue()
	go j.watchSpace()
	go j.scrubAlways()
	if err := j.first(); err != nil {
		return nil, errors.Join(fmt.Errorf("begin boot %s: %w", boot.id, err), j.end())
	}
	return j, nil
}

func (j *Journal) first() error {
	if _, err := j.Append(context.Background(), j.cfg.bootRecord(j.boot.id, j.past), policy.Synced); err != nil {
		return err
	}
	_, err := j.Checkpoint()
	return err
}

func reportOf(boot bootDir, past []pastBoot) Report {
	r := Report{Boot: boot.id}
	for _, p := range past {
		r.Previous, r.TornBytes = p.id, p.torn
		r.Damage = append(r.Damage, p.lost...)
	}
	return r
}

// Report says what Open found.
func (j *Journal) Report() Report { return j.report }

// Boot is the running boot.
func (j *Journal) Boot() string { return j.boot.id }

// Append assigns the record's seq, writes it, and returns when class is met:
// policy.Written after the write, which waits for the fsync of the group
// before, policy.Synced after the fsync; any other class is ErrDurability. A
// record of more than audit.MaxEntryBytes is ErrTooLarge, that of a decision on a
// full disk ErrFull. r is not changed, and only read until Append returns. When
// ctx ends while Append waits, the record may or may not be there.
func (j *Journal) Append(ctx context.Context, r *audit.Record, class policy.Durability) (audit.Ref, error) {
	if class != policy.Written && class != policy.Synced {
		return audit.Ref{}, fmt.Errorf("%s: %w", class, ErrDurability)
	}
	if err := ctx.Err(); err != nil {
		return audit.Ref{}, err
	}
	if (r.Kind == audit.KindDecision || r.Kind == audit.KindResult) && j.Full() {
		return audit.Ref{}, ErrFull
	}
	body, err := r.Body()
	if err != nil {
		return audit.Ref{}, fmt.Errorf("append: %w", err)
	}
	stored := r.Store()
	size := len(body) + 16 + stored.Bytes()
	if size > audit.MaxEntryBytes {
		return audit.Ref{}, fmt.Errorf("append: %w: %d bytes; at most %d", ErrTooLarge, size, audit.MaxEntryBytes)
	}
	g, ref, err := j.enqueue(body, &stored, size)
	if err != nil {
		return audit.Ref{}, err
	}
	j.lead(g, class)
	return ref, g.wait(ctx, class)
}

// Boots returns what there is of every boot, oldest first.
func (j *Journal) Boots() []Boot {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Boot, 0, len(j.past)+1)
	for i := range j.past {
		p := &j.past[i]
		out = append(out, Boot{ID: p.id, Size: p.size, TrimmedThrough: p.trimmed, Closed: true, Damage: p.first()})
	}
	return append(out, Boot{ID: j.boot.id, Size: j.durable.Size(), TrimmedThrough: j.running.trimmed, Closed: j.closed, Damage: j.running.first()})
}

// state returns a boot and what may be read of it.
func (j *Journal) state(boot string) (bootDir, bootState, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if boot == j.boot.id {
		s := j.running
		s.size = j.durable.Size()
		return j.boot, s, nil
	}
	for _, p := range j.past {
		if p.id == boot {
			return p.bootDir, p.bootState, nil
		}
	}
	return bootDir{}, bootState{}, fmt.Errorf("journal has no boot %.40q", boot)
}

// kept is the state that is changed when a boot is trimmed or found damaged. The
// lock is held.
func (j *Journal) kept(boot string) *bootState {
	for i := range j.past {
		if j.past[i].id == boot {
			return &j.past[i].bootState
		}
	}
	return &j.running
}

// maxCursors bounds the places that ReadBatch remembers, so that a few readers
// go on where they were without reading a segment again.
const maxCursors = 8

// ReadBatch returns durable records of a boot from seq from on: at least one,
// at most maxRecords (0 means audit.MaxBatchRecords), and beyond the first only
// as many as keep leaves and parts within maxBytes (0 means
// audit.MaxEntryBytes, which always fits a frame). It signs a checkpoint for
// their end. ErrNoRecords when there is none yet, ErrTrimmed when it was given
// up, a *Damage when it is lost.
func (j *Journal) ReadBatch(boot string, from uint64, maxRecords, maxBytes int) (*audit.Batch, error) {
	batch, err := j.readBatch(boot, from, maxRecords, maxBytes)
	var d *Damage
	if errors.As(err, &d) { // unless it was trimmed while it was read
		if _, state, _ := j.state(boot); from <= state.trimmed {
			_, err = state.reach(boot, from)
		}
	}
	return batch, err
}

func (j *Journal) readBatch(boot string, from uint64, maxRecords, maxBytes int) (*audit.Batch, error) {
	b, state, err := j.state(boot)
	if err != nil {
		return nil, err
	}
	limit, err := state.reach(boot, from)
	if err != nil {
		return nil, err
	}
	c := j.takeCursor(boot, from)
	if c == nil {
		if c, err = cursorAt(b, from); err != nil {
			return nil, err
		}
	}
	maxRecords = min(cmp.Or(maxRecords, audit.MaxBatchRecords), audit.MaxBatchRecords)
	batch, err := c.readBatch(from, limit, maxRecords, cmp.Or(maxBytes, audit.MaxEntryBytes))
	if err != nil {
		return nil, err
	}
	if err := j.cfg.sign(batch, &c.tree); err != nil {
		return nil, err
	}
	j.keepCursor(c)
	return batch, nil
}

// takeCursor returns and forgets the cursor at which boot goes on with seq, if
// there is one.
func (j *Journal) takeCursor(boot string, seq uint64) *cursor {
	j.reading.Lock()
	defer j.reading.Unlock()
	i := slices.IndexFunc(j.cursors, func(c *cursor) bool { return c.boot.id == boot && c.tree.Size()+1 == seq })
	if i < 0 {
		return nil
	}
	c := j.cursors[i]
	j.cursors = slices.Delete(j.cursors, i, i+1)
	return c
}

func (j *Journal) keepCursor(c *cursor) {
	j.reading.Lock()
	defer j.reading.Unlock()
	if len(j.cursors) == maxCursors {
		j.cursors = slices.Delete(j.cursors, 0, 1)
	}
	j.cursors = append(j.cursors, c)
}

// LastCheckpoint returns the last signed checkpoint of a boot.
func (j *Journal) LastCheckpoint(boot string) ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if boot == j.boot.id {
		return j.note, nil
	}
	for _, p := range j.past {
		if p.id == boot && p.note != nil {
			return p.note, nil
		}
	}
	return nil, fmt.Errorf("journal has no checkpoint of boot %.40q", boot)
}

// Prove returns the inclusion proof of a durable record. It reads from the
// record's segment to the end of the boot.
func (j *Journal) Prove(boot string, seq uint64) (*audit.Proof, error) {
	b, state, err := j.state(boot)
	if err == nil {
		_, err = state.reach(boot, seq)
	}
	if err != nil {
		return nil, fmt.Errorf("prove record %d: %w", seq, err)
	}
	msg, err := j.LastCheckpoint(boot)
	if boot == j.boot.id && err == nil {
		msg, err = j.Checkpoint()
	}
	if err != nil {
		return nil, err
	}
	return proveRecord(b, seq, msg)
}

// Changed returns a channel that is closed when there are more durable records
// or a new checkpoint than at the time of the call, or the journal is poisoned.
// That of a closed journal is closed.
func (j *Journal) Changed() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changed
}

// Poisoned returns the error that poisoned the journal, or nil.
func (j *Journal) Poisoned() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.poison
}

// Export writes the durable records of every boot with their checkpoints to w.
// Damage is an error, but what is intact is written.
func (j *Journal) Export(w *audit.ExportWriter) error {
	j.mu.Lock()
	past := slices.Clone(j.past)
	j.mu.Unlock()
	var failed []error
	for _, p := range past {
		failed = append(failed, j.cfg.exportBoot(w, p.bootDir, p.bootState, p.note))
	}
	msg, err := j.Checkpoint()
	if err == nil {
		var head audit.Checkpoint
		if head, err = audit.PeekCheckpoint(msg); err == nil {
			_, state, _ := j.state(j.boot.id)
			state.size = head.Size
			err = j.cfg.exportBoot(w, j.boot, state, msg)
		}
	}
	return errors.Join(append(failed, err)...)
}

// Close makes everything appended durable, signs the closing checkpoint and
// releases the folder. Later calls of Append return ErrClosed.
func (j *Journal) Close() error {
	j.mu.Lock()
	already := j.closed
	j.closed = true
	j.mu.Unlock()
	if already {
		return ErrClosed
	}
	return errors.Join(j.end(), j.unlock())
}

// end stops the goroutines, the writer after its last group, and closes the boot.
func (j *Journal) end() error {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	close(j.stop)
	<-j.writer
	<-j.signer
	<-j.watcher
	<-j.scrubber
	_, err := j.Checkpoint()
	if poison := j.Poisoned(); poison != nil {
		err = poison
	}
	j.mu.Lock()
	close(j.changed) // and stays closed: nobody waits for what has ended
	j.mu.Unlock()
	return errors.Join(err, j.out.close())
}
