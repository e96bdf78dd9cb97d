// Package rego compiles Rego to WebAssembly: Open Policy Agent's own compiler
// parses, checks and plans, and this project's back end writes the module, which
// has OPA's ABI and OPA's library in it.
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
	"github.com/open-policy-agent/opa/v1/util"
	"github.com/open-policy-agent/opa/v1/version"
)

// Options say how to compile a folder. The zero value is Rego v1 with the entry
// points that the sources imply.
type Options struct {
	// Entrypoints are paths such as "rbac/allow", or "/" for all that rules make;
	// the first is the default. Empty means those that are annotated with
	// "entrypoint: true", or else every package, sorted, and every rule that is no
	// function, sorted.
	Entrypoints []string
	// V0 reads the language of OPA before 1.0. A file that imports rego.v1 is v1
	// all the same, and a .manifest with "rego_version": 0 means V0 too.
	V0 bool
	// NoIndex takes the module that OPA's own back end writes, byte for byte: it
	// tries every definition of a document each time.
	NoIndex bool
	// Merge lets rules stand where the data has a document, as OPA's Go API does and
	// its commands do not.
	Merge bool
	// Verification is the key that must have signed an OPA bundle; nil checks no
	// signature. A folder that is no bundle is refused with one.
	Verification *Verification
	// Beside are files of a folder that belong to no bundle and no signature.
	Beside []string

	tests bool // read test files too
}

// takes reports whether a file is read.
func (o *Options) takes(name string) bool { return isSource(name) || o.tests && isTest(name) }

func (o *Options) version() ast.RegoVersion {
	if o.V0 {
		return ast.RegoV0
	}
	return defaultVersion
}

// A Module is what the compiler made.
type Module struct {
	Wasm []byte
	// Data is the folder's base document as a JSON object; nil when it has none.
	Data []byte
	// Entrypoints are the module's, the default first.
	Entrypoints []string
	// Toolchain names OPA and its version; "" for a module that came ready.
	Toolchain string
}

// Compile reads the folder - every .rego file except *_test.rego, and data.json,
// data.yaml and data.yml mounted at their folder's path, as in OPA's bundles -
// and compiles it. The output depends on the files' contents and their paths in
// fsys alone. What is wrong with the sources comes back as Errors.
func Compile(ctx context.Context, fsys fs.FS, opts Options) (*Module, error) {
	src, err := readFolder(fsys, opts)
	if err != nil {
		return nil, err
	}
	src.noIndex, src.merge = opts.NoIndex, opts.Merge
	return src.compile(ctx, opts.Entrypoints)
}

func readFolder(fsys fs.FS, opts Options) (*source, error) {
	if isBundle(fsys) || opts.Verification != nil {
		return folderBundle(fsys, opts)
	}
	return read(fsys, opts)
}

func (s *source) compile(ctx context.Context, entrypoints []string) (*Module, error) {
	if len(s.modules) == 0 {
		return nil, errors.New("no .rego file in the folder")
	}
	if errs := outsized(s.modules); len(errs) > 0 {
		return nil, errs
	}
	if err := s.conflicts(); err != nil {
		return nil, err
	}
	entrypoints, err := s.entrypoints(entrypoints)
	if err != nil {
		return nil, err
	}
	if err := s.refuse(ctx, entrypoints); err != nil {
		return nil, err
	}
	wasm, err := s.wasm(ctx, entrypoints)
	if err != nil {
		return nil, err
	}
	data, err := s.dataJSON()
	if err != nil {
		return nil, err
	}
	return &Module{Wasm: wasm, Data: data, Entrypoints: entrypoints, Toolchain: "opa " + version.Version}, nil
}

// entrypoints checks those that were asked for, or finds the implied ones.
func (s *source) entrypoints(asked []string) ([]string, error) {
	if len(asked) > 0 {
		for _, e := range asked {
			if e != "/" && (strings.Trim(e, "/") != e || e == "") {
				return nil, fmt.Errorf("entry point %q: write it as PACKAGE/RULE, such as rbac/allow", e)
			}
		}
		return asked, nil
	}
	annotated, err := s.annotated()
	if err != nil || len(annotated) > 0 {
		return annotated, err
	}
	return s.implied()
}

// maxRules bounds how many rules are entry points of their own; with more of
// them only packages are. A document below a package is the same either way,
// unless another rule of the package conflicts.
const maxRules = 500

// implied are every package, and every rule under its name.
func (s *source) implied() ([]string, error) {
	var packages, rules []string
	for _, m := range s.modules {
		p, err := m.Parsed.Package.Path.Ptr()
		if err != nil {
			return nil, positioned(ast.NewError(ast.CompileErr, m.Parsed.Package.Location, "package %v cannot be an entry point: %v", m.Parsed.Package.Path, err))
		}
		packages = append(packages, strings.TrimPrefix(p, "data/"))
		for _, r := range m.Parsed.Rules {
			if len(r.Head.Args) == 0 {
				rules = append(rules, rulePath(m.Parsed.Package.Path, r))
			}
		}
	}
	packages, rules = sorted(packages), sorted(rules)
	if len(rules) > maxRules {
		return packages, nil
	}
	return append(packages, slices.DeleteFunc(rules, func(r string) bool { return slices.Contains(packages, r) })...), nil
}

func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// rulePath is the longest part of the rule's reference that is made of names.
func rulePath(pkg ast.Ref, r *ast.Rule) string {
	ref := pkg.Extend(r.Head.Ref())
	for n := len(ref); n > len(pkg); n-- {
		if p, err := ref[:n].Ptr(); err == nil {
			return strings.TrimPrefix(p, "data/")
		}
	}
	return ""
}

func (s *source) annotated() ([]string, error) {
	var parsed []*ast.Module
	for _, m := range s.modules {
		parsed = append(parsed, m.Parsed)
	}
	set, errs := ast.BuildAnnotationSet(parsed)
	if len(errs) > 0 {
		return nil, positioned(errs)
	}
	var found []string
	for _, ref := range set.Flatten() {
		if ref.Annotations == nil || !ref.Annotations.Entrypoint {
			continue
		}
		p, err := ref.Path.Ptr()
		if err != nil {
			return nil, positioned(ast.NewError(ast.CompileErr, ref.Location, "%v cannot be an entry point: %v", ref.Path, err))
		}
		found = append(found, strings.TrimPrefix(p, "data/"))
	}
	return sorted(found), nil
}

func (s *source) dataJSON() ([]byte, error) {
	if len(s.data) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(s.data)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return raw, nil
}

// decodeData reads a data file; numbers keep their literals.
func decodeData(path string, raw []byte) (map[string]any, error) {
	var doc any
	unmarshal := util.Unmarshal // YAML
	if strings.HasSuffix(path, ".json") {
		unmarshal = util.UnmarshalJSON
	}
	if err := unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m, ok := doc.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: data is an object, not a %T", path, doc)
	}
	return m, nil
}
