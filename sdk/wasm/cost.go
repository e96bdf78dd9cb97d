package wasm

// Units of fuel beyond those of Cost.
const (
	// FuelBytesShift is the number of bits that a length in bytes is shifted
	// right by to give the units of a bulk operation: one unit for 8 bytes.
	FuelBytesShift = 3
	// fuelPagesShift makes memory.grow cost 4,096 units for every page that the
	// memory has and gets, because growing copies.
	fuelPagesShift = 12
	// fuelValuesShift makes it one unit for 8 values that are passed at once.
	fuelValuesShift = 3

	// nearLoad and farLoad are what a load costs while the memory has at most
	// nearPages, which a core's own cache holds, and when it has more.
	nearLoad  = 2
	farLoad   = 12
	nearPages = 16
)

// Cost returns the units of fuel that an instruction costs, by its opcode's
// first byte, or 0xfc00 and the number behind the prefix:
//
//	structure, nop, drop, constants, local.get   0
//	load                                         2, or 12 while the memory exceeds 1 MiB
//	store                                        2
//	call                                         4
//	call_indirect                                10
//	br_table, table.get                          2
//	ref.func                                     24
//	integer division and remainder               8
//	float division and square root               6
//	conversions between integers and floats      2
//	memory.fill, memory.copy, memory.init        8, and 1 for every 8 bytes
//	memory.grow                                  100, and 4,096 for every page before and added
//	everything else                              1
//
// Every turn of a loop and every entry of a function costs 1 more, and 8 values
// cost 1: parameters and results of a call or a block, values that a branch
// carries, locals of a function that is entered.
//
// Units are charged before the instructions that they pay for, once for a
// stretch of code that control cannot leave. The fuel left is checked at every
// loop turn, function entry and bulk operation, and wherever else a path would
// charge more than 1,000 units unchecked: no call spends more beyond its fuel.
func Cost(op uint16) uint64 { return cost(opcode(op)) }

func cost(op opcode) uint64 {
	switch {
	case op >= opcode(opBlock) && op <= opLoop, op == opElse, op == opEnd, op == 0x01, op == opDrop,
		op == opLocalGet, op >= opI32Const && op <= opF64Const:
		return 0
	case op >= opI32Load && op < opI32Store:
		return nearLoad
	case op >= opI32Store && op <= opI64Store32:
		return 2
	case op == opCall:
		return 4
	case op == opCallIndirect:
		return 10
	case op == opBrTable, op == opTableGet:
		return 2
	case op == opRefFunc:
		return 24
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
