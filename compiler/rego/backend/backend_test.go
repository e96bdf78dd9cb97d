package backend

import (
	"bytes"
	"testing"

	"github.com/open-policy-agent/opa/v1/ir"
)

// TestOwnFunctions wants the functions that every policy has of its own in their
// old places, where the library calls them.
func TestOwnFunctions(t *testing.T) {
	plan := &ir.Policy{Static: &ir.Static{}, Plans: &ir.Plans{}, Funcs: &ir.Funcs{}}
	lib, err := loadLibrary(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := newLinker(lib, plan)
	if _, err := l.link(); err != nil {
		t.Fatal(err)
	}
	for _, name := range own {
		index, ok := l.names[name]
		if !ok || bytes.Equal(l.bodies[int(index)-l.functionImport], []byte{0, opUnreachable, opEnd}) {
			t.Errorf("%s is empty", name)
		}
	}
}

// TestUnknownStatement wants an error, not a module, for a plan of another OPA.
func TestUnknownStatement(t *testing.T) {
	type stmt struct{ ir.NopStmt }
	plan := &ir.Policy{Static: &ir.Static{}, Funcs: &ir.Funcs{}, Plans: &ir.Plans{Plans: []*ir.Plan{{Name: "p", Blocks: []*ir.Block{{Stmts: []ir.Stmt{&stmt{}}}}}}}}
	if _, _, err := Compile(t.Context(), plan); err == nil {
		t.Error("an unknown statement is compiled")
	}
}

func TestNotOPAs(t *testing.T) {
	for _, raw := range [][]byte{nil, []byte("x"), append(bytes.Clone(magic), 1, 9), append(bytes.Clone(magic), 7, 1, 0xff)} {
		if m, err := readModule(raw); err == nil && len(m.bodies) > 0 {
			t.Errorf("%x is read", raw)
		}
	}
}
