package engine

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// ownBuiltins stand before OPA's functions where those ask the machine.
var ownBuiltins = map[string]topdown.BuiltinFunc{
	"crypto.x509.parse_and_verify_certificates":              verifyCertificates,
	"crypto.x509.parse_and_verify_certificates_with_options": verifyCertificatesWith,
	"json.match_schema":  matchSchema,
	"json.verify_schema": verifySchema,
}

// matchSchema sorts the errors, which OPA's function reports in any order.
func matchSchema(ctx topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
	return topdown.GetBuiltin("json.match_schema")(ctx, operands, func(t *ast.Term) error {
		verdict, ok := t.Value.(*ast.Array)
		if !ok || verdict.Len() != 2 {
			return iter(t)
		}
		errs, ok := verdict.Elem(1).Value.(*ast.Array)
		if !ok {
			return iter(t)
		}
		return iter(ast.ArrayTerm(verdict.Elem(0), ast.NewTerm(errs.Sorted())))
	})
}

// verifySchema says that there is an error, but not which where OPA's function
// would report the first that it comes across in a map.
func verifySchema(ctx topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
	return topdown.GetBuiltin("json.verify_schema")(ctx, operands, func(t *ast.Term) error {
		valid := t.Value.(*ast.Array).Elem(0)
		if valid.Equal(ast.BooleanTerm(false)) && hasChoice(decoded(operands[0])) {
			t = ast.ArrayTerm(valid, ast.StringTerm("jsonschema: the schema is not valid"))
		}
		return iter(t)
	})
}

// verifyCertificatesWith verifies at the time of the call unless the options say
// another, where OPA would ask the machine for the time.
func verifyCertificatesWith(ctx topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
	verify := topdown.GetBuiltin("crypto.x509.parse_and_verify_certificates_with_options")
	given, ok := operands[1].Value.(ast.Object)
	if !ok {
		return verify(ctx, operands, iter) // its own error
	}
	options := ast.NewObject([2]*ast.Term{ast.StringTerm("CurrentTime"), ctx.Time})
	given.Foreach(options.Insert)
	return verify(ctx, []*ast.Term{operands[0], ast.NewTerm(options)}, iter)
}

// verifyCertificates answers with the certificates as parse_certificates shows
// them, which has more of them than the function with options.
func verifyCertificates(ctx topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
	shown := map[string]*ast.Term{}
	err := topdown.GetBuiltin("crypto.x509.parse_certificates")(ctx, operands, func(t *ast.Term) error {
		return t.Value.(*ast.Array).Iter(func(certificate *ast.Term) error {
			shown[certificate.Get(ast.StringTerm("Raw")).String()] = certificate
			return nil
		})
	})
	if err != nil {
		return iter(ast.ArrayTerm(ast.BooleanTerm(false), ast.ArrayTerm()))
	}
	return verifyCertificatesWith(ctx, []*ast.Term{operands[0], ast.ObjectTerm()}, func(t *ast.Term) error {
		var chain []*ast.Term
		t.Value.(*ast.Array).Elem(1).Value.(*ast.Array).Foreach(func(certificate *ast.Term) {
			chain = append(chain, shown[certificate.Get(ast.StringTerm("Raw")).String()])
		})
		return iter(ast.ArrayTerm(t.Value.(*ast.Array).Elem(0), ast.ArrayTerm(chain...)))
	})
}
