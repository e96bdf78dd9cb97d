package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// meterFuel adds the fuel global and charges it throughout every function.
func (m *Module) meterFuel() error {
	fuel := m.addGlobal(abi.ExportFuel, I64)
	var plan fuelPlan
	for i := range m.functions {
		f := &m.functions[i]
		if err := plan.make(f.body); err != nil {
			return err
		}
		f.body = plan.write(f.body, fuel, uint32(f.locals))
		if plan.scratch {
			f.locals++
			f.groups++
			f.localDecls = append(f.localDecls[:len(f.localDecls):len(f.localDecls)], 1, byte(I32))
		}
	}
	return nil
}

// A charge is taken at an offset of a body: for the stretch of code from there
// on, or, where bulk is set, for the bulk instruction at that place.
type charge struct {
	at    int
	units uint64
	check bool
	bulk  opcode
}

// unreached is the stretch of code that cannot run.
const unreached = -1

// fuelPlan decides where a body is charged. A stretch is all code that runs as
// often as its first instruction: it goes on behind a block that no branch
// inside leaves for a place further out, so that such a block, loop or if costs
// no further charge behind it.
type fuelPlan struct {
	charges []charge
	scratch bool // a local is wanted
	frames  []fuelFrame
	current int // stretch, or unreached
}

// fuelFrame is an open block.
type fuelFrame struct {
	op       opcode
	before   int  // stretch in which it was opened
	outmost  int  // frame that the furthest branch inside targets
	targeted bool // by a branch
}

func (p *fuelPlan) make(body []byte) error {
	p.charges, p.scratch, p.frames = p.charges[:0], false, p.frames[:0]
	p.begin(0, true)
	p.open(opBlock)
	r := &reader{data: body, end: len(body)}
	var in instruction
	for len(p.frames) > 0 && r.next(&in) {
		p.step(&in)
	}
	return r.err
}

// begin starts a new stretch at an offset.
func (p *fuelPlan) begin(at int, check bool) {
	c := charge{at: at, check: check}
	if check {
		c.units = 1
	}
	p.charges = append(p.charges, c)
	p.current = len(p.charges) - 1
}

func (p *fuelPlan) open(op opcode) {
	p.frames = append(p.frames, fuelFrame{op: op, before: p.current, outmost: len(p.frames)})
}

func (p *fuelPlan) step(in *instruction) {
	alive := p.current != unreached
	if alive {
		p.charges[p.current].units += cost(in.op)
	}
	switch in.op {
	case opBlock, opLoop, opIf:
		p.open(in.op)
		if alive && in.op != opBlock {
			p.begin(in.end, in.op == opLoop)
		}
	case opElse:
		if p.frames[len(p.frames)-1].before != unreached {
			p.begin(in.end, false)
		}
	case opEnd:
		p.close(in.end)
	}
	if !alive {
		return
	}
	switch in.op {
	case opBr, opBrIf:
		p.branch(in.index)
	case opBrTable:
		for _, label := range in.labels {
			p.branch(label)
		}
	case opReturn:
		p.branch(uint32(len(p.frames) - 1))
	case opMemoryGrow, opMemoryInit, opMemoryCopy, opMemoryFill:
		p.charges = append(p.charges, charge{at: in.start, bulk: in.op, check: true})
		p.scratch = true
	}
	switch in.op {
	case opBrIf:
		p.begin(in.end, false)
	case opBr, opBrTable, opReturn, opUnreachable:
		p.current = unreached
	}
}

// branch notes a branch to a label.
func (p *fuelPlan) branch(label uint32) {
	target := len(p.frames) - 1 - int(label)
	p.frames[target].targeted = true
	top := &p.frames[len(p.frames)-1]
	top.outmost = min(top.outmost, target)
}

// close ends the innermost frame, whose end instruction ends at an offset, and
// decides which stretch goes on behind it.
func (p *fuelPlan) close(at int) {
	last := len(p.frames) - 1
	frame := p.frames[last]
	p.frames = p.frames[:last]
	if last > 0 {
		p.frames[last-1].outmost = min(p.frames[last-1].outmost, frame.outmost)
	}
	switch left := frame.outmost < last; {
	case frame.before == unreached:
		p.current = unreached
	case !left:
		p.current = frame.before
	case frame.op == opIf, frame.op == opBlock && frame.targeted:
		p.begin(at, false)
	}
}

// write returns the body with its charges. The scratch local is used by bulk charges.
func (p *fuelPlan) write(body []byte, fuel, scratch uint32) []byte {
	out := make([]byte, 0, len(body)+16*len(p.charges))
	done := 0
	for _, c := range p.charges {
		out = append(out, body[done:c.at]...)
		done = c.at
		switch {
		case c.bulk != 0:
			out = appendBulkCharge(out, c.bulk, fuel, scratch)
		case c.units > 0:
			out = appendU32(append(out, opGlobalGet), fuel)
			out = append(appendS64(append(out, opI64Const), int64(c.units)), opI64Sub)
			out = appendU32(append(out, opGlobalSet), fuel)
		}
		if c.check {
			out = appendU32(append(out, opGlobalGet), fuel)
			out = append(out, opI64Const, 0, opI64LtS, opIf, blockEmpty, opUnreachable, opEnd)
		}
	}
	return append(out, body[done:]...)
}

// appendBulkCharge charges by the length on top of the stack and leaves it there.
func appendBulkCharge(out []byte, op opcode, fuel, scratch uint32) []byte {
	out = appendU32(append(out, opLocalTee), scratch)
	out = appendU32(append(out, opGlobalGet), fuel)
	out = append(appendU32(append(out, opLocalGet), scratch), opI64ExtendU)
	if op == opMemoryGrow {
		out = append(out, opMemorySize, 0, opI64ExtendU, opI64Add, opI64Const, fuelPagesShift, opI64Shl)
	} else {
		out = append(out, opI64Const, FuelBytesShift, opI64ShrU)
	}
	return appendU32(append(out, opI64Sub, opGlobalSet), fuel)
}
