package wasm

import "slices"

// marks knows, at one place of a function, which blocks were marked on every way
// to it, named by the local that holds the address, and which values on the stack
// are a local's.
type marks struct {
	stack []operand
	set   []mark
}

// operand is a value on the stack: the local that has it, as index + 1, or 0.
type operand uint32

// mark says that the block of local + quantum was marked.
type mark struct{ local, quantum uint32 }

// address returns the local that holds the address of a store that comes next.
func (k *marks) address() (local uint32, ok bool) {
	if len(k.stack) < 2 {
		return 0, false
	}
	base := k.stack[len(k.stack)-2]
	return uint32(base) - 1, base != 0
}

// covers tells whether a mark that was set covers length bytes at local + offset.
func (k *marks) covers(local, offset, length uint32) bool {
	return slices.ContainsFunc(k.set, func(m mark) bool {
		return m.local == local && m.quantum <= offset && uint64(offset)+uint64(length) <= uint64(m.quantum)+WriteSlack
	})
}

func (k *marks) add(local, quantum uint32) { k.set = append(k.set, mark{local, quantum}) }

// assign forgets what was known of a local's old value.
func (k *marks) assign(local uint32) {
	k.set = slices.DeleteFunc(k.set, func(m mark) bool { return m.local == local })
	for i := range k.stack {
		if k.stack[i] == operand(local+1) {
			k.stack[i] = 0
		}
	}
}

func (k *marks) forget() { k.stack, k.set = k.stack[:0], k.set[:0] }

// change takes values from the stack and puts others on it that no local has.
func (k *marks) change(pops, pushes int) {
	k.stack = k.stack[:max(len(k.stack)-pops, 0)]
	for range pushes {
		k.stack = append(k.stack, 0)
	}
}

// follow goes on behind an instruction. What is known ends where ways meet, at a
// loop, an else and an end, and behind what never goes on.
func (k *marks) follow(m *Module, in *instruction) {
	switch in.op {
	case opLocalGet:
		k.stack = append(k.stack, operand(in.index+1))
	case opLocalSet:
		k.change(1, 0)
		k.assign(in.index)
	case opLocalTee:
		k.change(1, 0)
		k.assign(in.index)
		k.stack = append(k.stack, operand(in.index+1))
	case opBlock, opIf:
		k.stack = k.stack[:0]
	case opLoop, opElse, opEnd, opBr, opBrTable, opReturn, opUnreachable:
		k.forget()
	case opCall:
		callee, _ := m.functionType(in.index)
		k.call(callee, 0)
	case opCallIndirect:
		k.callIndirect(m, in.index)
	default:
		k.change(stackEffect(in.op))
	}
}

func (k *marks) callIndirect(m *Module, index uint32) {
	if int64(index) >= int64(len(m.types)) {
		k.forget()
		return
	}
	k.call(m.types[index], 1)
}

func (k *marks) call(callee FuncType, more int) {
	if callee == "" {
		k.forget()
		return
	}
	k.change(callee.params()+more, len(callee.results()))
}

// stackEffect returns how many values an instruction without control takes from
// the stack and puts on it.
func stackEffect(op opcode) (pops, pushes int) {
	switch {
	case op == 0x01:
		return 0, 0
	case op == 0x1a, op == opLocalSet, op == opGlobalSet, op == opBrIf:
		return 1, 0
	case op == opSelect, op == opSelectTyped:
		return 3, 1
	case op >= opI32Store && op <= opI64Store32:
		return 2, 0
	case op == opMemoryInit, op == opMemoryCopy, op == opMemoryFill:
		return 3, 0
	case op == opGlobalGet, op == opMemorySize, op >= opI32Const && op <= opF64Const, op == opRefNull, op == opRefFunc, op == opTableSize:
		return 0, 1
	case binary(op):
		return 2, 1
	}
	return 1, 1
}

// binary tells whether a numeric instruction takes two values.
func binary(op opcode) bool {
	for _, r := range [...][2]opcode{{0x46, 0x4f}, {0x51, 0x66}, {0x6a, 0x78}, {0x7c, 0x8a}, {0x92, 0x98}, {0xa0, 0xa6}} {
		if op >= r[0] && op <= r[1] {
			return true
		}
	}
	return false
}
