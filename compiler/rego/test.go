package rego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// The outcomes of a test.
const (
	Passed  = "pass"
	Failed  = "fail"
	Errored = "error" // its evaluation ended
	Skipped = "skip"  // it is a todo_test_ rule
)

// TestOptions say which tests run, and how.
type TestOptions struct {
	Options
	Run      string // a regular expression over data.PACKAGE.RULE; "" is all
	Coverage bool
	// Params are seen as data.params, unless a test says otherwise.
	Params map[string]any
}

// A Tests is what Test found.
type Tests struct {
	Tests    []TestResult `json:"tests"`
	Coverage *Coverage    `json:"coverage,omitempty"`
}

// A TestResult is one test_ rule.
type TestResult struct {
	Name    string `json:"name"` // data.PACKAGE.RULE
	File    string `json:"file"`
	Line    int    `json:"line"`
	Outcome string `json:"outcome"`
	// Detail is the expression that failed, as FILE:LINE: TEXT, or the error.
	Detail string `json:"detail,omitempty"`
	// Cases are the named cases of the rule that failed.
	Cases  []string `json:"cases,omitempty"`
	Output string   `json:"output,omitempty"` // what it printed
	Micros int64    `json:"micros"`
}

// Test runs the test_ rules of the folder's *_test.rego files in OPA's own runner
// and evaluator. The results are in the order of their places. Errors are those
// of Compile; a folder without tests has none.
func Test(ctx context.Context, fsys fs.FS, opts TestOptions) (*Tests, error) {
	opts.tests = true
	src, err := readFolder(fsys, opts.Options)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(src.modulePaths(), isTest) {
		return &Tests{}, nil
	}
	return src.test(ctx, opts)
}

func (s *source) modulePaths() []string {
	var paths []string
	for _, m := range s.modules {
		paths = append(paths, m.Path)
	}
	return paths
}

func (s *source) test(ctx context.Context, opts TestOptions) (*Tests, error) {
	if err := s.addParams(opts.Params); err != nil {
		return nil, err
	}
	modules := map[string]*ast.Module{}
	for _, m := range s.modules {
		modules[m.Path] = m.Parsed
	}
	runner := tester.NewRunner().SetCompiler(s.testCompiler()).SetModules(modules).SetStore(inmem.NewFromObject(s.data)).SetDefaultRegoVersion(s.version).
		CapturePrintOutput(true).SetParallel(1).SetCoverageRuns(nil).Filter(opts.Run)
	var covered *cover.Cover
	if opts.Coverage {
		covered = cover.New()
		runner = runner.SetCoverageQueryTracer(covered)
	} else {
		runner = runner.EnableTracing(true) // tells which expression failed
	}
	results, err := runner.RunTests(ctx, nil)
	if err != nil {
		return nil, positioned(err)
	}
	out := &Tests{Tests: []TestResult{}}
	for r := range results {
		out.Tests = append(out.Tests, testResult(r))
	}
	slices.SortFunc(out.Tests, func(a, b TestResult) int {
		if a.File != b.File {
			return strings.Compare(a.File, b.File)
		}
		return a.Line - b.Line
	})
	if covered != nil {
		out.Coverage = coverage(covered.Report(modules))
	}
	return out, ctx.Err()
}

// testCompiler knows all built-ins, so that tests can replace them, but lets none
// reach the network.
func (s *source) testCompiler() *ast.Compiler {
	able := ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(s.version))
	able.AllowNet = []string{}
	return ast.NewCompiler().WithCapabilities(able).WithEnablePrintStatements(true).WithDefaultRegoVersion(s.version)
}

// addParams puts the parameters where a node would.
func (s *source) addParams(params map[string]any) error {
	if len(params) == 0 {
		return nil
	}
	if s.data["params"] != nil {
		return errors.New("data.params is where the parameters go; the data has one too")
	}
	raw, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("params: %w", err)
	}
	var plain map[string]any
	if err := json.Unmarshal(raw, &plain); err != nil {
		return fmt.Errorf("params: %w", err)
	}
	s.data["params"] = plain
	return nil
}

func testResult(r *tester.Result) TestResult {
	out := TestResult{
		Name: r.Package + "." + r.Name, Outcome: Passed, Output: string(r.Output), Micros: r.Duration.Microseconds(),
	}
	if r.Location != nil {
		out.File, out.Line = strings.TrimPrefix(r.Location.File, "/"), r.Location.Row
	}
	switch {
	case r.Skip:
		out.Outcome = Skipped
	case r.Error != nil:
		out.Outcome, out.Detail = Errored, strings.TrimPrefix(r.Error.Error(), "/")
	case r.Fail:
		out.Outcome, out.Detail = Failed, failedAt(r.Trace)
	}
	for name, sub := range r.SubResults.Iter {
		if sub.Fail && len(sub.SubResults) == 0 {
			out.Cases = append(out.Cases, strings.Join(name, "/"))
		}
	}
	return out
}

// failedAt finds the expression that failed last; the query of the runner itself
// does not count.
func failedAt(trace []*topdown.Event) string {
	for _, e := range slices.Backward(trace) {
		if e.Op != topdown.FailOp || e.Location == nil || e.QueryID == 0 {
			continue
		}
		text, _, _ := strings.Cut(string(e.Location.Text), "\n")
		return fmt.Sprintf("%s:%d: %s", strings.TrimPrefix(e.Location.File, "/"), e.Location.Row, text)
	}
	return ""
}

// Coverage says which lines of the policy the tests ran. Lines without an
// expression do not count.
type Coverage struct {
	Percent float64        `json:"percent"`
	Files   []FileCoverage `json:"files"`
}

// A FileCoverage is that of one file; tests are left out.
type FileCoverage struct {
	File      string  `json:"file"`
	Percent   float64 `json:"percent"`
	Covered   int     `json:"covered"` // lines
	Uncovered []int   `json:"uncovered"`
}

func coverage(report cover.Report) *Coverage {
	out := &Coverage{Files: []FileCoverage{}}
	covered, all := 0, 0
	for name, f := range report.Files {
		if isTest(name) {
			continue
		}
		file := FileCoverage{File: strings.TrimPrefix(name, "/"), Covered: f.CoveredLines, Uncovered: lines(f)}
		file.Percent = percent(file.Covered, file.Covered+len(file.Uncovered))
		covered, all = covered+file.Covered, all+file.Covered+len(file.Uncovered)
		out.Files = append(out.Files, file)
	}
	out.Percent = percent(covered, all)
	slices.SortFunc(out.Files, func(a, b FileCoverage) int { return strings.Compare(a.File, b.File) })
	return out
}

// lines are those of which nothing ran.
func lines(f *cover.FileReport) []int {
	out := []int{}
	for _, r := range f.NotCovered {
		for row := r.Start.Row; row <= r.End.Row; row++ {
			if !f.IsCovered(row) {
				out = append(out, row)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func percent(part, whole int) float64 {
	if whole == 0 {
		return 100
	}
	return 100 * float64(part) / float64(whole)
}
