package engine

import (
	"context"
	"crypto/sha256"
	"sync"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// A Module is loaded, initialised and ready for calls. It implements abi.Module.
type Module struct {
	code     *code
	kind     abi.Kind
	patterns []pattern
	seed     [sha256.Size]byte // of what guests see as random: the module's digest
	snapshot snapshot
	initFuel uint64
	opa      opaModule
	limit    int // most instances

	mu      sync.Mutex
	changed sync.Cond // an instance came back, or the module closed
	idle    []*instance
	alive   int // idle, in a call or being made
	closed  bool
}

var _ abi.Module = (*Module)(nil)

// Stats says what a module occupies.
type Stats struct {
	Instances   int    // alive
	MemoryBytes uint64 // of one instance after initialising
	ModuleBytes int    // of the rewritten module
	InitFuel    uint64 // units that initialising used
}

// Stats returns what the module occupies now.
func (m *Module) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Stats{Instances: m.alive, MemoryBytes: uint64(m.snapshot.size), ModuleBytes: m.code.size, InitFuel: m.initFuel}
}

// Entrypoints returns OPA's entry points by path; nil for holdfast_v1.
func (m *Module) Entrypoints() map[string]int32 { return m.opa.entrypoints }

// Call answers one call on an instance of its own and restores the instance. It
// waits while as many calls run as instances are allowed.
func (m *Module) Call(call abi.Call) (abi.Result, error) {
	if len(call.Input) > abi.MaxInput {
		return abi.Result{}, &abi.Trap{Code: abi.TrapInput, Detail: "input too long"}
	}
	i, err := m.acquire()
	if err != nil {
		return abi.Result{}, err
	}
	result, trap := i.answer(call)
	if trap == nil && i.restore() {
		m.giveBack(i)
	} else {
		m.replace(i)
	}
	if trap != nil {
		return abi.Result{Fuel: trap.Fuel, Logs: result.Logs}, trap
	}
	return result, nil
}

// acquire takes an idle instance, the last used first, makes one while the
// limit allows, or waits.
func (m *Module) acquire() (*instance, error) {
	m.mu.Lock()
	for !m.closed && len(m.idle) == 0 && m.alive >= m.limit {
		m.changed.Wait()
	}
	if m.closed {
		m.mu.Unlock()
		return nil, &abi.Trap{Code: abi.TrapHost, Detail: "module is closed"}
	}
	if last := len(m.idle) - 1; last >= 0 {
		i := m.idle[last]
		m.idle = m.idle[:last]
		m.mu.Unlock()
		return i, nil
	}
	m.alive++
	m.mu.Unlock()
	i, err := m.clone()
	if err != nil {
		m.gone()
		return nil, &abi.Trap{Code: abi.TrapHost, Detail: err.Error()}
	}
	return i, nil
}

func (m *Module) giveBack(i *instance) {
	m.mu.Lock()
	m.idle = append(m.idle, i)
	m.mu.Unlock()
	m.changed.Signal()
}

// gone gives up the place of an instance.
func (m *Module) gone() {
	m.mu.Lock()
	m.alive--
	m.mu.Unlock()
	m.changed.Broadcast()
}

// replace discards an instance and puts a new one in its place.
func (m *Module) replace(i *instance) {
	i.close()
	fresh, err := m.clone()
	if err != nil {
		m.gone() // the next caller makes one, or reports why it cannot
		return
	}
	m.giveBack(fresh)
}

// Close waits for calls in flight and frees the instances. Calls afterwards trap
// with host_error.
func (m *Module) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.changed.Broadcast()
	for len(m.idle) < m.alive {
		m.changed.Wait()
	}
	idle := m.idle
	m.idle, m.alive = nil, 0
	m.mu.Unlock()
	for _, i := range idle {
		i.close()
	}
	return m.code.engine.release(ctx, m.code)
}
