package engine

import (
	"context"
	"math/rand/v2"
	"strings"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// Units of fuel that host functions cost, beside the guest's call instruction.
const (
	hostCallFuel  = 50
	hostByteShift = 3  // log, fd_write: a unit for 8 bytes
	randomFuel    = 1  // for a byte
	matchFuel     = 16 // for a byte, and more with patterns of more states
)

// hostFunction answers one import. It reads its parameters from the stack and
// leaves its result in stack[0]. It ends the call by a panic with an *abi.Trap.
type hostFunction func(i *instance, stack []uint64)

// hostFunctions returns the implementation of every import that the scan allows.
func hostFunctions() map[string]hostFunction {
	all := map[string]hostFunction{
		abi.ImportModule + "." + abi.ImportLog:   hostLog,
		abi.ImportModule + "." + abi.ImportNow:   func(i *instance, stack []uint64) { stack[0] = uint64(i.now) },
		abi.ImportModule + "." + abi.ImportMatch: hostMatch,
		"env.opa_abort":                          opaAbort,
		"env.opa_println":                        opaPrintln,
	}
	for _, name := range []string{"env.opa_builtin0", "env.opa_builtin1", "env.opa_builtin2", "env.opa_builtin3", "env.opa_builtin4"} {
		all[name] = opaBuiltin(int(name[len(name)-1] - '0'))
	}
	for name, f := range wasiFunctions() {
		all[abi.WASIModule+"."+name] = f
	}
	return all
}

// instantiateHost gives the runtime its host modules. What a guest may import
// and with which types is the scan's list.
func instantiateHost(ctx context.Context, r wazero.Runtime) error {
	functions := hostFunctions()
	builders := map[string]wazero.HostModuleBuilder{}
	for _, kind := range []abi.Kind{abi.HoldfastV1, abi.OPA1} {
		for name, typ := range wasm.AllowedImports(kind) {
			f, ok := functions[name]
			if !ok {
				continue // OPA's memory
			}
			module, function, _ := strings.Cut(name, ".")
			if builders[module] == nil {
				builders[module] = r.NewHostModuleBuilder(module)
			}
			params, results, _ := strings.Cut(string(typ), ":")
			builders[module].NewFunctionBuilder().
				WithGoFunction(guarded(f), valueTypes(params), valueTypes(results)).
				Export(function)
		}
	}
	for _, builder := range builders {
		if _, err := builder.Instantiate(ctx); err != nil {
			return err
		}
	}
	return nil
}

// guarded charges for a host call before its work.
func guarded(f hostFunction) api.GoFunc {
	return func(ctx context.Context, stack []uint64) {
		i := ctx.Value(instanceKey{}).(*instance)
		i.charge(hostCallFuel)
		f(i, stack)
	}
}

func valueTypes(letters string) []api.ValueType {
	types := make([]api.ValueType, len(letters))
	for n := range types {
		types[n] = map[byte]api.ValueType{'i': api.ValueTypeI32, 'I': api.ValueTypeI64, 'f': api.ValueTypeF32, 'F': api.ValueTypeF64}[letters[n]]
	}
	return types
}

// charge takes units of fuel and ends the call when there are none left.
func (i *instance) charge(units uint64) {
	left := int64(i.fuel.Get()) - int64(units)
	i.fuel.Set(uint64(left))
	if left < 0 {
		panic(&abi.Trap{Code: abi.TrapFuel})
	}
}

// read returns a view of the guest's memory and ends the call when it is out of bounds.
func (i *instance) read(at, length uint64) []byte {
	bytes, ok := i.memory.Read(uint32(at), uint32(length))
	if !ok {
		panic(&abi.Trap{Code: abi.TrapMemory, Detail: "host call"})
	}
	return bytes
}

// buffer returns the guest's memory for writing and ends the call when it is out
// of bounds.
func (i *instance) buffer(at, length uint64) []byte {
	view, ok := i.writable(uint32(at), int(uint32(length)))
	if !ok {
		panic(&abi.Trap{Code: abi.TrapMemory, Detail: "host call"})
	}
	return view
}

// log keeps a message within the limits of a decision; what is beyond is dropped.
func (i *instance) log(level int32, text []byte) {
	room := abi.MaxLogBytes - i.logBytes
	if len(i.logs) >= abi.MaxLogMessages || room <= 0 {
		return
	}
	text = text[:min(len(text), room)]
	i.logBytes += len(text)
	kept := string(text)
	if !utf8.ValidString(kept) {
		kept = strings.ToValidUTF8(kept, "?")
	}
	i.logs = append(i.logs, abi.Log{Level: level, Text: kept})
}

func hostLog(i *instance, stack []uint64) {
	i.charge(uint64(uint32(stack[2])) >> hostByteShift)
	level := min(max(int32(stack[0]), abi.LogDebug), abi.LogError)
	i.log(level, i.read(stack[1], stack[2]))
}

func hostMatch(i *instance, stack []uint64) {
	patterns := i.module.patterns
	number := uint32(stack[0])
	if uint64(number) >= uint64(len(patterns)) {
		stack[0] = api.EncodeI32(-1)
		return
	}
	i.charge(patterns[number].fuel * (uint64(uint32(stack[2])) + 1))
	text := i.read(stack[1], stack[2])
	switch {
	case patterns[number].Match(text):
		stack[0] = 1
	default:
		stack[0] = 0
	}
}

// randomSource returns what the guest sees as random: the same bytes in every call.
func (i *instance) randomSource() *rand.ChaCha8 {
	if !i.seeded {
		i.random.Seed(i.module.seed)
		i.seeded = true
	}
	return &i.random
}
