package backend

import "github.com/open-policy-agent/opa/v1/ir"

// shape is a planned function taken apart into its rules. A function that has
// another shape than OPA's planner gives today is compiled as it is.
type shape struct {
	params  []ir.Local
	ret     ir.Local
	result  ir.Local // of one rule, before it becomes the function's
	prepare []*ir.Block
	rules   []rule
	rest    []*ir.Block // the default, if any
}

// rule is one definition: its body, and the bodies behind else.
type rule struct {
	bodies []*ir.Block
	end    *ir.Block // makes the result the function's; nil for sets and objects
	chain  bool      // planned as a block of blocks
}

// shapeOf takes a function apart.
func shapeOf(f *ir.Func) (*shape, bool) {
	n := len(f.Blocks)
	if n == 0 || !returns(f.Blocks[n-1], f.Return) {
		return nil, false
	}
	s := &shape{params: f.Params, ret: f.Return}
	blocks := f.Blocks[:n-1]
	if len(blocks) > 0 && makes(blocks[0], f.Return) {
		s.prepare, blocks = blocks[:1], blocks[1:]
	}
	if len(blocks) > 0 && isDefault(blocks[len(blocks)-1], f.Return) {
		s.rest, blocks = blocks[len(blocks)-1:], blocks[:len(blocks)-1]
	}
	var ok bool
	if s.result, ok = resultOf(blocks); !ok {
		return nil, false
	}
	for len(blocks) > 0 {
		r, used := s.rule(blocks)
		if used == 0 {
			return nil, false
		}
		s.rules = append(s.rules, r)
		blocks = blocks[used:]
	}
	return s, s.separate()
}

func returns(b *ir.Block, ret ir.Local) bool {
	if len(b.Stmts) != 1 {
		return false
	}
	s, ok := b.Stmts[0].(*ir.ReturnLocalStmt)
	return ok && s.Source == ret
}

func makes(b *ir.Block, ret ir.Local) bool {
	if len(b.Stmts) != 1 {
		return false
	}
	m := made(b.Stmts[0])
	return len(m) == 1 && m[0] == ret
}

func isDefault(b *ir.Block, ret ir.Local) bool {
	if len(b.Stmts) == 0 {
		return false
	}
	s, ok := b.Stmts[0].(*ir.IsUndefinedStmt)
	return ok && s.Source == ret
}

// resultOf finds the local that the first rule begins with forgetting.
func resultOf(blocks []*ir.Block) (ir.Local, bool) {
	if len(blocks) == 0 {
		return 0, false
	}
	first := blocks[0]
	if chain := chainOf(first); len(chain) > 0 {
		first = chain[0]
	}
	return resets(first)
}

func resets(b *ir.Block) (ir.Local, bool) {
	if len(b.Stmts) == 0 {
		return 0, false
	}
	s, ok := b.Stmts[0].(*ir.ResetLocalStmt)
	if !ok {
		return 0, false
	}
	return s.Target, true
}

func chainOf(b *ir.Block) []*ir.Block {
	if len(b.Stmts) != 1 {
		return nil
	}
	if s, ok := b.Stmts[0].(*ir.BlockStmt); ok {
		return s.Blocks
	}
	return nil
}

// rule takes the first rule off the blocks and returns how many it has; 0 when
// they do not begin with one.
func (s *shape) rule(blocks []*ir.Block) (rule, int) {
	if chain := chainOf(blocks[0]); len(chain) > 0 {
		return s.chain(chain)
	}
	if target, ok := resets(blocks[0]); !ok || target != s.result {
		return rule{}, 0
	}
	r := rule{bodies: blocks[:1]}
	if len(blocks) > 1 && s.ends(blocks[1]) {
		r.end = blocks[1]
		return r, 2
	}
	return r, 1
}

func (s *shape) chain(blocks []*ir.Block) (rule, int) {
	r := rule{bodies: blocks, chain: true}
	if last := blocks[len(blocks)-1]; s.ends(last) {
		r.bodies, r.end = blocks[:len(blocks)-1], last
	}
	for i, b := range r.bodies {
		target, first := resets(b)
		if i == 0 && (!first || target != s.result) || i > 0 && !isDefault(b, s.result) {
			return rule{}, 0
		}
	}
	return r, 1
}

// ends recognises the block that makes a rule's result the function's.
func (s *shape) ends(b *ir.Block) bool {
	if len(b.Stmts) != 2 {
		return false
	}
	defined, ok := b.Stmts[0].(*ir.IsDefinedStmt)
	if !ok || defined.Source != s.result {
		return false
	}
	assign, ok := b.Stmts[1].(*ir.AssignVarOnceStmt)
	return ok && assign.Target == s.ret && assign.Source.Value == ir.Val(s.result)
}

// separate says whether every rule can be a function of its own: none returns
// from the function or jumps further than its own end.
func (s *shape) separate() bool {
	for _, r := range s.rules {
		for _, b := range r.bodies {
			if escapes(b, 0) {
				return false
			}
		}
	}
	return true
}

// escapes says whether a block, around which depth others are open, jumps out
// of those.
func escapes(b *ir.Block, depth uint32) bool {
	for _, st := range b.Stmts {
		switch st := st.(type) {
		case *ir.ReturnLocalStmt:
			return true
		case *ir.BreakStmt:
			if st.Index > depth {
				return true
			}
		case *ir.CallDynamicStmt:
			if depth < 3 {
				return true
			}
		}
		inner := depth + 1
		if _, loop := st.(*ir.ScanStmt); loop {
			inner++
		}
		for _, b := range inside(st) {
			if escapes(b, inner) {
				return true
			}
		}
	}
	return false
}

// constant returns the value that all rules give, when it is one and the same
// constant for all: then the first rule that holds decides.
func (s *shape) constant() bool {
	var value ir.Val
	for _, r := range s.rules {
		if r.end == nil {
			return false
		}
		same := true
		walkBlocks(r.bodies, func(st ir.Stmt) {
			assign, ok := st.(*ir.AssignVarOnceStmt)
			if !ok || assign.Target != s.result {
				return
			}
			if value == nil {
				value = assign.Source.Value
			}
			same = same && assign.Source.Value == value
		})
		if !same {
			return false
		}
	}
	_, local := value.(ir.Local)
	return value != nil && !local
}

// steady returns the parameters that no with statement replaces.
func (s *shape) steady() map[ir.Local]bool {
	out := map[ir.Local]bool{}
	for _, p := range s.params {
		out[p] = true
	}
	for _, r := range s.rules {
		walkBlocks(r.bodies, func(st ir.Stmt) {
			for _, l := range assigned(st) {
				delete(out, l)
			}
		})
	}
	return out
}
