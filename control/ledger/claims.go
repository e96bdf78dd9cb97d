package ledger

import (
	"context"
	"errors"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// listen takes the receipts of every region until ctx ends: what they claim must
// be here too.
func (l *Ledger) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.cfg.Peers.Receipts(ctx, func(region, node, boot string, msg []byte) {
			key := bootKey{node, boot}
			l.do(ctx, key, func() { l.hear(key, region, msg) })
		})
		if ctx.Err() == nil {
			l.cfg.Log.Warn("receipts of regions", "err", err)
			pause(ctx, retry)
		}
	}
}

// hear takes one receipt. The lane calls it.
func (l *Ledger) hear(key bootKey, region string, msg []byte) {
	verifier := l.cfg.Keys.Node(l.cfg.Tenant, key.node)
	if verifier == nil {
		return // what it claims is asked for when its records come
	}
	c, err := l.openClaim(key, region, msg, verifier)
	if err != nil {
		l.cfg.Log.Warn("receipt is not believed", "of", region, "node", key.node, "boot", key.boot, "err", err)
		return
	}
	s := l.state(key)
	if l.claim(key, s, region, c) == nil && c.ours {
		l.published(s, c.size, msg)
	}
}

// openClaim reads a region's receipt. Of a region whose key is not known it is
// what the node signed.
func (l *Ledger) openClaim(key bootKey, region string, msg []byte, node note.Verifier) (claim, error) {
	said := claim{by: "region " + region, msg: msg}
	theirs := l.cfg.Keys.Region(l.cfg.Tenant, region)
	var c audit.Checkpoint
	var err error
	switch {
	case region == l.cfg.Region:
		if c, said.ours = l.openReceipt(key, msg, node); !said.ours {
			return said, errors.New("not signed by the region")
		}
	case theirs != nil:
		var r audit.Receipt
		r, err = audit.OpenReceipt(msg, node, theirs)
		c, said.proven = r.Checkpoint, err == nil
	default:
		c, err = audit.OpenCheckpoint(msg, node)
	}
	if err == nil && (c.Tenant != l.cfg.Tenant || c.Node != key.node || c.Boot != key.boot) {
		err = errors.New("of another boot")
	}
	said.head = head{c.Size, c.Root}
	return said, err
}

// claim remembers what a region signed for, and compares it with the archive. An
// error means that it contradicts the archive; that is kept. The lane calls it.
func (l *Ledger) claim(key bootKey, s *bootState, region string, c claim) error {
	have, known := s.claims[region]
	if known && c.size == have.size && c.root != have.root {
		return l.contradiction(key, c, c.size)
	}
	if !known || c.size > have.size {
		l.mu.Lock()
		s.claims[region] = c
		l.mu.Unlock()
	}
	l.needs(s, c.size)
	return l.checkClaims(key, s)
}

// checkClaims compares what is claimed with the archive as far as that goes.
func (l *Ledger) checkClaims(key bootKey, s *bootState) error {
	var err error
	for region, c := range s.claims {
		if c.checked || c.size > s.head.size {
			continue
		}
		root, ok := l.rootAt(key, s, c.size)
		if ok && root != c.root {
			err = l.contradiction(key, c, c.size)
		}
		if ok {
			c.checked = true
			l.mu.Lock()
			s.claims[region] = c
			l.mu.Unlock()
			if c.ours && root == c.root {
				l.published(s, c.size, c.msg)
			}
		}
	}
	return err
}

// contradiction keeps a statement of a tree that is not the archive's, and takes
// nothing more of the boot.
func (l *Ledger) contradiction(key bootKey, c claim, size uint64) error {
	no := refuse(fork, "%s signed another tree of %d records", c.by, size).(*refusal)
	l.cfg.Log.Error("receipt contradicts the archive", "node", key.node, "boot", key.boot, "why", no.text)
	l.quarantine(key, no)
	if err := l.keepStatement(key, c.msg, no); err != nil {
		l.cfg.Log.Error("evidence not kept", "err", err)
	}
	return no
}

// patience is how long something may be missing that the stream will bring,
// before peers are asked for it.
const patience = 2 * time.Second

// mend asks for what is missing until ctx ends.
func (l *Ledger) mend(ctx context.Context) {
	tick := time.NewTicker(retry / 2)
	defer tick.Stop()
	asked := map[bootKey]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.look:
		case <-tick.C:
		}
		l.readKnown(ctx)
		for _, key := range l.stuck() {
			if at, again := asked[key]; again && time.Since(at) < l.interval(key) {
				continue
			}
			l.fetch(ctx, key)
			asked[key] = time.Now()
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// interval is how long to wait before the same is asked for again.
func (l *Ledger) interval(key bootKey) time.Duration {
	s := l.state(key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.tried {
		return 5 * retry
	}
	return 0
}

// stuck are the boots that have missed something for a while.
func (l *Ledger) stuck() []bootKey {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []bootKey
	for key, s := range l.boots {
		if s.lacks() && !s.forked && !s.stuck.IsZero() && time.Since(s.stuck) >= patience && l.cfg.Keys.Node(l.cfg.Tenant, key.node) != nil {
			out = append(out, key)
		}
	}
	return out
}

// fetch gets what is missing of a boot: of the region's stream, of its other
// servers, of other regions. It ends when nobody has the next record.
func (l *Ledger) fetch(ctx context.Context, key bootKey) {
	s := l.state(key)
	for ctx.Err() == nil {
		l.mu.Lock()
		missing := s.missing()
		lacks := s.lacks()
		l.mu.Unlock()
		if !lacks {
			return
		}
		if !l.fetchAny(ctx, key, s, missing) {
			l.giveUp(ctx, key, s, missing[0].From)
			return
		}
	}
}

// fetchAny gets some of what is missing, each range from its beginning on or, when
// nobody has that, its end; false when nobody has any of it.
func (l *Ledger) fetchAny(ctx context.Context, key bootKey, s *bootState, missing []audit.Range) bool {
	for _, r := range missing {
		if l.fetchFrom(ctx, key, s, r.From) || r.To > r.From && l.fetchFrom(ctx, key, s, r.To) {
			return true
		}
	}
	return false
}

// fetchFrom gets record from and what follows it; false when nobody has it.
func (l *Ledger) fetchFrom(ctx context.Context, key bootKey, s *bootState, from uint64) bool {
	got := false
	take := func(frame []byte) bool {
		if !l.do(ctx, key, func() {
			if err := l.admit(key, frame, fetched); err != nil {
				l.fail(err)
			}
		}) {
			return true
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		got = s.has(from)
		return s.forked
	}
	if err := l.cfg.Input.Stored(ctx, key.node, key.boot, from, take); err != nil && ctx.Err() == nil {
		l.cfg.Log.Debug("stream asked for what is missing", "err", err)
	}
	if !got && l.cfg.Peers != nil {
		if err := l.cfg.Peers.Fetch(ctx, key.node, key.boot, from, take); err != nil && ctx.Err() == nil {
			l.cfg.Log.Debug("peers asked for what is missing", "err", err)
		}
	}
	if err := l.syncTouched(); err != nil {
		l.fail(err)
	}
	wake(l.wake)
	return got
}

// has reports whether a record is here. The mutex is held.
func (s *bootState) has(seq uint64) bool {
	for _, h := range s.holes {
		if h.From <= seq && seq <= h.To {
			return false
		}
	}
	return seq <= s.head.size
}

// giveUp remembers that nobody has a record, which only the node may still have;
// what the stream holds behind it is evidence.
func (l *Ledger) giveUp(ctx context.Context, key bootKey, s *bootState, from uint64) {
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	first := !s.tried
	s.tried = true
	status := s.status(key)
	behind := s.head.size < s.want
	l.mu.Unlock()
	if first {
		l.cfg.Log.Error("records are missing, and no server has them", "node", key.node, "boot", key.boot, "missing", status.Missing)
		l.alarm(key, gap, status.String())
		wake(l.wake)
	}
	if !behind {
		return
	}
	err := l.cfg.Input.Stored(ctx, key.node, key.boot, from, func(frame []byte) bool {
		return !l.do(ctx, key, func() {
			if err := l.admit(key, frame, lastResort); err != nil {
				l.fail(err)
			}
		})
	})
	if err != nil && ctx.Err() == nil {
		l.cfg.Log.Debug("stream asked for what is behind a gap", "err", err)
	}
}

// Lacking reports whether a boot misses records that no server has: only the
// node may have them. Held is what is here without a gap.
func (l *Ledger) Lacking(node, boot string) (held uint64, lacking bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.boots[bootKey{node, boot}]
	if s == nil || !s.tried || s.forked || !s.lacks() { // what is only slow to come is not lacking
		return 0, false
	}
	return s.missing()[0].From - 1, true
}

// Held is the newest checkpoint, as the node signed it, of what is archived of a
// boot; nil for nothing.
func (l *Ledger) Held(node, boot string) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.boots[bootKey{node, boot}]; s != nil {
		return s.signable
	}
	return nil
}

// A Boot is the name of a boot.
type Boot struct{ Node, Boot string }

// Kept is the position of the stream up to which everything is archived, but
// for what is missing of some boots, whose batches the stream must keep.
func (l *Ledger) Kept() (position string, but []Boot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, s := range l.boots {
		if s.want > s.head.size && !s.forked {
			but = append(but, Boot{key.node, key.boot})
		}
	}
	return l.settled, but
}
