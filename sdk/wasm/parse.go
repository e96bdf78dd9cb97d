package wasm

import "bytes"

var header = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// sectionOrder is the place of each section; custom sections may stand anywhere.
var sectionOrder = [sectionKinds]int{
	sectionType: 1, sectionImport: 2, sectionFunction: 3, sectionTable: 4, sectionMemory: 5, sectionGlobal: 6,
	sectionExport: 7, sectionStart: 8, sectionElement: 9, sectionDataCount: 10, sectionCode: 11, sectionData: 12,
}

// Parse reads a module in one pass forward, every instruction included, and
// refuses what is not well-formed or exceeds limits. It understands the MVP,
// bulk memory, sign extension, saturating conversions, multi-value, reference
// types, mutable globals and SIMD; other proposals are refused. It allocates in
// proportion to bytes that it has read, never to a count that they declare, and
// the Module refers to the bytes. An error is always a *Refusal.
func Parse(module []byte, limits Limits) (*Module, error) {
	if len(module) > limits.ModuleBytes {
		return nil, &Refusal{Item: "module", Value: uint64(len(module)), Limit: uint64(limits.ModuleBytes), Reason: "too many bytes"}
	}
	if !bytes.HasPrefix(module, header) {
		return nil, &Refusal{Item: "header", Reason: "not a core WebAssembly module of version 1"}
	}
	p := &parser{limits: limits, module: &Module{bytes: len(module)}}
	if err := p.sections(&reader{data: module, pos: len(header), end: len(module)}); err != nil {
		return nil, err
	}
	return p.module, nil
}

type parser struct {
	limits    Limits
	module    *Module
	typeIndex []uint32 // of each defined function
	in        instruction
	open      []opcode
}

func (p *parser) sections(r *reader) error {
	last := 0
	for r.more() {
		at := r.pos
		id := r.byte("section")
		size := r.u32("section size")
		body := r.section("section", size)
		if r.err != nil {
			return r.err
		}
		if id == sectionCustom {
			if body.name("custom section", size); body.err != nil {
				return body.err
			}
			continue
		}
		if id >= sectionKinds || sectionOrder[id] <= last {
			return &Refusal{Offset: at, Item: item("section %d", id), Reason: "unknown, repeated or out of order"}
		}
		last = sectionOrder[id]
		if err := p.section(id, body); err != nil {
			return err
		}
	}
	r.at = r.pos
	if len(p.typeIndex) != len(p.module.functions) {
		r.refuse("code section", "as many bodies as functions are wanted")
	}
	counted := p.module.sections[sectionDataCount]
	if counted.offset != 0 && counted.count != p.module.sections[sectionData].count {
		r.refuse("data section", "as many segments as counted are wanted")
	}
	return r.err
}

func (p *parser) section(id byte, r *reader) error {
	whole := &p.module.sections[id]
	whole.offset = r.pos
	readers := [sectionKinds]func(*reader) int{
		sectionType: p.types, sectionImport: p.imports, sectionFunction: p.functions, sectionTable: p.tables,
		sectionMemory: p.memories, sectionGlobal: p.globals, sectionExport: p.exports, sectionStart: p.start,
		sectionElement: p.elements, sectionCode: p.code, sectionData: p.data, sectionDataCount: p.dataCount,
	}
	start := *r
	whole.count = readers[id](r)
	if r.err == nil && r.pos != r.end {
		r.at = r.pos
		r.refuse("section", "bytes after its last element")
	}
	if r.err == nil {
		start.u32("count")
		whole.items = start.data[start.pos:start.end:start.end]
	}
	return r.err
}

func (p *parser) types(r *reader) int {
	n := r.count("types", p.limits.Types)
	for i := 0; i < n && r.err == nil; i++ {
		if r.byte("type") != 0x60 {
			r.refuse("type", "not a function type")
		}
		letters := p.valueTypes(r, nil)
		letters = p.valueTypes(r, append(letters, ':'))
		p.module.types = append(p.module.types, FuncType(letters))
	}
	return n
}

func (p *parser) valueTypes(r *reader, letters []byte) []byte {
	n := r.count("parameters or results", p.limits.Arity)
	for i := 0; i < n && r.err == nil; i++ {
		letters = append(letters, valueTypeLetters[p.valueType(r)])
	}
	return letters
}

func (p *parser) valueType(r *reader) ValueType {
	t := r.valueType()
	if t == V128 && !p.limits.SIMD {
		r.refuse("value type 0x7b", "SIMD is not allowed")
	}
	return t
}

func (r *reader) valueType() ValueType {
	t := ValueType(r.byte("value type"))
	if valueTypeLetters[t] == 0 {
		r.refuse(item("value type 0x%02x", byte(t)), "unknown or not allowed")
	}
	return t
}

func (r *reader) referenceType() ValueType {
	t := r.valueType()
	if t != FuncRef && t != ExternRef {
		r.refuse(item("type 0x%02x", byte(t)), "not a reference type")
	}
	return t
}

func (p *parser) imports(r *reader) int {
	n := r.count("imports", p.limits.Imports)
	for i := 0; i < n && r.err == nil; i++ {
		p.module.Imports = append(p.module.Imports, p.imported(r))
	}
	return n
}

func (p *parser) imported(r *reader) Import {
	start := r.pos
	limit := uint32(p.limits.NameBytes)
	imported := Import{offset: start}
	imported.Module, imported.Name = r.name("import module", limit), r.name("import name", limit)
	imported.kind = r.byte("import kind")
	switch {
	case r.err != nil:
	case imported.kind == kindFunc:
		imported.typeIndex, imported.Type = p.typeAt(r)
	case imported.kind == kindTable:
		p.table(r)
	case imported.kind == kindMemory:
		p.memory(r)
	case imported.kind == kindGlobal:
		p.module.globals = append(p.module.globals, p.globalType(r))
	default:
		r.refuse(item("import %s.%s", imported.Module, imported.Name), "unknown kind")
	}
	imported.raw = r.data[start:r.pos:r.pos]
	return imported
}

func (p *parser) typeAt(r *reader) (uint32, FuncType) {
	index := r.u32("type index")
	if r.err == nil && uint64(index) >= uint64(len(p.module.types)) {
		r.refuse("type index", "no such type")
	}
	if r.err != nil {
		return 0, ""
	}
	return index, p.module.types[index]
}

func (p *parser) functions(r *reader) int {
	n := r.count("functions", p.limits.Functions)
	for i := 0; i < n && r.err == nil; i++ {
		index, _ := p.typeAt(r)
		p.typeIndex = append(p.typeIndex, index)
	}
	return n
}

func (p *parser) tables(r *reader) int {
	n := r.count("tables", p.limits.Tables)
	for i := 0; i < n && r.err == nil; i++ {
		p.table(r)
	}
	return n
}

func (p *parser) table(r *reader) {
	r.referenceType()
	size := r.pages("table")
	r.within("table elements", uint64(size.min), p.limits.TableSize)
	p.module.tableSize += uint64(size.min)
	p.module.tables++
	r.within("tables", uint64(p.module.tables), p.limits.Tables)
}

// pages reads limits of a table or memory.
func (r *reader) pages(what string) pages {
	flags := r.byte(what)
	if flags > 1 {
		r.refuse(what, "shared and 64-bit ones are not allowed")
	}
	size := pages{min: r.u32(what), hasMax: flags == 1}
	if size.hasMax {
		size.max = r.u32(what)
		if size.max < size.min {
			r.refuse(what, "maximum below minimum")
		}
	}
	return size
}

func (p *parser) memories(r *reader) int {
	n := r.count("memories", p.limits.Memories)
	for i := 0; i < n && r.err == nil; i++ {
		p.memory(r)
	}
	return n
}

// mostPages is what 32 bits address.
const mostPages = 1 << 16

func (p *parser) memory(r *reader) {
	size := r.pages("memory")
	r.within("memory maximum", uint64(size.max), mostPages)
	r.within("memory pages", uint64(size.min), min(p.limits.MemoryPages, mostPages))
	p.module.memories = append(p.module.memories, size)
	r.within("memories", uint64(len(p.module.memories)), p.limits.Memories)
}

func (p *parser) globals(r *reader) int {
	n := r.count("globals", p.limits.Globals)
	for i := 0; i < n && r.err == nil; i++ {
		g := p.globalType(r)
		r.constant()
		p.module.globals = append(p.module.globals, g)
	}
	return n
}

func (p *parser) globalType(r *reader) global {
	g := global{offset: r.pos}
	g.valueType = p.valueType(r)
	mutable := r.byte("global")
	if mutable > 1 {
		r.refuse("global", "neither mutable nor constant")
	}
	g.mutable = mutable == 1
	return g
}

func (p *parser) exports(r *reader) int {
	n := r.count("exports", p.limits.Exports)
	seen := map[string]bool{}
	for i := 0; i < n && r.err == nil; i++ {
		exported := Export{offset: r.pos}
		exported.Name = r.name("export", uint32(p.limits.NameBytes))
		exported.kind, exported.index = r.byte("export kind"), r.u32("export index")
		if exported.kind > kindGlobal {
			r.refuse(item("export %q", exported.Name), "unknown kind")
		}
		if seen[exported.Name] {
			r.refuse(item("export %q", exported.Name), "exported twice")
		}
		seen[exported.Name] = true
		p.module.Exports = append(p.module.Exports, exported)
	}
	return n
}

// start returns the index of the function, which takes the place of a count.
func (p *parser) start(r *reader) int { return int(r.u32("start function")) }

func (p *parser) dataCount(r *reader) int {
	n := r.u32("data count")
	r.within("data segments", uint64(n), p.limits.Segments)
	return int(n)
}

func (p *parser) data(r *reader) int {
	n := r.count("data segments", p.limits.Segments)
	for i := 0; i < n && r.err == nil; i++ {
		switch r.u32("data segment") {
		case 0:
			r.constant()
		case 1:
		case 2:
			r.memoryIndex()
			r.constant()
		default:
			r.refuse("data segment", "unknown kind")
		}
		r.bytes("data segment", r.u32("data segment size"))
	}
	p.module.segments += n
	return n
}

func (r *reader) memoryIndex() {
	if r.u32("memory index") != 0 {
		r.refuse("memory index", "there is one memory")
	}
}

func (p *parser) elements(r *reader) int {
	n := r.count("element segments", p.limits.Segments)
	total := 0
	for i := 0; i < n && r.err == nil; i++ {
		flags := r.u32("element segment")
		if flags > 7 {
			r.refuse("element segment", "unknown kind")
			break
		}
		total += p.elementSegment(r, flags)
		r.within("element entries", uint64(total), p.limits.TableSize)
	}
	p.module.segments += n
	return n
}

// elementSegment reads one segment. Of its flags, bit 0 means passive or
// declarative, bit 1 an explicit table or declarative, bit 2 expressions.
func (p *parser) elementSegment(r *reader, flags uint32) int {
	if flags&1 == 0 {
		if flags&2 != 0 {
			r.u32("table index")
		}
		r.constant()
	}
	if flags&3 != 0 {
		if flags&4 != 0 {
			r.referenceType()
		} else if r.byte("element kind") != 0 {
			r.refuse("element kind", "not a function")
		}
	}
	n := r.count("element entries", p.limits.TableSize)
	for i := 0; i < n && r.err == nil; i++ {
		if flags&4 != 0 {
			r.constant()
		} else {
			r.u32("function index")
		}
	}
	return n
}

// constant reads a constant expression.
func (r *reader) constant() {
	for r.err == nil {
		switch r.byte("constant expression") {
		case opI32Const:
			r.signed("constant", 32)
		case opI64Const:
			r.signed("constant", 64)
		case opF32Const:
			r.bytes("constant", 4)
		case opF64Const:
			r.bytes("constant", 8)
		case opGlobalGet, opRefFunc:
			r.u32("constant")
		case opRefNull:
			r.referenceType()
		case prefixVector:
			if r.u32("constant expression") != vectorConst {
				r.refuse("constant expression", "instruction not allowed here")
			}
			r.bytes("constant", 16)
		case opEnd:
			return
		default:
			r.refuse("constant expression", "instruction not allowed here")
		}
	}
}
