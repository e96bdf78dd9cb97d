package wasm

// Units of fuel beyond those of Cost.
const (
	// FuelBytesShift is the number of bits that a length in bytes is shifted
	// right by to give the units of a bulk operation: one unit for 8 bytes.
	FuelBytesShift = 3
	// fuelPagesShift makes memory.grow cost 4,096 units for every page that the
	// memory has and gets, because growing copies.
	fuelPagesShift = 12
)

// Cost returns the units of fuel that an instruction costs, by its opcode's
// first byte, or 0xfc00 and the number behind the prefix:
//
//	structure, nop, drop, constants, local.get   0
//	call                                         4
//	call_indirect                                6
//	br_table                                     2
//	integer division and remainder               8
//	float division and square root               6
//	conversions between integers and floats      2
//	memory.fill, memory.copy, memory.init        8, and 1 for every 8 bytes
//	memory.grow                                100, and 4,096 for every page before and added
//	everything else                              1
//
// A loop costs at least 1 for every turn. Units are charged before the
// instructions that they pay for, once for a stretch of code that control
// cannot leave; a call that used more than it was given traps at the next loop
// turn, function entry or bulk operation, and at the latest at its return.
func Cost(op uint16) uint64 { return cost(opcode(op)) }

func cost(op opcode) uint64 {
	switch {
	case op >= opcode(opBlock) && op <= opLoop, op == opElse, op == opEnd, op == 0x01, op == 0x1a,
		op == opLocalGet, op >= opI32Const && op <= opF64Const:
		return 0
	case op == opCall:
		return 4
	case op == opCallIndirect:
		return 6
	case op == opBrTable:
		return 2
	case op >= 0x6d && op <= 0x70, op >= 0x7f && op <= 0x82:
		return 8
	case op == 0x91, op == 0x95, op == 0x9f, op == 0xa3:
		return 6
	case op >= 0xa8 && op <= 0xab, op >= 0xae && op <= 0xbb, op >= prefixMisc<<8 && op <= opTruncSatU:
		return 2
	case op >= opMemoryInit && op <= opMemoryFill:
		return 8
	case op == opMemoryGrow:
		return 100
	}
	return 1
}
