package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"
	"github.com/open-policy-agent/opa/v1/ir"
)

// stub is a policy that uses everything of OPA's library that a plan can ask
// for, built-ins aside: OPA's compiler leaves out of a module what its policy
// does not need. It is v0, where the deprecated built-ins may be called. Its
// names begin like no built-in's, which a rule of the package would hide.
const stub = `package stub

stub_main = x {
	y := data.stub.stub_pair with input.a.b as null
	x := [data.stub.stub_tree[input.key], data.stub.stub_set, data.stub.stub_object, y]
	not input.no
}

stub_tree.a = 1 { input.a }

stub_tree.b = 2.5 { input.b }

stub_set["x"] { input.a }

stub_object[k] = v { v := input[k] }

stub_pair = y { [_, y] := input.pair }

stub_pair = y { y := array.slice(input.pair, 0, 1) }

stub_pair = false { {"k": [null]} == input.pair; {1} == input.pair }
`

// library is OPA's Wasm library, cut out of a module that OPA's compiler wrote
// for a stub that calls the wanted built-ins.
type library struct {
	*module
	native map[string]uint32 // functions of the built-ins that run inside
}

func loadLibrary(ctx context.Context, builtins []*ir.BuiltinFunc) (*library, error) {
	text, called := stubText(builtins)
	raw, err := compileStub(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("OPA's Wasm library: %w", err)
	}
	m, err := readModule(raw)
	if err != nil {
		return nil, fmt.Errorf("OPA's Wasm library: %w", err)
	}
	lib := &library{module: m, native: map[string]uint32{}}
	for i, name := range called {
		if err := lib.find(fmt.Sprintf("g0.data.stub.stub_call_%d", i), name); err != nil {
			return nil, fmt.Errorf("OPA's Wasm library: built-in %s: %w", name, err)
		}
	}
	lib.cutStub()
	return lib, nil
}

// stubText adds a function for each built-in that could be in the library. One
// without arguments or result is always the host's.
func stubText(builtins []*ir.BuiltinFunc) (text string, called []string) {
	var b strings.Builder
	b.WriteString(stub)
	for _, f := range builtins {
		arity := f.Decl.Arity()
		if arity == 0 || f.Decl.Result() == nil {
			continue
		}
		args := make([]string, arity)
		for i := range args {
			args[i] = fmt.Sprintf("a%d", i)
		}
		list := strings.Join(args, ", ")
		fmt.Fprintf(&b, "\nstub_call_%d(%s) = r { r := %s(%s) }\n", len(called), list, f.Name, list)
		called = append(called, f.Name)
	}
	for i := range called {
		fmt.Fprintf(&b, "\nstub_calls.c%d = stub_call_%d(%s) { true }\n", i, i, strings.Join(slices.Repeat([]string{"input"}, arityOf(builtins, called[i])), ", "))
	}
	return b.String(), called
}

func arityOf(builtins []*ir.BuiltinFunc, name string) int {
	for _, f := range builtins {
		if f.Name == name {
			return f.Decl.Arity()
		}
	}
	return 0
}

func compileStub(ctx context.Context, text string) ([]byte, error) {
	capabilities := ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(ast.RegoV0))
	parsed, err := ast.ParseModuleWithOpts("stub.rego", text, ast.ParserOptions{RegoVersion: ast.RegoV0, Capabilities: capabilities})
	if err != nil {
		return nil, err
	}
	b := &bundle.Bundle{Modules: []bundle.ModuleFile{{URL: "stub.rego", Path: "stub.rego", Parsed: parsed, Raw: []byte(text)}}, Data: map[string]any{}}
	b.SetRegoVersion(ast.RegoV0)
	b.Manifest.Init()
	c := compile.New().WithTarget(compile.TargetWasm).WithRegoVersion(ast.RegoV0).WithCapabilities(capabilities).WithEntrypoints("stub").WithBundle(b)
	if err := c.Build(ctx); err != nil {
		return nil, err
	}
	if n := len(c.Bundle().WasmModules); n != 1 {
		return nil, fmt.Errorf("%d modules, not one", n)
	}
	return c.Bundle().WasmModules[0].Raw, nil
}

// find reads from the stub which function of the library a built-in is.
func (l *library) find(stub, builtin string) error {
	index, ok := l.names[stub]
	if !ok || int(index) < l.functionImport || int(index)-l.functionImport >= len(l.bodies) {
		return errShape
	}
	callee, err := firstCall(l.bodies[int(index)-l.functionImport])
	if err != nil {
		return err
	}
	if int(callee) >= l.functionImport {
		l.native[builtin] = callee
	}
	return nil
}

// cutStub empties the functions of the stub itself and forgets their mapping.
// Those that every policy has of its own keep their places: the library calls
// eval.
func (l *library) cutStub() {
	for name, index := range l.names {
		if strings.HasPrefix(name, "g0.data.stub.") || slices.Contains(own, name) {
			l.bodies[int(index)-l.functionImport] = []byte{0, opUnreachable, opEnd}
		}
	}
	l.data = l.data[:len(l.data)-1]
}

// own are the functions that every policy has of its own.
var own = []string{"eval", "builtins", "entrypoints", "_initialize"}
