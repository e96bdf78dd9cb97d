package rego_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/compiler/rego/backend"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// describe writes what a module says of one document, such as
// "4: 3/5 input.a, 1 always, early".
func describe(t *testing.T, module []byte, path string) string {
	var report backend.Report
	if err := json.Unmarshal(wasm.Custom(module, backend.ReportSection), &report); err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Rules {
		if r.Path != path {
			continue
		}
		parts := []string{}
		for _, l := range r.Indexed {
			parts = append(parts, fmt.Sprintf("%d/%d %s", l.Definitions, l.Constants, l.Ref))
		}
		if r.Always > 0 {
			parts = append(parts, fmt.Sprint(r.Always, " always"))
		}
		if r.EarlyExit {
			parts = append(parts, "early")
		}
		return fmt.Sprintf("%d: %s", r.Definitions, strings.Join(parts, ", "))
	}
	return ""
}

func times(format string, values ...string) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(strings.ReplaceAll(format, "$", v) + "\n")
	}
	return b.String()
}

func TestIndex(t *testing.T) {
	for _, tc := range []struct{ name, policy, want string }{
		{"equality", times("x if input.a == $", `"a"`, "1", "true", "null"), "4: 4/4 input.a, early"},
		{"either side", times("x if $ == input.a", `"a"`, "1", "2"), "3: 3/3 input.a, early"},
		{"one value in two spellings", times("x if input.a == $", "1", "1.0", "2"), "3: 3/2 input.a, early"},
		{"set", times("x if input.a in $", `{"a", "b"}`, `{"b", "c"}`, `{"d"}`), "3: 3/4 input.a, early"},
		{"list", times("x if input.a in $", `["a", "b"]`, `["b"]`, `["d"]`), "3: 3/3 input.a, early"},
		{"some in", times("x if { some y in $; input.a == y }", `{"a", "b"}`, `{"b"}`, `{"d"}`), "3: 3/3 input.a, early"},
		{"named set", times("x if { roles := $; input.a in roles }", `{"a", "b"}`, `{"b"}`, `{"d"}`), "3: 3/3 input.a, early"},
		{"nested", times("x if input.a.b.c == $", `"a"`, `"b"`, `"c"`), "3: 3/3 input.a.b.c, early"},
		{"data", times("x if data.a.b == $", `"a"`, `"b"`, `"c"`), "3: 3/3 data.a.b, early"},
		{"behind a call", times("x if { startswith(input.b, input.c); input.a == $ }", `"a"`, `"b"`, `"c"`), "3: 3/3 input.a, early"},
		{"in a loop", times("x if { some y in input.list; y.a == 1; input.a == $ }", `"a"`, `"b"`, `"c"`), "3: 3/3 input.a, early"},
		{"two keys", times("x if { input.a == 1; input.b == $ }", `"a"`, `"b"`, `"c"`), "3: 3/1 input.a, early"},
		{"partly", times("x if input.a == $", `"a"`, `"b"`, `"c"`) + "x if input.b\n", "4: 3/3 input.a, 1 always, early"},
		{"too few", times("x if input.a == $", `"a"`, `"b"`), "2: 2 always, early"},
		{"composite", times("x if input.a == $", "[1]", "[2]", `{"a": 1}`), "3: 3 always, early"},
		{"a set with one", times("x if input.a in $", `{"a", ["b"]}`, `{input.c}`, `{"d"}`), "3: 3 always, early"},
		{"comprehension", times("x if { y := {z | some z in input.c}; input.a in y; input.b != $ }", "1", "2", "3"), "3: 3 always, early"},
		{"comprehension with names of rules", times("x if { y := {z | data.q[z]}; input.a in y; input.b != $ }", "1", "2", "3"), "3: 3 always, early"},
		{"negation", times("x if not input.a == $", "1", "2", "3"), "3: 3 always, early"},
		{"values differ", times("x := $ if input.a == $", "1", "2", "3"), "3: 3/3 input.a"},
		{"function", times("x(a) := 1 if input.b == $", "1", "2", "3") + "y := x(1)\n", "3: 3/3 input.b"},
		{"argument", times("x(_, $) := true", "1", "2", "3") + "y := x(1, 2)\n", "3: 3/3 argument 2, early"},
		{"partial set", times("x contains $ if input.a == $", `"a"`, `"b"`, `"c"`), "3: 3/3 input.a"},
		{"partial object", times("x[input.b] := $ if input.a == $", `"a"`, `"b"`, `"c"`), "3: 3/3 input.a"},
		{"with", times("x if { y with input.a as $ }", `"a"`, `"b"`, `"c"`) + "y if input.a == 1\n", "3: 3 always, early"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			policy := "package p\n\n" + tc.policy
			m, err := rego.Compile(t.Context(), folder("p.rego", policy, "q.rego", "package q\n\na := 1\n\nb := 2\n"), rego.Options{Entrypoints: []string{"p"}})
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(t, m.Wasm, "p.x"); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// TestNoIndex wants OPA's own module: it has no report, and OPA's names.
func TestNoIndex(t *testing.T) {
	fsys := folder("p.rego", "package p\n\nx := 1\n")
	off, err := rego.Compile(t.Context(), fsys, rego.Options{NoIndex: true})
	if err != nil {
		t.Fatal(err)
	}
	if wasm.Custom(off.Wasm, backend.ReportSection) != nil || !bytes.Contains(off.Wasm, []byte("g0.data.p.x")) {
		t.Error("the module without an index is not OPA's")
	}
}
