package vectors_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
)

// answers is a module that is a function; loader's tests run vectors on real ones.
type answers func(abi.Call) (abi.Result, error)

func (a answers) Call(c abi.Call) (abi.Result, error) { return a(c) }

func says(json string) answers {
	return func(abi.Call) (abi.Result, error) {
		return abi.Result{Output: []byte(`[{"result":` + json + `}]`), Fuel: 5}, nil
	}
}

func traps(code abi.TrapCode) answers {
	return func(abi.Call) (abi.Result, error) { return abi.Result{}, &abi.Trap{Code: code, Fuel: 7} }
}

func run(t *testing.T, m abi.Module, e bundle.Expect) vectors.VectorResult {
	t.Helper()
	c, err := codec.For(abi.OPA1)
	if err != nil {
		t.Fatal(err)
	}
	pkg := &bundle.Package{Vectors: []bundle.Vector{{Name: "v", Point: "custom", Request: []byte(`{"document":{"n":1}}`), Expect: e}}}
	results := vectors.RunVectors(pkg, m, 0, c)
	if len(results) != 1 || results[0].Name != "v" {
		t.Fatalf("%+v", results)
	}
	return results[0]
}

const full = `{"verdict":"allow","reasons":[{"code":"a"},{"code":"b"}],"obligations":[{"type":"cap"}],"value":{"n":1}}`

func TestDiff(t *testing.T) {
	want := bundle.Expect{
		Verdict: policy.Allow, Codes: []string{"a", "b"}, Obligations: []string{"cap"},
		Value: map[string]any{"n": int64(1)}, HasValue: true,
	}
	with := func(change func(*bundle.Expect)) bundle.Expect {
		e := want
		change(&e)
		return e
	}
	for _, c := range []struct {
		name   string
		module answers
		expect bundle.Expect
		diff   string
	}{
		{"as expected", says(full), want, ""},
		{"value not asked for", says(full), with(func(e *bundle.Expect) { e.Value, e.HasValue = nil, false }), ""},
		{"verdict", says(full), with(func(e *bundle.Expect) { e.Verdict = policy.Deny }), "  verdict: want deny, got allow"},
		{"code missing", says(full), with(func(e *bundle.Expect) { e.Codes = []string{"a"} }), "  reason codes: want [a], got [a b]"},
		{"codes in order", says(full), with(func(e *bundle.Expect) { e.Codes = []string{"b", "a"} }), "  reason codes: want [b a], got [a b]"},
		{"obligation", says(full), with(func(e *bundle.Expect) { e.Obligations = nil }), "  obligations: want [], got [cap]"},
		{"value", says(full), with(func(e *bundle.Expect) { e.Value = map[string]any{"n": "1"} }), `  value: want {"n":"1"}, got {"n":1}`},
		{"no value", says(`true`), bundle.Expect{Verdict: policy.Allow, HasValue: true}, ""},
		{"undefined value", says(`{"verdict":"deny","value":1}`), bundle.Expect{HasValue: true}, "  value: want null, got 1"},
		{"everything", says(`false`), want, "  verdict: want allow, got deny\n  reason codes: want [a b], got []\n  obligations: want [cap], got []\n  value: want {\"n\":1}, got null"},
		{"trap", traps(abi.TrapFuel), bundle.Expect{Trap: "fuel_exhausted"}, ""},
		{"other trap", traps(abi.TrapDepth), bundle.Expect{Trap: "fuel_exhausted"}, "  trap: want fuel_exhausted, got call_depth_exceeded"},
		{"trap, not an answer", traps(abi.TrapDepth), want, "  trap: want the verdict allow, got call_depth_exceeded"},
		{"answer, not a trap", says(`true`), bundle.Expect{Trap: "fuel_exhausted"}, "  trap: want fuel_exhausted, got the verdict allow"},
		{"nonsense is a trap", says(`{"verdict":"x"}`), bundle.Expect{Trap: "output_invalid"}, ""},
		{"a trap is no denial", traps(abi.TrapFuel), bundle.Expect{}, "  trap: want the verdict deny, got fuel_exhausted"},
	} {
		if got := run(t, c.module, c.expect); got.Diff != c.diff || got.Passed() != (c.diff == "") {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", c.name, got.Diff, c.diff)
		}
	}
}

func TestFuelAndCall(t *testing.T) {
	if got := run(t, traps(abi.TrapFuel), bundle.Expect{}); got.Fuel != 7 {
		t.Errorf("%+v", got)
	}
	var call abi.Call
	got := run(t, answers(func(c abi.Call) (abi.Result, error) { call = c; return says(`true`)(c) }), bundle.Expect{Verdict: policy.Allow})
	if got.Fuel != 5 || call.Now != vectors.Now || string(call.Input) != `{"n":1}` {
		t.Errorf("%+v, %+v", got, call)
	}
}

func TestFailed(t *testing.T) {
	if err := vectors.Failed([]vectors.VectorResult{{Name: "a"}, {Name: "b"}}); err != nil {
		t.Error(err)
	}
	err := vectors.Failed([]vectors.VectorResult{{Name: "a"}, {Name: "b", Diff: "  x"}, {Name: "c", Diff: "  y"}})
	if err == nil || err.Error() != "vector b:\n  x\nvector c:\n  y" {
		t.Errorf("%v", err)
	}
}

func TestByParams(t *testing.T) {
	pkg := &bundle.Package{Manifest: bundle.Manifest{Params: map[string]any{"n": int64(1), "s": "x"}}}
	for i, params := range []map[string]any{nil, {"n": int64(2)}, {"n": int64(1)}, {"n": int64(2), "s": "x"}} {
		pkg.Vectors = append(pkg.Vectors, bundle.Vector{Name: fmt.Sprint(i), Params: params})
	}
	groups, err := vectors.ByParams(pkg)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range groups {
		var names []string
		for _, v := range g.Vectors {
			names = append(names, v.Name)
		}
		got = append(got, fmt.Sprintf("%v %s", g.Params, strings.Join(names, ",")))
	}
	if want := "map[n:1 s:x] 0,2; map[n:2 s:x] 1,3"; strings.Join(got, "; ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, "; "), want)
	}
	if len(pkg.Vectors) != 4 || pkg.Params["n"] != int64(1) {
		t.Error("the package was changed")
	}
}
