package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
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
		Long: `Inspect prints manifest, digest, ABI, imports, limits and sizes. A bare module is judged by the narrowest class that admits
it; a folder or an OPA bundle is built in memory first. --extract-wasm writes the package's module as its compiler wrote
it: that of a Rego package runs in any host of OPA's ABI. Exit 1 when it is refused, with the place and the reason.`,
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
	File     string       `json:"file"`
	Digest   wire.Digest  `json:"digest"` // of the package, or of the bare module
	Bytes    int          `json:"bytes"`
	Admitted bool         `json:"admitted"`
	Refusal  *refusalJSON `json:"refusal,omitempty"`
	Manifest *manifest    `json:"manifest,omitempty"`
	Module   *moduleJSON  `json:"module,omitempty"`
	Limits   limitsJSON   `json:"limits"`
}

// limitsJSON are the limits of the class that a person asks for first.
type limitsJSON struct {
	ModuleBytes int `json:"module_bytes"`
	Functions   int `json:"functions"`
	BodyBytes   int `json:"body_bytes"`
	Locals      int `json:"locals"`
	Nesting     int `json:"nesting"`
	MemoryPages int `json:"memory_pages"`
	OutputBytes int `json:"output_bytes"`
}

func limitsOf(c wasm.Class) limitsJSON {
	l := c.Limits()
	return limitsJSON{l.ModuleBytes, l.Functions, l.BodyBytes, l.Locals, l.Nesting, l.MemoryPages, abi.MaxOutput}
}

type refusalJSON struct {
	Offset int    `json:"offset"`
	Item   string `json:"item"`
	Value  uint64 `json:"value"`
	Limit  uint64 `json:"limit"`
	Reason string `json:"reason"`
}

type manifest struct {
	Name        string         `json:"name"`
	Version     string         `json:"version"`
	Description string         `json:"description"`
	Language    string         `json:"language"`
	Toolchain   string         `json:"toolchain"`
	Module      wire.Digest    `json:"module"`
	Entrypoint  string         `json:"entrypoint,omitempty"`
	Points      []string       `json:"points"`
	Patterns    []string       `json:"patterns"`
	Params      map[string]any `json:"params"`
	Fuel        uint64         `json:"fuel"`
	DataBytes   int            `json:"data_bytes"`
	Vectors     int            `json:"vectors"`
}

type moduleJSON struct {
	ABI         string   `json:"abi"`
	Class       string   `json:"class"`
	Bytes       int      `json:"bytes"`
	Functions   int      `json:"functions"`
	CodeBytes   int      `json:"code_bytes"`
	MemoryPages uint32   `json:"memory_pages"`
	Imports     []string `json:"imports"`
	Exports     []string `json:"exports"`
}

func (e *env) inspect(c *cobra.Command, path, extract string, source *sourceFlags, asJSON bool) error {
	in := inspection{File: path}
	var module []byte
	classes := []wasm.Class{wasm.Policy, wasm.Data, wasm.LanguageRuntime}
	if strings.HasSuffix(path, ".wasm") {
		raw, err := readBounded(path, bundle.MaxPackageFile)
		if err != nil {
			return err
		}
		module, in.Bytes, in.Digest = raw, len(raw), wire.Sum(raw)
	} else {
		pkg, err := e.inspected(c, path, source, &in)
		if err != nil {
			return err
		}
		class, err := wasm.ParseClass(pkg.Class)
		if err != nil {
			return checkFailed("%s: %w", path, err)
		}
		module, classes, in.Manifest = pkg.Module, []wasm.Class{class}, describe(pkg)
	}
	if err := write(extract, module); err != nil {
		return err
	}
	refused := in.judge(module, classes)
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

// inspected opens a package file, or builds one in memory.
func (e *env) inspected(c *cobra.Command, path string, source *sourceFlags, in *inspection) (*bundle.Package, error) {
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
		return nil, checkFailed("%s: %w", path, err)
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

// judge scans the module under each class until one admits it, and returns why
// the last one does not.
func (in *inspection) judge(module []byte, classes []wasm.Class) error {
	var refused error
	for _, class := range classes {
		report, err := wasm.Scan(module, class)
		in.Limits = limitsOf(class)
		if err == nil {
			in.Admitted, in.Refusal = true, nil
			in.Module = &moduleJSON{
				ABI: string(report.ABI), Class: class.String(), Bytes: report.Bytes, Functions: report.Functions, CodeBytes: report.CodeBytes,
				MemoryPages: report.MemoryMin, Imports: orEmpty(report.Imports), Exports: orEmpty(report.Exports),
			}
			return nil
		}
		refused = err
		var r *wasm.Refusal
		if errors.As(err, &r) {
			in.Refusal = &refusalJSON{r.Offset, r.Item, r.Value, r.Limit, r.Reason}
		}
	}
	return refused
}

func describe(p *bundle.Package) *manifest {
	return &manifest{
		Name: p.Name, Version: p.Version, Description: p.Description, Language: p.Language, Toolchain: p.Toolchain,
		Module: p.Manifest.Module, Entrypoint: p.Entrypoint, Points: orEmpty(p.Points), Patterns: orEmpty(p.Patterns), Params: p.Params,
		Fuel: p.Fuel, DataBytes: len(p.Data), Vectors: len(p.Vectors),
	}
}

func (e *env) printInspection(in *inspection) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(e.stdout, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("file", "%s (%d bytes)", in.File, in.Bytes)
	line("digest", "%s", in.Digest)
	if m := in.Manifest; m != nil {
		line("policy", "%s %s", m.Name, m.Version)
		if m.Description != "" {
			line("", "%s", m.Description)
		}
		line("made by", "%s, %s", orText(m.Language, "unknown"), orText(m.Toolchain, "no toolchain named"))
		line("points", "%s", orText(strings.Join(m.Points, ", "), "any"))
		if m.Entrypoint != "" {
			line("entry", "%s", m.Entrypoint)
		}
		line("vectors", "%d", m.Vectors)
		line("data", "%d bytes", m.DataBytes)
	}
	if m := in.Module; m != nil {
		line("module", "%s, class %s, %d bytes, limit %d", m.ABI, m.Class, m.Bytes, in.Limits.ModuleBytes)
		line("functions", "%d (%d bytes of code), limit %d", m.Functions, m.CodeBytes, in.Limits.Functions)
		line("memory", "%d pages of 64 KiB at the start, limit %d", m.MemoryPages, in.Limits.MemoryPages)
		line("imports", "%s", orText(strings.Join(m.Imports, ", "), "none"))
	}
	if in.Admitted {
		line("admitted", "yes")
	} else {
		line("admitted", "no")
	}
}
