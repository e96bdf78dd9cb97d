package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// testFlags are what test is asked.
type testFlags struct {
	run                     string
	coverage, watch, asJSON bool
	source                  sourceFlags
}

func testCommand(e *env) *cobra.Command {
	var f testFlags
	var contract bool
	c := &cobra.Command{
		Use:   "test [DIR|FILE.hfp|FILE.wasm]",
		Short: "Run a policy's golden vectors and Rego tests, or hold a module against the guest contract",
		Long: `Test builds the folder in memory, or opens the package, and runs its golden vectors in the engine; of a Rego folder it runs
the test_ rules of *_test.rego files too, in OPA's own runner. Exit 1 when one fails or there is none at all.
With --conformance it asks the module, any .wasm too, what every guest must be able to answer - well-formed and malformed
requests, the same bytes and fuel a thousand times, in any order and on both engines - and prints what is missing.`,
		Example: "  holdfast test modules/tool-authz --coverage\n  holdfast test tool-authz.hfp -o json\n  holdfast test . --run test_grant --watch\n  holdfast test --conformance my-guest.wasm",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := regexp.Compile(f.run); err != nil {
				return fmt.Errorf("--run: %w", err)
			}
			if contract {
				return e.testConformance(c, argument(args), f.asJSON)
			}
			if f.watch {
				return e.watch(c.Context(), argument(args), func() error { return e.test(c, argument(args), &f) })
			}
			return e.test(c, argument(args), &f)
		},
	}
	c.Flags().StringVar(&f.run, "run", "", "only vectors and tests whose name matches this regular expression")
	c.Flags().BoolVar(&f.coverage, "coverage", false, "which lines of the policy the Rego tests ran")
	c.Flags().BoolVar(&f.watch, "watch", false, "run again whenever the folder changes, until interrupted")
	c.Flags().BoolVar(&contract, "conformance", false, "check the guest contract instead of the vectors")
	f.source.add(c)
	outputFlag(c, &f.asJSON)
	return c
}

// tested is all that a run found.
type tested struct {
	digest  wire.Digest
	vectors []vectors.VectorResult
	rego    *rego.Tests
}

func (e *env) test(c *cobra.Command, path string, f *testFlags) error {
	found, err := e.runTests(c, path, f)
	if err != nil {
		return err
	}
	if f.asJSON {
		err = e.printJSON(found.report())
	} else {
		e.printResults(found.vectors)
		e.printTests(found.rego)
	}
	_, failed := found.counts()
	total := len(found.vectors) + len(found.rego.Tests)
	switch {
	case err != nil:
		return err
	case total == 0 && f.run != "":
		return checkFailed("%s has no vector and no test that matches %s", path, f.run)
	case total == 0:
		return checkFailed("%s has no golden vectors and no Rego tests; write vectors.yaml beside the source", path)
	case failed > 0:
		return checkFailed("%d of %d failed", failed, total)
	}
	return nil
}

func (e *env) runTests(c *cobra.Command, path string, f *testFlags) (*tested, error) {
	h, err := newHost(c.Context())
	if err != nil {
		return nil, err
	}
	defer h.Close(c.Context())
	pkg, digest, err := h.openPackage(c.Context(), path, &f.source)
	if err != nil {
		return nil, err
	}
	results, err := compiler.RunVectors(c.Context(), pkg, h)
	if err != nil {
		return nil, authorError(err)
	}
	found := &tested{digest: digest, rego: &rego.Tests{}}
	name := regexp.MustCompile(f.run) // it compiled before
	found.vectors = slices.DeleteFunc(results, func(r vectors.VectorResult) bool { return !name.MatchString(r.Name) })
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		opts, err := f.source.options(h)
		if err != nil {
			return nil, err
		}
		found.rego, err = compiler.TestRego(c.Context(), os.DirFS(path), opts, f.run, f.coverage)
		if err != nil {
			return nil, err
		}
	}
	if f.coverage && found.rego.Coverage == nil {
		return nil, errors.New("--coverage is of Rego tests, and there are none")
	}
	return found, nil
}

func (t *tested) counts() (passed, failed int) {
	for _, r := range t.vectors {
		if r.Passed() {
			passed++
		} else {
			failed++
		}
	}
	for _, r := range t.rego.Tests {
		switch r.Outcome {
		case rego.Passed:
			passed++
		case rego.Failed, rego.Errored:
			failed++
		}
	}
	return passed, failed
}

func (t *tested) report() map[string]any {
	list := make([]map[string]any, 0, len(t.vectors))
	for _, r := range t.vectors {
		list = append(list, map[string]any{
			"name": r.Name, "passed": r.Passed(), "diff": r.Diff, "fuel": r.Fuel, "expected": r.Expected(), "actual": r.Actual(),
		})
	}
	passed, failed := t.counts()
	out := map[string]any{"digest": t.digest, "passed": passed, "failed": failed, "vectors": list, "tests": orEmpty(t.rego.Tests)}
	if t.rego.Coverage != nil {
		out["coverage"] = t.rego.Coverage
	}
	return out
}

func (e *env) printResults(results []vectors.VectorResult) {
	p := newPrinter(e.stdout)
	for _, r := range results {
		if r.Passed() {
			p.line("ok    %-60s %8d fuel", r.Name, r.Fuel)
			continue
		}
		p.line("%s  %s", p.red("FAIL"), r.Name)
		for _, l := range r.Unified() {
			switch l[0] {
			case '-':
				l = p.red(l)
			case '+':
				l = p.green(l)
			case '@':
				l = p.faint(l)
			}
			p.line("  %s", l)
		}
	}
}

func (e *env) printTests(t *rego.Tests) {
	word := map[string]string{rego.Passed: "ok   ", rego.Failed: "FAIL ", rego.Errored: "ERROR", rego.Skipped: "skip "}
	for _, r := range t.Tests {
		fmt.Fprintf(e.stdout, "%s %s\n", word[r.Outcome], r.Name)
		if r.Outcome == rego.Failed || r.Outcome == rego.Errored {
			fmt.Fprintf(e.stdout, "      %s:%d\n", r.File, r.Line)
			for _, text := range append(r.Cases, r.Detail, r.Output) {
				e.printIndented(text)
			}
		}
	}
	if t.Coverage == nil {
		return
	}
	fmt.Fprintf(e.stdout, "coverage %.1f %%\n", t.Coverage.Percent)
	for _, f := range t.Coverage.Files {
		fmt.Fprintf(e.stdout, "  %5.1f %%  %s", f.Percent, f.File)
		if len(f.Uncovered) > 0 {
			fmt.Fprintf(e.stdout, "  not run: %s", ranges(f.Uncovered))
		}
		fmt.Fprintln(e.stdout)
	}
}

func (e *env) printIndented(text string) {
	if text = strings.TrimSpace(text); text != "" {
		fmt.Fprintf(e.stdout, "      %s\n", strings.ReplaceAll(text, "\n", "\n      "))
	}
}

// ranges writes sorted numbers as 1-3,7.
func ranges(lines []int) string {
	var parts []string
	for i := 0; i < len(lines); {
		end := i
		for end+1 < len(lines) && lines[end+1] == lines[end]+1 {
			end++
		}
		if end == i {
			parts = append(parts, strconv.Itoa(lines[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", lines[i], lines[end]))
		}
		i = end + 1
	}
	return strings.Join(parts, ",")
}
