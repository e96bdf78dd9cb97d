package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// TestBuiltins compares what the host answers with what OPA's own evaluator does.
func TestBuiltins(t *testing.T) {
	const policy = `package p

answer := {
	"text": sprintf("%s has %d of %v", [input.name, 3, {"a", "b"}]),
	"split": regex.split("-+", "a--b-c"),
	"indexes": indexof_n("banana", "an"),
	"sum": crypto.sha256(input.name),
	"semver": semver.compare("1.2.3", "1.10.0"),
	"subset": object.subset({"a": 1, "b": {"c": 2}}, {"b": {"c": 2}}),
	"time": time.format(1700000000000000000),
	"unprintable": [x | x := regex.split(",", "\u007f,\u0007,\u00a0,😀")[_]],
	"made": {"b", "a", "c"},
	"keys": {1: "x", [2]: {"z", "y"}},
	"literals": [9223372036854775809, 9223372036854775810, 1.50, 9223372036854775809 == 9223372036854775810, input.big, regex.split(",", sprintf("%d", [input.big]))],
	"range": numbers.range_step(0, 10, 5),
	"paths": graph.reachable_paths({"a": ["b"], "b": []}, ["a"]),
	"addresses": net.cidr_expand("10.0.0.0/30"),
	"schema": json.match_schema({"a": 1}, {"properties": {"a": {"$ref": "#/definitions/t"}}, "definitions": {"t": {"type": "string"}}}),
	"verified": json.verify_schema({"type": "object"}),
	"rendered": strings.render_template("{{range .l}}{{.}} {{end}}", {"l": [1, 2]}),
	"sets": strings.any_prefix_match(input.name, {"hold", "x"}),
	"none": [x | x := hex.decode("not hex")],
	"cidr": net.cidr_contains_matches("1.1.1.0/24", "1.1.1.128"),
	"nested": json.patch({"a": {"b": [1, 2.50, null]}}, [{"op": "add", "path": "/a/c", "value": "\u00e9\n\""}]),
}
`
	input := map[string]any{"name": "holdfast", "big": json.Number("9223372036854775809")}
	m := load(t, newEngine(t, engine.Config{}), engine.Spec{Name: "builtins", Wasm: compileRego(t, policy, "p/answer"), ABI: abi.OPA1})
	result, err := m.Call(abi.Call{Input: marshal(t, input)})
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rego.New(rego.Query("data.p.answer"), rego.Module("policy.rego", policy), rego.Input(input)).Eval(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`[{"result":%s}]`, marshal(t, rs[0].Expressions[0].Value))
	if canonical(t, result.Output) != canonical(t, []byte(want)) {
		t.Errorf("got  %s\nwant %s", result.Output, want)
	}
	again, err := m.Call(abi.Call{Input: marshal(t, input)})
	if err != nil || string(again.Output) != string(result.Output) || again.Fuel != result.Fuel {
		t.Errorf("the second call: %s, %d units (first %d), %v", again.Output, again.Fuel, result.Fuel, err)
	}
}

func TestBuiltinsDependOnTheCallAlone(t *testing.T) {
	const policy = `package p

answer := [time.now_ns(), uuid.rfc4122("a"), uuid.rfc4122("a") == uuid.rfc4122("b"), rand.intn("a", 1000000), rand.intn("b", 1000000)]
`
	m := load(t, newEngine(t, engine.Config{}), engine.Spec{Name: "clock", Wasm: compileRego(t, policy, "p/answer"), ABI: abi.OPA1})
	first, err := m.Call(abi.Call{Now: frozen})
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.Call(abi.Call{Now: frozen})
	if err != nil || string(first.Output) != string(again.Output) {
		t.Errorf("%s, then %s, %v", first.Output, again.Output, err)
	}
	if !strings.HasPrefix(string(first.Output), `[{"result":[1700000000000000000,"`) {
		t.Errorf("got %s", first.Output)
	}
}

func TestRefusedBuiltins(t *testing.T) {
	e := newEngine(t, engine.Config{})
	for name, expression := range map[string]string{
		"http.send":          `http.send({"method": "get", "url": "http://localhost"})`,
		"net.lookup_ip_addr": `net.lookup_ip_addr("localhost")`,
	} {
		module := compileRego(t, "package p\n\nanswer := "+expression+"\n", "p/answer")
		_, err := e.Load(context.Background(), engine.Spec{Name: "refused", Wasm: module, ABI: abi.OPA1})
		if err == nil || !strings.Contains(err.Error(), "built-in "+name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOPAInputs(t *testing.T) {
	m := load(t, newEngine(t, engine.Config{}), engine.Spec{Name: "echo", Wasm: compileRego(t, "package p\n\nanswer := input\n", "p/answer"), ABI: abi.OPA1})
	for name, c := range map[string]struct {
		input string
		want  string
		trap  abi.TrapCode
	}{
		"numbers keep their literals": {input: `{"a":1.50,"b":12345678901234567890}`, want: `[{"result":{"b":12345678901234567890,"a":1.50}}]`},
		"none":                        {want: `[]`},
		"not JSON":                    {input: `{"a":`, trap: abi.TrapInput},
		"surrogates apart":            {input: `"\ud800"`, trap: abi.TrapAbort},
		"long":                        {input: `"` + strings.Repeat("x", 60_000) + `"`, want: `[{"result":"` + strings.Repeat("x", 60_000) + `"}]`},
		"too long an answer":          {input: `"` + strings.Repeat("x", 70_000) + `"`, trap: abi.TrapOutput},
		"deep":                        {input: strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000), trap: abi.TrapDepth},
	} {
		result, err := m.Call(abi.Call{Input: []byte(c.input), Fuel: abi.MaxFuel})
		if code := trapCode(t, err); code != c.trap || string(result.Output) != c.want {
			t.Errorf("%s: got %.80q, %v", name, result.Output, err)
		}
	}
	if _, err := m.Call(abi.Call{Input: []byte(`{}`), Entrypoint: 99}); trapCode(t, err) != abi.TrapAbort {
		t.Errorf("an entry point that is not there: %v", err)
	}
}

// A schema leads neither to the network nor to a file.
func TestSchemasStayInside(t *testing.T) {
	asked := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(file, []byte(`{"type": "string"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	m := load(t, newEngine(t, engine.Config{}), engine.Spec{Name: "schemas", ABI: abi.OPA1,
		Wasm: compileRego(t, "package p\n\nx := [json.match_schema(\"1\", input), json.verify_schema(input)]\n\ny := json.verify_schema(json.marshal(input))\n", "p/x", "p/y")})
	for name, schema := range map[string]any{
		"http":           map[string]any{"$ref": server.URL + "/a"},
		"http by id":     map[string]any{"$id": server.URL + "/b", "properties": map[string]any{"a": map[string]any{"$ref": "c"}}},
		"http deep":      map[string]any{"allOf": []any{map[string]any{"not": map[string]any{"$ref": server.URL + "/d#/x"}}}},
		"read by nobody": map[string]any{"$schema": server.URL + "/e"},
		"file":           map[string]any{"$ref": "file://" + file},
		"file upper":     map[string]any{"$ref": "FILE://" + file},
		"file by id":     map[string]any{"$id": "file:///", "properties": map[string]any{"a": map[string]any{"$ref": file[1:]}}},
		"file parts":     map[string]any{"properties": map[string]any{"a": map[string]any{"$id": "b", "items": map[string]any{"$ref": "c"}}}},
		"file fragment":  map[string]any{"items": map[string]any{"$ref": "file://" + file + "#"}},
		"path":           map[string]any{"$ref": file},
	} {
		for point, entry := range m.Entrypoints() {
			result, err := m.Call(abi.Call{Input: marshal(t, schema), Entrypoint: entry})
			if name != "read by nobody" && strings.Contains(string(result.Output), "true") {
				t.Errorf("%s, %s: %s, %v", name, point, result.Output, err)
			}
			if code := trapCode(t, err); strings.HasPrefix(name, "file") && code != abi.TrapBuiltin {
				t.Errorf("%s, %s: %s, %v", name, point, result.Output, err)
			}
		}
	}
	if len(asked) > 0 {
		t.Errorf("the network was asked for %s", <-asked)
	}
}

// What an asker or a policy can blow up is refused, at load or before it runs.
func TestBuiltinsAreBounded(t *testing.T) {
	e := newEngine(t, engine.Config{})
	for name, expression := range map[string]string{
		"width":     `sprintf("%1000000d", [1])`,
		"precision": `sprintf("%.1000000f", [1.5])`,
		"argument":  `sprintf("%*d", [1000000, 1])`,
		"replace":   `regex.replace(input.long, "", input.long)`,
	} {
		m := load(t, e, engine.Spec{Name: name, Wasm: compileRego(t, "package p\n\nx := "+expression+"\n", "p/x"), ABI: abi.OPA1})
		_, err := m.Call(abi.Call{Input: marshal(t, map[string]any{"long": strings.Repeat("a", 6000)})})
		trap, ok := errors.AsType[*abi.Trap](err)
		if !ok || trap.Code != abi.TrapBuiltin && trap.Code != abi.TrapFuel {
			t.Errorf("%s: %v", name, err)
		}
	}
}
