package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/sdk/abi"
)

func buildCommand(e *env) *cobra.Command {
	var outputs []string
	var wasmOut string
	var prebuilt bool
	var source sourceFlags
	c := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Compile, admit and test a policy, and pack it",
		Long: `Build turns a folder with a policy in any language of "holdfast init", a ready .wasm file or an OPA bundle (.tar.gz or a folder with
.manifest) into a package. It admits the
module and runs the golden vectors; a package is written only when all of them pass. It prints sizes, the fuel of the vectors, and
what a decision and the admission take here and now. The same source in any folder
gives the same digest. holdfast.yaml describes the policy; a Rego folder without one is a policy too, with every
package as an entry point. Exit 3: the language's toolchain is missing.`,
		Example: "  holdfast build modules/tool-authz -o tool-authz.hfp\n  holdfast build . -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.build(c, argument(args), outputs, wasmOut, prebuilt, &source)
		},
	}
	c.Flags().StringArrayVarP(&outputs, "output", "o", nil, `the package file (default NAME.hfp); "json" prints one JSON value, beside a file or alone`)
	c.Flags().StringVar(&wasmOut, "wasm-out", "", "also write the module alone; then no package is written unless -o names one")
	source.add(c)
	c.Flags().BoolVar(&prebuilt, "prebuilt", false, "take the folder's .wasm file instead of running the toolchain")
	return c
}

// argument is the folder or file that a command works on, this folder by default.
func argument(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

func (e *env) build(c *cobra.Command, dir string, outputs []string, wasmOut string, prebuilt bool, source *sourceFlags) error {
	file, asJSON := "", false
	for _, o := range outputs {
		switch {
		case o == "json":
			asJSON = true
		case file != "":
			return fmt.Errorf("two output files, %s and %s", file, o)
		default:
			file = o
		}
	}
	h, err := newHost(c.Context())
	if err != nil {
		return err
	}
	defer h.Close(c.Context())
	opts, err := source.options(h)
	if err != nil {
		return err
	}
	opts.Prebuilt = prebuilt
	built, err := compiler.Build(c.Context(), dir, opts)
	if err != nil {
		return authorError(err)
	}
	figures, err := h.figuresOf(c.Context(), built)
	if err != nil {
		return err
	}
	if file == "" && wasmOut == "" {
		file = built.Package.Name + ".hfp"
	}
	if err := write(wasmOut, built.Package.Module); err != nil {
		return err
	}
	if err := write(file, built.File); err != nil {
		return err
	}
	if asJSON {
		return e.printJSON(buildReport(built, figures, file))
	}
	return e.printBuilt(built, figures, file)
}

// write creates or replaces a file, whole or not at all; no name, no file.
func write(name string, data []byte) error {
	if name == "" {
		return nil
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(name, data, 0o644) // a device or a pipe
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func buildReport(b *compiler.Built, f *figures, file string) map[string]any {
	return map[string]any{
		"name": b.Package.Name, "version": b.Package.Version, "digest": b.Digest, "module": b.Package.Manifest.Module,
		"abi": b.Package.ABI, "class": b.Package.Class, "language": b.Package.Language, "toolchain": b.Package.Toolchain,
		"entrypoint": b.Package.Entrypoint, "module_bytes": len(b.Package.Module), "package_bytes": len(b.File),
		"vectors": len(b.Vectors), "file": file, "figures": f,
	}
}

func (e *env) printBuilt(b *compiler.Built, f *figures, file string) error {
	fmt.Fprintf(e.stdout, "%s %s\n", b.Package.Name, b.Package.Version)
	fmt.Fprintf(e.stdout, "  digest   %s\n", b.Digest)
	fmt.Fprintf(e.stdout, "  module   %s, class %s, %d bytes, %s\n", b.Package.ABI, b.Package.Class, len(b.Package.Module), orText(b.Package.Toolchain, "as it came"))
	if b.Package.ABI == string(abi.OPA1) {
		fmt.Fprintf(e.stdout, "  entry    %s\n", b.Package.Entrypoint)
	}
	fmt.Fprintf(e.stdout, "  vectors  %d passed\n", len(b.Vectors))
	e.printFigures(f)
	if len(b.Vectors) == 0 {
		fmt.Fprintln(e.stderr, "holdfast: the policy has no golden vectors; write vectors.yaml, so that nodes can test it before they use it")
	}
	if file != "" {
		fmt.Fprintf(e.stdout, "  wrote    %s (%d bytes, %d uncompressed)\n", file, len(b.File), b.Size)
	}
	return nil
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
