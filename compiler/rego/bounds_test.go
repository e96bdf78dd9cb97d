package rego_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler/rego"
)

func repeated(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format+"\n", i)
	}
	return b.String()
}

// TestBounds has what OPA's compiler would be minutes with.
func TestBounds(t *testing.T) {
	nested := func(n int) string { return "x := " + strings.Repeat("[z | z := ", n) + "1" + strings.Repeat("]", n) }
	for _, tc := range []struct{ name, rule, want string }{
		{"nested", nested(40), "p.rego:3:1: holdfast_limit: rule x: comprehensions 13 deep, at most 12"},
		{"nested as allowed", nested(8), ""},
		{"comprehensions", "x if {\n" + repeated(3000, "y%[1]d := [z | z := input.a%[1]d]") + "}", "p.rego:3:1: holdfast_limit: rule x: 3000 comprehensions and every, at most 1000"},
		{"in one list", "x := [" + repeated(3000, "{z | z := %d},") + "]", "3000 comprehensions"},
		{"expressions", "x if {\n" + repeated(20000, "input.a == %d") + "}", "p.rego:3:1: holdfast_limit: rule x: 20000 expressions, at most 3000"},
		{"else", "x if input.a\n" + repeated(4000, "else := %d if input.b"), "expressions, at most 3000"},
		{"many rules", repeated(1001, "x if { y := [z | z := %d]; y != [] }"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := rego.Compile(t.Context(), folder("p.rego", "package p\n\n"+tc.rule+"\n"), rego.Options{})
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
