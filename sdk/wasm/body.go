package wasm

func (p *parser) code(r *reader) int {
	n := r.count("bodies", p.limits.Functions)
	if r.err == nil && n != len(p.typeIndex) {
		r.refuse("code section", "as many bodies as functions are wanted")
	}
	for i := 0; i < n && r.err == nil; i++ {
		size := r.u32("body size")
		if !r.within(item("bytes of function %d", i), uint64(size), p.limits.BodyBytes) {
			break
		}
		body := r.section("body", size)
		p.module.functions = append(p.module.functions, p.function(body, p.typeIndex[i], i))
		r.err = body.err
	}
	return n
}

// function reads the locals and instructions of a body.
func (p *parser) function(r *reader, typeIndex uint32, number int) function {
	f := function{typeIndex: typeIndex, locals: p.module.types[typeIndex].params()}
	f.groups = r.count(item("local groups of function %d", number), p.limits.Locals)
	start := r.pos
	total := uint64(f.locals)
	for g := 0; g < f.groups && r.err == nil; g++ {
		total += uint64(r.u32("locals"))
		r.within(item("locals of function %d", number), total, p.limits.Locals)
		p.valueType(r)
	}
	if r.err != nil {
		return f
	}
	f.locals, f.offset = int(total), r.pos
	f.localDecls, f.body = r.data[start:r.pos:r.pos], r.data[r.pos:r.end:r.end]
	p.instructions(r, &f)
	if refusal, ok := r.err.(*Refusal); ok {
		refusal.Item += item(" in function %d", number)
	}
	return f
}

// instructions checks those of one body, and that blocks are balanced.
func (p *parser) instructions(r *reader, f *function) {
	m := &p.module.measured
	open := p.open[:0] // the body's own block is not in it
	blocks, loops := 0, 0
	for r.next(&p.in) {
		p.admit(r, &p.in)
		switch p.in.op {
		case opBlock, opLoop, opIf, opBrIf:
			r.at = p.in.start
			blocks++
			r.within("blocks", uint64(blocks), p.limits.Blocks)
			r.within("blocks times locals", uint64(blocks)*uint64(f.locals), p.limits.LiveValues)
		}
		switch in := &p.in; in.op {
		case opBlock, opLoop, opIf:
			r.at = in.start
			open = append(open, in.op)
			if in.op == opLoop {
				loops++
			}
			r.within("loops", uint64(loops), p.limits.Loops)
			m.nesting = max(m.nesting, len(open))
			r.within("nesting", uint64(len(open)), p.limits.Nesting)
		case opBr, opBrIf:
			r.label(in.index, len(open))
		case opBrTable:
			m.tableTargets += len(in.labels)
			r.within("br_table targets", uint64(m.tableTargets), p.limits.TableTargets)
			for _, label := range in.labels {
				r.label(label, len(open))
			}
		case opElse:
			if len(open) == 0 || open[len(open)-1] != opIf {
				r.refuse("else", "outside of an if")
				return
			}
			open[len(open)-1] = opElse
		case opEnd:
			if len(open) == 0 {
				p.bodyEnds(r, f, blocks)
				return
			}
			open = open[:len(open)-1]
		}
		p.open = open
	}
}

func (r *reader) label(label uint32, open int) {
	if uint64(label) > uint64(open) {
		r.within("label", uint64(label), open)
	}
}

func (p *parser) bodyEnds(r *reader, f *function, blocks int) {
	m := &p.module.measured
	m.longestBody = max(m.longestBody, len(f.body))
	m.mostLocals = max(m.mostLocals, f.locals)
	m.mostBlocks = max(m.mostBlocks, blocks)
	m.liveValues = max(m.liveValues, blocks*f.locals)
	if r.pos != r.end {
		r.at = r.pos
		r.refuse("body", "instructions after its end")
	}
}

// admit refuses instructions that the limits or other sections do not allow.
func (p *parser) admit(r *reader, in *instruction) {
	name := lasting[in.op]
	switch {
	case !p.limits.SIMD && (in.op>>8 == prefixVector || in.value == V128):
		r.refuseOpcode(in, "SIMD is not allowed")
	case name != "" && !p.limits.Lasting:
		r.at = in.start
		r.refuse(name, "what it changes would survive the call")
	case (in.op == opMemoryInit || in.op == opDataDrop) && p.module.sections[sectionDataCount].offset == 0:
		r.at = in.start
		r.refuse("data segment", "a data count section is wanted")
	}
}

// lasting names the instructions that write a table or drop a segment.
var lasting = map[opcode]string{
	opTableSet: "table.set", opDataDrop: "data.drop", opTableInit: "table.init", opElemDrop: "elem.drop",
	opTableCopy: "table.copy", opTableGrow: "table.grow", opTableFill: "table.fill",
}
