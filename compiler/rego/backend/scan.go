package backend

import "github.com/open-policy-agent/opa/v1/ir"

// Offsets in OPA's array and in its elements, which are pairs of index and value.
const (
	arrayElements = 4
	arrayLength   = 8
	elementShift  = 3
	elementIndex  = 0
	elementValue  = 4
)

// scan runs a block for each member. An array is read by position; the library's
// iterator finds its place anew for each member.
func (e *emitter) scan(s *ir.ScanStmt) {
	source, key, value := e.of(s.Source), e.of(s.Key), e.of(s.Value)
	position, array := e.local(), e.local()
	e.i32(0)
	e.set(key)
	e.i32(0)
	e.set(position)
	e.isArray(source, array)
	e.loops++
	e.block(func(done uint32) {
		e.structured(opLoop, func(uint32) {
			e.get(array)
			e.ifElse(func() { e.nextElement(source, key, value, position, done) }, func() { e.nextMember(source, key, value, done) })
			e.stmts(s.Block)
			e.br(0)
		})
	})
	e.loops--
}

func (e *emitter) isArray(source, array uint32) {
	e.i32(0)
	e.set(array)
	e.get(source)
	e.ifElse(func() {
		e.get(source)
		e.load(opI32Load8U, 0, 0)
		e.i32(typeArray)
		e.op(opI32Eq)
		e.set(array)
	}, nil)
}

func (e *emitter) nextElement(source, key, value, position uint32, done uint32) {
	e.get(position)
	e.get(source)
	e.load(opI32Load, 2, arrayLength)
	e.op(opI32GeU)
	e.brIfTo(done)
	e.get(source)
	e.load(opI32Load, 2, arrayElements)
	e.get(position)
	e.i32(elementShift)
	e.op(opI32Shl, opI32Add)
	e.tee(value)
	e.load(opI32Load, 2, elementIndex)
	e.set(key)
	e.get(value)
	e.load(opI32Load, 2, elementValue)
	e.set(value)
	e.get(position)
	e.i32(1)
	e.op(opI32Add)
	e.set(position)
}

func (e *emitter) nextMember(source, key, value uint32, done uint32) {
	e.get(source)
	e.get(key)
	e.invoke("opa_value_iter")
	e.tee(key)
	e.op(opI32Eqz)
	e.brIfTo(done)
	e.get(source)
	e.get(key)
	e.invoke("opa_value_get")
	e.set(value)
}
