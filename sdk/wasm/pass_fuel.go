package wasm

import (
	"strconv"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// meterFuel adds the fuel global and charges it throughout every function.
func (m *Module) meterFuel() error {
	near := m.memories[0].min <= nearPages
	meters := fuelMeters{load: m.addLoadCost(near)}
	meters.fuel = m.addGlobal(abi.ExportFuel, I64)
	plan := fuelPlan{module: m}
	for i := range m.functions {
		f := &m.functions[i]
		if err := plan.make(f.body, f.locals); err != nil {
			return err
		}
		if plan.scratch {
			meters.scratch = f.addLocal(I32)
		}
		f.body = plan.write(f.body, meters)
	}
	return nil
}

// addLoadCost adds the global that holds what a load costs. It is restored with
// the guest's own, because it changes when the memory grows.
func (m *Module) addLoadCost(near bool) uint32 {
	number := 0
	for _, g := range m.globals {
		if g.mutable {
			number++
		}
	}
	cost := int64(farLoad)
	if near {
		cost = nearLoad
	}
	return m.addGlobalOf(abi.ExportGlobal+strconv.Itoa(number), I64, cost)
}

// fuelMeters are the indices of globals and of a local that charges use.
type fuelMeters struct{ fuel, load, scratch uint32 }

// fuelSlack is the most that a path charges between two checks, and, but for
// the cost of one instruction, the most that one charge takes: so much may a
// call spend beyond its fuel.
const fuelSlack = 1_000

// A charge is taken at an offset of a body: for the stretch of code from there
// on, or, where bulk is set, for the bulk instruction at that place.
type charge struct {
	at    int
	units uint64
	loads uint64 // beside the units
	check bool
	bulk  opcode
	grown bool // no charge: behind memory.grow, loads may cost more
}

// most returns what the charge takes at most.
func (c *charge) most() uint64 { return c.units + farLoad*c.loads }

// unreached is the stretch of code that cannot run.
const unreached = -1

// fuelPlan decides where a body is charged. A stretch is all code that runs as
// often as its first instruction: it goes on behind a block that no branch
// inside leaves for a place further out, so that such a block, loop or if costs
// no further charge behind it.
type fuelPlan struct {
	module  *Module
	charges []charge
	scratch bool // a local is wanted
	frames  []fuelFrame
	current int // stretch, or unreached
}

// fuelFrame is an open block.
type fuelFrame struct {
	op       opcode
	before   int    // stretch in which it was opened
	outmost  int    // frame that the furthest branch inside targets
	targeted bool   // by a branch
	width    uint64 // units for the values that a branch to it carries
}

func (p *fuelPlan) make(body []byte, locals int) error {
	p.charges, p.scratch, p.frames = p.charges[:0], false, p.frames[:0]
	p.begin(0, true)
	p.charges[0].units += uint64(locals >> fuelValuesShift)
	p.open(opBlock, 0)
	r := &reader{data: body, end: len(body)}
	var in instruction
	for len(p.frames) > 0 && r.next(&in) {
		p.step(&in)
	}
	if r.err == nil {
		p.placeChecks(body)
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

func (p *fuelPlan) open(op opcode, width uint64) {
	p.frames = append(p.frames, fuelFrame{op: op, before: p.current, outmost: len(p.frames), width: width})
}

// width returns the units for the parameters and results that an instruction
// passes, beside its cost, and for those that a branch to its label carries.
func (p *fuelPlan) width(in *instruction) (passed, carried uint64) {
	switch in.op {
	case opCall:
		t, _ := p.module.functionType(in.index)
		passed = t.width()
	case opCallIndirect, opBlock, opLoop, opIf:
		if in.value != 0 || uint64(in.index) >= uint64(len(p.module.types)) {
			return 0, 0
		}
		t := p.module.types[in.index]
		passed, carried = t.width(), uint64(len(t.results())>>fuelValuesShift)
		if in.op == opLoop {
			carried = uint64(t.params() >> fuelValuesShift)
		}
	case opBr, opBrIf:
		passed = p.frames[len(p.frames)-1-int(in.index)].width
	case opBrTable:
		passed = p.frames[len(p.frames)-1-int(in.labels[0])].width
	}
	return passed, carried
}

// width returns the units for passing what a function takes and gives.
func (t FuncType) width() uint64 {
	return uint64(max(len(t), 1)-1) >> fuelValuesShift
}

func (p *fuelPlan) step(in *instruction) {
	alive := p.current != unreached
	passed, carried := p.width(in)
	if alive {
		if p.charges[p.current].most() >= fuelSlack {
			p.begin(in.start, false)
		}
		p.charges[p.current].add(in.op, passed)
	}
	switch in.op {
	case opBlock, opLoop, opIf:
		p.open(in.op, carried)
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
		if in.op == opMemoryGrow {
			p.charges = append(p.charges, charge{at: in.end, grown: true})
		}
	}
	switch in.op {
	case opBrIf:
		p.begin(in.end, false)
	case opBr, opBrTable, opReturn, opUnreachable:
		p.current = unreached
	}
}

func (c *charge) add(op opcode, passed uint64) {
	c.units += passed
	if op >= opI32Load && op < opI32Store {
		c.loads++
	} else {
		c.units += cost(op)
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

// write returns the body with its charges.
func (p *fuelPlan) write(body []byte, m fuelMeters) []byte {
	out := make([]byte, 0, len(body)+16*len(p.charges))
	done := 0
	for _, c := range p.charges {
		out = append(out, body[done:c.at]...)
		done = c.at
		switch {
		case c.grown:
			out = m.appendLoadCost(out)
		case c.bulk != 0:
			out = m.appendBulk(out, c.bulk)
		default:
			out = m.appendCharge(out, &c)
		}
		if c.check {
			out = appendU32(append(out, opGlobalGet), m.fuel)
			out = append(out, opI64Const, 0, opI64LtS, opIf, blockEmpty, opUnreachable, opEnd)
		}
	}
	return append(out, body[done:]...)
}

func (m fuelMeters) appendCharge(out []byte, c *charge) []byte {
	if c.units == 0 && c.loads == 0 {
		return out
	}
	out = appendU32(append(out, opGlobalGet), m.fuel)
	if c.units > 0 {
		out = append(appendS64(append(out, opI64Const), int64(c.units)), opI64Sub)
	}
	if c.loads > 0 {
		out = appendU32(append(out, opGlobalGet), m.load)
		out = append(appendS64(append(out, opI64Const), int64(c.loads)), opI64Mul, opI64Sub)
	}
	return appendU32(append(out, opGlobalSet), m.fuel)
}

// appendBulk charges by the length on top of the stack and leaves it there.
func (m fuelMeters) appendBulk(out []byte, op opcode) []byte {
	out = appendU32(append(out, opLocalTee), m.scratch)
	out = appendU32(append(out, opGlobalGet), m.fuel)
	out = append(appendU32(append(out, opLocalGet), m.scratch), opI64ExtendU)
	if op == opMemoryGrow {
		out = append(out, opMemorySize, 0, opI64ExtendU, opI64Add, opI64Const, fuelPagesShift, opI64Shl)
	} else {
		out = append(out, opI64Const, FuelBytesShift, opI64ShrU)
	}
	return appendU32(append(out, opI64Sub, opGlobalSet), m.fuel)
}

// appendLoadCost sets the cost of loads when the memory is no longer near.
func (m fuelMeters) appendLoadCost(out []byte) []byte {
	out = append(out, opMemorySize, 0, opI32Const, nearPages, opI32GtU, opIf, blockEmpty, opI64Const, farLoad)
	return append(appendU32(append(out, opGlobalSet), m.load), opEnd)
}
