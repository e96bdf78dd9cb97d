package rego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/compile"
)

// An Error is one fault of the sources. Line and Col count from 1; both are 0
// when the fault has no place, Col alone at the end of a file. Code and Message
// are OPA's, but for the built-ins that are refused here.
type Error struct {
	File      string
	Line, Col int
	Code      string
	Message   string
}

func (e Error) Error() string {
	if e.File == "" {
		return e.Code + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", e.File, e.Line, e.Col, e.Code, e.Message)
}

// Errors are all that OPA's compiler found, in the order it reports them.
type Errors []Error

func (e Errors) Error() string {
	if len(e) == 1 {
		return e[0].Error()
	}
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return fmt.Sprintf("%d errors\n%s", len(e), strings.Join(lines, "\n"))
}

// maxText bounds the offending text in an Error, in bytes.
const maxText = 200

// positioned turns OPA's errors into ours.
func positioned(err error) error {
	var one *ast.Error
	var many ast.Errors
	if errors.As(err, &many) || errors.As(err, &one) {
		return toErrors(err)
	}
	return err
}

func toErrors(err error) Errors {
	var many ast.Errors
	if errors.As(err, &many) {
		out := make(Errors, 0, len(many))
		for _, e := range many {
			out = append(out, toError(e))
		}
		return out
	}
	var one *ast.Error
	if errors.As(err, &one) {
		return Errors{toError(one)}
	}
	return Errors{{Code: ast.CompileErr, Message: err.Error()}}
}

func toError(e *ast.Error) Error {
	out := Error{Code: e.Code, Message: e.Message}
	if e.Location != nil {
		if text, _, _ := strings.Cut(string(e.Location.Text), "\n"); e.Code != ast.ParseErr && text != "" && len(text) <= maxText {
			out.Message += "\n\t" + text // a syntax error brings its own
		}
		out.File, out.Line, out.Col = strings.TrimPrefix(e.Location.File, "/"), e.Location.Row, e.Location.Col
	}
	if e.Details != nil {
		for _, line := range e.Details.Lines() {
			out.Message += "\n\t" + line
		}
	}
	return out
}

// refusals are the built-ins that cannot run in a policy: a decision depends on
// its input alone. The text says what to do instead.
var refusals = map[string]string{
	"http.send":          "a policy has no network: put what it needs into the package's data or the request's context",
	"net.lookup_ip_addr": "a policy has no network: resolve the name before asking and send the addresses in the request's context",
	"opa.runtime":        "there is no OPA process around the policy: send what it needs in params or in the request's context",
}

// RefusedBuiltins returns the names of the built-ins of OPA's that no policy
// may call, sorted.
func RefusedBuiltins() []string { return slices.Sorted(maps.Keys(refusals)) }

// refusedCode is the code of an Error that is not OPA's.
const refusedCode = "holdfast_builtin_refused"

// refuse reports the built-ins of refusals that an entry point can reach. One
// that is only ever replaced, by "with", is not called and not refused; OPA's
// plan knows, and is made only when the source names one at all.
func (s *source) refuse(ctx context.Context, entrypoints []string) error {
	named := s.named()
	if len(named) == 0 {
		return nil
	}
	b, err := s.build(ctx, compile.TargetPlan, entrypoints)
	if err != nil {
		return err
	}
	var plan struct {
		Static struct {
			Builtins []struct{ Name string } `json:"builtin_funcs"`
		}
	}
	if err := json.Unmarshal(b.PlanModules[0].Raw, &plan); err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	var errs Errors
	for _, called := range plan.Static.Builtins {
		for _, at := range named[called.Name] {
			errs = append(errs, toError(ast.NewError(refusedCode, at, "built-in %s cannot be used: %s", called.Name, refusals[called.Name])))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errs
}

// named finds where the sources name such built-ins, but for what "with" replaces.
func (s *source) named() map[string][]*ast.Location {
	found := map[string][]*ast.Location{}
	runtimeRef := ast.NewTerm(ast.MustParseRef("opa.runtime"))
	var visitor *ast.GenericVisitor
	visitor = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.With:
			// "with f as opa.runtime" is the empty object that there is to know.
			if !x.Value.Equal(runtimeRef) {
				visitor.Walk(x.Value)
			}
			return true
		case *ast.Term:
			if ref, ok := x.Value.(ast.Ref); ok && refusals[ref.String()] != "" {
				found[ref.String()] = append(found[ref.String()], x.Location)
			}
		}
		return false
	})
	for _, m := range s.modules {
		visitor.Walk(m.Parsed)
	}
	return found
}
