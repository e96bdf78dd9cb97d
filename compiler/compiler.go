// Package compiler turns a policy's folder into a package: it finds out the
// language, compiles, admits the module, runs the golden vectors and packs. The
// same source in any folder gives the same package.
//
// It never runs a module itself: that is the Loader's, which the command gives.
package compiler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Loader makes a package's module ready, with the package's parameters and
// data, and returns the number of its entry point. The module is used until
// Build returns; closing it is the Loader's owner's.
type Loader interface {
	Load(ctx context.Context, pkg *bundle.Package) (abi.Module, int32, error)
}

// Options say how to build. Loader is required, the rest is optional.
type Options struct {
	Loader Loader
	// Prebuilt takes the only .wasm file of the folder instead of running the
	// toolchain of another language than Rego. The manifest then names no toolchain.
	Prebuilt bool
	// NoIndex compiles Rego as OPA does, without a rule index; "index: false" in
	// holdfast.yaml says so too.
	NoIndex bool
	// Verification is the key that must have signed an OPA bundle; nil checks no
	// signature.
	Verification *rego.Verification
}

// A Built is a package together with what was found out on the way.
type Built struct {
	Package *bundle.Package
	File    []byte      // the .hfp
	Digest  wire.Digest // of the package
	Size    uint64      // of the package, uncompressed: what a release states
	Report  *wasm.Report
	Vectors []vectors.VectorResult
}

// Build builds the folder dir, or a single .wasm file, or an OPA bundle
// (.tar.gz). Errors are *InputError and rego.Errors for what is wrong with the
// source, *toolchain.MissingError and *toolchain.CompileError, *wasm.Refusal for
// a module that is not admitted, and *VectorError.
func Build(ctx context.Context, dir string, opts Options) (*Built, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return buildFile(ctx, dir, opts)
	}
	return build(ctx, os.DirFS(dir), dir, opts)
}

// BuildFS is Build for a folder that is not on disk, such as an embedded one.
// What needs a toolchain needs Prebuilt there.
func BuildFS(ctx context.Context, fsys fs.FS, opts Options) (*Built, error) {
	return build(ctx, fsys, "", opts)
}

func build(ctx context.Context, fsys fs.FS, dir string, opts Options) (*Built, error) {
	cfg, err := readConfig(fsys)
	if err != nil {
		return nil, err
	}
	if cfg.language == "" {
		if cfg.language, err = detect(fsys); err != nil {
			return nil, err
		}
	}
	cfg.noIndex = cfg.noIndex || opts.NoIndex
	if err := cfg.readSchema(fsys); err != nil {
		return nil, err
	}
	pkg, err := cfg.compile(ctx, fsys, dir, opts)
	if err != nil {
		return nil, err
	}
	list, err := readVectors(fsys, cfg)
	if err != nil {
		return nil, err
	}
	pkg.Vectors = vectorsOf(list)
	if err := cfg.checkSchema(pkg, list); err != nil {
		return nil, err
	}
	return finish(ctx, pkg, opts.Loader)
}

// buildFile packs one ready file under the name "policy".
func buildFile(ctx context.Context, file string, opts Options) (*Built, error) {
	raw, err := readWhole(file)
	if err != nil {
		return nil, err
	}
	pkg := &bundle.Package{Manifest: bundle.Manifest{Name: defaultName, Language: Wasm}}
	switch {
	case strings.HasSuffix(file, ".wasm"):
		pkg.Module = raw
	case strings.HasSuffix(file, ".tar.gz"):
		m, err := rego.Bundle(ctx, raw, rego.Options{Verification: opts.Verification})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		pkg.Language = Rego
		setRego(pkg, m)
	default:
		return nil, &InputError{File: filepath.Base(file), Reason: "neither a folder, a .wasm file nor an OPA bundle (.tar.gz)"}
	}
	return finish(ctx, pkg, opts.Loader)
}

// readWhole reads a ready file of at most bundle.MaxPackageFile bytes.
func readWhole(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err == nil && !info.Mode().IsRegular() {
		err = &InputError{File: filepath.Base(file), Reason: "no regular file"}
	}
	if err == nil && info.Size() > bundle.MaxPackageFile {
		err = &InputError{File: filepath.Base(file), Reason: fmt.Sprintf("%d bytes, at most %d", info.Size(), bundle.MaxPackageFile)}
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// compile makes the package without its vectors.
func (c *config) compile(ctx context.Context, fsys fs.FS, dir string, opts Options) (*bundle.Package, error) {
	pkg := &bundle.Package{Manifest: bundle.Manifest{
		Name: c.name, Version: c.version, Description: c.description, Class: c.class, Language: c.language,
		Entrypoint: c.entrypoint, Points: c.points, Patterns: c.patterns, Params: c.params, Fuel: c.fuel,
	}}
	switch {
	case c.language == Rego:
		m, err := rego.Compile(ctx, fsys, c.rego(opts))
		if err != nil {
			return nil, err
		}
		setRego(pkg, m)
		return pkg, nil
	case c.language == Wasm || opts.Prebuilt:
		raw, err := readModule(fsys)
		if err != nil {
			return nil, err
		}
		pkg.Module = raw
	default:
		m, err := languageOf(c.language).compile(ctx, fsys, dir)
		if err != nil {
			return nil, err
		}
		pkg.Module, pkg.Toolchain = m.Wasm, m.Toolchain
	}
	return pkg, readData(fsys, pkg)
}

// rego says how the folder's Rego is compiled.
func (c *config) rego(opts Options) rego.Options {
	out := rego.Options{V0: c.regoV0, NoIndex: c.noIndex, Verification: opts.Verification, Beside: append([]string{ConfigFile, cmp.Or(c.schemaFile, schemaFile)}, c.vectorFiles()...)}
	if c.entrypoint != "" {
		out.Entrypoints = []string{c.entrypoint}
	}
	return out
}

func setRego(pkg *bundle.Package, m *rego.Module) {
	pkg.Module, pkg.Data, pkg.Toolchain = m.Wasm, m.Data, m.Toolchain
	pkg.Entrypoint = m.Entrypoints[0]
	if pkg.Name == "" || pkg.Name == defaultName {
		pkg.Name = strings.ReplaceAll(pkg.Entrypoint, "/", ".")
	}
}

// readModule returns the only .wasm file of the folder.
func readModule(fsys fs.FS) ([]byte, error) {
	names, err := fs.Glob(fsys, "*.wasm")
	if err != nil {
		return nil, err
	}
	if len(names) != 1 {
		return nil, &InputError{Reason: fmt.Sprintf("%d .wasm files in the folder, want one", len(names))}
	}
	return readPlain(fsys, names[0], bundle.MaxPackageFile)
}

// maxText bounds holdfast.yaml, a schema and a file of vectors.
const maxText = 16 << 20

// readPlain reads a file of the folder that is a regular one of at most most
// bytes; a device or a pipe might never end.
func readPlain(fsys fs.FS, name string, most int64) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &InputError{File: name, Reason: "no regular file"}
	case info.Size() > most:
		return nil, &InputError{File: name, Reason: fmt.Sprintf("%d bytes, at most %d", info.Size(), most)}
	}
	return fs.ReadFile(fsys, name)
}

// readData takes a guest's data.json into the package.
func readData(fsys fs.FS, pkg *bundle.Package) error {
	raw, err := readPlain(fsys, dataFile, maxClassData)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := policy.ParseValue(raw); err != nil {
		return inputError(dataFile, err)
	}
	pkg.Data = raw
	return nil
}

const (
	dataFile    = "data.json"
	defaultName = "policy"
)

// class is the manifest's, or the language's own.
func class(pkg *bundle.Package) wasm.Class {
	if c, err := wasm.ParseClass(pkg.Class); err == nil {
		return c
	}
	if pkg.Language == Rego && len(pkg.Data) > maxPolicyData {
		return wasm.Data
	}
	return languageOf(pkg.Language).class
}

// Bounds of a package's data, as JSON.
const (
	maxPolicyData = 1 << 20
	maxClassData  = 8 << 20 // of class data
)

func checkData(pkg *bundle.Package, c wasm.Class) error {
	most := maxPolicyData
	if c == wasm.Data {
		most = maxClassData
	}
	if len(pkg.Data) <= most {
		return nil
	}
	return &InputError{Reason: fmt.Sprintf("%d bytes of data; class %s takes at most %d, class data %d", len(pkg.Data), c, most, maxClassData)}
}

// finish admits the module, packs and runs the vectors.
func finish(ctx context.Context, pkg *bundle.Package, loader Loader) (*Built, error) {
	if pkg.Name == "" {
		pkg.Name = defaultName
	}
	c := class(pkg)
	if err := checkData(pkg, c); err != nil {
		return nil, err
	}
	report, err := wasm.Scan(pkg.Module, c)
	if err != nil {
		return nil, err
	}
	pkg.Class, pkg.ABI = c.String(), string(report.ABI)
	file, digest, err := pkg.Encode()
	if err != nil {
		return nil, &InputError{Reason: err.Error()}
	}
	whole, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		return nil, err
	}
	results, err := RunVectors(ctx, pkg, loader)
	if err != nil {
		return nil, err
	}
	return &Built{Package: pkg, File: file, Digest: digest, Size: uint64(len(whole)), Report: report, Vectors: results}, vectorError(results)
}

// RunVectors loads the package's module, once for each set of parameters that
// its vectors want, and runs them; a package without vectors is loaded too. The
// error is about loading, never about a vector that did not pass.
func RunVectors(ctx context.Context, pkg *bundle.Package, loader Loader) ([]vectors.VectorResult, error) {
	c, err := codec.For(abi.Kind(pkg.ABI))
	if err != nil {
		return nil, err
	}
	if len(pkg.Vectors) == 0 {
		_, _, err := loader.Load(ctx, pkg)
		return nil, err
	}
	variants, err := vectors.ByParams(pkg)
	if err != nil {
		return nil, err
	}
	byName := map[string]vectors.VectorResult{}
	for _, v := range variants {
		module, entrypoint, err := loader.Load(ctx, v)
		if err != nil {
			return nil, err
		}
		for _, r := range vectors.RunVectors(v, module, entrypoint, c) {
			byName[r.Name] = r
		}
	}
	results := make([]vectors.VectorResult, 0, len(pkg.Vectors))
	for _, v := range pkg.Vectors {
		results = append(results, byName[v.Name])
	}
	return results, nil
}

// A VectorError is the error of a build whose golden vectors did not pass.
type VectorError struct {
	Failed, Of int
	Detail     string // which, and how they differ
}

func (e *VectorError) Error() string {
	return fmt.Sprintf("%d of %d vectors failed\n%s", e.Failed, e.Of, e.Detail)
}

func vectorError(results []vectors.VectorResult) error {
	failed := 0
	for _, r := range results {
		if !r.Passed() {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	return &VectorError{Failed: failed, Of: len(results), Detail: vectors.Failed(results).Error()}
}

// An InputError says what is wrong with a policy's folder, and where.
type InputError = yamlfile.Error

func inputError(file string, err error) error {
	var se *policy.SyntaxError
	if errors.As(err, &se) {
		return &InputError{File: file, Line: se.Line, Col: se.Col, Reason: se.Reason}
	}
	return &InputError{File: path.Clean(file), Reason: err.Error()}
}
