package regocases

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	oparego "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/types"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/engine"
)

var (
	all    = flag.Bool("all", false, "run every case, not only a share of them")
	update = flag.Bool("update", false, "with -all: rewrite testdata/counts.txt")
	suite  = flag.String("suite", "", "run only the suites whose name contains this")
)

// variants are the ways of compiling that every case must pass in.
var variants = map[string]rego.Options{"": {Merge: true}}

// shareStep picks the cases of a plain run: each suite's first, and of all in
// their order every tenth.
const shareStep = 10

// unit is a case of one suite and version of the language.
type unit struct {
	suite string
	v0    bool
	test  cases.TestCase
}

func (u unit) String() string {
	language := "v1"
	if u.v0 {
		language = "v0"
	}
	return language + "/" + u.suite + ": " + u.test.Note
}

// exceptions are the cases that do not pass, each with the reason. A case of the
// list that passes fails the test.
var exceptions = map[string]string{
	"data/toplevel integer": "OPA excludes it for Wasm: github.com/open-policy-agent/opa/issues/3711",
	"data/nested integer":   "OPA excludes it for Wasm: github.com/open-policy-agent/opa/issues/3711",
	"strings/format_int: bignum exact (>64-bit integer, all bases + negative)": "OPA excludes it for Wasm: its Wasm formats integers of up to 64 bits",
	"jsonbuiltins/unmarshal number beyond the supported exponent is undefined": "OPA excludes it for Wasm: its Wasm parses JSON by itself, without the limit",
	"jsonbuiltins/unmarshal number with too big an exponent is undefined":      "OPA excludes it for Wasm: its Wasm parses JSON by itself, without the limit",
	"net.lookup_ip_addr/simple ip4 returns that ip4":                           "refused at build: a policy has no network",
	"net.lookup_ip_addr/simple ip6 returns that ip6":                           "refused at build: a policy has no network",
	"net.lookup_ip_addr/localhost":                                             "refused at build: a policy has no network",
}

func TestConformance(t *testing.T) {
	units := load(t)
	chosen := slices.DeleteFunc(slices.Clone(units), func(u unit) bool { return !strings.Contains(u.suite, *suite) })
	if !*all {
		chosen = share(chosen)
	}
	e := newEngine(t)
	for name, options := range variants {
		failed := run(t.Context(), e, chosen, options)
		for _, u := range chosen {
			check(t, name, u, failed)
		}
		t.Logf("variant %q: %d of %d cases run, %d passed", name, len(chosen), len(units), len(chosen)-len(failed))
	}
	compareCounts(t, units)
}

func check(t *testing.T, variant string, u unit, failed map[string]error) {
	t.Helper()
	err, reason := failed[u.String()], exceptions[u.test.Note]
	switch {
	case err != nil && reason == "":
		t.Errorf("%s%s: %v", variant, u, err)
	case err == nil && reason != "":
		t.Errorf("%s%s: passes, but is listed as an exception: %s", variant, u, reason)
	}
}

// The list of exceptions has nothing but what OPA itself excludes for Wasm and the
// cases that look up names on the network.
func TestExceptions(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(opaRoot(t), "internal/wasm/sdk/test/e2e/exceptions.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var excluded map[string]string
	if err := util.Unmarshal(raw, &excluded); err != nil {
		t.Fatal(err)
	}
	notes := map[string]bool{}
	for _, u := range load(t) {
		notes[u.test.Note] = true
	}
	for note := range exceptions {
		if !notes[note] {
			t.Errorf("no case is called %q", note)
		}
		if excluded[note] == "" && !strings.HasPrefix(note, "net.lookup_ip_addr/") {
			t.Errorf("OPA does not exclude %q", note)
		}
	}
}

// opaRoot is where OPA's module lies.
func opaRoot(t *testing.T) string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(root))
}

// load reads the cases from OPA's module.
func load(t *testing.T) []unit {
	t.Helper()
	root := opaRoot(t)
	var units []unit
	for _, version := range []string{"v0", "v1"} {
		set, err := cases.Load(filepath.Join(root, "v1/test/cases/testdata", version))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range set.Cases {
			units = append(units, unit{suite: filepath.Base(filepath.Dir(c.Filename)), v0: version == "v0", test: c})
		}
	}
	slices.SortStableFunc(units, func(a, b unit) int { return strings.Compare(a.suite, b.suite) })
	if len(units) == 0 {
		t.Fatal("OPA's module has no cases")
	}
	return units
}

func share(units []unit) []unit {
	var chosen []unit
	for n, u := range units {
		first := n == 0 || units[n-1].suite != u.suite
		if first || n%shareStep == 0 || exceptions[u.test.Note] != "" {
			chosen = append(chosen, u)
		}
	}
	return chosen
}

func newEngine(t *testing.T) *engine.Engine {
	t.Helper()
	// A built-in that OPA's own runner brings along.
	oparego.RegisterBuiltin1(&oparego.Function{Name: "test.sleep", Decl: types.NewFunction(types.Args(types.S), types.NewNull())},
		func(oparego.BuiltinContext, *ast.Term) (*ast.Term, error) { return ast.NullTerm(), nil })
	e, err := engine.New(t.Context(), engine.Config{Interpreter: true, MaxFuel: bigFuel})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	return e
}

// run evaluates the cases, as many at once as there are processors, and returns
// why those failed that did.
func run(ctx context.Context, e *engine.Engine, units []unit, options rego.Options) map[string]error {
	work := make(chan unit)
	failed := map[string]error{}
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for u := range work {
				options := options
				options.V0 = u.v0
				found, err := evaluate(ctx, e, u.test, options)
				if err = judge(u.test, found, err); err != nil {
					mu.Lock()
					failed[u.String()] = err
					mu.Unlock()
				}
			}
		})
	}
	for _, u := range units {
		work <- u
	}
	close(work)
	workers.Wait()
	return failed
}

// compareCounts holds the committed table against the cases that there are.
func compareCounts(t *testing.T, units []unit) {
	t.Helper()
	const file = "testdata/counts.txt"
	table := counts(units)
	t.Logf("\n%s", table)
	if *all && *update && !t.Failed() {
		if err := os.WriteFile(file, table, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(committed, table) {
		t.Errorf("%s is not what these cases give (go test ./internal/regocases -all -update): %v", file, err)
	}
}

// counts makes a row of each suite. A case counts as passed unless it is an
// exception, which check has made exact.
func counts(units []unit) []byte {
	type row struct{ v0, v1, passed int }
	rows, total := map[string]row{}, row{}
	for _, u := range units {
		r := rows[u.suite]
		for _, r := range []*row{&r, &total} {
			if u.v0 {
				r.v0++
			} else {
				r.v1++
			}
			if exceptions[u.test.Note] == "" {
				r.passed++
			}
		}
		rows[u.suite] = r
	}
	var out bytes.Buffer
	line := func(name string, r row) {
		fmt.Fprintf(&out, "%-48s %5d %5d %7d %11d\n", name, r.v0, r.v1, r.passed, r.v0+r.v1-r.passed)
	}
	fmt.Fprintf(&out, "%-48s %5s %5s %7s %11s\n", "suite", "v0", "v1", "passed", "exceptions")
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		line(name, rows[name])
	}
	line("all", total)
	return out.Bytes()
}
