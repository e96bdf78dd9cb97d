package regocases

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/test/cases"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// bigFuel is enough for every case. One needs more than a policy may have.
const bigFuel = 5 * abi.MaxFuel

// question is how a case is asked of a module: an entry point, and what its
// answer means.
type question struct {
	entrypoint string
	variable   string // that the answer is bound to; "" when the answer is the set of bindings
	module     string // added to the case's own; "" for none
}

// ask finds the entry point for a case's query. "data.a.b = x" is what OPA's
// compiler itself makes of the entry point a/b; any other query becomes the body
// of a set of its bindings in a package of its own.
func ask(c cases.TestCase, v0 bool) (question, error) {
	body, err := ast.ParseBody(c.Query)
	if err != nil {
		return question{}, err
	}
	if path, variable, ok := plain(body); ok && termInput(c) == "" && declares(c, path, v0) {
		return question{entrypoint: path, variable: variable}, nil
	}
	return question{entrypoint: "holdfast_case/answers", module: wrap(c, body, v0)}, nil
}

// plain takes "data.a.b = x" apart.
func plain(body ast.Body) (path, variable string, ok bool) {
	if len(body) != 1 || !body[0].IsEquality() || len(body[0].With) > 0 {
		return "", "", false
	}
	ref, isRef := body[0].Operand(0).Value.(ast.Ref)
	v, isVar := body[0].Operand(1).Value.(ast.Var)
	if !isRef || !isVar || !ref.IsGround() || !ref.HasPrefix(ast.DefaultRootRef) {
		return "", "", false
	}
	pointer, err := ref.Ptr()
	if err != nil {
		return "", "", false
	}
	if pointer == "" || pointer == "data" {
		return "/", string(v), true
	}
	return strings.TrimPrefix(pointer, "data/"), string(v), true
}

// declares says whether rules of the case make the document; OPA's compiler has
// no entry points into data or into a rule's value.
func declares(c cases.TestCase, path string, v0 bool) bool {
	ref, err := ast.PtrRef(ast.DefaultRootDocument, path)
	if err != nil {
		return false
	}
	modules := map[string]*ast.Module{}
	for i, source := range c.Modules {
		m, err := ast.ParseModuleWithOpts("", source, ast.ParserOptions{RegoVersion: version(v0)})
		if err != nil || m == nil {
			return false
		}
		modules[fmt.Sprint(i)] = m
	}
	compiler := ast.NewCompiler()
	compiler.Compile(modules)
	return len(compiler.GetRulesExact(ref)) > 0 || len(compiler.GetRulesWithPrefix(ref)) > 0
}

// wrap makes the query the body of a rule, with the input where JSON cannot say it.
func wrap(c cases.TestCase, body ast.Body, v0 bool) string {
	query := c.Query
	if term := termInput(c); term != "" {
		for _, e := range body {
			e.With = append(e.With, &ast.With{Target: ast.InputRootDocument, Value: ast.MustParseTerm(term)})
		}
		query = body.String()
	}
	pairs := make([]string, 0, 2)
	for _, v := range variables(body) {
		pairs = append(pairs, fmt.Sprintf("%q: %s", v, v))
	}
	head := "answers contains {%s} if {\n%s\n}\n"
	if v0 {
		head = "answers[{%s}] {\n%s\n}\n"
	}
	return "package holdfast_case\n\n" + fmt.Sprintf(head, strings.Join(pairs, ", "), query)
}

// variables are those of the query that a binding names.
func variables(body ast.Body) []string {
	visitor := ast.NewVarVisitor().WithParams(ast.VarVisitorParams{SkipRefHead: true, SkipRefCallHead: true, SkipClosures: true})
	visitor.Walk(body)
	var names []string
	for v := range visitor.Vars() {
		if !v.IsWildcard() && !v.IsGenerated() {
			names = append(names, string(v))
		}
	}
	slices.Sort(names)
	return names
}

// termInput is the case's input when it is no JSON.
func termInput(c cases.TestCase) string {
	if c.InputTerm == nil || json.Valid([]byte(*c.InputTerm)) {
		return ""
	}
	return *c.InputTerm
}

func version(v0 bool) ast.RegoVersion {
	if v0 {
		return ast.RegoV0
	}
	return ast.RegoV1
}

// folder is the case as an author would keep it.
func folder(c cases.TestCase, q question) (fstest.MapFS, error) {
	fsys := fstest.MapFS{}
	for i, source := range c.Modules {
		fsys[fmt.Sprintf("module-%d.rego", i)] = &fstest.MapFile{Data: []byte(source)}
	}
	if q.module != "" {
		fsys["question.rego"] = &fstest.MapFile{Data: []byte(q.module)}
	}
	if c.Data == nil {
		return fsys, nil
	}
	raw, err := json.Marshal(*c.Data)
	if err != nil {
		return nil, err
	}
	fsys["data.json"] = &fstest.MapFile{Data: raw}
	return fsys, nil
}

func input(c cases.TestCase) ([]byte, error) {
	switch {
	case c.InputTerm != nil && termInput(c) == "":
		return []byte(*c.InputTerm), nil
	case c.InputTerm == nil && c.Input != nil:
		return json.Marshal(*c.Input)
	}
	return nil, nil
}

// evaluate compiles the case and asks it, and returns the set of bindings.
func evaluate(ctx context.Context, e *engine.Engine, c cases.TestCase, opts rego.Options) ([]map[string]any, error) {
	q, err := ask(c, opts.V0)
	if err != nil {
		return nil, err
	}
	fsys, err := folder(c, q)
	if err != nil {
		return nil, err
	}
	opts.Entrypoints = []string{q.entrypoint}
	compiled, err := rego.Compile(ctx, fsys, opts)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	m, err := e.Load(ctx, engine.Spec{Name: c.Note, Wasm: compiled.Wasm, ABI: abi.OPA1, Class: wasm.Policy, Init: compiled.Data, Pool: 1})
	if err != nil {
		return nil, err
	}
	defer m.Close(ctx)
	raw, err := input(c)
	if err != nil {
		return nil, err
	}
	result, err := m.Call(abi.Call{Input: raw, Entrypoint: m.Entrypoints()[q.entrypoint], Fuel: bigFuel, Now: now})
	if err != nil {
		return nil, err
	}
	return q.bindings(result.Output)
}

// now is the clock of every case, 2026-01-01.
const now = 1_767_225_600_000_000_000

// bindings reads the module's answer, [{"result": ...}] or [].
func (q question) bindings(output []byte) ([]map[string]any, error) {
	var answers []struct {
		Result json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(output, &answers); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	found := []map[string]any{}
	for _, a := range answers {
		decoder := json.NewDecoder(bytes.NewReader(a.Result))
		decoder.UseNumber()
		if q.variable == "" {
			return found, decoder.Decode(&found)
		}
		var value any
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		found = append(found, map[string]any{q.variable: value})
	}
	return found, nil
}

// judge compares with what the case wants, as OPA's own runner of its Wasm does;
// that one has no strict errors: where only they would show one, the answer is
// undefined.
func judge(c cases.TestCase, found []map[string]any, err error) error {
	switch {
	case c.WantResult != nil:
		if err != nil {
			return err
		}
		return same(*c.WantResult, found, c.SortBindings)
	case c.WantDefined != nil:
		if err == nil && *c.WantDefined != (len(found) > 0) {
			return fmt.Errorf("defined is %v", len(found) > 0)
		}
		return err
	case c.StrictError:
		if refused(err) {
			return nil // an error was wanted, and comes before the evaluation
		}
		if err != nil {
			return err
		}
		return same(nil, found, false)
	case c.WantErrorCode != nil && *c.WantErrorCode == "eval_conflict_error":
		trap, ok := errors.AsType[*abi.Trap](err)
		if ok && trap.Code == abi.TrapAbort && (strings.Contains(trap.Detail, "var assignment conflict") || strings.Contains(trap.Detail, "object insert conflict")) {
			return nil
		}
		return fmt.Errorf("want a conflict, got %v, %v", found, err)
	}
	return errors.New("the case wants nothing that this test knows")
}

// refused says whether the compiler refused a built-in.
func refused(err error) bool {
	problems, ok := errors.AsType[rego.Errors](err)
	return ok && !slices.ContainsFunc(problems, func(e rego.Error) bool { return e.Code != "holdfast_builtin_refused" })
}

func same(want, got []map[string]any, sorted bool) error {
	a, err := bindingSet(want, false)
	if err != nil {
		return err
	}
	b, err := bindingSet(got, sorted)
	if err == nil && a.Compare(b) != 0 {
		err = fmt.Errorf("want %.400v, got %.400v", a, b)
	}
	return err
}

func bindingSet(list []map[string]any, sorted bool) (ast.Set, error) {
	set := ast.NewSet()
	for _, bindings := range list {
		object := ast.NewObject()
		for k, v := range bindings {
			value, err := ast.InterfaceToValue(v)
			if err != nil {
				return nil, fmt.Errorf("%.100v: %w", v, err)
			}
			if array, ok := value.(*ast.Array); ok && sorted {
				value = array.Sorted()
			}
			object.Insert(ast.StringTerm(k), ast.NewTerm(value))
		}
		set.Add(ast.NewTerm(object))
	}
	return set, nil
}
