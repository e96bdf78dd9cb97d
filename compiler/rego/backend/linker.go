package backend

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ir"
)

// The types of values in OPA's memory.
const (
	typeNumber        = 3
	typeString        = 4
	typeArray         = 5
	typeObject        = 6
	typeSet           = 7
	typeStringStatic  = 8
	typeBooleanStatic = 9
)

// The texts of OPA's run-time errors, which hosts know.
const (
	errAssignConflict = "var assignment conflict"
	errInsertConflict = "object insert conflict"
	errEntrypoint     = "internal: illegal entrypoint id"
)

// linker adds a policy's functions and constants to the library.
type linker struct {
	*library
	policy *ir.Policy
	report *Report

	arities   map[int]uint32 // types by the number of i32 parameters, with one i32 result
	typeCount int
	newTypes  []byte
	newKinds  []uint32 // type of each added function
	added     [][]byte // bodies, beside newKinds
	table     []uint32
	slots     map[uint32]uint32 // in the table, by function

	base      uint32 // address of constants
	constants []byte
	strings   []uint32 // addresses of OPA's strings, by number
	raw       []uint32 // addresses of their characters
	files     []uint32
	booleans  [2]uint32
	texts     map[string]uint32
	tables    []caseTable
	cases     int
	finder    uint32 // the function that finds a case; 0 before it is needed

	functions map[string]uint32
	externals map[string]uint32 // numbers of the built-ins of the host
	errs      []error
}

func newLinker(lib *library, policy *ir.Policy) *linker {
	l := &linker{
		library: lib, policy: policy, report: &Report{},
		arities: map[int]uint32{}, slots: map[uint32]uint32{}, texts: map[string]uint32{},
		functions: map[string]uint32{}, externals: map[string]uint32{},
	}
	count := &reader{data: lib.types}
	l.typeCount = int(count.u32())
	l.base = (lib.dataEnd() + 15) &^ 15
	return l
}

// fn returns a function of the library.
func (l *linker) fn(name string) uint32 {
	index, ok := l.names[name]
	if !ok {
		l.errs = append(l.errs, fmt.Errorf("OPA's Wasm library has no %s", name))
	}
	return index
}

// functionType returns the type that takes n i32 and returns one.
func (l *linker) functionType(n int) uint32 {
	if t, ok := l.arities[n]; ok {
		return t
	}
	t := uint32(l.typeCount)
	l.typeCount++
	l.newTypes = append(appendBytes(append(l.newTypes, 0x60), slices.Repeat([]byte{typeI32}, n)), 1, typeI32)
	l.arities[n] = t
	return t
}

// declare makes room for a function of n i32 parameters and one i32 result.
func (l *linker) declare(n int) uint32 {
	l.newKinds = append(l.newKinds, l.functionType(n))
	l.added = append(l.added, nil)
	return uint32(l.functionImport + l.functionCount + len(l.added) - 1)
}

// define gives a function its body: an added one, or one of the library's that
// the policy has of its own.
func (l *linker) define(index uint32, body []byte) {
	at := int(index) - l.functionImport
	switch {
	case at >= l.functionCount:
		l.added[at-l.functionCount] = body
	case at >= 0 && at < len(l.bodies):
		l.bodies[at] = body
	default:
		l.errs = append(l.errs, errShape)
	}
}

// slot puts a function into the table and returns its place there.
func (l *linker) slot(index uint32) uint32 {
	at, ok := l.slots[index]
	if !ok {
		at = l.elements + uint32(len(l.table))
		l.table = append(l.table, index)
		l.slots[index] = at
	}
	return at
}

// data appends constants and returns their address.
func (l *linker) place(align uint32, b []byte) uint32 {
	for uint32(len(l.constants))%align != 0 {
		l.constants = append(l.constants, 0)
	}
	at := l.base + uint32(len(l.constants))
	l.constants = append(l.constants, b...)
	return at
}

// text returns the address of a text that ends in a zero byte.
func (l *linker) text(s string) uint32 {
	at, ok := l.texts[s]
	if !ok {
		at = l.place(1, append([]byte(s), 0))
		l.texts[s] = at
	}
	return at
}

// placeConstants writes the plan's strings as values that no call changes or frees.
func (l *linker) placeConstants() {
	for i, v := range []byte{0, 1} {
		l.booleans[i] = l.place(4, []byte{typeBooleanStatic, v})
	}
	for _, s := range l.policy.Static.Strings {
		at := l.text(s.Value)
		value := make([]byte, 12)
		value[0] = typeStringStatic
		binary.LittleEndian.PutUint32(value[4:], uint32(len(s.Value)))
		binary.LittleEndian.PutUint32(value[8:], at)
		l.raw = append(l.raw, at)
		l.strings = append(l.strings, l.place(4, value))
	}
	for _, f := range l.policy.Static.Files {
		l.files = append(l.files, l.text(f.Value))
	}
}

func (l *linker) boolean(b ir.Bool) uint32 {
	if b {
		return l.booleans[1]
	}
	return l.booleans[0]
}

// declareBuiltins numbers the host's built-ins as OPA does: by their place among
// all that the policy calls.
func (l *linker) declareBuiltins() {
	for i, f := range l.policy.Static.BuiltinFuncs {
		if _, ok := l.native[f.Name]; !ok {
			l.externals[f.Name] = uint32(i)
		}
	}
}

// link adds everything and writes the module.
func (l *linker) link() ([]byte, error) {
	l.placeConstants()
	l.declareBuiltins()
	for _, f := range l.policy.Funcs.Funcs {
		if len(f.Params) == 0 {
			return nil, fmt.Errorf("function %s has no parameters", f.Name)
		}
		l.functions[f.Name] = l.declare(len(f.Params))
	}
	for _, f := range l.policy.Funcs.Funcs {
		l.function(f)
	}
	l.eval()
	l.builtinList()
	l.entrypointList()
	if err := l.start(); err != nil {
		return nil, err
	}
	return l.encode(), errors.Join(l.errs...)
}

// eval is the function that runs the entry point that its argument, the
// evaluation context, names.
func (l *linker) eval() {
	e := l.newEmitter(nil, 1)
	result, wanted := e.local(), e.local()
	e.results = result
	e.call(l.fn("opa_memoize_init"))
	for at, local := range []ir.Local{ir.Input, ir.Data} {
		e.get(0)
		e.load(opI32Load, 2, uint32(4*at))
		e.set(e.of(local))
	}
	e.call(l.fn("opa_set"))
	e.set(result)
	e.get(0)
	e.get(result)
	e.load(opI32Store, 2, 8)
	e.get(0)
	e.load(opI32Load, 2, 12)
	e.set(wanted)
	e.block(func(done uint32) {
		for i, plan := range l.policy.Plans.Plans {
			e.block(func(uint32) {
				e.get(wanted)
				e.i32(uint32(i))
				e.op(opI32Ne)
				e.brIf(0)
				e.blocks(plan.Blocks)
				e.brTo(done)
			})
		}
		e.i32(l.text(errEntrypoint))
		e.call(l.fn("opa_abort"))
		e.op(opUnreachable)
	})
	e.i32(0)
	l.define(l.fn("eval"), e.finish())
}

// builtinList is the function that lists the host's built-ins.
func (l *linker) builtinList() {
	names := map[string]uint32{}
	order := []string{}
	for _, f := range l.policy.Static.BuiltinFuncs {
		if n, ok := l.externals[f.Name]; ok {
			names[f.Name] = n
			order = append(order, f.Name)
		}
	}
	l.list("builtins", order, func(name string) uint32 { return names[name] })
}

func (l *linker) entrypointList() {
	var order []string
	for _, p := range l.policy.Plans.Plans {
		order = append(order, p.Name)
	}
	l.list("entrypoints", order, func(name string) uint32 { return uint32(slices.Index(order, name)) })
}

// list writes a function that makes an object of names and numbers.
func (l *linker) list(function string, order []string, number func(string) uint32) {
	e := l.newEmitter(nil, 0)
	object := e.local()
	e.call(l.fn("opa_object"))
	e.set(object)
	for _, name := range order {
		e.get(object)
		e.i32(l.text(name))
		e.call(l.fn("opa_string_terminated"))
		e.i64(int64(number(name)))
		e.call(l.fn("opa_number_int"))
		e.call(l.fn("opa_object_insert"))
	}
	e.get(object)
	l.define(l.fn(function), e.finish())
}

// start is the function that prepares an instance: heap, numbers, the names of
// functions that are called by a path, and the tables of the index.
func (l *linker) start() error {
	mapping, err := l.mapping()
	if err != nil {
		return err
	}
	at := l.place(1, mapping)
	e := l.newEmitter(nil, 0)
	e.i32((l.base + uint32(len(l.constants)) + 15) &^ 15)
	e.call(l.fn("opa_malloc_init"))
	e.call(l.fn("opa_mpd_init"))
	e.i32(at)
	e.i32(uint32(len(mapping)))
	e.call(l.fn("opa_mapping_init"))
	for i := range l.tables {
		l.fillTable(e, &l.tables[i])
	}
	l.define(l.fn("_initialize"), e.finish())
	return nil
}

// mapping says, as JSON, where in the table the functions of paths are. A plan
// that never calls by path needs none.
func (l *linker) mapping() ([]byte, error) {
	root := map[string]any{}
	if !callsByPath(l.policy) {
		return []byte("{}"), nil
	}
	for _, f := range l.policy.Funcs.Funcs {
		if len(f.Params) != 2 {
			continue
		}
		at := root
		for _, part := range f.Path[:len(f.Path)-1] {
			next, ok := at[part].(map[string]any)
			if !ok && at[part] != nil {
				return nil, fmt.Errorf("function %s lies below another", f.Name)
			}
			if !ok {
				next = map[string]any{}
				at[part] = next
			}
			at = next
		}
		last := f.Path[len(f.Path)-1]
		if at[last] != nil {
			return nil, fmt.Errorf("function %s lies above another", f.Name)
		}
		at[last] = l.slot(l.functions[f.Name])
	}
	return json.Marshal(root)
}

func callsByPath(p *ir.Policy) bool {
	found := false
	look := func(s ir.Stmt) {
		_, dynamic := s.(*ir.CallDynamicStmt)
		found = found || dynamic
	}
	for _, f := range p.Funcs.Funcs {
		walkBlocks(f.Blocks, look)
	}
	for _, plan := range p.Plans.Plans {
		walkBlocks(plan.Blocks, look)
	}
	return found
}

// encode writes the module.
func (l *linker) encode() []byte {
	out := slices.Clone(magic)
	section := func(id byte, content ...[]byte) {
		out = appendBytes(append(out, id), slices.Concat(content...))
	}
	types := &reader{data: l.types}
	types.u32()
	section(sectionType, appendU32(nil, uint32(l.typeCount)), types.data, l.newTypes)
	section(sectionImport, l.encodeImports())
	kinds := appendU32(nil, uint32(l.functionCount+len(l.added)))
	kinds = append(kinds, l.module.functions...)
	for _, t := range l.newKinds {
		kinds = appendU32(kinds, t)
	}
	section(sectionFunction, kinds)
	size := l.elements + uint32(len(l.table))
	section(sectionTable, appendU32(appendU32([]byte{1, 0x70, 1}, size), size))
	section(sectionGlobal, l.globals)
	section(sectionExport, l.exports)
	section(sectionStart, appendU32(nil, l.fn("_initialize")))
	section(sectionElement, l.encodeElements())
	section(sectionCode, l.encodeCode())
	section(sectionData, l.encodeData())
	section(sectionCustom, appendBytes(nil, []byte(ReportSection)), l.report.encode())
	return out
}

const pageBytes = 64 << 10

func (l *linker) encodeImports() []byte {
	out := appendU32(nil, uint32(len(l.imports)+1))
	for _, raw := range l.imports {
		out = append(out, raw...)
	}
	out = appendBytes(appendBytes(out, []byte("env")), []byte("memory"))
	end := l.base + uint32(len(l.constants))
	return appendU32(append(out, kindMemory, 0), (end+pageBytes-1)/pageBytes)
}

func (l *linker) encodeElements() []byte {
	out := append(appendU32(nil, uint32(l.segmentCount+1)), l.segments...)
	out = append(appendS64(append(out, 0, opI32Const), int64(l.elements)), opEnd)
	out = appendU32(out, uint32(len(l.table)))
	for _, f := range l.table {
		out = appendU32(out, f)
	}
	return out
}

func (l *linker) encodeCode() []byte {
	out := appendU32(nil, uint32(len(l.bodies)+len(l.added)))
	for _, b := range l.bodies {
		out = appendBytes(out, b)
	}
	for _, b := range l.added {
		out = appendBytes(out, b)
	}
	return out
}

func (l *linker) encodeData() []byte {
	segments := append(slices.Clone(l.module.data), segment{l.base, l.constants})
	out := appendU32(nil, uint32(len(segments)))
	for _, s := range segments {
		out = append(appendS64(append(out, 0, opI32Const), int64(int32(s.offset))), opEnd)
		out = appendBytes(out, s.init)
	}
	return out
}
