package journal

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A cursor is a place in a boot: the group at off of segment seg begins with
// record first, and tree is that of the records already passed.
type cursor struct {
	boot  bootDir
	seg   segment
	off   int64
	first uint64
	tree  audit.Frontier
}

// cursorAt returns a cursor at the beginning of the segment that holds seq.
func cursorAt(b bootDir, seq uint64) (*cursor, error) {
	segments, err := b.segments()
	if err != nil {
		return nil, err
	}
	c := &cursor{boot: b}
	for _, s := range segments {
		if s.first <= seq {
			c.seg, c.first = s, s.first
		}
	}
	if c.first == 0 {
		return nil, b.damage(b.segment(1).path, 0, 1, seq, errors.New("the first segment is missing"))
	}
	return c, nil
}

// each visits the records behind those passed, up to limit, until visit
// returns false, which means that it did not take the record. Records up to
// limit, which ends a group, are durable: whatever keeps one from being read is
// a *Damage.
func (c *cursor) each(limit uint64, visit func(seq uint64, e audit.Entry) bool) error {
	for c.first <= limit {
		more, err := c.eachInSegment(limit, visit)
		if !more || err != nil {
			return err
		}
		c.seg, c.off = c.boot.segment(c.first), 0
	}
	return nil
}

func (c *cursor) eachInSegment(limit uint64, visit func(seq uint64, e audit.Entry) bool) (more bool, err error) {
	r, err := openSegment(c.boot.fs, c.seg, c.boot.salt)
	if err != nil {
		return false, c.damage(limit, err)
	}
	defer r.close()
	if c.off == 0 {
		if err := r.header(); err != nil {
			return false, c.damage(limit, err)
		}
		if c.tree.Size() == 0 {
			c.tree = r.frontier
		}
		if c.tree.Size() == r.frontier.Size() && c.tree.Root() != r.frontier.Root() {
			return false, c.damage(limit, fmt.Errorf("%w: the segment does not continue the tree", errBroken))
		}
		c.off = r.off
	}
	for r.off, r.next = c.off, c.first; r.next <= limit; c.off, c.first = r.off, r.next {
		_, entries, err := r.group()
		if errors.Is(err, io.EOF) && c.first > c.seg.first {
			return true, nil
		}
		if err != nil {
			return false, c.damage(limit, err)
		}
		for i, e := range entries {
			seq := c.first + uint64(i)
			if seq <= c.tree.Size() {
				continue
			}
			if !visit(seq, e) {
				return false, nil
			}
			c.tree.Append(e.Hash())
		}
	}
	return false, nil
}

func (c *cursor) damage(to uint64, err error) error {
	return c.boot.damage(c.seg.path, c.off, c.first, to, err)
}

// readBatch collects durable records from seq from on; see Journal.ReadBatch.
// It leaves c behind the last of them. The batch has no checkpoint yet.
func (c *cursor) readBatch(from, durable uint64, maxRecords, maxBytes int) (*audit.Batch, error) {
	b := &audit.Batch{Boot: c.boot.id, First: from}
	size := 0
	err := c.each(durable, func(seq uint64, e audit.Entry) bool {
		if seq < from {
			return true
		}
		if seq == from {
			b.Frontier = c.tree.Roots()
		}
		n := e.Bytes()
		if len(b.Entries) > 0 && (len(b.Entries) == maxRecords || size+n > maxBytes) {
			return false
		}
		size += n
		b.Entries = append(b.Entries, e)
		return true
	})
	if len(b.Entries) > 0 {
		return b, nil // damage behind them is met by the next call
	}
	if err == nil {
		err = ErrNoRecords
	}
	return nil, err
}

// sign completes a batch with names and the checkpoint for its end.
func (cfg *Config) sign(b *audit.Batch, tree *audit.Frontier) error {
	b.Tenant, b.Node = cfg.Tenant, cfg.Node
	var err error
	b.Checkpoint, err = cfg.checkpoint(b.Boot, tree)
	return err
}

func (cfg *Config) checkpoint(boot string, tree *audit.Frontier) ([]byte, error) {
	c := audit.Checkpoint{Tenant: cfg.Tenant, Node: cfg.Node, Boot: boot, Size: tree.Size(), Root: tree.Root(), Time: cfg.Now().UnixNano(), Heartbeat: cfg.Heartbeat()}
	msg, err := c.Sign(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint %s: %w", c.Origin(), err)
	}
	return msg, nil
}

// exportBoot writes the records of a boot that can be read, and the checkpoint
// msg if there is one. Places that cannot be read are its error.
func (cfg *Config) exportBoot(w *audit.ExportWriter, b bootDir, state bootState, msg []byte) error {
	var failed []error
	for next := state.trimmed + 1; next <= state.size; {
		limit, err := state.reach(b.id, next)
		var d *Damage
		if errors.As(err, &d) && d.To >= next {
			next = d.To + 1
			continue
		}
		if err == nil {
			err = cfg.exportRange(w, b, next, limit)
		}
		if err != nil {
			failed = append(failed, err)
			break
		}
		next = limit + 1
	}
	for _, d := range state.lost {
		failed = append(failed, d)
	}
	if msg != nil {
		failed = append(failed, w.Checkpoint(msg))
	}
	return errors.Join(failed...)
}

func (cfg *Config) exportRange(w *audit.ExportWriter, b bootDir, next, limit uint64) error {
	c, err := cursorAt(b, next)
	if err != nil {
		return err
	}
	for next <= limit {
		batch, err := c.readBatch(next, limit, audit.MaxBatchRecords, audit.MaxEntryBytes)
		if err != nil {
			return err
		}
		if err := cfg.sign(batch, &c.tree); err != nil {
			return err
		}
		frame, err := batch.Encode()
		if err != nil {
			return err
		}
		if err := w.Batch(frame); err != nil {
			return err
		}
		next = batch.Last() + 1
	}
	return nil
}

// proveRecord returns the proof of record seq under the checkpoint msg.
func proveRecord(b bootDir, seq uint64, msg []byte) (*audit.Proof, error) {
	head, err := audit.PeekCheckpoint(msg)
	if err != nil {
		return nil, err
	}
	c, err := cursorAt(b, seq)
	if err != nil {
		return nil, err
	}
	before, err := b.headerState(c.seg)
	if err != nil {
		return nil, c.damage(seq, err)
	}
	p := &audit.Proof{Seq: seq, Checkpoint: msg}
	var readErr error
	var leaves iter.Seq[tlog.Hash] = func(yield func(tlog.Hash) bool) {
		readErr = c.each(head.Size, func(n uint64, e audit.Entry) bool {
			if n == seq {
				p.Entry = e
			}
			return yield(e.Hash())
		})
	}
	if p.Path, err = audit.PathFrom(&before.tree, head.Size, seq, leaves); err != nil {
		return nil, errors.Join(readErr, err)
	}
	return p, nil
}

// Export writes a journal's records to w without taking part in the journal:
// while another process owns it, up to what that process has signed; otherwise
// everything that recovery would keep. It changes nothing, and writes what is
// intact even when it returns an error about the rest.
func Export(cfg Config, w *audit.ExportWriter) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	unlock, lockErr := lock(filepath.Join(cfg.Dir, lockFile))
	if lockErr == nil {
		defer unlock()
	} else if !errors.Is(lockErr, ErrLocked) {
		return lockErr
	}
	boots, err := listBoots(cfg.FS, cfg.Dir)
	if err != nil {
		return err
	}
	var failed []error
	for i, b := range boots {
		live := lockErr != nil && i == len(boots)-1
		failed = append(failed, cfg.exportScanned(w, b, live))
	}
	return errors.Join(failed...)
}

// exportScanned exports what a scan finds intact; of a boot that is being
// written, no more than its checkpoint covers.
func (cfg *Config) exportScanned(w *audit.ExportWriter, b bootDir, live bool) error {
	c, msg, badHead := b.checkpoint(cfg)
	t, badTrim := b.trimState()
	whole := *cfg
	whole.ScanBytes = math.MaxInt64
	s, err := whole.scan(b, c, t)
	if err != nil {
		return err
	}
	state := bootState{size: s.intact(), trimmed: cfg.trimmed(t, s.intact())}
	state.lost = within(t.through, merge(s.found(), append(b.marked(), collect(badHead, badTrim)...)))
	switch {
	case live && (c == nil || c.Size > state.size):
		state.size = state.trimmed
	case live:
		state.size, state.lost = c.Size, within(t.through, merge(s.holes, b.marked()))
	case s.damage == nil && (c == nil || c.Size < state.size):
		if msg, err = cfg.checkpoint(b.id, &s.tree); err != nil {
			return err
		}
	}
	return cfg.exportBoot(w, b, state, msg)
}
