package wasm

// opcode is an instruction's first byte, or a prefix as the high byte and the
// number behind it as the low one.
type opcode uint16

// Instructions that the scan or a pass looks at.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opSelectTyped  = 0x1c
	opSelect       = 0x1b
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opI32Load      = 0x28
	opI32Store     = 0x36
	opI32Store8    = 0x3a
	opI64Store32   = 0x3e
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI32Eqz       = 0x45
	opI32LtS       = 0x48
	opI32GtU       = 0x4b
	opI64LtS       = 0x53
	opF32Eq        = 0x5b
	opF32Ne        = 0x5c
	opF64Eq        = 0x61
	opF64Ne        = 0x62
	opF64Ge        = 0x66
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI32Or        = 0x72
	opI32ShrS      = 0x75
	opI32ShrU      = 0x76
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Mul       = 0x7e
	opI64Or        = 0x84
	opI64Shl       = 0x86
	opI64ShrU      = 0x88
	opI64Rotl      = 0x89
	opF32Ceil      = 0x8d
	opF32Copysign  = 0x98
	opF64Ceil      = 0x9b
	opF64Copysign  = 0xa6
	opI64ExtendU   = 0xad
	opF32Demote    = 0xb6
	opF64Promote   = 0xbb
	opExtend32S    = 0xc4
	opRefNull      = 0xd0
	opRefIsNull    = 0xd1
	opRefFunc      = 0xd2

	prefixMisc   = 0xfc
	opTruncSatU  = 0xfc07 // the last of the saturating conversions, which begin at 0xfc00
	opMemoryInit = 0xfc08
	opDataDrop   = 0xfc09
	opMemoryCopy = 0xfc0a
	opMemoryFill = 0xfc0b
	opTableInit  = 0xfc0c
	opElemDrop   = 0xfc0d
	opTableCopy  = 0xfc0e
	opTableGrow  = 0xfc0f
	opTableSize  = 0xfc10
	opTableFill  = 0xfc11

	prefixVector = 0xfd
	vectorConst  = 12 // behind the prefix

	blockEmpty = 0x40
)

// instruction is one decoded instruction. Labels is valid until the next one is read.
type instruction struct {
	op         opcode
	start, end int       // in the reader's data
	index      uint32    // the immediate that is an index, a label or an offset
	value      ValueType // of a typed select or a block with one result; blockEmpty for none
	labels     []uint32
}

// next reads one instruction into in.
func (r *reader) next(in *instruction) bool {
	in.start, in.index, in.value, in.labels = r.pos, 0, 0, in.labels[:0]
	in.op = opcode(r.byte("instruction"))
	if in.op == prefixMisc || in.op == prefixVector {
		r.prefixed(in)
	}
	r.immediates(in)
	in.end = r.pos
	return r.err == nil
}

func (r *reader) prefixed(in *instruction) {
	number := r.u32("instruction")
	if number > 0xff {
		r.at = in.start
		r.refuse(item("instruction 0x%02x 0x%02x", uint16(in.op), number), "unknown or not allowed")
	}
	in.op = in.op<<8 | opcode(number&0xff)
}

func (r *reader) immediates(in *instruction) {
	switch op := in.op; {
	case op == opBlock || op == opLoop || op == opIf:
		r.blockType(in)
	case op == opBr || op == opBrIf || op == opCall, op >= opLocalGet && op <= opTableSet, op == opRefFunc:
		in.index = r.u32("index")
	case op == opBrTable:
		r.targets(in)
	case op == opCallIndirect:
		in.index = r.u32("type index")
		r.u32("table index")
	case op == opSelectTyped:
		for n := r.count("select types", 1); n > 0; n-- {
			in.value = r.valueType()
		}
	case op >= opI32Load && op <= opI64Store32:
		r.memoryAccess(in, 3)
	case op == opMemorySize || op == opMemoryGrow:
		r.zero()
	case op == opI32Const:
		r.signed("constant", 32)
	case op == opI64Const:
		r.signed("constant", 64)
	case op == opF32Const:
		r.bytes("constant", 4)
	case op == opF64Const:
		r.bytes("constant", 8)
	case op == opRefNull:
		r.referenceType()
	case op>>8 == prefixMisc:
		r.misc(in)
	case op>>8 == prefixVector:
		r.vector(in)
	case op == 0xfe:
		r.refuseOpcode(in, "threads are not allowed")
	case op > opExtend32S && op != opRefIsNull, op > opReturn && op < opDrop && op != opCall, op > opElse && op < opEnd, op > opSelectTyped && op < opLocalGet, op == 0x27:
		r.refuseOpcode(in, "unknown or not allowed")
	}
}

// blockType reads the type of a block: in.value is its only result or blockEmpty,
// or 0, and in.index is that of a function type.
func (r *reader) blockType(in *instruction) {
	t := r.signed("block type", 33)
	switch short := ValueType(t & 0x7f); {
	case t >= 0:
		in.index = uint32(t)
	case t < -0x40 || short != blockEmpty && valueTypeLetters[short] == 0:
		r.refuse(item("block type %d", t), "unknown or not allowed")
	default:
		in.value = short
	}
}

// memoryAccess reads alignment, as an exponent of 2, and offset.
func (r *reader) memoryAccess(in *instruction, natural uint32) {
	if r.u32("alignment") > natural {
		r.refuse("alignment", "larger than natural")
	}
	in.index = r.u32("offset")
}

func (r *reader) refuseOpcode(in *instruction, reason string) {
	r.at = in.start
	name := item("instruction 0x%02x", uint16(in.op))
	if prefix := in.op >> 8; prefix != 0 {
		name = item("instruction 0x%02x 0x%02x", uint16(prefix), uint16(in.op&0xff))
	}
	r.refuse(name, reason)
}

// zero reads the byte that stands for the only memory.
func (r *reader) zero() {
	if r.byte("memory index") != 0 {
		r.refuse("memory index", "there is one memory")
	}
}

// targets reads the labels of a br_table, the default last.
func (r *reader) targets(in *instruction) {
	n := r.count("br_table targets", r.end)
	for i := 0; i <= n && r.err == nil; i++ {
		in.labels = append(in.labels, r.u32("label"))
	}
}

// misc reads the immediates behind the 0xfc prefix.
func (r *reader) misc(in *instruction) {
	switch in.op {
	case opMemoryInit:
		in.index = r.u32("segment")
		r.zero()
	case opMemoryCopy:
		r.zero()
		r.zero()
	case opMemoryFill:
		r.zero()
	case opDataDrop, opElemDrop, opTableGrow, opTableSize, opTableFill:
		in.index = r.u32("index")
	case opTableInit, opTableCopy:
		in.index = r.u32("index")
		r.u32("index")
	default:
		if in.op > opTruncSatU {
			r.refuseOpcode(in, "unknown or not allowed")
		}
	}
}

// vector reads the immediates behind the 0xfd prefix.
func (r *reader) vector(in *instruction) {
	switch n := in.op & 0xff; {
	case n <= 11, n == 92, n == 93: // loads and the store
		r.memoryAccess(in, 4)
	case n == vectorConst, n == 13: // and the shuffle
		r.bytes("lanes", 16)
	case n >= 21 && n <= 34: // extract and replace a lane
		r.byte("lane")
	case n >= 84 && n <= 91: // load and store a lane
		r.memoryAccess(in, 3)
		r.byte("lane")
	}
}
