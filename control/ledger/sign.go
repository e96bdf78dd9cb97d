package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

const (
	// lookAll is how often the server that leads looks whether the region's
	// receipts are what it signed: somebody may have deleted them.
	lookAll = 30 * time.Second
	// storeEvery is how often receipts of other servers are stored in the folder.
	storeEvery = 2 * time.Second
	signers    = 8
)

// Resign has the server that leads look at every receipt of the region anew.
func (l *Ledger) Resign() {
	l.mu.Lock()
	l.anew = true
	l.mu.Unlock()
	wake(l.wake)
}

// sign counter-signs what is durable while this server leads, and stores the
// region's receipts, until ctx ends.
func (l *Ledger) sign(ctx context.Context) {
	tick := time.NewTicker(retry / 4)
	defer tick.Stop()
	var all, stored time.Time
	led := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-tick.C:
		}
		if time.Since(stored) > storeEvery {
			if err := l.storeReceipts(); err != nil {
				l.cfg.Log.Error("receipts not stored", "err", err)
			}
			stored = time.Now()
		}
		leading := l.cfg.Leading()
		if !leading {
			led = false
			continue
		}
		if !led || time.Since(all) > lookAll {
			l.Resign()
			led, all = true, time.Now()
		}
		if err := l.signAll(ctx); err != nil && ctx.Err() == nil {
			l.cfg.Log.Warn("receipts", "err", err)
			pause(ctx, retry/4)
		}
	}
}

// signAll counter-signs every boot that has grown, several at a time.
func (l *Ledger) signAll(ctx context.Context) error {
	var signing sync.WaitGroup
	var mu sync.Mutex
	var first error
	room := make(chan struct{}, signers)
	for _, key := range l.unsigned() {
		room <- struct{}{}
		signing.Go(func() {
			defer func() { <-room }()
			if err := l.cosign(ctx, key); err != nil {
				mu.Lock()
				first = errors.Join(first, err)
				mu.Unlock()
			}
		})
	}
	signing.Wait()
	return first
}

// unsigned are the boots for which the region may lack a receipt. One that
// misses records is not signed for until every server was asked for them. What a
// forked boot had before is signed for: it is how other regions see the fork.
func (l *Ledger) unsigned() []bootKey {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []bootKey
	for key, s := range l.boots {
		if l.anew {
			s.published = 0
		}
		if s.durable.size > s.published && (len(s.holes) == 0 || s.tried) {
			out = append(out, key)
		}
	}
	l.anew = false
	return out
}

// errBehind says that the region has signed for more than is here.
var errBehind = errors.New("the region has signed for more than is here")

// cosign puts a receipt in the place of the region's last one for a boot, if
// that one is of the same tree when it was smaller. What the region has is
// compared and replaced in one step, so that no two servers which both believe
// that they lead ever take a receipt back or contradict one.
func (l *Ledger) cosign(ctx context.Context, key bootKey) error {
	s := l.state(key)
	l.mu.Lock()
	size, checkpoint := s.durable.size, s.signable
	l.mu.Unlock()
	var receipt []byte
	err := l.cfg.Input.Receipt(ctx, key.node, key.boot, func(last []byte) (msg []byte, err error) {
		if !l.do(ctx, key, func() { msg, err = l.next(key, s, size, checkpoint, last) }) {
			return nil, ctx.Err()
		}
		switch {
		case err == nil && msg != nil: // in the folder first: who sees it will find it there
			err = l.archive.settle(key.node, key.boot, msg)
		case receipt != nil && last != nil: // another server was faster
			err = errors.Join(err, l.archive.settle(key.node, key.boot, last))
		}
		receipt = msg
		l.cfg.Step("signed")
		return msg, err
	})
	l.cfg.Step("published")
	switch {
	case errors.Is(err, errBehind):
		return nil // it is asked for
	case err != nil:
		return fmt.Errorf("receipt of %s/%s: %w", key.node, key.boot, err)
	case receipt != nil:
		l.mu.Lock()
		s.published, s.cosigned, s.receipt = max(s.published, size), max(s.cosigned, size), nil
		l.mu.Unlock()
	}
	return nil
}

// next is the receipt to put in the place of last; nil to leave that. The lane
// calls it.
func (l *Ledger) next(key bootKey, s *bootState, size uint64, checkpoint, last []byte) ([]byte, error) {
	verifier := l.cfg.Keys.Node(l.cfg.Tenant, key.node)
	if verifier == nil {
		return nil, nil
	}
	if last != nil {
		c, err := l.openClaim(key, l.cfg.Region, last, verifier)
		switch {
		case err != nil:
			l.cfg.Log.Error("the region's receipt is not its own; replaced", "node", key.node, "boot", key.boot)
		case l.claim(key, s, l.cfg.Region, c) != nil:
			return nil, nil
		case c.size > size:
			return nil, errBehind
		case c.size == size:
			l.published(s, size, last)
			return nil, nil
		default:
			root, ok := l.rootAt(key, s, c.size)
			if !ok {
				return nil, fmt.Errorf("the tree of %d records is not here", c.size)
			}
			if root != c.root {
				return nil, l.contradiction(key, c, c.size)
			}
		}
	}
	return audit.Cosign(checkpoint, verifier, l.cfg.Key)
}

// openReceipt reads a receipt of the region's own; ours is false for anything else.
func (l *Ledger) openReceipt(key bootKey, msg []byte, node note.Verifier) (c audit.Checkpoint, ours bool) {
	if msg == nil || node == nil {
		return c, false
	}
	c, err := audit.OpenCheckpoint(msg, node)
	if err != nil || c.Tenant != l.cfg.Tenant || c.Node != key.node || c.Boot != key.boot {
		return audit.Checkpoint{}, false
	}
	again, err := audit.Cosign(msg, node, l.cfg.Key) // the same bytes, if the same key signed
	if err != nil || !bytes.Equal(again, msg) {
		return audit.Checkpoint{}, false
	}
	return c, true
}

// published remembers a receipt that the region holds.
func (l *Ledger) published(s *bootState, size uint64, receipt []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.published = max(s.published, size)
	if size > s.cosigned && size <= s.head.size {
		s.cosigned, s.receipt = size, receipt
	}
}

// storeReceipts puts receipts that are new into the folder.
func (l *Ledger) storeReceipts() error {
	fresh := map[bootKey][]byte{}
	l.mu.Lock()
	for key, s := range l.boots {
		if s.receipt != nil {
			fresh[key], s.receipt = s.receipt, nil
		}
	}
	l.mu.Unlock()
	var errs []error
	for key, receipt := range fresh {
		l.cfg.Step("receipt")
		err := l.archive.settle(key.node, key.boot, receipt)
		if err == nil {
			continue
		}
		errs = append(errs, err)
		s := l.state(key)
		l.mu.Lock()
		if s.receipt == nil {
			s.receipt = receipt
		}
		l.mu.Unlock()
	}
	return errors.Join(errs...)
}
