package backend

import "encoding/binary"

// Opcodes that the back end writes or, in OPA's module, reads.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opSelect       = 0x1b
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opI32Load      = 0x28
	opI64Load      = 0x29
	opI32Load8U    = 0x2d
	opI32Store     = 0x36
	opI32Const     = 0x41
	opI64Const     = 0x42
	opI32Eqz       = 0x45
	opI32Eq        = 0x46
	opI32Ne        = 0x47
	opI32GeU       = 0x4f
	opI32GtU       = 0x4b
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI32Shl       = 0x74

	typeI32   = 0x7f
	typeEmpty = 0x40
)

func appendS64(to []byte, v int64) []byte {
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if (v == 0 && b&0x40 == 0) || (v == -1 && b&0x40 != 0) {
			return append(to, b)
		}
		to = append(to, b|0x80)
	}
}

func appendU32(to []byte, v uint32) []byte { return binary.AppendUvarint(to, uint64(v)) }

func appendBytes(to, b []byte) []byte { return append(appendU32(to, uint32(len(b))), b...) }

// assembler writes the instructions of one body and knows how many labels are
// open at the place where it writes.
type assembler struct {
	code  []byte
	depth uint32
}

func (a *assembler) op(ops ...byte) { a.code = append(a.code, ops...) }

func (a *assembler) index(op byte, i uint32) { a.code = appendU32(append(a.code, op), i) }

func (a *assembler) get(local uint32) { a.index(opLocalGet, local) }
func (a *assembler) set(local uint32) { a.index(opLocalSet, local) }
func (a *assembler) tee(local uint32) { a.index(opLocalTee, local) }
func (a *assembler) call(f uint32)    { a.index(opCall, f) }
func (a *assembler) br(label uint32)  { a.index(opBr, label) }

func (a *assembler) brIf(label uint32) { a.index(opBrIf, label) }

// brTo jumps out to the label that was opened at a depth.
func (a *assembler) brTo(depth uint32) { a.br(a.depth - depth) }

func (a *assembler) brIfTo(depth uint32) { a.brIf(a.depth - depth) }

// brIfZero leaves the innermost block when the value on the stack is 0, which is
// undefined.
func (a *assembler) brIfZero(label uint32) {
	a.op(opI32Eqz)
	a.brIf(label)
}

func (a *assembler) i32(v uint32) { a.code = appendS64(append(a.code, opI32Const), int64(int32(v))) }
func (a *assembler) i64(v int64)  { a.code = appendS64(append(a.code, opI64Const), v) }

// load reads a word of memory at the address on the stack and an offset.
func (a *assembler) load(op byte, align, offset uint32) {
	a.code = appendU32(appendU32(append(a.code, op), align), offset)
}

// structured writes a block, loop or if; body gets the depth that leads out of it.
func (a *assembler) structured(op byte, body func(depth uint32)) {
	a.op(op, typeEmpty)
	a.depth++
	body(a.depth)
	a.depth--
	a.op(opEnd)
}

func (a *assembler) block(body func(depth uint32)) { a.structured(opBlock, body) }

// ifElse runs one of two; other may be nil.
func (a *assembler) ifElse(then, other func()) {
	a.structured(opIf, func(uint32) {
		then()
		if other != nil {
			a.op(opElse)
			other()
		}
	})
}

// body returns the function's body with its locals, all of which are i32.
func (a *assembler) body(locals uint32) []byte {
	head := []byte{0}
	if locals > 0 {
		head = append(appendU32([]byte{1}, locals), typeI32)
	}
	return append(append(head, a.code...), opEnd)
}
