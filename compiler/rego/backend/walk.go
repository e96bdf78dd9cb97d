package backend

import "github.com/open-policy-agent/opa/v1/ir"

// walkBlocks visits all statements, also those inside of others.
func walkBlocks(blocks []*ir.Block, visit func(ir.Stmt)) {
	for _, b := range blocks {
		for _, s := range b.Stmts {
			visit(s)
			walkBlocks(inside(s), visit)
		}
	}
}

// inside returns the blocks of a statement.
func inside(s ir.Stmt) []*ir.Block {
	switch s := s.(type) {
	case *ir.BlockStmt:
		return s.Blocks
	case *ir.ScanStmt:
		return []*ir.Block{s.Block}
	case *ir.NotStmt:
		return []*ir.Block{s.Block}
	case *ir.WithStmt:
		return []*ir.Block{s.Block}
	}
	return nil
}

// assigned returns the locals that a statement itself gives a value.
func assigned(s ir.Stmt) []ir.Local {
	switch s := s.(type) {
	case *ir.ScanStmt:
		return []ir.Local{s.Key, s.Value}
	case *ir.WithStmt:
		return []ir.Local{s.Local}
	case *ir.CallStmt:
		return []ir.Local{s.Result}
	case *ir.CallDynamicStmt:
		return []ir.Local{s.Result}
	case *ir.AssignVarStmt:
		return []ir.Local{s.Target}
	case *ir.AssignVarOnceStmt:
		return []ir.Local{s.Target}
	case *ir.AssignIntStmt:
		return []ir.Local{s.Target}
	case *ir.ResetLocalStmt:
		return []ir.Local{s.Target}
	case *ir.DotStmt:
		return []ir.Local{s.Target}
	case *ir.LenStmt:
		return []ir.Local{s.Target}
	case *ir.ObjectMergeStmt:
		return []ir.Local{s.Target}
	}
	return made(s)
}

func made(s ir.Stmt) []ir.Local {
	switch s := s.(type) {
	case *ir.MakeNullStmt:
		return []ir.Local{s.Target}
	case *ir.MakeNumberIntStmt:
		return []ir.Local{s.Target}
	case *ir.MakeNumberRefStmt:
		return []ir.Local{s.Target}
	case *ir.MakeArrayStmt:
		return []ir.Local{s.Target}
	case *ir.MakeObjectStmt:
		return []ir.Local{s.Target}
	case *ir.MakeSetStmt:
		return []ir.Local{s.Target}
	}
	return nil
}

// contributes says whether a statement, or one inside of it, can give a rule its
// value: whatever touches the local of the result or of the function's return.
func contributes(s ir.Stmt, result, ret ir.Local) bool {
	found := false
	walkBlocks([]*ir.Block{{Stmts: []ir.Stmt{s}}}, func(s ir.Stmt) {
		for _, l := range append(assigned(s), changed(s)...) {
			found = found || l == result || l == ret
		}
	})
	return found
}

// changed returns the values under construction that a statement adds to or
// reads on the way to a part of them.
func changed(s ir.Stmt) []ir.Local {
	switch s := s.(type) {
	case *ir.SetAddStmt:
		return []ir.Local{s.Set}
	case *ir.ArrayAppendStmt:
		return []ir.Local{s.Array}
	case *ir.ObjectInsertStmt:
		return []ir.Local{s.Object}
	case *ir.ObjectInsertOnceStmt:
		return []ir.Local{s.Object}
	case *ir.DotStmt:
		if l, ok := s.Source.Value.(ir.Local); ok {
			return []ir.Local{l}
		}
	}
	return nil
}
