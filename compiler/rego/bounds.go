package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
)

// Bounds of one rule, with its else branches. OPA's compiler takes time with the
// square of the first two and doubles with each level of the third; a rule at
// all three takes some seconds.
const (
	maxExpressions = 3_000
	maxClosures    = 1_000 // comprehensions and every
	maxNesting     = 12    // of those in one another
)

// limitCode is the code of an Error about a rule beyond the bounds.
const limitCode = "holdfast_limit"

// outsized finds the rules that OPA's compiler could be minutes with.
func outsized(modules []bundle.ModuleFile) (errs Errors) {
	for _, m := range modules {
		for _, r := range m.Parsed.Rules {
			if err := measure(r); err != nil {
				errs = append(errs, toError(err))
			}
		}
	}
	return errs
}

func measure(r *ast.Rule) *ast.Error {
	expressions, closures, depth, deepest := 0, 0, 0, 0
	before := func(x any) bool {
		if _, ok := x.(*ast.Expr); ok {
			expressions++
		}
		if isClosure(x) {
			closures++
			depth++
			deepest = max(deepest, depth)
		}
		return deepest > maxNesting
	}
	after := func(x any) {
		if isClosure(x) {
			depth--
		}
	}
	ast.NewBeforeAfterVisitor(before, after).Walk(r)
	switch {
	case deepest > maxNesting:
		return limit(r, "comprehensions %d deep, at most %d: give the inner ones a rule of their own", deepest, maxNesting)
	case closures > maxClosures:
		return limit(r, "%d comprehensions and every, at most %d: make several rules of it, or data", closures, maxClosures)
	case expressions > maxExpressions:
		return limit(r, "%d expressions, at most %d: make several rules of it, or data", expressions, maxExpressions)
	}
	return nil
}

func limit(r *ast.Rule, format string, args ...any) *ast.Error {
	return ast.NewError(limitCode, r.Location, "rule %v: "+format, append([]any{r.Head.Ref()}, args...)...)
}

func isClosure(x any) bool {
	switch x.(type) {
	case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension, *ast.Every:
		return true
	}
	return false
}
