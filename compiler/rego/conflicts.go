package rego

import "github.com/open-policy-agent/opa/v1/ast"

// conflicts refuses rules where the data has a document: which of the two an
// asker would be given depended on how deep he asks. OPA's compiler looks for it
// only when it is told where the data are.
func (s *source) conflicts() error {
	if len(s.data) == 0 || s.merge {
		return nil
	}
	c := ast.NewCompiler().WithDefaultRegoVersion(s.version).WithPathConflictsCheck(func(path []string) (bool, error) {
		return exists(s.data, path), nil
	})
	modules := make(map[string]*ast.Module, len(s.modules))
	for i := range s.modules {
		modules[s.modules[i].Path] = s.modules[i].Parsed
	}
	if c.Compile(modules); c.Failed() {
		return toErrors(c.Errors)
	}
	return nil
}

// exists reports whether the data have a document at a path that is not empty.
func exists(data any, path []string) bool {
	for _, step := range path {
		object, ok := data.(map[string]any)
		if !ok {
			return false
		}
		if data, ok = object[step]; !ok {
			return false
		}
	}
	object, ok := data.(map[string]any)
	return !ok || len(object) > 0
}
