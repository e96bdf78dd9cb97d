package wasm

// opcode is an instruction's first byte, or 0xfc00 and the number behind the prefix.
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
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI32Or        = 0x72
	opI32ShrS      = 0x75
	opI32ShrU      = 0x76
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Or        = 0x84
	opI64Shl       = 0x86
	opI64ShrU      = 0x88
	opI64Rotl      = 0x89
	opI64ExtendU   = 0xad
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

	blockEmpty = 0x40
)

// instruction is one decoded instruction. Labels is valid until the next one is read.
type instruction struct {
	op         opcode
	start, end int    // in the reader's data
	index      uint32 // the immediate that is an index, a label or an offset
	labels     []uint32
}

// next reads one instruction into in.
func (r *reader) next(in *instruction) bool {
	in.start, in.index, in.labels = r.pos, 0, in.labels[:0]
	in.op = opcode(r.byte("instruction"))
	if in.op == prefixMisc {
		in.op = opcode(min(r.u32("instruction"), 0xff)) | prefixMisc<<8
	}
	r.immediates(in)
	in.end = r.pos
	return r.err == nil
}

func (r *reader) immediates(in *instruction) {
	switch op := in.op; {
	case op == opBlock || op == opLoop || op == opIf:
		r.signed("block type", 33)
	case op == opTableSet:
		r.refuseWrite(in, "table.set")
	case op == opBr || op == opBrIf || op == opCall, op >= opLocalGet && op <= opTableSet, op == opRefFunc:
		in.index = r.u32("index")
	case op == opBrTable:
		r.targets(in)
	case op == opCallIndirect:
		in.index = r.u32("type index")
		r.u32("table index")
	case op == opSelectTyped:
		for range r.count("select types", 1) {
			r.valueType()
		}
	case op >= opI32Load && op <= opI64Store32:
		if r.u32("alignment") > 3 {
			r.refuse("alignment", "larger than natural")
		}
		in.index = r.u32("offset")
	case op == opMemorySize || op == opMemoryGrow:
		r.memoryIndex()
	case op == opI32Const:
		r.signed("constant", 32)
	case op == opI64Const:
		r.signed("constant", 64)
	case op == opF32Const:
		r.bytes("constant", 4)
	case op == opF64Const:
		r.bytes("constant", 8)
	case op == opRefNull:
		r.valueType()
	case op >= prefixMisc<<8:
		r.misc(in)
	case op > opExtend32S && op != opRefIsNull, op > opReturn && op < 0x1a && op != opCall, op > opElse && op < opEnd, op > opSelectTyped && op < opLocalGet, op == 0x27:
		r.refuseOpcode(in)
	}
}

func (r *reader) refuseOpcode(in *instruction) {
	r.pos = in.start
	reason := "unknown or not allowed"
	if in.op == 0xfd {
		reason = "SIMD is not allowed"
	} else if in.op == 0xfe {
		reason = "threads are not allowed"
	}
	r.refuse(item("instruction 0x%02x", uint16(in.op)), reason)
}

// targets reads the labels of a br_table, the default last.
func (r *reader) targets(in *instruction) {
	n := r.count("br_table targets", r.end)
	for i := 0; i <= n && r.err == nil; i++ {
		in.labels = append(in.labels, r.u32("label"))
	}
}

// misc reads the immediates behind the 0xfc prefix. What writes a table or drops
// a segment is refused: its effect would survive the call.
func (r *reader) misc(in *instruction) {
	switch in.op {
	case opMemoryInit:
		in.index = r.u32("segment")
		r.memoryIndex()
	case opMemoryCopy:
		r.memoryIndex()
		r.memoryIndex()
	case opMemoryFill:
		r.memoryIndex()
	case opTableSize:
		in.index = r.u32("table")
	case opDataDrop, opTableInit, opElemDrop, opTableCopy, opTableGrow, opTableFill:
		r.refuseWrite(in, miscNames[in.op])
	default:
		if in.op > opTruncSatU {
			r.refuseOpcode(in)
		}
	}
}

func (r *reader) refuseWrite(in *instruction, name string) {
	r.pos = in.start
	r.refuse(name, "what it changes would survive the call")
}

var miscNames = map[opcode]string{
	opDataDrop: "data.drop", opTableInit: "table.init", opElemDrop: "elem.drop",
	opTableCopy: "table.copy", opTableGrow: "table.grow", opTableFill: "table.fill",
}
