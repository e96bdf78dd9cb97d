package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// snapshot is the state of an instance that is ready for a call.
type snapshot struct {
	image   *image // of the memory, the map included
	size    int    // of the memory as the guest sees it
	globals []uint64
}

// instance is one live copy of a module. It serves one call at a time.
type instance struct {
	module  *Module
	wasm    api.Module
	memory  guestMemory
	fuel    api.MutableGlobal
	depth   api.MutableGlobal
	globals []api.MutableGlobal // all mutable ones of the guest, to restore
	guest   guest
	stack   [8]uint64
	// ctx carries the instance itself to the host functions; it is made once,
	// because making one per call would allocate.
	ctx context.Context

	// Of the call that runs:
	now      int64
	logs     []abi.Log
	logBytes int
	random   rand.ChaCha8
	seeded   bool // random, in this call
	builtins *builtinCall
}

// guest is the side of an instance that knows the contract.
type guest interface {
	// initialise prepares a fresh instance before the snapshot.
	initialise(*instance, Spec) error
	// call writes the input and returns where the output lies.
	call(*instance, abi.Call) ([]byte, *abi.Trap)
}

type instanceKey struct{}

// instantiate makes an instance that has run nothing yet.
func (m *Module) instantiate(ctx context.Context) (i *instance, err error) {
	var r reservation
	defer func() {
		if p := recover(); p != nil {
			r.Free()
			err = fmt.Errorf("instantiate: %v", p)
		}
	}()
	module, err := m.code.engine.runtime.InstantiateModule(withReservation(ctx, &r), m.code.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		r.Free()
		return nil, fmt.Errorf("instantiate: %w", err)
	}
	shift := module.ExportedGlobal(wasm.ExportWritten).Get()
	i = &instance{module: m, wasm: module, memory: guestMemory{module.Memory(), uint32(shift)}}
	i.ctx = context.WithValue(context.Background(), instanceKey{}, i)
	i.fuel = module.ExportedGlobal(abi.ExportFuel).(api.MutableGlobal)
	i.depth = module.ExportedGlobal(abi.ExportDepth).(api.MutableGlobal)
	for g := i.exportedGlobal(0); g != nil; g = i.exportedGlobal(len(i.globals)) {
		i.globals = append(i.globals, g)
	}
	if m.kind == abi.OPA1 {
		i.guest = newOPAGuest(module)
	} else {
		i.guest = newHoldfastGuest(module)
	}
	return i, nil
}

// exportedGlobal returns the nth mutable global of the guest, nil behind the last.
func (i *instance) exportedGlobal(n int) api.MutableGlobal {
	g, _ := i.wasm.ExportedGlobal(abi.ExportGlobal + strconv.Itoa(n)).(api.MutableGlobal)
	return g
}

// initialise makes the first instance, runs what the guest runs once, and keeps
// its state as what every call begins with.
func (m *Module) initialise(ctx context.Context, spec Spec) error {
	i, err := m.instantiate(ctx)
	if err != nil {
		return err
	}
	if err = i.initialise(spec); err != nil {
		err = i.explained(err, spec)
	} else if !i.warm(spec.Warm) {
		i.close()
		spec.Warm = nil
		return m.initialise(ctx, spec)
	}
	if err == nil {
		err = i.capture(&m.snapshot)
	}
	if err != nil {
		i.close()
		return err
	}
	m.begin(i)
	return nil
}

// explained adds to the error of initialising what its author can act on: how much
// fuel there was, or what the guest said last, which no record will hold.
func (i *instance) explained(err error, spec Spec) error {
	if trap, ok := errors.AsType[*abi.Trap](err); ok && trap.Code == abi.TrapFuel {
		return fmt.Errorf("%w: %d units are not enough to start: an endless loop, or too much to do once", err, spec.Class.Limits().InitFuel)
	}
	if len(i.logs) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, shortened(i.logs[len(i.logs)-1].Text))
}

// warm answers inputs and reports whether the instance is still fit for use.
func (i *instance) warm(inputs [][]byte) bool {
	for _, input := range inputs {
		i.begin(abi.MaxFuel, 1)
		if _, trap := i.guest.call(i, abi.Call{Input: input}); trap != nil || int64(i.fuel.Get()) < 0 {
			return false
		}
	}
	return true
}

func (i *instance) initialise(spec Spec) error {
	fuel := spec.Class.Limits().InitFuel
	i.begin(fuel, 1)
	for _, name := range []string{abi.ExportStart, abi.ExportInitialize} {
		if f := i.wasm.ExportedFunction(name); f != nil {
			if _, err := i.run(f); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if err := i.guest.initialise(i, spec); err != nil {
		return err
	}
	i.module.initFuel = fuel - uint64(i.fuel.Get())
	return nil
}

// capture keeps the state of the instance as what every call begins with.
func (i *instance) capture(s *snapshot) error {
	clear(i.memory.marks())
	image, err := newImage(i.memory.all())
	if err != nil {
		return err
	}
	if err := image.cover(i.memory.all()); err != nil {
		image.close()
		return fmt.Errorf("image: %w", err)
	}
	s.image, s.size, s.globals = image, int(i.memory.Size()), make([]uint64, len(i.globals))
	for n, g := range i.globals {
		s.globals[n] = g.Get()
	}
	return nil
}

// clone makes a further instance in the state of the snapshot.
func (m *Module) clone() (*instance, error) {
	i, err := m.instantiate(context.Background())
	if err != nil {
		return nil, err
	}
	if err := i.become(&m.snapshot); err != nil {
		i.close()
		return nil, fmt.Errorf("instantiate: %w", err)
	}
	return i, nil
}

// become puts a fresh instance into the state of a snapshot.
func (i *instance) become(s *snapshot) error {
	const page = 64 << 10
	if missing := s.size - int(i.memory.Size()); missing > 0 && !i.memory.Grow(uint32(missing/page)) {
		return errors.New("memory of the snapshot cannot be had")
	}
	if err := s.image.cover(i.memory.all()); err != nil {
		return err
	}
	if !i.restore() {
		return errors.New("memory is larger than that of the snapshot")
	}
	return nil
}

// restore sets what was written of the memory, and the globals, to the snapshot.
// It reports false when the memory has grown, which cannot be undone. Tables and
// segments need no restoring: instructions that change them are not admitted.
func (i *instance) restore() bool {
	kept := &i.module.snapshot
	if int(i.memory.Size()) != kept.size {
		return false
	}
	i.memory.restore(kept.image.bytes)
	for n, g := range i.globals {
		g.Set(kept.globals[n])
	}
	return true
}

// forget gives back the pages that an idle instance owns; their content is the
// image's. An instance whose memory could not be covered must not be used again.
func (i *instance) forget() bool { return i.module.snapshot.image.cover(i.memory.all()) == nil }

// writable returns the guest's memory for the host to write into.
func (i *instance) writable(at uint32, length int) ([]byte, bool) {
	return i.memory.Writable(at, uint32(length))
}

// write copies into the guest's memory and reports whether it lies within.
func (i *instance) write(at uint32, data []byte) bool {
	view, ok := i.writable(at, len(data))
	copy(view, data)
	return ok
}

func (i *instance) close() { i.wasm.Close(context.Background()) }

// begin sets the meters and the clock for one call.
func (i *instance) begin(fuel uint64, now int64) {
	i.fuel.Set(fuel)
	i.depth.Set(abi.MaxCallDepth)
	i.now, i.logs, i.logBytes, i.seeded, i.builtins = now, nil, 0, false, nil
}

// answer runs one call. The result's logs are valid even with a trap.
func (i *instance) answer(call abi.Call) (result abi.Result, trap *abi.Trap) {
	limit := call.Fuel
	if limit == 0 {
		limit = abi.DefaultFuel
	}
	limit = min(limit, i.module.code.engine.maxFuel)
	i.begin(limit, call.Now)
	output, trap := i.guest.call(i, call)
	left := int64(i.fuel.Get())
	if trap == nil && left < 0 {
		trap = &abi.Trap{Code: abi.TrapFuel}
	}
	result = abi.Result{Fuel: limit - uint64(max(left, 0)), Logs: i.logs}
	if trap == nil {
		trap = checkOutput(output)
	}
	if trap != nil {
		trap.Fuel, trap.Detail = result.Fuel, shortened(trap.Detail)
		return result, trap
	}
	result.Output = append(call.Output, output...)
	return result, nil
}

// maxDetail bounds the words of a trap, which may be a guest's, in bytes.
const maxDetail = 1 << 10

func shortened(text string) string {
	if len(text) <= maxDetail {
		return text
	}
	return strings.ToValidUTF8(text[:maxDetail], "") + "..."
}

func checkOutput(output []byte) *abi.Trap {
	if len(output) == 0 {
		return &abi.Trap{Code: abi.TrapOutput, Detail: "empty or out of bounds"}
	}
	if len(output) > abi.MaxOutput {
		return &abi.Trap{Code: abi.TrapOutput, Detail: "too long"}
	}
	return nil
}

// run calls a function of the guest with at most 8 parameters and returns its
// first result.
func (i *instance) run(f api.Function, params ...uint64) (uint64, *abi.Trap) {
	copy(i.stack[:], params)
	if err := i.enter(f, i.stack[:]); err != nil {
		return 0, i.trap(err)
	}
	return i.stack[0], nil
}

// enter calls f and turns every panic under it into an error.
func (i *instance) enter(f api.Function, stack []uint64) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f.CallWithStack(i.ctx, stack)
}

// trapTexts are wazero's reasons, which it has no exported values for.
var trapTexts = map[string]abi.TrapCode{
	"unreachable":                   abi.TrapUnreachable,
	"out of bounds memory access":   abi.TrapMemory,
	"integer divide by zero":        abi.TrapArithmetic,
	"integer overflow":              abi.TrapArithmetic,
	"invalid conversion to integer": abi.TrapArithmetic,
	"invalid table access":          abi.TrapCall,
	"indirect call type mismatch":   abi.TrapCall,
	"stack overflow":                abi.TrapDepth,
}

// trap says why a call ended. The meters come first: the guest's own
// unreachable looks like theirs.
func (i *instance) trap(err error) *abi.Trap {
	if own, ok := errors.AsType[*abi.Trap](err); ok {
		return own
	}
	if int64(i.fuel.Get()) < 0 {
		return &abi.Trap{Code: abi.TrapFuel}
	}
	if int32(i.depth.Get()) < 0 {
		return &abi.Trap{Code: abi.TrapDepth}
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	text = strings.TrimPrefix(text, "wasm error: ")
	if code, ok := trapTexts[text]; ok {
		return &abi.Trap{Code: code}
	}
	return &abi.Trap{Code: abi.TrapHost, Detail: text}
}
