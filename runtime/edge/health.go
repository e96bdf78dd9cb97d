package edge

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// trigger is evidence of this node's own against what it enforces.
type trigger struct {
	from  wire.Digest
	cause string
	at    time.Time
}

// trip has the node step back from what decides in l, once. It does not wait.
func (n *Node) trip(l *live, cause string) {
	if l.set == nil || l.set.Fallback || !l.tripped.CompareAndSwap(false, true) {
		return
	}
	select {
	case n.triggers <- trigger{from: l.set.Release, cause: cause, at: n.cfg.Now()}:
	default: // as many sets as that are waiting to be stepped back from; this one trips again
		l.tripped.Store(false)
	}
}

// stepBackTriggered steps back from what the node's own evidence is against.
func (n *Node) stepBackTriggered(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-n.triggers:
			err := n.loader.StepBack(ctx, t.from)
			if err == nil {
				n.count.stepBackNanos.Store(int64(n.cfg.Now().Sub(t.at)))
			}
			n.steppedBack(t.cause, err)
		}
	}
}

// steppedBack tells of a step back, or that there is none.
func (n *Node) steppedBack(cause string, err error) {
	st := n.loader.Status()
	switch {
	case errors.Is(err, loader.ErrSuperseded):
		return
	case err != nil:
		n.log.Error("no step back", "cause", cause, "epoch", st.Epoch, "err", err)
		n.alarmOnce("no_fallback", cause+": "+err.Error())
		n.Record(&audit.AdminRecord{Event: "no_fallback", Text: cause, Detail: map[string]any{"release": st.Release.String(), "error": err.Error()}})
		return
	}
	n.count.fallbacks.Add(1)
	n.attestSoon()
	n.log.Error("stepped back", "cause", cause, "epoch", st.Epoch, "release", st.Release.String(), "enforced", st.Enforced.String())
	n.alarm("fallback", cause)
	n.Record(&audit.AdminRecord{Event: "fallback", Text: cause, Count: st.Epoch,
		Detail: map[string]any{"release": st.Release.String(), "enforced": st.Enforced.String()}})
}

func (n *Node) alarm(kind, text string) {
	n.count.alarms.Add(1)
	if n.cfg.Alarm != nil {
		n.cfg.Alarm(kind, text)
	}
}

// alarmOnce raises an alarm the first time that it is about this text.
func (n *Node) alarmOnce(kind, text string) {
	n.mu.Lock()
	key := kind + "\x00" + text
	told := n.alarmed[key]
	if len(n.alarmed) >= maxDiscarded {
		clear(n.alarmed)
	}
	n.alarmed[key] = true
	n.mu.Unlock()
	if !told {
		n.alarm(kind, text)
	}
}
