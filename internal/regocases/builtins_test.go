package regocases

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/engine"
)

// The compiler refuses what the engine does not serve, and opa.runtime, which the
// engine answers with the empty object because "with" may put it in another's place.
func TestRefusedBuiltinsAgree(t *testing.T) {
	engines := append(engine.RefusedBuiltins(), "opa.runtime")
	slices.Sort(engines)
	if compilers := rego.RefusedBuiltins(); !slices.Equal(compilers, engines) {
		t.Errorf("the compiler refuses %q, the engine %q", compilers, engines)
	}
}

// A built-in that a new version of OPA brings must be looked at before it is
// served: may it reach out, ask the machine, or work without bound?
func TestBuiltinsAreReviewed(t *testing.T) {
	var list bytes.Buffer
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		if b.Name == "test.sleep" {
			continue // of this test's
		}
		verdict := "served"
		if slices.Contains(rego.RefusedBuiltins(), b.Name) {
			verdict = "refused"
		}
		fmt.Fprintf(&list, "%-60s %s\n", b.Name, verdict)
	}
	const file = "testdata/builtins.txt"
	if *update {
		if err := os.WriteFile(file, list.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	reviewed, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(reviewed, list.Bytes()) {
		t.Errorf("%s is not OPA's list (review the difference, then -update): %v\n%s", file, err, list.Bytes())
	}
}
