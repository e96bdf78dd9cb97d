package engine

import (
	"crypto/sha256"

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
	pool
}

var _ abi.Module = (*Module)(nil)

// Stats says what a module occupies.
type Stats struct {
	Instances   int    // alive
	MemoryBytes uint64 // of one instance after initialising, as the guest sees it
	// PrivateBytes is what all instances that are idle now occupy beyond the one
	// image that they share.
	PrivateBytes uint64
	ModuleBytes  int    // of the rewritten module
	InitFuel     uint64 // units that initialising used
}

// Stats returns what the module occupies now.
func (m *Module) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Stats{
		Instances: m.alive(), MemoryBytes: uint64(m.snapshot.size), PrivateBytes: m.privateBytes(),
		ModuleBytes: m.code.size, InitFuel: m.initFuel,
	}
}

// privateBytes looks at each idle instance for a moment.
func (m *Module) privateBytes() uint64 {
	var sum uint64
	for i := range m.slots {
		if s := &m.slots[i]; s.change(slotIdle, slotBusy) {
			if own, err := privateBytes(s.instance.memory.all()); err == nil {
				sum += own
			}
			s.state.Store(slotIdle)
		}
	}
	m.changed.Broadcast()
	return sum
}

// Entrypoints returns OPA's entry points by path; nil for holdfast_v1.
func (m *Module) Entrypoints() map[string]int32 { return m.opa.entrypoints }

// Call answers one call on an instance of its own and restores the instance. It
// waits while as many calls run as instances are allowed.
func (m *Module) Call(call abi.Call) (abi.Result, error) {
	if len(call.Input) > abi.MaxInput {
		return abi.Result{}, &abi.Trap{Code: abi.TrapInput, Detail: "input too long"}
	}
	s, err := m.acquire()
	if err != nil {
		return abi.Result{}, err
	}
	restored := false
	defer func() { // also when our own code panics
		if restored {
			m.giveBack(s)
		} else {
			m.replace(s)
		}
	}()
	result, trap := s.instance.answer(call)
	if trap != nil {
		return abi.Result{Fuel: trap.Fuel, Logs: result.Logs}, trap
	}
	restored = s.instance.restore()
	return result, nil
}
