package rego

import (
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
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
	"json.match_schema":     "a schema may name others, by network and by file: check the shape in Rego",
	"json.verify_schema":    "a schema may name others, by network and by file: check the schema before the build",
	"graph.reachable_paths": "its work is not bounded by the length of its input: use graph.reachable",
	"http.send":             "a policy has no network: put what it needs into the package's data or the request's context",
	"net.lookup_ip_addr":    "a policy has no network: resolve the name before asking and send the addresses in the request's context",
	"rand.intn":             "the same request must give the same decision: send a random number in the request's context",
	"opa.runtime":           "there is no OPA process around the policy: send what it needs in params or in the request's context",
}

// refusedCode is the code of an Error that is not OPA's.
const refusedCode = "holdfast_builtin_refused"

// refused finds the calls of such built-ins, each with its place.
func refused(modules []bundle.ModuleFile) (errs Errors) {
	for _, m := range modules {
		ast.WalkTerms(m.Parsed, func(t *ast.Term) bool {
			ref, ok := t.Value.(ast.Ref)
			if !ok {
				return false
			}
			name := ref.String()
			if advice, ok := refusals[name]; ok {
				errs = append(errs, toError(ast.NewError(refusedCode, t.Location, "built-in %s cannot be used: %s", name, advice)))
			}
			return false
		})
	}
	return errs
}
