package backend

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ir"
)

// emitter writes the body of one function.
type emitter struct {
	assembler
	*linker
	locals  map[ir.Local]uint32
	next    uint32
	params  uint32
	results uint32 // the result set, in eval

	// exit is where a rule that has its value goes on; nil when its other
	// definitions or iterations may not be left out.
	exit *exit
	// with counts the with blocks that are open here: they may not be jumped out of.
	with int
	// loops counts the scans that are open here.
	loops  int
	steady map[ir.Local]bool // parameters that hold one value throughout
	cached map[step]uint32   // what was read from those
}

// exit is a place behind a rule's body.
type exit struct {
	result ir.Local
	depth  uint32
}

// step is a member of a value that never changes.
type step struct {
	from ir.Local
	key  ir.StringIndex
}

// maxCached bounds the locals that keep members.
const maxCached = 64

func (l *linker) newEmitter(params []ir.Local, n uint32) *emitter {
	e := &emitter{linker: l, locals: map[ir.Local]uint32{}, params: n, next: n, cached: map[step]uint32{}}
	for i, p := range params {
		e.locals[p] = uint32(i)
	}
	return e
}

// local makes a local of the emitter's own.
func (e *emitter) local() uint32 {
	e.next++
	return e.next - 1
}

// of returns the local of the plan's.
func (e *emitter) of(l ir.Local) uint32 {
	index, ok := e.locals[l]
	if !ok {
		index = e.local()
		e.locals[l] = index
	}
	return index
}

func (e *emitter) finish() []byte { return e.body(e.next - e.params) }

func (e *emitter) read(o ir.Operand) {
	switch v := o.Value.(type) {
	case ir.Local:
		e.get(e.of(v))
	case ir.Bool:
		e.i32(e.boolean(v))
	case ir.StringIndex:
		e.i32(e.strings[v])
	default:
		e.errs = append(e.errs, fmt.Errorf("operand %v", o))
	}
}

func (e *emitter) invoke(name string) { e.call(e.fn(name)) }

// blocks writes blocks one after the other; a statement that is undefined ends its own.
func (e *emitter) blocks(blocks []*ir.Block) {
	for _, b := range blocks {
		e.block(func(uint32) { e.stmts(b) })
	}
}

func (e *emitter) stmts(b *ir.Block) {
	for _, s := range b.Stmts {
		e.stmt(s)
	}
}

func (e *emitter) stmt(s ir.Stmt) {
	switch s := s.(type) {
	case *ir.BlockStmt:
		e.blocks(s.Blocks)
	case *ir.BreakStmt:
		e.br(s.Index)
	case *ir.ReturnLocalStmt:
		e.get(e.of(s.Source))
		e.op(opReturn)
	case *ir.ScanStmt:
		e.scan(s)
	case *ir.NotStmt:
		e.not(s)
	case *ir.WithStmt:
		e.withStmt(s)
	case *ir.CallStmt:
		e.callStmt(s)
	case *ir.CallDynamicStmt:
		e.callDynamic(s)
	case *ir.NopStmt:
	default:
		e.assignment(s)
	}
}

func (e *emitter) assignment(s ir.Stmt) {
	switch s := s.(type) {
	case *ir.AssignVarStmt:
		e.read(s.Source)
		e.set(e.of(s.Target))
	case *ir.AssignVarOnceStmt:
		e.assignOnce(s)
	case *ir.AssignIntStmt:
		e.get(e.of(s.Target))
		e.i64(s.Value)
		e.invoke("opa_value_number_set_int")
	case *ir.ResetLocalStmt:
		e.i32(0)
		e.set(e.of(s.Target))
	case *ir.DotStmt:
		e.dot(s)
	case *ir.LenStmt:
		e.read(s.Source)
		e.invoke("opa_value_length")
		e.invoke("opa_number_size")
		e.set(e.of(s.Target))
	default:
		e.check(s)
	}
}

// check writes the statements that hold or leave the block.
func (e *emitter) check(s ir.Stmt) {
	switch s := s.(type) {
	case *ir.EqualStmt:
		e.compare(s.A, s.B)
		e.brIf(0)
	case *ir.NotEqualStmt:
		e.compare(s.A, s.B)
		e.brIfZero(0)
	case *ir.IsArrayStmt:
		e.isType(s.Source, typeArray)
	case *ir.IsObjectStmt:
		e.isType(s.Source, typeObject)
	case *ir.IsSetStmt:
		e.isType(s.Source, typeSet)
	case *ir.IsDefinedStmt:
		e.get(e.of(s.Source))
		e.brIfZero(0)
	case *ir.IsUndefinedStmt:
		e.get(e.of(s.Source))
		e.brIf(0)
	default:
		e.make(s)
	}
}

func (e *emitter) compare(a, b ir.Operand) {
	e.read(a)
	e.read(b)
	e.invoke("opa_value_compare")
}

func (e *emitter) isType(source ir.Operand, want uint32) {
	local, ok := source.Value.(ir.Local)
	if !ok {
		e.br(0)
		return
	}
	e.get(e.of(local))
	e.invoke("opa_value_type")
	e.i32(want)
	e.op(opI32Ne)
	e.brIf(0)
}

// make writes the statements that make values.
func (e *emitter) make(s ir.Stmt) {
	switch s := s.(type) {
	case *ir.MakeNullStmt:
		e.made("opa_null", s.Target)
	case *ir.MakeNumberIntStmt:
		e.i64(s.Value)
		e.made("opa_number_int", s.Target)
	case *ir.MakeNumberRefStmt:
		e.i32(e.raw[s.Index])
		e.i32(uint32(len(e.policy.Static.Strings[s.Index].Value)))
		e.made("opa_number_ref", s.Target)
	case *ir.MakeArrayStmt:
		e.i32(uint32(s.Capacity))
		e.made("opa_array_with_cap", s.Target)
	case *ir.MakeObjectStmt:
		e.made("opa_object", s.Target)
	case *ir.MakeSetStmt:
		e.made("opa_set", s.Target)
	default:
		e.change(s)
	}
}

func (e *emitter) made(function string, target ir.Local) {
	e.invoke(function)
	e.set(e.of(target))
}

// change writes the statements that change a value under construction.
func (e *emitter) change(s ir.Stmt) {
	switch s := s.(type) {
	case *ir.ArrayAppendStmt:
		e.get(e.of(s.Array))
		e.read(s.Value)
		e.invoke("opa_array_append")
	case *ir.ObjectInsertStmt:
		e.insert(s.Object, s.Key, s.Value)
	case *ir.ObjectInsertOnceStmt:
		e.insertOnce(s)
	case *ir.ObjectMergeStmt:
		e.get(e.of(s.A))
		e.get(e.of(s.B))
		e.made("opa_value_merge", s.Target)
	case *ir.SetAddStmt:
		e.get(e.of(s.Set))
		e.read(s.Value)
		e.invoke("opa_set_add")
	case *ir.ResultSetAddStmt:
		e.get(e.results)
		e.get(e.of(s.Value))
		e.invoke("opa_set_add")
	default:
		e.errs = append(e.errs, fmt.Errorf("statement %T of OPA's plan is unknown", s))
	}
}

func (e *emitter) insert(object ir.Local, key, value ir.Operand) {
	e.get(e.of(object))
	e.read(key)
	e.read(value)
	e.invoke("opa_object_insert")
}

// conflict ends the evaluation with OPA's error and the place of the rule.
func (e *emitter) conflict(at *ir.Location, text string) {
	file := uint32(0)
	if at.File >= 0 && at.File < len(e.files) {
		file = e.files[at.File]
	}
	e.i32(file)
	e.i32(uint32(at.Row))
	e.i32(uint32(at.Col))
	e.i32(e.text(text))
	e.invoke("opa_runtime_error")
	e.op(opUnreachable)
}

// assignOnce assigns, and ends the evaluation when there is another value. Where
// the rule has one value only, it goes on behind the body instead.
func (e *emitter) assignOnce(s *ir.AssignVarOnceStmt) {
	target := e.of(s.Target)
	if e.exit != nil && e.exit.result == s.Target && e.with == 0 {
		e.read(s.Source)
		e.set(target)
		e.brTo(e.exit.depth)
		return
	}
	e.block(func(uint32) {
		e.block(func(uint32) {
			e.get(target)
			e.brIfZero(0)
			e.get(target)
			e.read(s.Source)
			e.invoke("opa_value_compare")
			e.brIfZero(1)
			e.conflict(&s.Location, errAssignConflict)
		})
		e.read(s.Source)
		e.set(target)
	})
}

func (e *emitter) insertOnce(s *ir.ObjectInsertOnceStmt) {
	have := e.local()
	e.block(func(uint32) {
		e.block(func(uint32) {
			e.get(e.of(s.Object))
			e.read(s.Key)
			e.invoke("opa_value_get")
			e.tee(have)
			e.brIfZero(0)
			e.get(have)
			e.read(s.Value)
			e.invoke("opa_value_compare")
			e.brIfZero(1)
			e.conflict(&s.Location, errInsertConflict)
		})
		e.insert(s.Object, s.Key, s.Value)
	})
}

// dot reads a member. In a loop, a member of a value that never changes is read
// once.
func (e *emitter) dot(s *ir.DotStmt) {
	source, ok := s.Source.Value.(ir.Local)
	if !ok {
		e.br(0) // nothing has members but a local
		return
	}
	kept, keep := e.keeps(source, s.Key)
	if keep {
		e.get(kept)
		e.op(opI32Eqz)
		e.ifElse(func() {
			e.member(source, s.Key)
			e.set(kept)
		}, nil)
		e.get(kept)
	} else {
		e.member(source, s.Key)
	}
	e.tee(e.of(s.Target))
	e.brIfZero(0)
}

func (e *emitter) member(source ir.Local, key ir.Operand) {
	e.get(e.of(source))
	e.read(key)
	e.invoke("opa_value_get")
}

func (e *emitter) keeps(source ir.Local, key ir.Operand) (uint32, bool) {
	name, ok := key.Value.(ir.StringIndex)
	if !ok || e.loops == 0 || !e.steady[source] {
		return 0, false
	}
	at, ok := e.cached[step{source, name}]
	if !ok && len(e.cached) < maxCached {
		at, ok = e.local(), true
		e.cached[step{source, name}] = at
	}
	return at, ok
}

// not goes on when its block is undefined.
func (e *emitter) not(s *ir.NotStmt) {
	undefined := e.local()
	e.i32(1)
	e.set(undefined)
	e.block(func(uint32) {
		e.stmts(s.Block)
		e.i32(0)
		e.set(undefined)
	})
	e.get(undefined)
	e.brIfZero(0)
}
