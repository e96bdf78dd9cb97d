package backend

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/ir"
)

// The locals of a function of a document.
const (
	testReturn ir.Local = iota + 2
	testResult
	first
	second
)

func local(l ir.Local) ir.Operand { return ir.Operand{Value: l} }

func name(i ir.StringIndex) ir.Operand { return ir.Operand{Value: i} }

func member(of ir.Local, key ir.StringIndex, into ir.Local) ir.Stmt {
	return &ir.DotStmt{Source: local(of), Key: name(key), Target: into}
}

func equal(l ir.Local, s ir.StringIndex) ir.Stmt { return &ir.EqualStmt{A: local(l), B: name(s)} }

func succeed() ir.Stmt {
	return &ir.AssignVarOnceStmt{Target: testResult, Source: ir.Operand{Value: ir.Bool(true)}}
}

func nest(stmts ...ir.Stmt) ir.Stmt {
	return &ir.BlockStmt{Blocks: []*ir.Block{{Stmts: stmts}}}
}

func copied(from, to ir.Local) ir.Stmt {
	return &ir.AssignVarStmt{Source: local(from), Target: to}
}

// in wants input.a in a set that has the first string, behind two more statements.
func in(made ir.Local, one, other ir.Stmt, asked ir.Local) []ir.Stmt {
	return []ir.Stmt{
		&ir.MakeSetStmt{Target: made}, &ir.SetAddStmt{Set: made, Value: name(0)}, one, other, member(ir.Input, 0, first),
		&ir.CallStmt{Func: "internal.member_2", Args: []ir.Operand{local(first), local(asked)}, Result: 9},
		&ir.NotEqualStmt{A: local(9), B: ir.Operand{Value: ir.Bool(false)}}, succeed(),
	}
}

// TestGuards has plans that OPA's planner may write one day: a guard that is not
// needed on every way to the value must not be taken for one.
func TestGuards(t *testing.T) {
	plan := &ir.Policy{Static: &ir.Static{Strings: []*ir.StringConst{{Value: "a"}, {Value: "b"}}}}
	s := &shape{params: []ir.Local{ir.Input, ir.Data}, ret: testReturn, result: testResult}
	for _, tc := range []struct {
		name  string
		want  int
		stmts []ir.Stmt
	}{
		{"one", 1, []ir.Stmt{member(ir.Input, 0, first), equal(first, 0), succeed()}},
		{"value before the test", 0, []ir.Stmt{nest(succeed()), member(ir.Input, 0, first), equal(first, 0), succeed()}},
		{"behind the value", 0, []ir.Stmt{succeed(), member(ir.Input, 0, first), equal(first, 0)}},
		{"in a block", 0, []ir.Stmt{member(ir.Input, 0, first), nest(equal(first, 0)), succeed()}},
		{"two writers", 0, []ir.Stmt{member(ir.Input, 0, first), member(ir.Input, 1, first), equal(first, 0), succeed()}},
		{"a block's own read", 1, []ir.Stmt{nest(member(ir.Data, 0, first)), equal(first, 0), succeed()}},
		{"last loop", 1, []ir.Stmt{&ir.ScanStmt{Source: ir.Input, Key: 8, Value: 9, Block: &ir.Block{Stmts: []ir.Stmt{member(ir.Input, 0, first), equal(first, 0), succeed()}}}}},
		{"loop before", 0, []ir.Stmt{&ir.ScanStmt{Source: ir.Input, Key: 8, Value: 9, Block: &ir.Block{Stmts: []ir.Stmt{member(ir.Input, 0, first), equal(first, 0)}}}, succeed()}},
		{"member of a member", 0, []ir.Stmt{&ir.ScanStmt{Source: ir.Input, Key: 8, Value: 9, Block: &ir.Block{Stmts: []ir.Stmt{member(9, 0, first), equal(first, 0), succeed()}}}}},
		{"with", 0, []ir.Stmt{&ir.WithStmt{Local: ir.Input, Value: name(0), Block: &ir.Block{Stmts: []ir.Stmt{member(ir.Input, 0, first), equal(first, 0), succeed()}}}}},
		{"set copied", 1, in(second, &ir.NopStmt{}, copied(second, 10), 10)},
		{"copy of a set that gets a variable", 0, in(second, copied(second, 10), &ir.SetAddStmt{Set: second, Value: local(8)}, 10)},
		{"copy of a set that gets a constant", 0, in(second, copied(second, 10), &ir.SetAddStmt{Set: second, Value: name(1)}, 10)},
		{"set with a variable", 0, []ir.Stmt{&ir.MakeSetStmt{Target: second}, &ir.SetAddStmt{Set: second, Value: name(0)}, &ir.SetAddStmt{Set: second, Value: local(8)}, member(ir.Input, 0, first), &ir.CallStmt{Func: "internal.member_2", Args: []ir.Operand{local(first), local(second)}, Result: 9}, &ir.NotEqualStmt{A: local(9), B: ir.Operand{Value: ir.Bool(false)}}, succeed()}},
	} {
		body := &ir.Block{Stmts: append([]ir.Stmt{&ir.ResetLocalStmt{Target: testResult}}, tc.stmts...)}
		if got := guardsOf(plan, s, body); len(got) != tc.want {
			t.Errorf("%s: %d guards, want %d", tc.name, len(got), tc.want)
		}
	}
}
