package wasm

import (
	"math/bits"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// What trackWrites adds, and the host reads to restore only what was written.
//
// The memory of a tracked module begins with a map of MapBytes that the guest
// cannot address: every address that it uses is moved up by as much. The map has
// a byte for every block of the guest's memory. A byte that is not zero says that
// the block, or the WriteSlack bytes behind it, may have been written.
const (
	// ExportWritten is a constant i32 global: the number of bits that a guest's
	// address is shifted right by to give its block.
	ExportWritten = abi.ReservedPrefix + "written"
	// MapBytes is the length of the map, and what is added to a guest's address
	// to give that in the memory.
	MapBytes = MapPages * pageBytes
	// MapPages is MapBytes in pages of 64 KiB.
	MapPages = 1
	// WriteSlack is how many bytes behind a marked block may have been written too.
	WriteSlack = 2 * markQuantum

	pageBytes = 64 << 10
	// markQuantum is what the offset of a store is rounded down to before its
	// block is marked, so that one mark covers its neighbours too.
	markQuantum = 64
	// finestBlock is the shift of the smallest blocks.
	finestBlock = 9
)

// trackWrites moves the guest's memory up, marks the blocks of all writes, and
// keeps the map itself out of the guest's reach. A mark follows its write: a
// write that was done lies in the memory, so that its mark lies in the map.
func (m *Module) trackWrites() error {
	memory := &m.memories[0]
	shift := blockShift(memory.max)
	for i := range m.functions {
		t := writeTracker{module: m, function: &m.functions[i], shift: shift}
		if err := t.rewrite(); err != nil {
			return err
		}
	}
	memory.min, memory.max = memory.min+MapPages, memory.max+MapPages
	m.sections[sectionMemory] = section{}
	m.add(sectionMemory, appendU32(appendU32([]byte{1}, memory.min), memory.max))
	m.add(sectionGlobal, []byte{byte(I32), 0, opI32Const, byte(shift), opEnd})
	m.addExport(ExportWritten, kindGlobal, uint32(len(m.globals)))
	m.globals = append(m.globals, global{valueType: I32})
	return m.moveData()
}

// blockShift returns the shift of the smallest blocks whose map, with a byte for
// the place behind the memory, holds a memory of that many pages.
func blockShift(pages uint32) uint32 {
	shift := bits.Len64(uint64(pages) * pageBytes / MapBytes)
	return uint32(max(shift, finestBlock))
}

// moveData moves the active data segments up.
func (m *Module) moveData() error {
	data := m.sections[sectionData].items
	r := &reader{data: data, end: len(data)}
	out, done := make([]byte, 0, len(data)+len(data)/8), 0
	for r.more() {
		if flags := r.u32("data segment"); flags != 1 {
			if flags == 2 {
				r.memoryIndex()
			}
			out = append(out, data[done:r.pos]...)
			if r.byte("data offset") != opI32Const {
				r.refuse("data offset", "not a constant")
			}
			out = appendS64(append(out, opI32Const), int64(int32(moved(uint32(r.signed("data offset", 32))))))
			done = r.pos
			if r.byte("data offset") != opEnd {
				r.refuse("data offset", "not a constant")
			}
		}
		r.bytes("data segment", r.u32("data segment size"))
	}
	if r.err == nil {
		m.sections[sectionData].items = append(out, data[done:]...)
	}
	return r.err
}

// moved returns an address or an offset of the guest in the memory. One that is
// too large for the memory stays so.
func moved(address uint32) uint32 {
	if address > ^uint32(0)-MapBytes {
		return ^uint32(0)
	}
	return address + MapBytes
}

// writeTracker rewrites one function.
type writeTracker struct {
	module   *Module
	function *function
	shift    uint32
	scratch  [4][4]uint32 // locals by type, as index + 1, from I32 down to F64
	known    marks
	out      []byte
}

// local returns the nth scratch local of a type, adding it to the function.
func (t *writeTracker) local(of ValueType, n int) uint32 {
	known := &t.scratch[I32-of][n]
	if *known == 0 {
		f := t.function
		f.localDecls = append(f.localDecls[:len(f.localDecls):len(f.localDecls)], 1, byte(of))
		f.groups++
		f.locals++
		*known = uint32(f.locals)
	}
	return *known - 1
}

func (t *writeTracker) rewrite() error {
	body := t.function.body
	r := &reader{data: body, end: len(body)}
	var in instruction
	done := 0
	for r.more() && r.next(&in) {
		if touchesMemory(in.op) {
			t.out = append(t.out, body[done:in.start]...)
			done = in.end
			t.access(&in)
		} else if in.op>>8 >= 0xfd {
			r.refuseOpcode(&in, "its writes are not noted") // it may write what nobody would restore
		}
		t.known.follow(t.module, &in)
	}
	if done > 0 {
		t.function.body = append(t.out, body[done:]...)
	}
	return r.err
}

func touchesMemory(op opcode) bool {
	return op >= opI32Load && op <= opMemoryGrow || op == opMemoryInit || op == opMemoryCopy || op == opMemoryFill
}

// access writes an instruction that touches the memory, moved and marked.
func (t *writeTracker) access(in *instruction) {
	switch {
	case in.op < opI32Store:
		t.memory(in.op, moved(in.index))
	case in.op <= opI64Store32:
		t.store(in)
	case in.op == opMemorySize:
		t.out = append(t.out, opMemorySize, 0, opI32Const, MapPages, opI32Sub)
	case in.op == opMemoryGrow:
		t.grow()
	default:
		t.bulk(in)
	}
}

// memory writes a load or a store.
func (t *writeTracker) memory(op opcode, offset uint32) {
	const alignment = 0 // a hint only
	t.out = appendU32(append(t.out, byte(op), alignment), offset)
}

// store writes a store and its mark, unless an earlier mark covers it.
func (t *writeTracker) store(in *instruction) {
	base, named := t.known.address()
	if named && t.known.covers(base, in.index, storedBytes(in.op)) {
		t.memory(in.op, moved(in.index))
		return
	}
	if !named {
		value := t.local(storedType(in.op), 1)
		base = t.local(I32, 0)
		t.op(opLocalSet, value)
		t.op(opLocalTee, base)
		t.op(opLocalGet, value)
	}
	t.memory(in.op, moved(in.index))
	quantum := in.index &^ (markQuantum - 1)
	t.op(opLocalGet, base)
	if quantum > 0 {
		t.out = append(appendS64(append(t.out, opI32Const), int64(int32(quantum))), opI32Add)
	}
	t.markTop()
	if named {
		t.known.add(base, quantum)
	}
}

// markTop marks the block of the address on top of the stack.
func (t *writeTracker) markTop() {
	t.toBlock()
	t.out = append(t.out, opI32Const, 1, opI32Store8, 0, 0)
}

func (t *writeTracker) toBlock() {
	t.out = append(t.out, opI32Const, byte(t.shift), opI32ShrU)
}

// grow answers in the guest's pages, or -1.
func (t *writeTracker) grow() {
	pages := t.local(I32, 0)
	t.out = append(t.out, opMemoryGrow, 0)
	t.op(opLocalTee, pages)
	t.out = append(t.out, opI32Const, MapPages, opI32Sub)
	t.op(opLocalGet, pages)
	t.out = append(t.out, opI32Const, 31, opI32ShrS, opI32Or)
}

// bulk writes a bulk write, whose destination, source or value, and length lie
// on the stack, and marks its first and its last block and those between them.
func (t *writeTracker) bulk(in *instruction) {
	to, from, length := t.local(I32, 0), t.local(I32, 1), t.local(I32, 2)
	t.op(opLocalSet, length)
	t.op(opLocalSet, from)
	t.op(opLocalSet, to)
	t.move(to)
	if in.op == opMemoryCopy {
		t.move(from)
	} else {
		t.op(opLocalGet, from)
	}
	t.op(opLocalGet, length)
	t.bulkOp(in)
	t.op(opLocalGet, to)
	t.markTop()
	t.op(opLocalGet, to)
	t.op(opLocalGet, length)
	t.out = append(t.out, opI32Add)
	t.markTop()
	t.op(opLocalGet, length)
	t.toBlock()
	t.out = append(t.out, opIf, blockEmpty)
	t.op(opLocalGet, to)
	t.toBlock()
	t.out = append(t.out, opI32Const, 1)
	t.op(opLocalGet, length)
	t.toBlock()
	t.out = append(t.out, opI32Const, 1, opI32Add, prefixMisc, opMemoryFill&0xff, 0, opEnd)
}

func (t *writeTracker) bulkOp(in *instruction) {
	t.out = append(t.out, prefixMisc, byte(in.op))
	switch in.op {
	case opMemoryInit:
		t.out = append(appendU32(t.out, in.index), 0)
	case opMemoryCopy:
		t.out = append(t.out, 0, 0)
	default:
		t.out = append(t.out, 0)
	}
}

// move puts the moved address of a local on the stack, -1 when it is too large.
func (t *writeTracker) move(address uint32) {
	sum := t.local(I32, 3)
	t.op(opLocalGet, address)
	t.out = append(appendS64(append(t.out, opI32Const), MapBytes), opI32Add)
	t.op(opLocalTee, sum)
	t.out = append(t.out, opI32Const, 0x7f) // -1
	t.op(opLocalGet, sum)
	t.op(opLocalGet, address)
	t.out = append(t.out, opI32GtU, opSelect)
}

func (t *writeTracker) op(op byte, index uint32) {
	t.out = appendU32(append(t.out, op), index)
}

// storedType returns the type of the value that a store takes.
func storedType(op opcode) ValueType {
	switch op {
	case opI32Store, opI32Store8, 0x3b:
		return I32
	case 0x38:
		return F32
	case 0x39:
		return F64
	}
	return I64
}

// storedBytes returns how many bytes a store writes.
func storedBytes(op opcode) uint32 {
	switch op {
	case opI32Store8, 0x3c:
		return 1
	case 0x3b, 0x3d:
		return 2
	case opI32Store, 0x38, opI64Store32:
		return 4
	}
	return 8
}
