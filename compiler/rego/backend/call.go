package backend

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ir"
)

// dispatchers are the imports for built-ins of 0 to 4 arguments.
var dispatchers = [...]string{"opa_builtin0", "opa_builtin1", "opa_builtin2", "opa_builtin3", "opa_builtin4"}

func (e *emitter) callStmt(s *ir.CallStmt) {
	index, ok := e.functions[s.Func]
	if !ok {
		index, ok = e.native[s.Func]
	}
	if !ok {
		e.callHost(s)
		return
	}
	for _, a := range s.Args {
		e.read(a)
	}
	e.call(index)
	e.tee(e.of(s.Result))
	e.brIfZero(0)
}

func (e *emitter) callHost(s *ir.CallStmt) {
	number, ok := e.externals[s.Func]
	if !ok || len(s.Args) >= len(dispatchers) {
		e.errs = append(e.errs, fmt.Errorf("call of %s with %d arguments", s.Func, len(s.Args)))
		return
	}
	e.i32(number)
	e.i32(0)
	for _, a := range s.Args {
		e.read(a)
	}
	e.invoke(dispatchers[len(s.Args)])
	if e.policy.Static.BuiltinFuncs[number].Decl.Result() == nil {
		e.op(opDrop)
		return
	}
	e.tee(e.of(s.Result))
	e.brIfZero(0)
}

// callDynamic calls the function of a path that is known at run time. When there
// is one, its result counts even if undefined: the third block around is left.
func (e *emitter) callDynamic(s *ir.CallDynamicStmt) {
	path, slot := e.local(), e.local()
	e.i32(uint32(len(s.Path)))
	e.invoke("opa_array_with_cap")
	e.set(path)
	for _, part := range s.Path {
		e.get(path)
		e.read(part)
		e.invoke("opa_array_append")
	}
	e.get(path)
	e.invoke("opa_mapping_lookup")
	e.tee(slot)
	e.brIfZero(0)
	for _, a := range s.Args {
		e.get(e.of(a))
	}
	e.get(slot)
	e.callIndirect(len(s.Args))
	e.tee(e.of(s.Result))
	e.brIfZero(3)
}

// callIndirect calls the function of the slot on the stack, with n parameters.
func (e *emitter) callIndirect(n int) {
	e.index(opCallIndirect, e.functionType(n))
	e.op(0)
}
