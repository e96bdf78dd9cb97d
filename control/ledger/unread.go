package ledger

import (
	"context"
	"slices"
	"time"
)

// readKnown loads what is archived of nodes whose key was not known when the
// ledger was opened, and is now.
func (l *Ledger) readKnown(ctx context.Context) {
	if len(l.unread) == 0 {
		return
	}
	archived, err := l.archive.boots()
	if err != nil {
		l.cfg.Log.Error("archive not listed", "err", err)
		return
	}
	l.unread = slices.DeleteFunc(l.unread, func(node string) bool {
		if l.cfg.Keys.Node(l.cfg.Tenant, node) == nil {
			return false
		}
		for _, boot := range archived[node] {
			key := bootKey{node, boot}
			if !l.do(ctx, key, func() { err = l.readLate(key) }) {
				return false
			}
			if err != nil {
				l.cfg.Log.Error("archive not read", "node", node, "boot", boot, "err", err)
				return false
			}
		}
		wake(l.wake)
		return true
	})
}

// readLate loads a boot's archive, to which something may have been added since
// the node is known. The lane calls it.
func (l *Ledger) readLate(key bootKey) error {
	if err := syncDir(l.archive.boot(key.node, key.boot)); err != nil { // what is loaded may be signed
		return err
	}
	fresh := &bootState{claims: map[string]claim{}}
	if err := l.load(key, fresh, l.cfg.Keys.Node(l.cfg.Tenant, key.node)); err != nil {
		return err
	}
	s := l.state(key)
	l.mu.Lock()
	defer l.mu.Unlock()
	for region, c := range fresh.claims {
		if have, known := s.claims[region]; !known || have.size < c.size {
			s.claims[region] = c
		}
	}
	s.head, s.checkpoint, s.durable, s.signable, s.touched = fresh.head, fresh.checkpoint, fresh.durable, fresh.signable, true
	s.holes, s.loose, s.want, s.cosigned = fresh.holes, fresh.loose, max(s.want, fresh.want), max(s.cosigned, fresh.cosigned)
	s.origin, s.roots, s.tried, s.stuck = fresh.origin, nil, false, time.Time{}
	if s.lacks() {
		s.stuck = time.Now()
	}
	return nil
}
