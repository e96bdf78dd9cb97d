package rego

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
)

// Bounds of a source folder.
const (
	maxFiles     = 1_000
	maxFileBytes = 8 << 20
)

// defaultVersion is the language of a source that does not say.
const defaultVersion = ast.RegoV1

// source is a folder as read: parsed modules in the order of their paths, and
// the base document.
type source struct {
	version ast.RegoVersion
	modules []bundle.ModuleFile
	data    map[string]any
	noIndex bool
	merge   bool
}

func read(fsys fs.FS, opts Options) (*source, error) {
	s := &source{version: opts.version(), data: map[string]any{}}
	var problems Errors
	files := 0
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return hidden(name, d, err)
		}
		if !opts.takes(name) {
			return nil
		}
		if files++; files > maxFiles {
			return fmt.Errorf("more than %d source files", maxFiles)
		}
		raw, err := readFile(fsys, name)
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, ".rego") {
			problems = append(problems, s.parse(name, raw)...)
			return nil
		}
		return s.mount(name, raw)
	})
	if err == nil && len(problems) > 0 {
		err = problems
	}
	return s, err
}

// hidden leaves out folders whose names begin with a dot, as OPA does.
func hidden(name string, d fs.DirEntry, err error) error {
	if err == nil && name != "." && strings.HasPrefix(d.Name(), ".") {
		return fs.SkipDir
	}
	return err
}

func isSource(name string) bool {
	switch base := path.Base(name); base {
	case "data.json", "data.yaml", "data.yml":
		return true
	default:
		return strings.HasSuffix(base, ".rego") && !strings.HasSuffix(base, "_test.rego") && base[0] != '.'
	}
}

func isTest(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix(base, "_test.rego") && base[0] != '.'
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: no regular file", name)
	}
	if info.Size() > maxFileBytes {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", name, info.Size(), maxFileBytes)
	}
	return fs.ReadFile(fsys, name)
}

// parse adds one file. A file without a package or rules is left out.
func (s *source) parse(name string, raw []byte) Errors {
	m, err := ast.ParseModuleWithOpts(name, string(raw), ast.ParserOptions{
		RegoVersion: s.version, ProcessAnnotation: true, Capabilities: ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(s.version)),
	})
	if err != nil {
		return toErrors(err)
	}
	if m != nil {
		s.modules = append(s.modules, bundle.ModuleFile{URL: name, Path: name, Raw: raw, Parsed: m})
	}
	return nil
}

// mount merges a data file at its folder's path; two files may not say
// different things of one path.
func (s *source) mount(name string, raw []byte) error {
	doc, err := decodeData(name, raw)
	if err != nil {
		return err
	}
	at := s.data
	if dir := path.Dir(name); dir != "." {
		for _, part := range strings.Split(dir, "/") {
			next, ok := at[part].(map[string]any)
			if !ok && at[part] != nil {
				return fmt.Errorf("%s: data.%s is defined elsewhere and is no object", name, strings.ReplaceAll(dir, "/", "."))
			}
			if !ok {
				next = map[string]any{}
				at[part] = next
			}
			at = next
		}
	}
	return merge(at, doc, name)
}

func merge(into, from map[string]any, name string) error {
	for k, v := range from {
		have, ok := into[k]
		if !ok {
			into[k] = v
			continue
		}
		a, okA := have.(map[string]any)
		b, okB := v.(map[string]any)
		if !okA || !okB {
			return fmt.Errorf("%s: %q is defined in another data file too", name, k)
		}
		if err := merge(a, b, name); err != nil {
			return err
		}
	}
	return nil
}
