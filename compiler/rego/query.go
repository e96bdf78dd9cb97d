package rego

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// DataPath returns the path of a document as OPA's data API writes it, such as
// "a/b/0", from a reference such as data.a.b[0].
func DataPath(query string) (string, error) {
	ref, err := ast.ParseRef(query)
	if err != nil {
		return "", fmt.Errorf("%q is no reference to a document, such as data.rbac.allow", query)
	}
	if !ref.HasPrefix(ast.DefaultRootRef) || !ref.IsGround() || len(ref) == 1 {
		return "", fmt.Errorf("%q: want a document below data, without variables", query)
	}
	steps := make([]string, 0, len(ref)-1)
	for _, t := range ref[1:] {
		switch v := t.Value.(type) {
		case ast.String:
			steps = append(steps, url.PathEscape(string(v)))
		case ast.Number:
			steps = append(steps, v.String())
		default:
			return "", fmt.Errorf("%q: %s is neither a name nor a number", query, t)
		}
	}
	return strings.Join(steps, "/"), nil
}
