package engine

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// opaHeadroom is the free memory behind the data that every call begins with,
// in bytes; a call that needs more grows the memory and costs its instance.
const opaHeadroom = 1 << 20

// opaModule is what all instances of one opa_1 module have in common.
type opaModule struct {
	entrypoints map[string]int32
	builtins    map[int32]builtin
	context     uint64 // address of the evaluation context, which has the data
	heap        uint64 // first free address, where the input goes
	known       bool   // values lie as layout and dump expect, see probe
}

// opaGuest speaks OPA's ABI 1.2 and later. It does not use the one-shot
// opa_eval, which takes an input that it cannot parse for no input at all.
type opaGuest struct {
	heapSet, jsonParse, setInput, setEntrypoint, eval, result, jsonDump api.Function
	malloc, valueDump, valueParse                                       api.Function

	layout layout // of the input of the call that runs
	dump   dump   // of its result
}

func newOPAGuest(m api.Module) *opaGuest {
	return &opaGuest{
		heapSet:       m.ExportedFunction("opa_heap_ptr_set"),
		jsonParse:     m.ExportedFunction("opa_json_parse"),
		setInput:      m.ExportedFunction("opa_eval_ctx_set_input"),
		setEntrypoint: m.ExportedFunction("opa_eval_ctx_set_entrypoint"),
		eval:          m.ExportedFunction("eval"),
		result:        m.ExportedFunction("opa_eval_ctx_get_result"),
		jsonDump:      m.ExportedFunction("opa_json_dump"),
		malloc:        m.ExportedFunction("opa_malloc"),
		valueDump:     m.ExportedFunction("opa_value_dump"),
		valueParse:    m.ExportedFunction("opa_value_parse"),
	}
}

func (g *opaGuest) initialise(i *instance, spec Spec) error {
	if err := checkOPAVersion(i.wasm); err != nil {
		return err
	}
	opa := &i.module.opa
	var names map[string]int32
	if err := g.table(i, "builtins", &names); err != nil {
		return err
	}
	if err := g.table(i, "entrypoints", &opa.entrypoints); err != nil {
		return err
	}
	var err error
	if opa.builtins, err = resolveBuiltins(names); err != nil {
		return err
	}
	if err := g.parseData(i, spec.Init); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}

func checkOPAVersion(m api.Module) error {
	major, minor := m.ExportedGlobal("opa_wasm_abi_version").Get(), m.ExportedGlobal("opa_wasm_abi_minor_version").Get()
	if uint32(major) != 1 || uint32(minor) < 2 {
		return fmt.Errorf("OPA ABI %d.%d: want 1.2 or later", uint32(major), uint32(minor))
	}
	return nil
}

// table reads one of OPA's tables of numbers by name.
func (g *opaGuest) table(i *instance, name string, into *map[string]int32) error {
	value, trap := i.run(i.wasm.ExportedFunction(name))
	if trap == nil {
		value, trap = i.run(g.jsonDump, value)
	}
	if trap != nil {
		return fmt.Errorf("%s: %w", name, trap)
	}
	text, ok := i.text(value)
	if !ok {
		return fmt.Errorf("%s: out of bounds", name)
	}
	if len(text) > abi.MaxOutput {
		return fmt.Errorf("%s: %d bytes, limit %d", name, len(text), abi.MaxOutput)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// parseData puts the data into the guest's heap, where it stays, and makes room
// for calls behind it.
func (g *opaGuest) parseData(i *instance, data []byte) error {
	if len(data) == 0 {
		data = []byte("{}")
	}
	at, trap := i.run(g.malloc, uint64(len(data)))
	if trap != nil {
		return trap
	}
	if !i.write(uint32(at), data) {
		return errors.New("the guest's buffer is out of bounds")
	}
	parsed, trap := i.run(g.jsonParse, at, uint64(len(data)))
	if trap != nil {
		return trap
	}
	if parsed == 0 {
		return errors.New("not JSON")
	}
	return g.prepare(i, parsed)
}

// prepare makes the context of all calls and room behind it.
func (g *opaGuest) prepare(i *instance, data uint64) error {
	opa := &i.module.opa
	var trap *abi.Trap
	if opa.context, trap = i.run(i.wasm.ExportedFunction("opa_eval_ctx_new")); trap != nil {
		return trap
	}
	if _, trap = i.run(i.wasm.ExportedFunction("opa_eval_ctx_set_data"), opa.context, data); trap != nil {
		return trap
	}
	heap, trap := i.run(i.wasm.ExportedFunction("opa_heap_ptr_get"))
	if trap != nil {
		return trap
	}
	opa.heap = align(heap)
	// The guest itself must ask for the room: it believes in its own count of
	// the memory and would grow again what the host grew.
	if _, trap = i.run(g.malloc, opaHeadroom); trap != nil {
		return fmt.Errorf("room for calls: %w", trap)
	}
	if _, trap = i.run(g.heapSet, opa.heap); trap != nil {
		return trap
	}
	if opa.known, trap = g.probe(i); trap != nil {
		return fmt.Errorf("probe: %w", trap)
	}
	return nil
}

// align returns the next address that is a multiple of 16.
func align(at uint64) uint64 { return (at + 15) &^ 15 }

// room grows the memory until it reaches to an address.
func (i *instance) room(end uint64) bool {
	const page = 64 << 10
	size := uint64(i.memory.Size())
	if end <= size {
		return true
	}
	return i.memory.Grow(uint32((end - size + page - 1) / page))
}

// text returns a view of the bytes from an address up to the next zero byte.
func (i *instance) text(at uint64) ([]byte, bool) {
	at = uint64(uint32(at))
	size := uint64(i.memory.Size())
	if at >= size {
		return nil, false
	}
	rest, _ := i.memory.Read(uint32(at), uint32(size-at))
	end := bytes.IndexByte(rest, 0)
	if end < 0 {
		return nil, false
	}
	return rest[:end], true
}

// call evaluates an entry point. The steps go on with what the one before answered.
func (g *opaGuest) call(i *instance, call abi.Call) ([]byte, *abi.Trap) {
	if len(call.Input) > 0 {
		if trap := g.input(i, call.Input); trap != nil {
			return nil, trap
		}
	}
	if trap := g.set(i, g.setEntrypoint, contextEntrypoint, uint64(uint32(call.Entrypoint))); trap != nil {
		return nil, trap
	}
	if _, trap := i.run(g.eval, i.module.opa.context); trap != nil {
		return nil, trap
	}
	return g.output(i)
}

// answer reads the set of answers. Its sets are sorted, which the guest's own
// JSON leaves in the order of its hash table.
func (g *opaGuest) answer(i *instance, at uint64) ([]byte, *abi.Trap) {
	text, ok := i.text(at)
	if !ok || len(text) > abi.MaxOutput {
		return text, nil // for checkOutput
	}
	output, err := answerJSON(text)
	if err != nil {
		return nil, &abi.Trap{Code: abi.TrapOutput, Detail: err.Error()}
	}
	return output, nil
}

// Fields of OPA's evaluation context.
const (
	contextInput      = 0
	contextResult     = 8
	contextEntrypoint = 12
)

// set sets a field of the evaluation context, by the guest's function where the
// layout is not known.
func (g *opaGuest) set(i *instance, setter api.Function, field uint32, value uint64) *abi.Trap {
	opa := &i.module.opa
	if !opa.known {
		_, trap := i.run(setter, opa.context, value)
		return trap
	}
	if view, ok := i.writable(uint32(opa.context)+field, 4); ok {
		binary.LittleEndian.PutUint32(view, uint32(value))
	}
	return nil
}

// input makes the input the guest's: laid out by the host where that is possible, else by
// the guest's own parser.
func (g *opaGuest) input(i *instance, input []byte) *abi.Trap {
	if i.module.opa.known {
		value, trap := g.place(i, input)
		if trap != nil {
			return trap
		}
		if value != 0 {
			return g.set(i, g.setInput, contextInput, value)
		}
	}
	value, trap := g.parse(i, i.module.opa.heap, input)
	if trap != nil {
		return trap
	}
	return g.set(i, g.setInput, contextInput, value)
}

// valueFuelShift is what a layout and a result cost: one unit for 4 bytes.
const valueFuelShift = 2

// place writes the input's layout behind the heap and moves the heap behind it.
// It returns 0 where the guest's own parser must be asked.
func (g *opaGuest) place(i *instance, input []byte) (uint64, *abi.Trap) {
	defer g.layout.forget()
	heap := i.module.opa.heap
	if !i.spend(uint64(len(input)) >> valueFuelShift) {
		return 0, &abi.Trap{Code: abi.TrapFuel}
	}
	most, _ := i.memory.whole.Definition().Max()
	value, ok := g.layout.build(uint32(heap), int(uint64(most-wasm.MapPages)<<16-heap), input)
	end := align(heap + uint64(len(g.layout.out)))
	if !ok || !i.room(end) {
		return 0, nil
	}
	if !i.spend(uint64(len(g.layout.out)) >> valueFuelShift) {
		return 0, &abi.Trap{Code: abi.TrapFuel}
	}
	i.write(uint32(heap), g.layout.out)
	_, trap := i.run(g.heapSet, end)
	return uint64(value), trap
}

// parse writes the input behind the heap, moves the heap behind it and has the
// guest parse it.
func (g *opaGuest) parse(i *instance, at uint64, input []byte) (uint64, *abi.Trap) {
	length := uint64(len(input))
	if !i.room(at + length) {
		return 0, &abi.Trap{Code: abi.TrapInput, Detail: "the guest has no room"}
	}
	i.write(uint32(at), input)
	if _, trap := i.run(g.heapSet, align(at+length)); trap != nil {
		return 0, trap
	}
	value, trap := i.run(g.jsonParse, at, length)
	if trap != nil {
		return 0, trap
	}
	if uint32(value) == 0 {
		return 0, &abi.Trap{Code: abi.TrapInput, Detail: "the guest cannot parse the input"}
	}
	return value, nil
}

// output writes the result as JSON, by the guest's own writer where the host
// cannot.
func (g *opaGuest) output(i *instance) ([]byte, *abi.Trap) {
	if i.module.opa.known {
		memory, _ := i.memory.Read(0, i.memory.Size())
		result := binary.LittleEndian.Uint32(memory[i.module.opa.context+contextResult:])
		text, ok := g.dump.json(memory, result)
		i.spend(uint64(len(text)) >> valueFuelShift)
		if ok {
			return text, nil
		}
	}
	value, trap := i.run(g.result, i.module.opa.context)
	if trap != nil {
		return nil, trap
	}
	at, trap := i.run(g.valueDump, value)
	if trap != nil {
		return nil, trap
	}
	return g.answer(i, at)
}

// written returns the guest's own JSON of a value.
func (g *opaGuest) written(i *instance, value uint64) ([]byte, *abi.Trap) {
	at, trap := i.run(g.jsonDump, value)
	if trap != nil {
		return nil, trap
	}
	text, _ := i.text(at)
	return text, nil
}

// spend takes units of fuel outside of the guest and reports whether there were so many.
func (i *instance) spend(units uint64) bool {
	left := int64(i.fuel.Get()) - int64(units)
	i.fuel.Set(uint64(left))
	return left >= 0
}
