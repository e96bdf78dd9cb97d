// Package toolauthz has no code of its own: the policy beside it is Rego.
package toolauthz

import (
	"os"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/tester"
)

// TestRego runs tool_authz_test.rego by OPA's own tester and evaluator.
func TestRego(t *testing.T) {
	modules := map[string]*ast.Module{}
	for _, name := range []string{"tool_authz.rego", "tool_authz_test.rego"} {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if modules[name], err = ast.ParseModule(name, string(src)); err != nil {
			t.Fatal(err)
		}
	}
	results, err := tester.NewRunner().SetModules(modules).RunTests(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for r := range results {
		if n++; r.Fail || r.Error != nil {
			t.Errorf("%s: fail %t, error %v", r.Name, r.Fail, r.Error)
		}
	}
	if n < 6 {
		t.Errorf("%d tests ran", n)
	}
}
