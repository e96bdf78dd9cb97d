package hub

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/control/rollout"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// lead moves the newest release's rollout along and looks for alarms, whenever
// something was read and at least four times a second, while this server leads.
func (h *Hub) lead(ctx context.Context) {
	tick := time.NewTicker(stepEvery)
	defer tick.Stop()
	var looked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.changed:
		case <-tick.C:
		}
		if !h.Leading() {
			clear(h.raised) // whoever leads raises them
			continue
		}
		for h.cfg.Key != nil && h.step(ctx) {
		}
		if time.Since(looked) >= stepEvery {
			looked = time.Now()
			h.alarms(looked)
		}
	}
}

// step creates the next order of the newest release, and reports whether there
// may be another one at once.
func (h *Hub) step(ctx context.Context) bool {
	o := h.next(time.Now())
	if o == nil {
		return false
	}
	led, err := h.cfg.Reader.Leader(ctx, o.Epoch)
	if err != nil && ctx.Err() == nil {
		h.cfg.Log.Warn("who leads the rollout is not known", "epoch", o.Epoch, "err", err)
	}
	if err != nil || led != h.cfg.Region {
		return false
	}
	o.Region, o.Leader, o.Created = h.cfg.Region, h.cfg.Server, time.Now().UnixNano()
	envelope, err := bundle.SignOrder(o, h.cfg.Key)
	if err == nil {
		if !h.Leading() {
			return false
		}
		err = h.cfg.Writer.Order(ctx, o.Epoch, o.Serial, envelope)
	}
	switch {
	case errors.Is(err, ErrTaken):
		return false // by the server that led before; it will be read
	case err != nil:
		h.cfg.Log.Warn("rollout order", "epoch", o.Epoch, "serial", o.Serial, "err", err)
		return false
	}
	h.cfg.Log.Info("rollout", "epoch", o.Epoch, "order", o.Serial, "state", o.State, "rings", o.Rings, "reason", o.Reason)
	h.object(envelope, time.Now())
	return true
}

// next is the order that the newest release's rollout wants; nil for none.
func (h *Hub) next(now time.Time) *bundle.Order {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.fleet.Newest()
	if r == nil || len(r.Rings) == 0 {
		return nil
	}
	current := h.fleet.Order(r.Digest)
	if current == nil {
		first := rollout.First(r.SignedRelease)
		return &first
	}
	attested := h.fleet.Attested(h.attestations, now)
	return rollout.Next(r.SignedRelease, &current.Order, registry.Nodes(attested), now)
}
