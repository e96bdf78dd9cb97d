package backend

import (
	"encoding/binary"
	"math/big"
	"regexp"
	"strings"

	"github.com/open-policy-agent/opa/v1/ir"
)

// path is a member of a parameter, by constant names: what an index may look at.
type path struct {
	root ir.Local
	keys string // numbers of strings, four bytes each
}

func (p path) step(key ir.StringIndex) path {
	return path{p.root, string(binary.BigEndian.AppendUint32([]byte(p.keys), uint32(key)))}
}

// names returns the numbers of the path's strings.
func (p path) names() []uint32 {
	var out []uint32
	for rest := []byte(p.keys); len(rest) > 0; rest = rest[4:] {
		out = append(out, binary.BigEndian.Uint32(rest))
	}
	return out
}

// constant is a scalar that the plan names. Equal ones are equal in Rego.
type constant struct {
	kind byte   // n null, b boolean, # number, s string
	text string // of a number its canonical fraction
	at   int    // number of the plan's string
}

// symbol is what is known of a local: a path, or constants. A collection holds
// its constants, else the local is one of them.
type symbol struct {
	path       *path
	constants  []constant
	collection bool
	test       *guard // a call's result that is true when the guard holds
}

// guard is a test that a rule's body cannot hold without: the value at the path
// is one of the constants.
type guard struct {
	path path
	any  []constant
}

// guardReader collects the guards of one body.
type guardReader struct {
	plan    *ir.Policy
	shape   *shape
	writers map[ir.Local]int
	symbols map[ir.Local]symbol
	copies  map[ir.Local][]ir.Local // of collections
	guards  map[path][]constant
}

// guardsOf returns the tests that a body begins with or comes to on every way to
// its value, by what they look at.
func guardsOf(plan *ir.Policy, s *shape, body *ir.Block) map[path][]constant {
	g := &guardReader{plan: plan, shape: s, writers: map[ir.Local]int{}, symbols: map[ir.Local]symbol{}, copies: map[ir.Local][]ir.Local{}, guards: map[path][]constant{}}
	walkBlocks([]*ir.Block{body}, func(st ir.Stmt) {
		for _, l := range assigned(st) {
			g.writers[l]++
		}
	})
	for _, p := range s.params {
		g.symbols[p] = symbol{path: &path{root: p}}
	}
	g.spine(body.Stmts[1:])
	return g.guards
}

// spine follows the statements that every way to the value takes. It ends where
// a statement could give the value itself.
func (g *guardReader) spine(stmts []ir.Stmt) {
	for i, st := range stmts {
		scan, ok := st.(*ir.ScanStmt)
		if ok && i == len(stmts)-1 {
			g.scanned(scan)
			g.spine(scan.Block.Stmts)
			return
		}
		if contributes(st, g.shape.result, g.shape.ret) {
			return
		}
		g.know(st)
		g.test(st)
	}
}

// scanned knows the members of a constant collection.
func (g *guardReader) scanned(s *ir.ScanStmt) {
	if source := g.symbols[s.Source]; source.collection {
		g.learn(s.Value, symbol{constants: source.constants})
	}
}

// learn keeps what a local is, if nothing else can assign it.
func (g *guardReader) learn(l ir.Local, s symbol) {
	if g.writers[l] == 1 && (s.path != nil || s.test != nil || s.collection || len(s.constants) > 0) {
		g.symbols[l] = s
	}
}

// know learns what a statement assigns, also in a block that may be left early:
// the local then has that value or none.
func (g *guardReader) know(st ir.Stmt) {
	switch st := st.(type) {
	case *ir.BlockStmt:
		for _, b := range st.Blocks {
			for _, inner := range b.Stmts {
				g.know(inner)
			}
		}
	case *ir.DotStmt:
		source, key := g.symbol(st.Source), st.Key.Value
		if name, ok := key.(ir.StringIndex); ok && source.path != nil {
			next := source.path.step(name)
			g.learn(st.Target, symbol{path: &next})
		}
	case *ir.AssignVarStmt:
		g.learn(st.Target, g.symbol(st.Source))
		if from, ok := st.Source.Value.(ir.Local); ok {
			g.copies[from] = append(g.copies[from], st.Target)
		}
	case *ir.MakeNullStmt:
		g.learn(st.Target, symbol{constants: []constant{{kind: 'n'}}})
	case *ir.MakeNumberRefStmt:
		if c, ok := g.number(st.Index); ok {
			g.learn(st.Target, symbol{constants: []constant{c}})
		}
	case *ir.MakeSetStmt:
		g.learn(st.Target, symbol{collection: true})
	case *ir.MakeArrayStmt:
		g.learn(st.Target, symbol{collection: true})
	case *ir.SetAddStmt:
		g.collect(st.Set, st.Value)
	case *ir.ArrayAppendStmt:
		g.collect(st.Array, st.Value)
	case *ir.CallStmt:
		g.called(st)
	default:
		g.forget(inside(st))
	}
}

// forget drops what a loop or a negation adds to.
func (g *guardReader) forget(blocks []*ir.Block) {
	walkBlocks(blocks, func(st ir.Stmt) {
		for _, l := range changed(st) {
			if g.symbols[l].collection {
				g.drop(l)
			}
		}
	})
}

func (g *guardReader) drop(l ir.Local) {
	delete(g.symbols, l)
	for _, copied := range g.copies[l] {
		delete(g.symbols, copied)
	}
}

// collect adds to a collection, and forgets one that is not all constant.
func (g *guardReader) collect(into ir.Local, value ir.Operand) {
	have, v := g.symbols[into], g.symbol(value)
	if len(g.copies[into]) > 0 || !have.collection || v.collection || len(v.constants) != 1 {
		g.drop(into)
		return
	}
	have.constants = append(have.constants[:len(have.constants):len(have.constants)], v.constants[0])
	g.symbols[into] = have
}

// called knows the built-ins that test for membership and equality.
func (g *guardReader) called(st *ir.CallStmt) {
	if len(st.Args) != 2 || st.Func != "internal.member_2" && st.Func != "equal" {
		return
	}
	a, b := g.symbol(st.Args[0]), g.symbol(st.Args[1])
	if st.Func == "equal" && a.path == nil {
		a, b = b, a
	}
	if a.path != nil && len(b.constants) > 0 && b.collection == (st.Func == "internal.member_2") {
		g.learn(st.Result, symbol{test: &guard{*a.path, b.constants}})
	}
}

// test collects the guard that a statement is.
func (g *guardReader) test(st ir.Stmt) {
	switch st := st.(type) {
	case *ir.EqualStmt:
		a, b := g.symbol(st.A), g.symbol(st.B)
		if a.path == nil {
			a, b = b, a
		}
		if a.path != nil && len(b.constants) > 0 && !b.collection {
			g.add(guard{*a.path, b.constants})
		}
	case *ir.NotEqualStmt:
		if t := g.symbol(st.A).test; t != nil && st.B.Value == ir.Val(ir.Bool(false)) {
			g.add(*t)
		}
	}
}

// add keeps the narrower of two guards that look at the same.
func (g *guardReader) add(found guard) {
	if have, ok := g.guards[found.path]; !ok || len(found.any) < len(have) {
		g.guards[found.path] = found.any
	}
}

func (g *guardReader) symbol(o ir.Operand) symbol {
	switch v := o.Value.(type) {
	case ir.Local:
		return g.symbols[v]
	case ir.StringIndex:
		return symbol{constants: []constant{{kind: 's', text: g.plan.Static.Strings[v].Value, at: int(v)}}}
	case ir.Bool:
		if v {
			return symbol{constants: []constant{{kind: 'b', text: "true"}}}
		}
		return symbol{constants: []constant{{kind: 'b', text: "false"}}}
	}
	return symbol{}
}

// plainNumber is a number short enough to be compared as a fraction here.
var plainNumber = regexp.MustCompile(`^-?[0-9]{1,30}(\.[0-9]{1,30})?$`)

// number returns the constant of a literal; 1 and 1.0 are the same.
func (g *guardReader) number(at int) (constant, bool) {
	text := g.plan.Static.Strings[at].Value
	r, ok := new(big.Rat).SetString(text)
	if !plainNumber.MatchString(text) || !ok {
		return constant{}, false
	}
	return constant{kind: '#', text: r.RatString(), at: at}, true
}

// describe writes a path as a policy does.
func (p path) describe(plan *ir.Policy, params []ir.Local) string {
	var b strings.Builder
	switch p.root {
	case ir.Input:
		b.WriteString("input")
	case ir.Data:
		b.WriteString("data")
	default:
		b.WriteString("argument ")
		for i, l := range params {
			if l == p.root {
				b.WriteByte(byte('1' + (i-2)%9))
			}
		}
	}
	for _, key := range p.names() {
		b.WriteString("." + plan.Static.Strings[key].Value)
	}
	return b.String()
}
