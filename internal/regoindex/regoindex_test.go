package regoindex

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// trio is one policy three times: with the index, as OPA compiles it, and in
// OPA's Go evaluator.
type trio struct {
	on, off  *engine.Module
	topdown  opa.PreparedEvalQuery
	document string // the entry point
}

func load(ctx context.Context, e *engine.Engine, policy, data, entrypoint string, v0 bool) (*trio, error) {
	t := &trio{document: entrypoint}
	fsys := fstest.MapFS{"p.rego": {Data: []byte(policy)}, "q.rego": {Data: []byte(other(v0))}, "data.json": {Data: []byte(data)}}
	for _, m := range []struct {
		into    **engine.Module
		noIndex bool
	}{{&t.on, false}, {&t.off, true}} {
		c, err := rego.Compile(ctx, fsys, rego.Options{Entrypoints: []string{entrypoint}, NoIndex: m.noIndex, V0: v0})
		if err != nil {
			return nil, err
		}
		if *m.into, err = e.Load(ctx, engine.Spec{Name: "p", Wasm: c.Wasm, ABI: abi.OPA1, Class: wasm.Policy, Init: c.Data, Pool: 1}); err != nil {
			return nil, err
		}
	}
	var base map[string]any
	if err := util.Unmarshal([]byte(data), &base); err != nil {
		return nil, err
	}
	version := ast.RegoV1
	if v0 {
		version = ast.RegoV0
	}
	ref, err := ast.PtrRef(ast.DefaultRootDocument, entrypoint)
	if err != nil {
		return nil, err
	}
	t.topdown, err = opa.New(opa.Query(ref.String()), opa.SetRegoVersion(version), opa.Module("p.rego", policy), opa.Module("q.rego", other(v0)), opa.Store(inmem.NewFromObject(base))).PrepareForEval(ctx)
	return t, err
}

func (t *trio) close(ctx context.Context) { t.on.Close(ctx); t.off.Close(ctx) }

// failed is the answer of an evaluation that ended in a conflict.
const failed = "error"

// ask returns a module's bare answer; "" is undefined.
func (t *trio) ask(m *engine.Module, input string) (string, error) {
	result, err := m.Call(abi.Call{Input: []byte(input), Entrypoint: m.Entrypoints()[t.document], Fuel: abi.MaxFuel})
	if trap, ok := errors.AsType[*abi.Trap](err); ok && trap.Code == abi.TrapAbort {
		return failed, nil
	}
	if err != nil {
		return "", err
	}
	var set []struct{ Result json.RawMessage }
	if err := json.Unmarshal(result.Output, &set); err != nil {
		return "", err
	}
	if len(set) == 0 {
		return "", nil
	}
	return canonical(set[0].Result)
}

func (t *trio) askTopdown(ctx context.Context, input string) (string, error) {
	value, err := ast.ValueFromReader(bytes.NewReader([]byte(input)))
	if err != nil {
		return "", err
	}
	set, err := t.topdown.Eval(ctx, opa.EvalParsedInput(value))
	if err != nil {
		return failed, nil //nolint: the only errors of such a policy are conflicts
	}
	if len(set) == 0 {
		return "", nil
	}
	raw, err := json.Marshal(set[0].Expressions[0].Value)
	if err != nil {
		return "", err
	}
	return canonical(raw)
}

// canonical writes numbers as fractions and sorts lists: OPA writes sets in any
// order, and no policy here gives a list.
func canonical(raw []byte) (string, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	out, err := json.Marshal(plain(v))
	return string(out), err
}

func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		r, _ := new(big.Rat).SetString(string(v))
		return "number " + r.RatString()
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
		slices.SortFunc(v, func(a, b any) int { return bytes.Compare(text(a), text(b)) })
	}
	return v
}

func text(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return raw
}

// compare asks all three. The module with the index may differ from OPA's module
// only where it agrees with OPA's evaluator: it stops at the first value, so that
// it does not come to a conflict behind it, and does not write into an input
// that is no object as OPA's module does for a with.
func (t *trio) compare(ctx context.Context, input string) (same bool, err error) {
	on, err := t.ask(t.on, input)
	if err != nil {
		return false, fmt.Errorf("with the index, input %s: %w", input, err)
	}
	off, err := t.ask(t.off, input)
	if _, trapped := errors.AsType[*abi.Trap](err); trapped {
		off, err = failed, nil // it writes into inputs that are no objects
	}
	if err != nil {
		return false, fmt.Errorf("OPA's module, input %s: %w", input, err)
	}
	topdown, err := t.askTopdown(ctx, input)
	if err != nil {
		return false, err
	}
	if on != off && on != topdown {
		return false, fmt.Errorf("input %s\nwith the index  %s\nOPA's module    %s\nOPA's evaluator %s", input, on, off, topdown)
	}
	return on == topdown, nil
}

const inputs = 40

// check compares a policy with random inputs and returns how many answers OPA's
// evaluator gives too.
func check(ctx context.Context, e *engine.Engine, g *generator) (same int, err error) {
	policy := g.policy()
	t, err := load(ctx, e, policy, g.data(), "p", false)
	for range 20 {
		if _, refused := errors.AsType[rego.Errors](err); !refused {
			break
		}
		policy = g.policy()
		t, err = load(ctx, e, policy, g.data(), "p", false)
	}
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, policy)
	}
	defer t.close(ctx)
	for range inputs {
		agrees, err := t.compare(ctx, g.input())
		if err != nil {
			return same, fmt.Errorf("%w\n%s", err, policy)
		}
		if agrees {
			same++
		}
	}
	return same, nil
}

func newEngine(t testing.TB) *engine.Engine {
	e, err := engine.New(t.Context(), engine.Config{Interpreter: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	return e
}

func FuzzIndex(f *testing.F) {
	for seed := range uint64(24) {
		f.Add(seed)
	}
	e := newEngine(f)
	f.Fuzz(func(t *testing.T, seed uint64) {
		same, err := check(t.Context(), e, newGenerator(seed))
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		} else if same < inputs/2 {
			t.Errorf("seed %d: only %d of %d answers are OPA's evaluator's", seed, same, inputs)
		}
	})
}
