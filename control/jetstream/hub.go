package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Objects calls take with every signed object that the region has and gets, in
// the order in which the region stored them, and the time of that, until ctx
// ends. Objects are not verified.
func (r Region) Objects(ctx context.Context, take func(envelope []byte, at time.Time)) error {
	return r.FollowPolicies(ctx, func(objects []Object) error {
		for _, o := range objects {
			if o.signed() {
				take(o.Data, o.At)
			}
		}
		return nil
	})
}

// Accounts calls take with every account JWT that the region has and gets, until
// ctx ends or take returns an error. They are not verified.
func (r Region) Accounts(ctx context.Context, take func(token string) error) error {
	return r.FollowPolicies(ctx, func(objects []Object) error {
		for _, o := range objects {
			if o.part(0) != kindAccount {
				continue
			}
			if err := take(string(o.Data)); err != nil {
				return err
			}
		}
		return nil
	})
}

// FollowPolicies calls f with everything under pol. that the region has and
// gets, in groups and in order, until ctx ends or f returns an error. When the
// stream was made anew it begins anew.
func (r Region) FollowPolicies(ctx context.Context, f func([]Object) error) error {
	subject := r.pol(">")
	return r.policies().Follow(ctx, 1, subject, []string{r.stored(subject)}, poll, func(group []bus.Msg) error {
		return f(r.objects(group))
	})
}

func (r Region) objects(group []bus.Msg) []Object {
	out := make([]Object, 0, len(group))
	for _, m := range group {
		if name, ok := strings.CutPrefix(m.Subject, r.pol("")); ok {
			out = append(out, Object{Name: name, Seq: m.Seq, At: m.Time, Data: m.Data})
		}
	}
	return out
}

// Attestations calls take with the newest attestation of each node, with the
// first one of each node and epoch (first is then true), and with those that
// come, until ctx ends. At is when the region stored it. They are not verified.
func (r Region) Attestations(ctx context.Context, take func(node string, first bool, epoch uint64, msg []byte, at time.Time)) error {
	give := func(group []bus.Msg) error {
		for _, m := range group {
			r.attested(m, take)
		}
		return nil
	}
	hints := []string{r.stored(r.attestation("*")), r.stored(r.activation("*", "*"))}
	return r.state().Follow(ctx, 1, r.prefix()+">", hints, poll, give)
}

// ForgetActivations removes the first attestations of an epoch.
func (r Region) ForgetActivations(ctx context.Context, epoch uint64) error {
	return r.state().Purge(ctx, r.activation("*", decimal(epoch)))
}

// A Lease says which of a region's hub servers leads. It needs no clocks that
// agree: who wants it waits until he has seen nothing new of the holder for the
// holder's whole term. It is safe for concurrent use.
type Lease struct {
	region Region
	life   string // this object's own: a server that comes back is somebody else

	mu   sync.Mutex // guards what follows; held while asking
	seq  uint64     // of the newest message seen
	held held
	seen time.Time // when it was seen first
}

// held is what is stored.
type held struct {
	Holder string        `cbor:"holder"`
	Life   string        `cbor:"life"`
	Term   time.Duration `cbor:"term"`
}

// maxTerm bounds a term that is believed.
const maxTerm = time.Minute

// NewLease returns the region's lease, not held.
func (r Region) NewLease() *Lease { return &Lease{region: r, life: rand.Text()} }

// Hold takes or renews the lease. True means that nobody else can hold it before
// the term, from the call on, is over. An error leaves open who holds it.
func (l *Lease) Hold(ctx context.Context, holder string, term time.Duration) (bool, error) {
	if term <= 0 || term > maxTerm {
		return false, fmt.Errorf("lease for %v; more than 0, at most %v", term, maxTerm)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.look(ctx); err != nil {
		return false, err
	}
	if l.held.Life != l.life && l.seq != 0 && time.Since(l.seen) < l.held.Term {
		return false, nil
	}
	mine := held{Holder: holder, Life: l.life, Term: term}
	err := l.write(ctx, mine)
	var lost *bus.FenceError
	if errors.As(err, &lost) {
		// Somebody was faster, or the stream was made anew: look again from nothing.
		l.seq, l.held, l.seen = 0, held{}, time.Time{}
		return false, nil
	}
	return err == nil, err
}

// Release gives the lease up, so that another takes it at once.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held.Life != l.life {
		return nil
	}
	return l.write(ctx, held{Life: l.life})
}

// Holder is who held the lease when it was last looked at; "" for nobody.
func (l *Lease) Holder() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held.Holder
}

// look reads what is stored. A replica that is behind shows an older message,
// which the fence of write finds out.
func (l *Lease) look(ctx context.Context) error {
	m, err := l.region.state().Last(ctx, l.region.prefix()+"lease")
	if errors.Is(err, bus.ErrNotFound) {
		return nil
	}
	if err != nil || m.Seq <= l.seq {
		return err
	}
	var h held
	if err := wire.Unmarshal(m.Data, &h); err != nil || h.Term > maxTerm {
		h = held{Term: maxTerm} // whoever wrote this: it passes
	}
	l.seq, l.held, l.seen = m.Seq, h, time.Now()
	return nil
}

func (l *Lease) write(ctx context.Context, h held) error {
	data, err := wire.Marshal(h)
	if err != nil {
		return err
	}
	seq, err := l.region.state().Append(ctx, l.region.prefix()+"lease", data, l.seq)
	if err == nil {
		l.seq, l.held, l.seen = seq, h, time.Now()
	}
	return err
}
