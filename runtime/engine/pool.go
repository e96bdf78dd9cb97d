package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// idleAfter is how long an instance beyond the first is kept without a call, at
// least, and twice as long at most.
const idleAfter = 30 * time.Second

// pool is the instances of a module. A call takes a slot by one atomic step,
// preferably the one last used on the same processor; only who finds none idle
// takes the lock. Instances are made and replaced in the background, as long as
// callers wait for them and the limit allows.
type pool struct {
	slots   []slot    // as many as instances are allowed
	near    sync.Pool // of *slot: guesses at idle ones, by processor
	waiting atomic.Int32

	mu      sync.Mutex
	changed sync.Cond // a slot became idle or empty, or the module closed
	making  int       // slots that a goroutine fills
	failure error     // of the last attempt to make an instance
	closed  bool
	shrink  *time.Timer // runs dropIdle
}

// slot is a place for an instance. What it holds belongs to whoever made it busy.
type slot struct {
	state    atomic.Uint32
	used     bool // since the last look for idle instances
	instance *instance
	_        [104]byte // a slot must not share what processors exchange
}

// States of a slot.
const (
	slotEmpty uint32 = iota
	slotIdle
	slotBusy // in a call, being filled or being emptied
	slotShut
)

func (s *slot) change(from, to uint32) bool { return s.state.CompareAndSwap(from, to) }

// begin fills the pool with one instance.
func (m *Module) begin(first *instance) {
	m.slots = make([]slot, m.limit)
	m.slots[0].instance = first
	m.slots[0].state.Store(slotIdle)
	m.mu.Lock()
	m.shrink = time.AfterFunc(idleAfter, m.dropIdle)
	m.mu.Unlock()
}

// alive counts the instances, those in the making included.
func (p *pool) alive() int {
	n := 0
	for i := range p.slots {
		if state := p.slots[i].state.Load(); state == slotIdle || state == slotBusy {
			n++
		}
	}
	return n
}

// take makes a slot of one state busy, the first by its place.
func (p *pool) take(state uint32) *slot {
	for i := range p.slots {
		if s := &p.slots[i]; s.state.Load() == state && s.change(state, slotBusy) {
			return s
		}
	}
	return nil
}

// acquire returns a busy slot with an instance.
func (m *Module) acquire() (*slot, error) {
	if s, _ := m.near.Get().(*slot); s != nil && s.change(slotIdle, slotBusy) {
		return s, nil
	}
	if s := m.take(slotIdle); s != nil {
		return s, nil
	}
	return m.wait()
}

// wait returns the next slot that becomes idle, and has instances made while
// more callers wait than are in the making.
func (m *Module) wait() (*slot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting.Add(1) // before the look: who gives back looks at it afterwards
	defer m.waiting.Add(-1)
	for {
		if m.closed {
			return nil, &abi.Trap{Code: abi.TrapHost, Detail: "module is closed"}
		}
		if s := m.take(slotIdle); s != nil {
			return s, nil
		}
		if err := m.more(); err != nil {
			return nil, &abi.Trap{Code: abi.TrapHost, Detail: err.Error()}
		}
		m.changed.Wait()
	}
}

// more has an instance made for a caller that waits. It returns why the last
// attempt failed when there is no other instance to wait for.
func (m *Module) more() error {
	if err := m.failure; err != nil {
		m.failure = nil // one caller hears of it, the next one tries again
		if m.alive() == 0 {
			return err
		}
	} else if m.making < int(m.waiting.Load()) {
		if s := m.take(slotEmpty); s != nil {
			m.making++
			go m.fill(s)
		}
	}
	return nil
}

// giveBack makes a slot idle whose instance is restored.
func (m *Module) giveBack(s *slot) {
	s.used = true
	s.state.Store(slotIdle)
	m.near.Put(s)
	if m.waiting.Load() > 0 {
		m.mu.Lock() // whoever waits is past its look
		m.changed.Signal()
		m.mu.Unlock()
	}
}

// replace puts a new instance in the place of one that cannot be restored.
func (m *Module) replace(s *slot) {
	m.mu.Lock()
	m.making++
	m.mu.Unlock()
	go func() {
		s.instance.close()
		m.fill(s)
	}()
}

// fill makes an instance for a busy slot.
func (m *Module) fill(s *slot) {
	fresh, err := m.clone()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.making--
	s.instance, s.used, m.failure = fresh, true, err
	if err != nil {
		s.state.Store(slotEmpty)
	} else {
		s.state.Store(slotIdle)
	}
	m.changed.Broadcast()
}

// dropIdle closes instances that had no call since it looked last, all but one,
// which gives its own pages back, and comes again until the module closes.
func (m *Module) dropIdle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	alive := m.alive()
	for n := len(m.slots) - 1; n >= 0; n-- {
		s := &m.slots[n]
		if !s.change(slotIdle, slotBusy) {
			continue
		}
		state := slotIdle
		if !s.used && (alive > 1 || !s.instance.forget()) {
			s.instance.close()
			s.instance, state = nil, slotEmpty
			alive--
		}
		s.used = false
		s.state.Store(state)
	}
	m.shrink = time.AfterFunc(idleAfter, m.dropIdle)
	m.changed.Broadcast()
}

// Close waits for calls in flight and frees the instances. Calls afterwards trap
// with host_error.
func (m *Module) Close(ctx context.Context) error {
	if !m.shutAll() {
		return nil
	}
	for i := range m.slots {
		if one := m.slots[i].instance; one != nil {
			one.close()
		}
	}
	m.snapshot.image.close()
	return m.code.engine.release(ctx, m.code)
}

// shutAll waits until no slot is busy and shuts all. It reports false when
// another caller did so before.
func (m *Module) shutAll() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.closed = true
	m.shrink.Stop()
	m.changed.Broadcast()
	m.waiting.Add(1)
	defer m.waiting.Add(-1)
	for i := range m.slots {
		for s := &m.slots[i]; !s.change(slotIdle, slotShut) && !s.change(slotEmpty, slotShut); {
			m.changed.Wait()
		}
	}
	return true
}
