package regocases

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/engine"
)

func TestAll(t *testing.T) {
	opa.RegisterBuiltin1(&opa.Function{Name: "test.sleep", Decl: types.NewFunction(types.Args(types.S), types.NewNull())},
		func(opa.BuiltinContext, *ast.Term) (*ast.Term, error) { return ast.NullTerm(), nil })
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(t.Context(), engine.Config{Interpreter: true})
	if err != nil {
		t.Fatal(err)
	}
	type job struct {
		c  cases.TestCase
		v0 bool
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range jobs {
				start := time.Now()
				found, err := evaluate(t.Context(), e, j.c, rego.Options{V0: j.v0})
				if err := judge(j.c, found, err); err != nil {
					t.Errorf("v0=%v %s: %s\n   %v", j.v0, filepath.Base(j.c.Filename), j.c.Note, err)
				}
				_ = start
			}
		})
	}
	for _, v := range []string{"v0", "v1"} {
		for _, c := range cases.MustLoad(filepath.Join(strings.TrimSpace(string(out)), "v1/test/cases/testdata", v)).Sorted().Cases {
			jobs <- job{c, v == "v0"}
		}
	}
	close(jobs)
	wg.Wait()
}
