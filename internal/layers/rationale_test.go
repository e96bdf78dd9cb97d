package layers

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

// Every direct dependency has its line in RATIONALE.md.
func TestEveryDependencyIsExplained(t *testing.T) {
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	rationale, err := os.ReadFile("../../RATIONALE.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for _, r := range mod.Require {
		if r.Indirect {
			continue
		}
		direct++
		if !strings.Contains(string(rationale), r.Mod.Path) && !strings.Contains(string(rationale), strings.TrimPrefix(r.Mod.Path, "github.com/nats-io/")) {
			t.Errorf("%s has no line in RATIONALE.md", r.Mod.Path)
		}
	}
	if direct == 0 {
		t.Fatal("go.mod has no direct dependency: this test looks at nothing")
	}
}
