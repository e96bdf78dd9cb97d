package compiler

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// admitOnly loads nothing: builds without vectors need no more. Builds that run
// their vectors are tested where compiler and engine meet, in cmd/holdfast.
type admitOnly struct{ loaded int }

func (a *admitOnly) Load(context.Context, *bundle.Package) (abi.Module, int32, error) {
	a.loaded++
	return nil, 0, nil
}

func folder(files ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(files); i += 2 {
		fsys[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return fsys
}

const simple = "package p\n\nallow if input.subject.id == \"alice\"\n"

func TestBuildManifest(t *testing.T) {
	loader := &admitOnly{}
	b, err := BuildFS(t.Context(), folder("p.rego", simple, "data.json", `{"x": 1}`, ConfigFile, `
name: my-policy
version: 1.2.3
description: one line
language: rego
entrypoint: p/allow
class: data
points: [tool.pre_call, input]
patterns: ["^a+$"]
params: {n: 7, f: 1.5, list: [a, null, true], date: 2026-01-02}
fuel: 500000
vectors: []
`), Options{Loader: loader})
	if err != nil {
		t.Fatal(err)
	}
	m := b.Package.Manifest
	if m.Name != "my-policy" || m.Version != "1.2.3" || m.ABI != "opa_1" || m.Class != "data" || m.Entrypoint != "p/allow" ||
		m.Fuel != 500000 || len(m.Points) != 2 || m.Params["n"] != int64(7) || m.Params["date"] != "2026-01-02" || !strings.HasPrefix(m.Toolchain, "opa ") {
		t.Errorf("%+v", m)
	}
	if loader.loaded != 1 {
		t.Errorf("loaded %d times", loader.loaded)
	}
	again, digest, err := bundle.OpenPackage(b.File, bundle.MaxPackage)
	if err != nil || digest != b.Digest || string(again.Data) != `{"x":1}` {
		t.Errorf("%s, %v", again.Data, err)
	}
	if uint64(len(b.File)) >= b.Size {
		t.Errorf("%d bytes uncompressed, file of %d", b.Size, len(b.File))
	}
}

func TestBuildDefaults(t *testing.T) {
	b, err := BuildFS(t.Context(), folder("p.rego", simple), Options{Loader: &admitOnly{}})
	if err != nil {
		t.Fatal(err)
	}
	if m := b.Package.Manifest; m.Name != "p" || m.Class != "policy" || m.Entrypoint != "p" || m.Language != Rego {
		t.Errorf("%+v", m)
	}
	module := filepath.Join(t.TempDir(), "any.wasm")
	if err := os.WriteFile(module, b.Package.Module, 0o600); err != nil {
		t.Fatal(err)
	}
	ready, err := Build(t.Context(), module, Options{Loader: &admitOnly{}})
	if err != nil || ready.Package.Name != "policy" || ready.Package.ABI != "opa_1" || ready.Package.Toolchain != "" {
		t.Errorf("%+v, %v", ready, err)
	}
}

func TestBuildRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		files      fstest.MapFS
		opts       Options
	}{
		{"nothing", "no policy here", folder("a.txt", ""), Options{}},
		{"two languages", `this may be more than one language: p.rego (rego), main.go (go). Say which in holdfast.yaml: "language: rego" or "language: go"`, folder("p.rego", simple, "main.go", "package main"), Options{}},
		{"go without a folder on disk", "needs its toolchain", folder("main.go", "package main"), Options{}},
		{"prebuilt without a module", "0 .wasm files", folder("main.go", "package main"), Options{Prebuilt: true}},
		{"vectors that are not there", "v.yaml: holdfast.yaml names this file", folder("p.rego", simple, ConfigFile, "vectors: [v.yaml]"), Options{}},
		{"vectors outside the folder", "../v.yaml", folder("p.rego", simple, ConfigFile, "vectors: [../v.yaml]"), Options{}},
		{"entry point that is not there", "nope", folder("p.rego", simple, ConfigFile, "entrypoint: p/nope"), Options{}},
		{"data that takes the place of the parameters", "params", folder("p.rego", simple, "data.json", `{"params": {}}`, ConfigFile, "params: {a: 1}"), Options{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.opts.Loader = &admitOnly{}
			if _, err := BuildFS(t.Context(), tc.files, tc.opts); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
	var refusal *wasm.Refusal
	if _, err := BuildFS(t.Context(), folder("x.wasm", "no module"), Options{Loader: &admitOnly{}}); !errors.As(err, &refusal) {
		t.Errorf("not a refusal: %v", err)
	}
	var errs rego.Errors
	if _, err := BuildFS(t.Context(), folder("p.rego", "package p\n\nx := y\n"), Options{Loader: &admitOnly{}}); !errors.As(err, &errs) {
		t.Errorf("not OPA's errors: %v", err)
	}
}

func TestConfigErrors(t *testing.T) {
	for yaml, want := range map[string]string{
		"nmae: x":                              `holdfast.yaml:1:1: unknown key "nmae"`,
		"name: x\nname: y":                     `holdfast.yaml:2:1: "name" twice`,
		"name: 7":                              "holdfast.yaml:1:7: must be text, not a number",
		"name: My Policy":                      `holdfast.yaml:1:7: "My Policy": want 1 to 64`,
		"version: 1.0":                         "holdfast.yaml:1:10: must be text, not a number",
		"language: python":                     `"python": want rego, go, `,
		"class: huge":                          "policy, data or language-runtime",
		"rego_version: 1":                      "must be text",
		"points: input":                        "holdfast.yaml:1:9: must be a list, not text",
		"points: [in put]":                     "holdfast.yaml:1:10:",
		"points:\n  - input\n  - 3":            "holdfast.yaml:3:5: must be text",
		"patterns: ['(']":                      "holdfast.yaml:1:12: error parsing regexp",
		"params: [1]":                          "holdfast.yaml:1:9: must be a mapping, not a list",
		"params: {a: 1, a: 2}":                 `holdfast.yaml:1:16: "a" twice`,
		"params: {a: .inf}":                    "holdfast.yaml:1:13:",
		"params: {a: !!binary aGk=}":           "is not a JSON value",
		"params: {<<: {a: 1}}":                 "a key must be a word",
		"fuel: 0":                              "fuel is a number of units from 1",
		"fuel: 1e6":                            "fuel is a number of units from 1",
		"fuel: 99999999999":                    "fuel is a number of units from 1",
		"- a":                                  "must be a mapping, not a list",
		"a: [":                                 "holdfast.yaml:",
		"name: a\n---\nname: b":                "more than one document",
		"params: &a {b: *a}":                   "nested more than 32",
		"params: " + strings.Repeat("[", 2000): "holdfast.yaml:",
	} {
		_, err := parseConfig([]byte(yaml))
		var in *InputError
		if !errors.As(err, &in) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s", yaml, err, want)
		}
	}
}

// TestAliasBomb: nine lines that would become 10^8 values.
func TestAliasBomb(t *testing.T) {
	bomb := "params:\n  a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		prev := string(c - 1)
		bomb += "  " + string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+prev+",", 9) + "*" + prev + "]\n"
	}
	if _, err := parseConfig([]byte(bomb)); err == nil || !strings.Contains(err.Error(), "aliases followed") {
		t.Errorf("got %v", err)
	}
}

const request = `request: {subject: {type: u, id: a}, action: {name: x}, resource: {type: r, id: "1"}, context: {n: 1.50}}`

func TestParseVectors(t *testing.T) {
	list, err := ParseVectors("v.yaml", "input", []byte("- name: one\n  "+request+"\n  params: {n: 1}\n  expect: {verdict: deny, codes: [a, b], obligations: [redact], value: {x: [1]}}\n"+
		"- name: two\n  point: output\n  "+request+"\n  expect: {trap: fuel_exhausted}\n"))
	if err != nil {
		t.Fatal(err)
	}
	one, two := list[0], list[1]
	if one.Point != "input" || one.Expect.Verdict != policy.Deny || len(one.Expect.Codes) != 2 || !one.Expect.HasValue || one.Params["n"] != int64(1) {
		t.Errorf("%+v", one)
	}
	if !strings.Contains(string(one.Request), `"n":1.50`) {
		t.Errorf("a number's literal changed: %s", one.Request)
	}
	if two.Point != "output" || two.Expect.Trap != "fuel_exhausted" {
		t.Errorf("%+v", two)
	}
	list, err = ParseVectors("v.json", "input", []byte(`[{"name": "\ud83d\ude00", "expect": {"verdict": "allow", "value": null},
	"request": {"document": {"n": 1.50, "e": 1e2, "b": true}}}]`))
	if err != nil || list[0].Name != "😀" || !list[0].Expect.HasValue || string(list[0].Request) != `{"document":{"n":1.50,"e":1e2,"b":true}}` {
		t.Errorf("%+v, %v", list, err)
	}
}

// What only the exact forms can say is kept in them; all else stays readable for
// older versions.
func TestExactExpectations(t *testing.T) {
	text := func(s string) *string { return &s }
	for expect, want := range map[string]bundle.Expect{
		"reasons: [{code: a, text: t}, {code: b}]": {Reasons: []bundle.ExpectedReason{{Code: "a", Text: text("t")}, {Code: "b"}}},
		"reasons: [{code: a, text: ''}]":           {Reasons: []bundle.ExpectedReason{{Code: "a", Text: text("")}}},
		"reasons: [{code: a}, {code: b}]":          {Codes: []string{"a", "b"}},
		"reasons: []":                              {},
		"obligations: [cap, {type: b, id: i}]":     {ExactObligations: []bundle.ExpectedObligation{{Type: "cap"}, {Type: "b", ID: text("i")}}},
		"obligations: [{type: b, properties: {n: 1.0}}]": {ExactObligations: []bundle.ExpectedObligation{
			{Type: "b", Properties: map[string]any{"n": 1.0}}}},
		"obligations: [{type: b, properties: {}}]": {ExactObligations: []bundle.ExpectedObligation{{Type: "b", Properties: map[string]any{}}}},
		"obligations: [{type: a}, b]":              {Obligations: []string{"a", "b"}},
		"fuel_max: 7":                              {FuelMax: 7},
	} {
		list, err := ParseVectors("v.yaml", "input", []byte("- name: x\n  "+request+"\n  expect: {verdict: deny, "+expect+"}"))
		if err != nil || !reflect.DeepEqual(list[0].Expect, want) {
			t.Errorf("%s: %+v, %v", expect, list, err)
		}
	}
}

func TestVectorErrors(t *testing.T) {
	for text, want := range map[string]string{
		"name: x":                                               "v.yaml:1:1: must be a list, not a mapping",
		"- name: x\n  expect: {verdict: deny}":                  "v.yaml:1:3: a vector has a name, a request and an expect",
		"- name: x\n  " + request + "\n  expect: {}":            "v.yaml:3:11: expect either a verdict or a trap",
		"- name: x\n  " + request + "\n  expect: {verdict: no}": "v.yaml:3:21: unknown verdict",
		"- name: x\n  " + request + "\n  expect: {verdict: deny, trap: fuel_exhausted}":          "expect either",
		"- name: x\n  " + request + "\n  expect: {trap: boom}":                                   "v.yaml:3:18: unknown trap",
		"- name: x\n  " + request + "\n  expect: {verdict: deny, code: a}":                       `v.yaml:3:27: unknown key "code"`,
		"- name: x\n  request: {subject: 1}\n  expect: {verdict: deny}":                          "v.yaml:2:12: request, at /subject: must be an object",
		"- name: x\n  point: a b\n  " + request + "\n  expect: {verdict: deny}":                  "v.yaml:3:12:",
		"- name: x\n  " + request + "\n  expect: {verdict: deny}\n  want: 1":                     `v.yaml:4:3: unknown key "want"`,
		"- &x\n  name: x\n  " + request + "\n  expect: {verdict: deny}\n- *x":                    `a vector "x" twice`,
		"- name: x\n  request: {subject: {type: u, id: a}}\n  expect: {verdict: deny, codes: a}": "v.yaml:2:12: request",

		expecting("codes: [a], reasons: [{code: a}]"):                                "v.yaml:3:39: both codes and reasons",
		expecting("reasons: [{code: a}], codes: [a]"):                                "v.yaml:3:27: both codes and reasons",
		expecting("reasons: [a]"):                                                    "v.yaml:3:37: must be a mapping, not text",
		expecting("reasons: [{text: a}]"):                                            "v.yaml:3:37: a reason has a code",
		expecting("reasons: [{code: ''}]"):                                           "v.yaml:3:44: must not be empty",
		expecting("reasons: [{code: a, txt: b}]"):                                    `v.yaml:3:47: unknown key "txt"`,
		expecting("reasons: [{code: a, text: 7}]"):                                   "v.yaml:3:53: must be text, not a number",
		expecting("obligations: [{id: a}]"):                                          "v.yaml:3:41: an obligation has a type",
		expecting("obligations: [{type: a, properties: [1]}]"):                       "v.yaml:3:63: must be a mapping, not a list",
		expecting("obligations: [{type: a, props: {}}]"):                             `v.yaml:3:51: unknown key "props"`,
		expecting("obligations: [7]"):                                                "v.yaml:3:41: must be text, not a number",
		expecting("fuel_max: 0"):                                                     "v.yaml:3:37: fuel is a number of units",
		"- name: x\n  " + request + "\n  expect: {trap: fuel_exhausted, codes: [a]}": "v.yaml:3:11: expect either a verdict or a trap, and beside a trap nothing",
	} {
		if _, err := ParseVectors("v.yaml", "input", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"[\n {\"name\": 1}]":           "v.json:2:11: must be text, not a number",
		"[\n {\"a\": 1, \"a\": 2}]":    "v.json:2:",
		"[] []":                        "second value",
		"[{\"name\": \"x\",}]":         "v.json:1:",
		"{":                            "v.json:1:",
		strings.Repeat("[", 100):       "nested too deep",
		"[\"\\ud83d\"]":                "v.json:1:",
		"[{\"name\": \"\xff\"}]":       "v.json:1:",
		"[{\"n\": tru}]":               "v.json:1:",
		"[{\"name\":\"x\"}, 1, null] ": "v.json:1:2: a vector has",
	} {
		if _, err := ParseVectors("v.json", "input", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %s", text, err, want)
		}
	}
}

// expecting is a vector whose third line is "  expect: {verdict: deny, " and more.
func expecting(more string) string {
	return "- name: x\n  " + request + "\n  expect: {verdict: deny, " + more + "}"
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("name: a\npoints: [input]\nparams: &x {a: [1, 1.5, null], b: *x}\nfuel: 7\n"))
	f.Add([]byte("a: &b [*b]\n? [x]\n: !!binary aa\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseConfig(raw)
		var in *InputError
		if err != nil && !errors.As(err, &in) {
			t.Errorf("%T: %v", err, err)
		}
		if err == nil && c.fuel > abi.MaxFuel {
			t.Errorf("fuel %d", c.fuel)
		}
	})
}

func FuzzVectors(f *testing.F) {
	f.Add("v.yaml", []byte("- name: one\n  "+request+"\n  expect: {verdict: deny, value: 0x10}\n"))
	f.Add("v.json", []byte(`[{"name":"x","request":{"document":[1,"\ud83d\ude00"]},"expect":{"trap":"fuel_exhausted"}}]`))
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		list, err := ParseVectors(name, "input", raw)
		for _, v := range list {
			if _, perr := policy.ParseRequest(v.Point, v.Request); err == nil && perr != nil {
				t.Errorf("vector %q: %v", v.Name, perr)
			}
		}
	})
}
