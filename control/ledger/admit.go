package ledger

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A route is how a batch came here.
type route int

const (
	fromStream route = iota // in the stream's order
	fetched                 // asked for because something is missing
	lastResort              // as fetched, when nobody has what is missing before it
)

// admit archives what a batch adds, or keeps it as evidence. Its error is about
// this machine, never about the batch. The lane calls it.
func (l *Ledger) admit(key bootKey, frame []byte, how route) error {
	err := l.judge(key, frame, how)
	var no *refusal
	if !errors.As(err, &no) {
		return err
	}
	l.cfg.Log.Error("batch refused", "node", key.node, "boot", key.boot, "reason", no.reason, "why", no.text)
	if no.reason == fork || no.reason == futureBoot {
		l.quarantine(key, no)
	}
	return l.keepEvidence(frame, key, no)
}

func (l *Ledger) judge(key bootKey, frame []byte, how route) error {
	b, c, first, err := l.verify(key, frame)
	if err != nil {
		return err
	}
	s := l.state(key)
	if s.forked && b.Last() > s.head.size {
		return refuse(quarantined, "boot %s has forked", key.boot)
	}
	if hole := s.hole(b); hole != nil {
		return l.fill(key, s, b, *hole)
	}
	if b.First > s.head.size+1 && !l.bridges(s, b, how) {
		l.needs(s, b.Last())
		if how == lastResort {
			return refuse(gap, "records %d-%d are missing", s.head.size+1, b.First-1)
		}
		return nil // the records before it are asked for, and then this batch again
	}
	return l.extend(key, s, b, c, first, frame)
}

// extend archives what of a batch is beyond the head, or compares it with what
// is there.
func (l *Ledger) extend(key bootKey, s *bootState, b *audit.Batch, c audit.Checkpoint, first *audit.Record, frame []byte) error {
	if err := l.begins(key, s, b, first); err != nil {
		return err
	}
	fresh := b
	if b.First <= s.head.size+1 {
		var err error
		fresh, err = judge(s.head, b, c, func(size uint64) (tlog.Hash, bool) { return l.rootAt(key, s, size) })
		if err != nil || fresh == nil {
			return err
		}
	}
	if s.end != nil && !l.within(s, c) {
		return refuse(fork, "%s says that this one ended at %d", s.end.by, s.end.size)
	}
	if fresh != b {
		frame = nil
	}
	if err := l.store(fresh, frame); err != nil {
		return err
	}
	if fresh.First > s.head.size+1 {
		l.mu.Lock()
		s.holes = append(s.holes, audit.Range{From: s.head.size + 1, To: fresh.First - 1})
		s.tried, s.stuck = false, time.Time{}
		l.mu.Unlock()
	}
	l.advance(s, c, b.Checkpoint)
	if fresh.First == 1 {
		l.follows(key, s, first.Boot)
	}
	if len(s.holes) > 0 {
		l.needs(s, s.head.size)
	}
	l.checkClaims(key, s)
	if err := l.grown(key, s, span{fresh.First, fresh.Last()}); err != nil {
		return err
	}
	return l.adopt(key, s)
}

// store archives a batch, whose frame is nil if it is not at hand; the seam is
// where a crash could part it.
func (l *Ledger) store(b *audit.Batch, frame []byte) error {
	l.cfg.Step("store")
	bare := l.withoutErased(b)
	if bare != b {
		frame = nil
	}
	if err := l.archive.keepFrame(bare, frame); err != nil {
		return err
	}
	l.cfg.Step("stored")
	return nil
}

// begins checks the record that begins a boot, when it is new.
func (l *Ledger) begins(key bootKey, s *bootState, b *audit.Batch, first *audit.Record) error {
	if b.First != 1 || s.head.size > 0 {
		return nil
	}
	r := first.Boot
	if r == nil || r.Tenant != b.Tenant || r.Node != b.Node || r.Boot != b.Boot {
		return refuse(malformed, "boot %s does not begin with its own record", b.Boot)
	}
	if err := l.fits(key, r); err != nil {
		return refuse(futureBoot, "%v", err)
	}
	return nil
}

// within reports whether a tree is not beyond what the next boot says was the end.
func (l *Ledger) within(s *bootState, c audit.Checkpoint) bool {
	return c.Size < s.end.size || c.Size == s.end.size && c.Root == s.end.root
}

// bridges reports whether a batch behind a gap is proven to continue the tree
// that this region has had, by its own receipt; or, when nobody has what is
// missing, the tree that another region has counter-signed.
func (l *Ledger) bridges(s *bootState, b *audit.Batch, how route) bool {
	for region, c := range s.claims {
		vouches := c.ours && region == l.cfg.Region || c.proven && how == lastResort
		if vouches && c.size > s.head.size && c.size >= b.First-1 && c.size <= b.Last() && rootWithin(b, c.size) == c.root {
			return true
		}
	}
	return false
}

// hole is the hole that a batch can fill from its beginning on, or up to its end.
func (s *bootState) hole(b *audit.Batch) *audit.Range {
	for _, h := range s.holes {
		if b.First <= h.From && h.From <= b.Last() || b.First <= h.To && h.To <= b.Last() {
			return &h
		}
	}
	return nil
}

// fill archives what a batch has of a hole. What it has of the batches behind
// the hole must be what they have.
func (l *Ledger) fill(key bootKey, s *bootState, b *audit.Batch, h audit.Range) error {
	from := max(b.First, h.From)
	if from == h.From && h.From > 1 {
		if root, ok := l.rootAt(key, s, h.From-1); ok && root != rootWithin(b, h.From-1) {
			return refuse(fork, "records before %d are not those which the node signed before", h.From)
		}
	}
	if b.Last() >= h.To {
		next, err := s.head.root, error(nil)
		if h.To < s.head.size {
			next, err = l.archive.before(key.node, key.boot, h.To+1)
		}
		if err == nil && next != rootWithin(b, h.To) {
			return refuse(fork, "records up to %d are not those which the node signed before", h.To)
		}
		if err != nil && from > h.From { // nothing proves that it continues what is here
			return nil
		}
	}
	if err := l.store(tail(b, from), nil); err != nil {
		return err
	}
	if err := syncDir(l.archive.boot(key.node, key.boot)); err != nil {
		return err
	}
	l.cfg.Step("filled")
	if b.Last() > h.To { // the batches behind it begin later now
		if _, err := l.archive.tidy(key.node, key.boot); err != nil {
			return err
		}
	}
	l.cfg.Log.Info("hole filled", "node", key.node, "boot", key.boot, "from", from, "to", min(h.To, b.Last()))
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(s.holes, h)
	s.holes = slices.Clone(s.holes)
	switch {
	case from > h.From:
		s.holes[i].To = from - 1
	case b.Last() < h.To:
		s.holes[i].From = b.Last() + 1
	default:
		s.holes = slices.Delete(s.holes, i, i+1)
	}
	s.tried = false
	if !s.lacks() {
		s.stuck = time.Time{}
	}
	return nil
}

// adopt takes archived batches that were behind a gap, when it is closed.
func (l *Ledger) adopt(key bootKey, s *bootState) error {
	for len(s.loose) > 0 && s.loose[0].first <= s.head.size+1 {
		next := s.loose[0]
		l.mu.Lock()
		s.loose = s.loose[1:]
		l.mu.Unlock()
		if next.last <= s.head.size {
			if err := l.archive.remove(key.node, key.boot, next); err != nil {
				return err
			}
			continue
		}
		b, err := l.archive.read(key.node, key.boot, next)
		var c audit.Checkpoint
		if err == nil {
			c, _, err = b.VerifyFirst(l.cfg.Keys.Node(l.cfg.Tenant, key.node))
		}
		if err == nil {
			_, err = judge(s.head, b, c, nil)
		}
		if err != nil {
			l.cfg.Log.Error("archived batch set aside", "node", key.node, "boot", key.boot, "file", next.file(), "err", err)
			if err := l.archive.setAside(key.node, key.boot, next); err != nil {
				return err
			}
			continue
		}
		if next.first <= s.head.size {
			if _, err := l.archive.tidy(key.node, key.boot); err != nil {
				return err
			}
		}
		l.advance(s, c, b.Checkpoint)
		l.checkClaims(key, s)
	}
	return nil
}

// verify proves a message to be a batch of the boot that its subject names, and
// returns its first record.
func (l *Ledger) verify(key bootKey, frame []byte) (*audit.Batch, audit.Checkpoint, *audit.Record, error) {
	var c audit.Checkpoint
	b, err := audit.DecodeBatch(frame)
	switch {
	case tooLarge(err):
		return nil, c, nil, refuse(oversize, "%v", err)
	case err != nil:
		return nil, c, nil, refuse(malformed, "%v", err)
	case b.Tenant != l.cfg.Tenant:
		return nil, c, nil, refuse(wrongTenant, "batch of tenant %s", b.Tenant)
	case b.Node != key.node:
		return nil, c, nil, refuse(wrongNode, "batch of node %s on the subject of %s", b.Node, key.node)
	case b.Boot != key.boot:
		return nil, c, nil, refuse(malformed, "batch of boot %s on the subject of %s", b.Boot, key.boot)
	}
	verifier := l.cfg.Keys.Node(l.cfg.Tenant, key.node)
	if verifier == nil {
		l.await(key, b.Last())
		return nil, c, nil, refuse(unknownNode, "%s", key.node)
	}
	c, first, err := b.VerifyFirst(verifier)
	if err != nil {
		return nil, c, nil, refuse(forged, "%v", err)
	}
	return b, c, first, nil
}

// syncTouched makes the names of what was archived durable, and what is then
// the head may be signed.
func (l *Ledger) syncTouched() error {
	l.mu.Lock()
	var touched []bootKey
	for key, s := range l.boots {
		if s.touched {
			touched = append(touched, key)
		}
	}
	l.mu.Unlock()
	var syncing sync.WaitGroup
	errs := make([]error, len(touched))
	room := make(chan struct{}, lanes)
	for i, key := range touched {
		room <- struct{}{}
		syncing.Go(func() {
			defer func() { <-room }()
			errs[i] = l.syncBoot(key)
		})
	}
	syncing.Wait()
	return errors.Join(errs...)
}

func (l *Ledger) syncBoot(key bootKey) error {
	s := l.state(key)
	l.mu.Lock()
	reached, checkpoint := s.head, s.checkpoint
	s.touched = false
	l.mu.Unlock()
	err := syncDir(l.archive.boot(key.node, key.boot))
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		s.touched = true
		return fmt.Errorf("archive %s/%s: %w", key.node, key.boot, err)
	}
	if reached.size > s.durable.size {
		s.durable, s.signable = reached, checkpoint
	}
	return nil
}
