package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/compiler/rego/backend"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func inspectCommand(e *env) *cobra.Command {
	var asJSON bool
	var extract string
	var source sourceFlags
	c := &cobra.Command{
		Use:   "inspect FILE.hfp|FILE.wasm|DIR|BUNDLE.tar.gz",
		Short: "Show what a package or module is, and whether it is admitted",
		Long: `Inspect prints manifest, parameters and their schema, patterns, golden vectors, data, digests, ABI, imports, exports,
features, how much of each limit the module uses, and what the rewriter adds. A bare module is judged by the narrowest class that admits it; a folder or an OPA bundle is built in memory
first. --extract-wasm writes the package's module as its compiler wrote it: that of a Rego package runs in any host of OPA's
ABI. Exit 1 when it is refused, with the place, the reason and what to do about it; 2 when the file cannot be read or is no whole package.`,
		Example: "  holdfast inspect tool-authz.hfp\n  holdfast inspect policy.wasm -o json\n  holdfast inspect tool-authz.hfp --extract-wasm policy.wasm",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.inspect(c, args[0], extract, &source, asJSON)
		},
	}
	c.Flags().StringVar(&extract, "extract-wasm", "", "also write the module to this file")
	source.add(c)
	outputFlag(c, &asJSON)
	return c
}

// inspection is what inspect prints as JSON.
type inspection struct {
	File   string      `json:"file"`
	Digest wire.Digest `json:"digest"` // of the package, or of the bare module
	Bytes  int         `json:"bytes"`
	// Uncompressed is the size of a package's content, which its release states.
	Uncompressed int          `json:"uncompressed_bytes,omitempty"`
	Admitted     bool         `json:"admitted"`
	Refusal      *refusalJSON `json:"refusal,omitempty"`
	Manifest     *manifest    `json:"manifest,omitempty"`
	Module       *moduleJSON  `json:"module,omitempty"`
	Limits       []limitUse   `json:"limits,omitempty"`
	// Index is what a Rego module says of its rule index.
	Index *backend.Report `json:"index,omitempty"`
}

// limitUse is how much of one limit of the class the module uses.
type limitUse struct {
	Name  string `json:"name"`
	Used  int    `json:"used"`
	Limit int    `json:"limit"`
}

func limitsOf(r *wasm.Report) []limitUse {
	l := r.Class.Limits()
	return []limitUse{
		{"module bytes", r.Bytes, l.ModuleBytes}, {"functions", r.Functions, l.Functions}, {"longest body, bytes", r.LongestBody, l.BodyBytes},
		{"most locals", r.MostLocals, l.Locals}, {"nesting", r.Nesting, l.Nesting}, {"br_table targets", r.TableTargets, l.TableTargets},
		{"blocks times locals", int(r.LiveValues), l.LiveValues}, {"types", r.Types, l.Types}, {"imports", len(r.Imports), l.Imports},
		{"exports", len(r.Exports), l.Exports}, {"globals", r.Globals, l.Globals}, {"table elements", int(r.TableSize), l.TableSize},
		{"memory pages", int(r.MemoryMin), l.MemoryPages},
	}
}

type refusalJSON struct {
	Offset int    `json:"offset"`
	Item   string `json:"item"`
	Value  uint64 `json:"value"`
	Limit  uint64 `json:"limit"`
	Reason string `json:"reason"`
	Advice string `json:"advice"`
}

type manifest struct {
	Name        string      `json:"name"`
	Version     string      `json:"version"`
	Description string      `json:"description"`
	Language    string      `json:"language"`
	Toolchain   string      `json:"toolchain"`
	Module      wire.Digest `json:"module"`
	Entrypoint  string      `json:"entrypoint,omitempty"`
	Points      []string    `json:"points"`
	Patterns    []string    `json:"patterns"`
	// Params keep the fraction of a number: 1.0 is not 1.
	Params       json.RawMessage `json:"params"`
	ParamsSchema json.RawMessage `json:"params_schema,omitempty"`
	Fuel         uint64          `json:"fuel"`
	DataBytes    int             `json:"data_bytes"`
	DataDigest   *wire.Digest    `json:"data_digest,omitempty"`
	Vectors      int             `json:"vectors"`
	VectorList   []vectorJSON    `json:"vector_list"`
}

// vectorJSON is a golden vector without its request.
type vectorJSON struct {
	Name   string          `json:"name"`
	Point  string          `json:"point"`
	Params json.RawMessage `json:"params,omitempty"`
	Expect json.RawMessage `json:"expect"`
}

type moduleJSON struct {
	ABI            string   `json:"abi"`
	Class          string   `json:"class"`
	Bytes          int      `json:"bytes"`
	Functions      int      `json:"functions"`
	CodeBytes      int      `json:"code_bytes"`
	MemoryPages    uint32   `json:"memory_pages"`
	Imports        []string `json:"imports"`
	Exports        []string `json:"exports"`
	Features       []string `json:"features"`
	Added          []string `json:"added"` // by the rewriter
	RewrittenBytes int      `json:"rewritten_bytes"`
}

func (e *env) inspect(c *cobra.Command, path, extract string, source *sourceFlags, asJSON bool) error {
	in := inspection{File: path}
	var module []byte
	judge := narrowest
	if strings.HasSuffix(path, ".wasm") {
		raw, err := readBounded(path, bundle.MaxPackageFile)
		if err != nil {
			return err
		}
		module, in.Bytes, in.Digest = raw, len(raw), wire.Sum(raw)
	} else {
		pkg, err := e.inspected(c, path, source, &in, asJSON)
		if err != nil {
			return err
		}
		class, err := wasm.ParseClass(pkg.Class)
		if err != nil {
			return e.unreadable(path, err, asJSON)
		}
		module, judge = pkg.Module, func(m []byte) (*wasm.Report, error) { return wasm.Scan(m, class) }
		in.Manifest = describe(pkg)
		if in.Uncompressed, err = uncompressed(pkg); err != nil {
			return err
		}
	}
	if err := write(extract, module); err != nil {
		return err
	}
	report, refused := judge(module)
	if refused == nil {
		refused = in.explain(module, report)
	}
	if refused != nil {
		in.Admitted, in.Refusal = false, refusalOf(refused)
	}
	in.Index = indexReport(module)
	var err error
	if asJSON {
		err = e.printJSON(in)
	} else {
		e.printInspection(&in)
	}
	if err == nil && refused != nil {
		err = checkFailed("%s: %w", path, refused)
	}
	return err
}

// uncompressed is the size of a package's content.
func uncompressed(pkg *bundle.Package) (int, error) {
	file, _, err := pkg.Encode()
	if err != nil {
		return 0, err
	}
	content, err := wire.Decompress(file, bundle.MaxPackage)
	return len(content), err
}

// inspected opens a package file, or builds one in memory.
func (e *env) inspected(c *cobra.Command, path string, source *sourceFlags, in *inspection, asJSON bool) (*bundle.Package, error) {
	if info, err := os.Stat(path); err == nil && (info.IsDir() || strings.HasSuffix(path, ".tar.gz")) {
		return e.built(c, path, source, in)
	}
	raw, err := readBounded(path, bundle.MaxPackageFile)
	if err != nil {
		return nil, err
	}
	in.Bytes = len(raw)
	pkg, digest, err := bundle.OpenPackage(raw, bundle.MaxPackage)
	if err != nil {
		return nil, e.unreadable(path, err, asJSON)
	}
	in.Digest = digest
	return pkg, nil
}

func (e *env) built(c *cobra.Command, path string, source *sourceFlags, in *inspection) (*bundle.Package, error) {
	h, err := newHost(c.Context())
	if err != nil {
		return nil, err
	}
	defer h.Close(c.Context())
	pkg, digest, err := h.openPackage(c.Context(), path, source)
	if err != nil {
		return nil, err
	}
	file, _, err := pkg.Encode()
	in.Bytes, in.Digest = len(file), digest
	return pkg, err
}

// unreadable reports a file that is no package, as JSON too.
func (e *env) unreadable(path string, err error, asJSON bool) error {
	if asJSON {
		if err := e.printJSON(map[string]any{"file": path, "admitted": false, "error": err.Error()}); err != nil {
			return err
		}
	}
	return &exitError{code: exitUsage, err: fmt.Errorf("%s: %w", path, err)}
}

// narrowest scans the module under each class until one admits it, and returns
// why the last one does not.
func narrowest(module []byte) (report *wasm.Report, err error) {
	for _, class := range []wasm.Class{wasm.Policy, wasm.Data, wasm.LanguageRuntime} {
		if report, err = wasm.Scan(module, class); err == nil {
			return report, nil
		}
	}
	return nil, err
}

// explain fills in what an admitted module is and becomes.
func (in *inspection) explain(module []byte, r *wasm.Report) error {
	rewritten, err := wasm.Instrument(module, r.Class, r.ABI)
	if err != nil {
		return err
	}
	in.Admitted, in.Limits = true, limitsOf(r)
	in.Module = &moduleJSON{
		ABI: string(r.ABI), Class: r.Class.String(), Bytes: r.Bytes, Functions: r.Functions, CodeBytes: r.CodeBytes,
		MemoryPages: r.MemoryMin, Imports: orEmpty(r.Imports), Exports: orEmpty(r.Exports),
		Features: featuresOf(r), Added: additionsTo(r), RewrittenBytes: len(rewritten),
	}
	return nil
}

// featuresOf names what of the module a reader asks for first.
func featuresOf(r *wasm.Report) []string {
	features := []string{}
	for _, f := range []struct {
		is   bool
		name string
	}{
		{slices.Contains(r.Exports, abi.ExportInit), "takes parameters"},
		{slices.ContainsFunc(r.Imports, func(name string) bool { return strings.HasPrefix(name, abi.WASIModule+".") }), "WASI, inert"},
		{r.TableSize > 0, fmt.Sprintf("a table of %d", r.TableSize)},
		{r.Mutable > 0, fmt.Sprintf("%d mutable globals", r.Mutable)},
		{r.Segments > 0, fmt.Sprintf("%d segments", r.Segments)},
	} {
		if f.is {
			features = append(features, f.name)
		}
	}
	return features
}

// additionsTo says what the rewriter changes.
func additionsTo(r *wasm.Report) []string {
	added := []string{"fuel", "call depth", "a map of writes"}
	if !r.HasMax {
		added = append(added, fmt.Sprintf("a memory maximum of %d pages", r.Class.Limits().MemoryPages))
	} else if limit := r.Class.Limits().MemoryPages; int(r.MemoryMax) > limit {
		added = append(added, fmt.Sprintf("a memory maximum of %d pages instead of %d", limit, r.MemoryMax))
	}
	if slices.Contains(r.Imports, "env.memory") {
		added = append(added, "its own memory instead of the imported one")
	}
	if r.Mutable > 0 {
		added = append(added, "exports of its mutable globals, to restore them")
	}
	if r.Start {
		added = append(added, "its start function as an export, run under fuel")
	}
	return added
}

func refusalOf(err error) *refusalJSON {
	r, ok := errors.AsType[*wasm.Refusal](err)
	if !ok {
		return nil
	}
	return &refusalJSON{r.Offset, r.Item, r.Value, r.Limit, r.Reason, adviceOn(r)}
}

// advice says what an author can do about a refusal, by words of its text; the
// first that matches counts.
var advice = []struct{ word, text string }{
	{"speaks no known contract", "export holdfast_abi_v1, holdfast_alloc and holdfast_decide (a guest SDK does), or compile Rego with holdfast build"},
	{"not a core WebAssembly module", "this is no .wasm file of the core format; a component must be built as a core module"},
	{"does not offer it", "build without this import: policies have no network, files or threads; what the host offers is in sdk/wasm/contract.go"},
	{"its type is", "the contract's signatures are fixed within a version: see sdk/abi"},
	{"is missing", "the contract wants this export: a guest SDK adds it"},
	{"reserved for the meter", "rename it: names with this prefix belong to the host"},
	{"would survive the call", "the host restores memory and globals after every call, and refuses what it could not restore; build without reference types"},
	{"SIMD", "build without SIMD (clang and Rust: no +simd128)"},
	{"threads", "build without threads and atomics"},
	{"memories", "one memory is wanted: build without multi-memory"},
	{"unknown or not allowed", "build for core WebAssembly 2.0 without tail calls, exceptions, garbage collection and memory64"},
	{"blocks times locals", "split the largest function, or turn off the inlining that made it"},
	{"too many bytes", "strip names and debug information (-s, wasm-opt --strip), or use the class language-runtime"},
	{"nesting", "split the deepest function, or use the class language-runtime if the guest brings one"},
	{"memory pages", "lower the initial memory, or use the class data"},
	{"too many", "split the module or build it smaller; language-runtime has the widest limits"},
	{"truncated", "the file is damaged or was cut: build it again"},
}

func adviceOn(r *wasm.Refusal) string {
	for _, a := range advice {
		if strings.Contains(r.Error(), a.word) {
			return a.text
		}
	}
	return "the module is not valid: build it again with a current toolchain"
}

func describe(p *bundle.Package) *manifest {
	m := &manifest{
		Name: p.Name, Version: p.Version, Description: p.Description, Language: p.Language, Toolchain: p.Toolchain,
		Module: p.Manifest.Module, Entrypoint: p.Entrypoint, Points: orEmpty(p.Points), Patterns: orEmpty(p.Patterns),
		Params: vectors.Value(p.Merged(nil)), ParamsSchema: p.ParamsSchema,
		Fuel: p.Fuel, DataBytes: len(p.Data), Vectors: len(p.Vectors), VectorList: []vectorJSON{},
	}
	if len(p.Data) > 0 {
		d := wire.Sum(p.Data)
		m.DataDigest = &d
	}
	for i := range p.Vectors {
		v := &p.Vectors[i]
		entry := vectorJSON{Name: v.Name, Point: v.Point, Expect: vectors.Expectation(&v.Expect)}
		if len(v.Params) > 0 {
			entry.Params = vectors.Value(v.Params)
		}
		m.VectorList = append(m.VectorList, entry)
	}
	return m
}

func (e *env) printInspection(in *inspection) {
	size := fmt.Sprintf("%d bytes", in.Bytes)
	if in.Uncompressed > 0 {
		size += fmt.Sprintf(", %d uncompressed", in.Uncompressed)
	}
	e.line("file", "%s (%s)", in.File, size)
	e.line("digest", "%s", in.Digest)
	if in.Manifest != nil {
		e.printManifest(in.Manifest)
	}
	if in.Module != nil {
		e.printModule(in)
	}
	for i := range in.Index.Documents() {
		e.line("index", "%s", describeIndex(&in.Index.Rules[i]))
	}
	if in.Admitted {
		e.line("admitted", "yes")
		return
	}
	e.line("admitted", "no")
	if r := in.Refusal; r != nil {
		e.line("where", "byte %d, %s", r.Offset, r.Item)
		e.line("why", "%s", r.Reason)
		if r.Value != 0 || r.Limit != 0 {
			e.line("found", "%d, limit %d", r.Value, r.Limit)
		}
		e.line("do", "%s", r.Advice)
	}
}

// line prints one named line.
func (e *env) line(name, format string, args ...any) {
	fmt.Fprintf(e.stdout, "%-10s %s\n", name, fmt.Sprintf(format, args...))
}

func (e *env) printManifest(m *manifest) {
	e.line("policy", "%s %s", m.Name, m.Version)
	if m.Description != "" {
		e.line("", "%s", m.Description)
	}
	e.line("made by", "%s, %s", orText(m.Language, "unknown"), orText(m.Toolchain, "no toolchain named"))
	e.line("points", "%s", orText(strings.Join(m.Points, ", "), "any"))
	if m.Entrypoint != "" {
		e.line("entry", "%s", m.Entrypoint)
	}
	for n, p := range m.Patterns {
		e.line(first(n, "patterns"), "%d: %s", n, p)
	}
	e.line("params", "%s", m.Params)
	e.line("schema", "%s", orText(string(m.ParamsSchema), "none: any parameters"))
	if m.Fuel != 0 {
		e.line("fuel", "at most %d units a call", m.Fuel)
	}
	if m.DataDigest == nil {
		e.line("data", "none")
	} else {
		e.line("data", "%d bytes, %s", m.DataBytes, m.DataDigest)
	}
	e.line("vectors", "%d", m.Vectors)
	for _, v := range m.VectorList {
		params := ""
		if v.Params != nil {
			params = fmt.Sprintf(" with %s", v.Params)
		}
		e.line("", "%s, at %s%s: %s", v.Name, v.Point, params, v.Expect)
	}
}

// first is the name of a list's first line; the others have none.
func first(n int, name string) string {
	if n > 0 {
		return ""
	}
	return name
}

func (e *env) printModule(in *inspection) {
	m := in.Module
	e.line("module", "%s, class %s, %d functions, %d bytes of code", m.ABI, m.Class, m.Functions, m.CodeBytes)
	e.line("imports", "%s", orText(strings.Join(m.Imports, ", "), "none"))
	e.line("exports", "%s", strings.Join(m.Exports, ", "))
	e.line("features", "%s", orText(strings.Join(m.Features, ", "), "none"))
	e.line("rewriting", "adds %s; %d bytes become %d", strings.Join(m.Added, ", "), m.Bytes, m.RewrittenBytes)
	for n, l := range in.Limits {
		e.line(first(n, "limits"), "%-22s %9d of %9d  %5.1f %%", l.Name, l.Used, l.Limit, 100*float64(l.Used)/float64(l.Limit))
	}
}
