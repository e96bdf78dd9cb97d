package backend

import (
	"encoding/binary"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ir"
)

// caseTable says which function of the table a constant leads to. In memory it
// is the address of an OPA object, filled at the start, then the number of
// numbers, then those: address and slot each.
type caseTable struct {
	at        uint32
	constants []constant
	slots     []uint32
}

const (
	tableHeader = 8
	tableEntry  = 8
)

func (t *caseTable) add(c constant, slot uint32) {
	t.constants = append(t.constants, c)
	t.slots = append(t.slots, slot)
}

// placeTable makes room for a table and returns its address.
func (l *linker) placeTable(t caseTable) uint32 {
	content := make([]byte, tableHeader)
	numbers := uint32(0)
	for i, c := range t.constants {
		if c.kind == '#' {
			numbers++
			content = binary.LittleEndian.AppendUint32(content, 0)
			content = binary.LittleEndian.AppendUint32(content, t.slots[i])
		}
	}
	binary.LittleEndian.PutUint32(content[4:], numbers)
	t.at = l.place(4, content)
	l.tables = append(l.tables, t)
	return t.at
}

// fillTable writes the instructions that make a table's object and numbers. The
// object's values are slots, which only the finder reads.
func (l *linker) fillTable(e *emitter, t *caseTable) {
	object, number := e.local(), t.at+tableHeader
	e.i32(t.at)
	e.call(l.fn("opa_object"))
	e.tee(object)
	e.load(opI32Store, 2, 0)
	for i, c := range t.constants {
		if c.kind == '#' {
			e.i32(number)
			e.i32(l.raw[c.at])
			e.i32(uint32(len(l.policy.Static.Strings[c.at].Value)))
			e.call(l.fn("opa_number_ref"))
			e.load(opI32Store, 2, 0)
			number += tableEntry
		}
		if c.kind == '#' && !c.whole() {
			continue
		}
		e.get(object)
		l.key(e, c)
		e.i32(t.slots[i])
		e.call(l.fn("opa_object_insert"))
	}
}

// whole says whether the constant is a number that OPA holds as an integer.
func (c constant) whole() bool {
	_, err := strconv.ParseInt(c.text, 10, 64)
	return err == nil
}

func (l *linker) key(e *emitter, c constant) {
	switch c.kind {
	case 'n':
		e.call(l.fn("opa_null"))
	case 'b':
		e.i32(l.boolean(ir.Bool(c.text == "true")))
	case '#':
		n, _ := strconv.ParseInt(c.text, 10, 64)
		e.i64(n)
		e.call(l.fn("opa_number_int"))
	default:
		e.i32(l.strings[c.at])
	}
}

// caseFinder returns the function that takes a value and a table and returns a
// slot, or 0. Of numbers only integers are hashed: others are compared with each,
// because equal ones may be written in many ways.
func (l *linker) caseFinder() uint32 {
	if l.finder != 0 {
		return l.finder
	}
	l.finder = l.declare(2)
	e := l.newEmitter(nil, 2)
	scratch := l.place(8, make([]byte, 8))
	const value, table = 0, 1
	kind := e.local()
	e.get(value)
	e.invoke("opa_value_type")
	e.tee(kind)
	e.i32(typeNumber)
	e.op(opI32Eq)
	e.ifElse(func() {
		e.get(value)
		e.i32(scratch)
		e.invoke("opa_number_try_int")
		e.ifElse(func() { l.findNumber(e, value, table) }, func() {
			e.i32(scratch)
			e.load(opI64Load, 3, 0)
			e.invoke("opa_number_int")
			e.set(value)
		})
	}, func() {
		e.get(kind)
		e.i32(typeString)
		e.op(opI32GtU)
		e.ifElse(func() { e.i32(0); e.op(opReturn) }, nil)
	})
	e.get(table)
	e.load(opI32Load, 2, 0)
	e.get(value)
	e.invoke("opa_value_get")
	l.define(l.finder, e.finish())
	return l.finder
}

// findNumber compares with each number of the table and returns.
func (l *linker) findNumber(e *emitter, value, table uint32) {
	left := e.local()
	e.get(table)
	e.load(opI32Load, 2, 4)
	e.set(left)
	e.block(func(none uint32) {
		e.structured(opLoop, func(uint32) {
			e.get(left)
			e.op(opI32Eqz)
			e.brIfTo(none)
			e.get(value)
			e.get(table)
			e.load(opI32Load, 2, tableHeader)
			e.invoke("opa_value_compare")
			e.op(opI32Eqz)
			e.ifElse(func() {
				e.get(table)
				e.load(opI32Load, 2, tableHeader+4)
				e.op(opReturn)
			}, nil)
			e.get(table)
			e.i32(tableEntry)
			e.op(opI32Add)
			e.set(table)
			e.get(left)
			e.i32(1)
			e.op(opI32Sub)
			e.set(left)
			e.br(0)
		})
	})
	e.i32(0)
	e.op(opReturn)
}
