package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// What trackWrites adds, and the host reads to restore only what was written.
const (
	// ExportWritten is a mutable i64 global. Bit n is set when one of the blocks
	// n, n+64, n+128 ... of the memory may have been written.
	ExportWritten = abi.ReservedPrefix + "written"
	// BlockBytes is the size of such a block.
	BlockBytes = 1 << blockShift
	// TrackedBytes is the longest bulk write that does not set all bits.
	TrackedBytes = 60 * BlockBytes

	blockShift = 12
)

// trackWrites notes the block of every write. A write sets the bits of its block
// and the next, because it may reach into that; one longer than TrackedBytes
// sets all.
func (m *Module) trackWrites() error {
	written := m.addGlobal(ExportWritten, I64)
	for i := range m.functions {
		f := &m.functions[i]
		t := writeTracker{written: written, function: f}
		if err := t.rewrite(); err != nil {
			return err
		}
	}
	return nil
}

type writeTracker struct {
	written  uint32
	function *function
	scratch  [4][3]uint32 // locals by type, as index + 1, from I32 down to F64
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
		bulk := in.op == opMemoryInit || in.op == opMemoryCopy || in.op == opMemoryFill
		if !bulk && (in.op < opI32Store || in.op > opI64Store32) {
			continue
		}
		t.out = append(t.out, body[done:in.start]...)
		done = in.start
		if bulk {
			t.noteBulk()
		} else {
			t.noteStore(in.op, in.index)
		}
	}
	if done > 0 {
		t.function.body = append(t.out, body[done:]...)
	}
	return r.err
}

// noteStore stands before a store, where address and value lie on the stack.
func (t *writeTracker) noteStore(op opcode, offset uint32) {
	address, value := t.local(I32, 0), t.local(storedType(op), 1)
	t.op(opLocalSet, value)
	t.op(opLocalTee, address)
	t.op(opGlobalGet, t.written)
	t.out = append(t.out, opI64Const, 3)
	t.rotate(address, offset)
	t.out = append(t.out, opI64Or)
	t.op(opGlobalSet, t.written)
	t.op(opLocalGet, value)
}

// noteBulk stands before a bulk write, where destination, source or value, and
// length lie on the stack. It sets as many bits as the length has whole blocks,
// and two.
func (t *writeTracker) noteBulk() {
	address, source, length := t.local(I32, 0), t.local(I32, 1), t.local(I32, 2)
	t.op(opLocalSet, length)
	t.op(opLocalSet, source)
	t.op(opLocalTee, address)
	t.op(opGlobalGet, t.written)
	t.out = append(t.out, opI64Const, 0x7f) // -1
	t.out = append(t.out, opI64Const, 1)
	t.op(opLocalGet, length)
	t.out = append(t.out, opI64ExtendU, opI64Const, blockShift, opI64ShrU, opI64Const, 2, opI64Add, opI64Shl)
	t.out = append(t.out, opI64Const, 1, opI64Sub)
	t.rotate(address, 0)
	t.op(opLocalGet, length)
	t.out = append(appendS64(append(t.out, opI32Const), TrackedBytes), opI32GtU, opSelect, opI64Or)
	t.op(opGlobalSet, t.written)
	t.op(opLocalGet, source)
	t.op(opLocalGet, length)
}

// rotate turns the bits on the stack to the block at address + offset. An offset
// that is small beside a block only reaches into the next one, whose bit is set.
func (t *writeTracker) rotate(address, offset uint32) {
	t.op(opLocalGet, address)
	t.out = append(t.out, opI64ExtendU)
	if offset > BlockBytes-16 {
		t.out = append(appendS64(append(t.out, opI64Const), int64(offset)), opI64Add)
	}
	t.out = append(t.out, opI64Const, blockShift, opI64ShrU, opI64Rotl)
}

func (t *writeTracker) op(op byte, index uint32) {
	t.out = appendU32(append(t.out, op), index)
}

// storedType returns the type of the value that a store takes.
func storedType(op opcode) ValueType {
	switch op {
	case opI32Store, 0x3a, 0x3b:
		return I32
	case 0x38:
		return F32
	case 0x39:
		return F64
	}
	return I64
}
