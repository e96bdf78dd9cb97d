package vectors_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func text(s string) *string { return &s }

const rich = `{"verdict":"transform","reasons":[{"code":"a","text":"one"},{"code":"b","text":"two"}],
	"obligations":[{"type":"cap"},{"type":"route","id":"r","properties":{"n":1.0,"to":"eu"}}]}`

func exactly() bundle.Expect {
	return bundle.Expect{
		Verdict: policy.Transform,
		Reasons: []bundle.ExpectedReason{{Code: "a", Text: text("one")}, {Code: "b"}},
		ExactObligations: []bundle.ExpectedObligation{
			{Type: "cap", ID: text(""), Properties: map[string]any{}}, {Type: "route", ID: text("r"), Properties: map[string]any{"n": 1.0, "to": "eu"}},
		},
		FuelMax: 5,
	}
}

func TestExact(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*bundle.Expect)
		diff   string // the first line
	}{
		{"as expected", func(*bundle.Expect) {}, ""},
		{"any text", func(e *bundle.Expect) { e.Reasons[0].Text = nil }, ""},
		{"any id and properties", func(e *bundle.Expect) { e.ExactObligations[1] = bundle.ExpectedObligation{Type: "route"} }, ""},
		{"text", func(e *bundle.Expect) { e.Reasons[1].Text = text("") }, `  reasons: want [{"code":"a","text":"one"},{"code":"b","text":""}], got [{"code":"a","text":"one"},{"code":"b","text":"two"}]`},
		{"code", func(e *bundle.Expect) { e.Reasons[1].Code = "c" }, `  reasons: want [`},
		{"a reason more", func(e *bundle.Expect) { e.Reasons = e.Reasons[:1] }, `  reasons: want [`},
		{"reasons in order", func(e *bundle.Expect) { e.Reasons[0], e.Reasons[1] = e.Reasons[1], e.Reasons[0] }, `  reasons: want [`},
		{"id", func(e *bundle.Expect) { e.ExactObligations[1].ID = text("") }, `  obligations: want [`},
		{"type", func(e *bundle.Expect) { e.ExactObligations[0].Type = "x" }, `  obligations: want [`},
		{"a property more", func(e *bundle.Expect) { e.ExactObligations[1].Properties = map[string]any{"to": "eu"} }, `  obligations: want [`},
		{"1 is not 1.0", func(e *bundle.Expect) { e.ExactObligations[1].Properties["n"] = int64(1) },
			`  obligations: want [{"type":"cap"},{"type":"route","id":"r","properties":{"n":1,"to":"eu"}}], got [{"type":"cap"},{"type":"route","id":"r","properties":{"n":1.0,"to":"eu"}}]`},
		{"no properties", func(e *bundle.Expect) { e.ExactObligations[1].Properties = map[string]any{} }, `  obligations: want [`},
		{"fuel", func(e *bundle.Expect) { e.FuelMax = 4 }, `  fuel: want at most 4, got 5`},
	} {
		e := exactly()
		c.change(&e)
		got := run(t, says(rich), e)
		if !strings.HasPrefix(got.Diff, c.diff) || (got.Diff == "") != (c.diff == "") {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", c.name, got.Diff, c.diff)
		}
		if (got.Unified() == nil) != got.Passed() {
			t.Errorf("%s: passed %t, but the diff is %q", c.name, got.Passed(), got.Unified())
		}
	}
}

// What the vector leaves open does not stand in the diff as a difference.
func TestUnified(t *testing.T) {
	for _, c := range []struct {
		name   string
		module abi.Module
		expect bundle.Expect
		want   string
	}{
		{"texts left open", says(rich), bundle.Expect{Verdict: policy.Allow, Codes: []string{"b"}, Obligations: []string{"cap", "route"}}, `
--- expected
+++ actual
@@ -1 +1 @@
-verdict: allow
+verdict: transform
 reasons:
+  - code: "a"
+    text: "one"
   - code: "b"
     text: "two"
 obligations:
`},
		{"kinds of numbers and texts", says(`{"verdict":"allow","value":{"a":1.0,"b":"1","c":1,"list":[1,[],{}],"needs quotes":null}}`),
			bundle.Expect{Verdict: policy.Allow, HasValue: true, Value: map[string]any{"a": int64(1), "b": int64(1), "c": int64(1), "list": []any{int64(1), []any{}, map[string]any{}}, "needs quotes": nil}}, `
--- expected
+++ actual
@@ -2 +2 @@
 reasons: []
 obligations: []
 value:
-  a: 1
-  b: 1
+  a: 1.0
+  b: "1"
   c: 1
   list:
     - 1
`},
		{"trap", traps(abi.TrapFuel), bundle.Expect{Codes: []string{"x"}}, `
--- expected
+++ actual
-verdict: deny
-reasons:
-  - code: "x"
-obligations: []
+trap: fuel_exhausted
+detail: "fuel_exhausted"
`},
		{"no trap", says(`true`), bundle.Expect{Trap: "fuel_exhausted"}, `
--- expected
+++ actual
-trap: fuel_exhausted
+verdict: allow
+reasons: []
+obligations: []
`},
		{"fuel", says(`true`), bundle.Expect{Verdict: policy.Allow, FuelMax: 1}, `
--- expected
+++ actual
 verdict: allow
 reasons: []
 obligations: []
-fuel: at most 1
+fuel: 5
`},
	} {
		got := strings.Join(run(t, c.module, c.expect).Unified(), "\n")
		if got != strings.TrimSpace(c.want) {
			t.Errorf("%s:\ngot\n%s\nwant%s", c.name, got, c.want)
		}
	}
}

func TestExpectedAndActual(t *testing.T) {
	e := exactly()
	e.Verdict = policy.Deny
	r := run(t, says(rich), e)
	if want := `{"verdict":"deny","reasons":[{"code":"a","text":"one"},{"code":"b"}],"obligations":[{"type":"cap"},{"type":"route","id":"r","properties":{"n":1.0,"to":"eu"}}],"fuel_max":5}`; string(r.Expected()) != want {
		t.Errorf("expected %s", r.Expected())
	}
	if want := `{"verdict":"transform","reasons":[{"code":"a","text":"one"},{"code":"b","text":"two"}],"obligations":[{"type":"cap"},{"type":"route","id":"r","properties":{"n":1.0,"to":"eu"}}],"fuel":5}`; string(r.Actual()) != want {
		t.Errorf("actual %s", r.Actual())
	}
	for _, v := range []any{"\x00\u2028<\"", []any{nil, true, 1e21, -0.5, []byte{1}}} {
		r := run(t, says(`{"verdict":"allow"}`), bundle.Expect{Verdict: policy.Allow, HasValue: true, Value: v})
		if !json.Valid(r.Expected()) || !json.Valid(r.Actual()) {
			t.Errorf("%v: %s, %s", v, r.Expected(), r.Actual())
		}
	}
}

// A diff of two long answers is bounded in time and memory, and loses no line.
func TestLongDiff(t *testing.T) {
	var got, want []any
	for i := range 5000 {
		got, want = append(got, int64(2*i)), append(want, int64(2*i+1))
	}
	value := strings.ReplaceAll(fmt.Sprint(got), " ", ",")
	lines := run(t, says(`{"verdict":"allow","value":`+value+`}`), bundle.Expect{Verdict: policy.Allow, HasValue: true, Value: want}).Unified()
	signs := map[byte]int{}
	for _, l := range lines[2:] {
		signs[l[0]]++
	}
	if signs['-'] != 5000 || signs['+'] != 5000 || signs[' '] != 3 {
		t.Errorf("%v", signs)
	}
}
