package wasm

// canonicalFloats makes the result of every float instruction that may be a NaN
// of unspecified bits the positive canonical one, which the specification always
// allows. Without it the bits depend on the processor. Instructions that are
// exact in every bit - abs, neg, copysign, loads, stores, reinterpretations -
// stay as they are, and so does a result that only goes into instructions which
// cannot show its bits.
func (m *Module) canonicalFloats() error {
	for i := range m.functions {
		f := &m.functions[i]
		c := floatPass{function: f, code: f.body}
		if err := c.find(); err != nil {
			return err
		}
		if len(c.producers) > 0 {
			f.body = c.write()
		}
	}
	return nil
}

type floatPass struct {
	function  *function
	code      []byte
	producers []producer
	// stack is what is known of the operands: the producer of each, or
	// noProducer. What lies below is not known.
	stack []int
}

// A producer is an instruction whose result may be a NaN of unspecified bits.
type producer struct {
	end   int
	of    ValueType
	shown bool // its bits may be seen
}

const noProducer = -1

func (c *floatPass) find() error {
	r := &reader{data: c.code, end: len(c.code)}
	var in instruction
	for r.more() && r.next(&in) {
		c.step(&in)
	}
	return r.err
}

func (c *floatPass) step(in *instruction) {
	switch op := in.op; {
	case op >= opI32Eqz && op <= opExtend32S, op >= prefixMisc<<8 && op <= opTruncSatU:
		c.pop(operands(op), !hidesBits(op))
		c.push(noProducer)
		if givesNaN(op) {
			c.producers = append(c.producers, producer{end: in.end, of: floatResult(op)})
			c.stack[len(c.stack)-1] = len(c.producers) - 1
		}
	case op == opLocalGet, op == opGlobalGet, op >= opI32Const && op <= opF64Const:
		c.push(noProducer)
	case op == opLocalTee, op >= opI32Load && op < opI32Store:
		c.pop(1, true)
		c.push(noProducer)
	case op == opLocalSet, op == opGlobalSet:
		c.pop(1, true)
	case op >= opI32Store && op <= opI64Store32:
		c.pop(2, true)
	case op == opDrop:
		c.pop(1, false)
	default:
		c.pop(len(c.stack), true)
	}
}

func (c *floatPass) push(producer int) { c.stack = append(c.stack, producer) }

// pop takes n operands; shown says whether the bits of each may be seen.
func (c *floatPass) pop(n int, shown bool) {
	for ; n > 0 && len(c.stack) > 0; n-- {
		if last := c.stack[len(c.stack)-1]; last != noProducer && shown {
			c.producers[last].shown = true
		}
		c.stack = c.stack[:len(c.stack)-1]
	}
}

// mostBranches is how many producers a function may have that are followed by a
// branch: compilers take quadratic time over branches.
const mostBranches = 500

// write returns the code with a choice behind every producer that is shown: its
// result where that equals itself, the canonical NaN elsewhere.
func (c *floatPass) write() []byte {
	out := make([]byte, 0, len(c.code)+len(c.code)/4)
	var scratch [2]uint32 // local index + 1, of F64 and F32
	done := 0
	for _, p := range c.producers {
		if !p.shown {
			continue
		}
		local := &scratch[p.of-F64]
		if *local == 0 {
			*local = c.function.addLocal(p.of) + 1
		}
		out = append(out, c.code[done:p.end]...)
		done = p.end
		if len(c.producers) > mostBranches {
			out = appendSelected(out, p.of, *local-1)
		} else {
			out = appendCanonical(out, p.of, *local-1)
		}
	}
	return append(out, c.code[done:]...)
}

// appendCanonical branches, which a processor foresees, rather than selects,
// which would lengthen every chain of results.
func appendCanonical(out []byte, of ValueType, local uint32) []byte {
	unequal, nan := byte(opF64Ne), []byte{opF64Const, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f}
	if of == F32 {
		unequal, nan = opF32Ne, []byte{opF32Const, 0, 0, 0xc0, 0x7f}
	}
	out = appendU32(append(out, opLocalTee), local)
	out = appendU32(append(out, opLocalGet), local)
	out = append(append(out, unequal, opIf, blockEmpty), nan...)
	out = append(appendU32(append(out, opLocalSet), local), opEnd)
	return appendU32(append(out, opLocalGet), local)
}

// appendSelected is slower to run and quicker to compile.
func appendSelected(out []byte, of ValueType, local uint32) []byte {
	equal, nan := byte(opF64Eq), []byte{opF64Const, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f}
	if of == F32 {
		equal, nan = opF32Eq, []byte{opF32Const, 0, 0, 0xc0, 0x7f}
	}
	out = append(appendU32(append(out, opLocalTee), local), nan...)
	out = appendU32(append(out, opLocalGet), local)
	out = appendU32(append(out, opLocalGet), local)
	return append(out, equal, opSelect)
}

// givesNaN tells whether an instruction's result may be a NaN of bits that are
// not specified.
func givesNaN(op opcode) bool {
	switch {
	case op >= opF32Ceil && op < opF32Copysign, op >= opF64Ceil && op < opF64Copysign, op == opF32Demote, op == opF64Promote:
		return true
	}
	return false
}

// hidesBits tells whether the result of a numeric instruction shows no more of a
// NaN operand than that it is one.
func hidesBits(op opcode) bool {
	switch {
	case givesNaN(op), op >= opF32Eq && op <= opF64Ge, op >= 0xa8 && op <= 0xab, op >= 0xae && op <= 0xb1, op>>8 == prefixMisc:
		return true // arithmetic, comparisons, conversions to integers
	}
	return false
}

// operands returns how many operands a numeric instruction takes.
func operands(op opcode) int {
	switch {
	case op > opI32Eqz && op < 0x50, op > 0x50 && op <= opF64Ge, // comparisons
		op >= opI32Add && op < 0x79, op >= opI64Add && op < 0x8b, // integers
		op >= 0x92 && op <= opF32Copysign, op >= 0xa0 && op <= opF64Copysign:
		return 2
	}
	return 1
}

// floatResult returns the type that an instruction of givesNaN gives.
func floatResult(op opcode) ValueType {
	if op < opF32Copysign || op == opF32Demote {
		return F32
	}
	return F64
}
