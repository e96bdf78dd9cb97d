package backend

import "github.com/open-policy-agent/opa/v1/ir"

// withStmt runs a block with another value in place of a document or a part of it.
func (e *emitter) withStmt(s *ir.WithStmt) {
	local, saved, undefined := e.of(s.Local), e.local(), e.local()
	e.invoke("opa_memoize_push")
	e.get(local)
	e.set(saved)
	if len(s.Path) == 0 {
		e.read(s.Value)
		e.set(local)
	} else {
		e.upsert(local, s.Path, s.Value)
	}
	e.i32(1)
	e.set(undefined)
	e.with++
	e.block(func(uint32) {
		e.stmts(s.Block)
		e.i32(0)
		e.set(undefined)
	})
	e.with--
	e.get(saved)
	e.set(local)
	e.invoke("opa_memoize_pop")
	e.get(undefined)
	e.brIf(0)
}

// upsert puts a value at a path of a copy of the document. What lies on the path
// is copied too, and made where it is missing or no object. OPA's own back end
// writes into a document that is no object as if it were one.
func (e *emitter) upsert(local uint32, path []int, value ir.Operand) {
	at, next := e.local(), e.local()
	e.block(func(made uint32) {
		e.block(func(uint32) {
			e.get(local)
			e.tee(next)
			e.brIfZero(0)
			e.copyObject(next, made)
		})
		e.invoke("opa_object")
		e.set(next)
	})
	e.get(next)
	e.tee(at)
	e.set(local)
	for _, part := range path[:len(path)-1] {
		e.descend(at, next, e.strings[part])
	}
	e.get(at)
	e.i32(e.strings[path[len(path)-1]])
	e.read(value)
	e.invoke("opa_object_insert")
}

func (e *emitter) descend(at, next, key uint32) {
	e.block(func(made uint32) {
		e.block(func(uint32) {
			e.get(at)
			e.i32(key)
			e.invoke("opa_value_get")
			e.tee(next)
			e.brIfZero(0)
			e.copyObject(next, made)
		})
		e.invoke("opa_object")
		e.set(next)
	})
	e.get(at)
	e.i32(key)
	e.get(next)
	e.invoke("opa_object_insert")
	e.get(next)
	e.set(at)
}

// copyObject replaces an object by a copy and goes on behind; anything else
// leaves the block.
func (e *emitter) copyObject(value, done uint32) {
	e.get(value)
	e.invoke("opa_value_type")
	e.i32(typeObject)
	e.op(opI32Ne)
	e.brIf(0)
	e.get(value)
	e.invoke("opa_value_shallow_copy")
	e.set(value)
	e.brTo(done)
}
