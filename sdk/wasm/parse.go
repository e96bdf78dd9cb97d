package wasm

import "bytes"

var header = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// sectionOrder is the place of each section; custom sections may stand anywhere.
var sectionOrder = [sectionKinds]int{
	sectionType: 1, sectionImport: 2, sectionFunction: 3, sectionTable: 4, sectionMemory: 5, sectionGlobal: 6,
	sectionExport: 7, sectionStart: 8, sectionElement: 9, sectionDataCount: 10, sectionCode: 11, sectionData: 12,
}

// Parse reads the sections of module within the limits of class and checks
// their structure. Function bodies are cut out, not read. An error is always a *Refusal.
func Parse(module []byte, class Class) (*Module, error) {
	limits := class.Limits()
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
		r.refuse("section", "bytes after its last element")
	}
	if r.err == nil && id != sectionStart {
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
		letters = append(letters, valueTypeLetters[r.valueType()])
	}
	return letters
}

func (r *reader) valueType() ValueType {
	t := ValueType(r.byte("value type"))
	if valueTypeLetters[t] == 0 {
		r.refuse("value type", "unknown or not allowed")
	}
	return t
}

func (p *parser) imports(r *reader) int {
	n := r.count("imports", p.limits.Imports)
	for i := 0; i < n && r.err == nil; i++ {
		at := r.pos
		imported := Import{offset: at, Module: r.name("import module", p.limits.NameBytes), Name: r.name("import name", p.limits.NameBytes)}
		imported.kind = r.byte("import kind")
		switch {
		case r.err != nil:
		case imported.kind == kindFunc:
			imported.Type = p.typeAt(r)
		case imported.kind == kindMemory:
			imported.memory = p.memory(r)
			p.module.memories = append(p.module.memories, imported.memory)
		default:
			r.refuse(item("import %s.%s", imported.Module, imported.Name), "only functions and OPA's memory may be imported")
		}
		imported.raw = r.data[at:r.pos:r.pos]
		p.module.Imports = append(p.module.Imports, imported)
	}
	return n
}

func (p *parser) typeAt(r *reader) FuncType {
	index := r.u32("type index")
	if r.err == nil && uint64(index) >= uint64(len(p.module.types)) {
		r.refuse("type index", "no such type")
	}
	if r.err != nil {
		return ""
	}
	return p.module.types[index]
}

func (p *parser) functions(r *reader) int {
	n := r.count("functions", p.limits.Functions)
	p.typeIndex = make([]uint32, 0, n)
	for i := 0; i < n && r.err == nil; i++ {
		before := *r
		p.typeAt(r)
		p.typeIndex = append(p.typeIndex, before.u32("type index"))
	}
	return n
}

func (p *parser) tables(r *reader) int {
	n := r.count("tables", 1)
	for i := 0; i < n && r.err == nil; i++ {
		if t := r.valueType(); t != FuncRef && t != ExternRef {
			r.refuse("table", "not a reference type")
		}
		size := r.pages("table")
		r.within("table elements", uint64(size.min), p.limits.TableSize)
		p.module.tableSize = size.min
		p.module.tables++
	}
	return n
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

func (p *parser) memory(r *reader) pages {
	size := r.pages("memory")
	r.within("memory pages", uint64(size.min), p.limits.MemoryPages)
	return size
}

func (p *parser) memories(r *reader) int {
	n := r.count("memories", 1)
	for i := 0; i < n && r.err == nil; i++ {
		p.module.memories = append(p.module.memories, p.memory(r))
	}
	return n
}

func (p *parser) globals(r *reader) int {
	n := r.count("globals", p.limits.Globals)
	for i := 0; i < n && r.err == nil; i++ {
		g := global{valueType: r.valueType()}
		mutable := r.byte("global")
		if mutable > 1 {
			r.refuse("global", "neither mutable nor constant")
		}
		g.mutable = mutable == 1
		if g.mutable && (g.valueType == FuncRef || g.valueType == ExternRef) {
			r.refuse("global", "a mutable reference could not be restored")
		}
		r.constant()
		p.module.globals = append(p.module.globals, g)
	}
	return n
}

func (p *parser) exports(r *reader) int {
	n := r.count("exports", p.limits.Exports)
	seen := make(map[string]bool, n)
	for i := 0; i < n && r.err == nil; i++ {
		exported := Export{offset: r.pos, Name: r.name("export", p.limits.NameBytes), kind: r.byte("export kind"), index: r.u32("export index")}
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

func (p *parser) start(r *reader) int {
	p.module.start, p.module.hasStart = r.u32("start function"), true
	return 1
}

func (p *parser) code(r *reader) int {
	n := r.count("bodies", p.limits.Functions)
	if r.err == nil && n != len(p.typeIndex) {
		r.refuse("code section", "as many bodies as functions are wanted")
	}
	p.module.functions = make([]function, 0, n)
	for i := 0; i < n && r.err == nil; i++ {
		size := r.u32("body size")
		if !r.within(item("bytes of function %d", i), uint64(size), p.limits.BodyBytes) {
			break
		}
		body := r.section("body", size)
		p.module.functions = append(p.module.functions, p.function(body, p.typeIndex[i], i))
		if body.err != nil {
			r.err = body.err
		}
	}
	return n
}

// function reads the locals of a body and keeps its instructions.
func (p *parser) function(r *reader, typeIndex uint32, number int) function {
	f := function{typeIndex: typeIndex, offset: r.pos, locals: p.module.types[typeIndex].params()}
	f.groups = r.count(item("local groups of function %d", number), p.limits.Locals)
	start := r.pos
	total := uint64(f.locals)
	for g := 0; g < f.groups && r.err == nil; g++ {
		total += uint64(r.u32("locals"))
		r.valueType()
		r.within(item("locals of function %d", number), total, p.limits.Locals)
	}
	if r.err == nil {
		f.locals, f.localDecls, f.body = int(total), r.data[start:r.pos:r.pos], r.data[r.pos:r.end:r.end]
	}
	return f
}

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
		if flags&2 != 0 && r.u32("table index") != 0 {
			r.refuse("table index", "there is one table")
		}
		r.constant()
	}
	if flags&3 != 0 {
		if flags&4 != 0 {
			r.valueType()
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
			r.valueType()
		case opEnd:
			return
		default:
			r.refuse("constant expression", "instruction not allowed here")
		}
	}
}
