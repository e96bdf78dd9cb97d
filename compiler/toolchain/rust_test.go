package toolchain_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler/toolchain"
	"github.com/holdfast-policy/holdfast/internal/needs"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

const rustSDK, rustPolicy = "../../sdk/guest/rust/holdfast.rs", "../../sdk/guest/rust/examples/tool-authz.rs"

// need skips a test whose compiler is not installed, with what would install it.
func need(t *testing.T, err error) {
	t.Helper()
	var missing *toolchain.MissingError
	if errors.As(err, &missing) {
		needs.Missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// copyFiles puts copies of files, each as name and source, into a new folder.
func copyFiles(t *testing.T, dir string, files ...[2]string) string {
	t.Helper()
	for _, f := range files {
		raw, err := os.ReadFile(f[1])
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, f[0]), string(raw))
	}
	return dir
}

func copyRust(t *testing.T, dir string) string {
	return copyFiles(t, dir, [2]string{"policy.rs", rustPolicy}, [2]string{"holdfast.rs", rustSDK})
}

func TestRustIsReproducibleInAnyFolder(t *testing.T) {
	sameAnywhere(t, toolchain.Rust, copyRust, "rustc 1.")
}

// sameAnywhere builds in two folders, compares, and checks that it is a guest.
func sameAnywhere(t *testing.T, build func(context.Context, string) (*toolchain.Module, error), lay func(*testing.T, string) string, name string) {
	t.Helper()
	first, err := build(t.Context(), lay(t, filepath.Join(t.TempDir(), "a")))
	need(t, err)
	second, err := build(t.Context(), lay(t, filepath.Join(t.TempDir(), "much", "longer and with blanks")))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Wasm, second.Wasm) {
		t.Error("the same source in another folder gives another module")
	}
	if !strings.HasPrefix(first.Toolchain, name) {
		t.Errorf("toolchain %q", first.Toolchain)
	}
	report, err := wasm.Scan(first.Wasm, wasm.Policy)
	if err != nil {
		t.Fatal(err)
	}
	if report.ABI != abi.HoldfastV1 {
		t.Errorf("ABI %s", report.ABI)
	}
}

func TestRustCompileError(t *testing.T) {
	dir := copyRust(t, t.TempDir())
	_, err := toolchain.Rust(t.Context(), dir)
	need(t, err)
	write(t, filepath.Join(dir, "policy.rs"), "#![no_std]\nmod holdfast;\nfn f() { nope() }\n")
	_, err = toolchain.Rust(t.Context(), dir)
	var failed *toolchain.CompileError
	if !errors.As(err, &failed) || !strings.Contains(failed.Output, "policy.rs:3:10") || strings.Contains(failed.Output, dir) {
		t.Errorf("%v", err)
	}
}

// A fakeRust is a program that answers as rustc does and notes what it is asked.
type fakeRust struct {
	path, sysroot, notes string
}

// newRust makes one with or without the target, the sources and a linker of its own.
func newRust(t *testing.T, release string, has ...string) fakeRust {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the fake compilers are shell scripts")
	}
	dir := t.TempDir()
	f := fakeRust{path: filepath.Join(dir, "rustc"), sysroot: filepath.Join(dir, "sysroot"), notes: filepath.Join(dir, "notes")}
	for _, part := range has {
		write(t, filepath.Join(f.sysroot, "lib", "rustlib", map[string]string{
			"none": "wasm32v1-none/lib/libcore-1.rlib", "unknown": "wasm32-unknown-unknown/lib/libcore-1.rlib",
			"sources": "src/rust/library/core/src/lib.rs", "lld": "h-o-st/bin/rust-lld"}[part]), "")
	}
	script := fmt.Sprintf(`#!/bin/sh
case "$1" in
-vV) printf 'rustc %[1]s (x)\nhost: h-o-st\nrelease: %[1]s\n'; exit;;
--print=sysroot) echo '%[2]s'; exit;;
esac
echo "$@" >>'%[3]s'
while [ $# != 0 ]; do
	[ "$1" = -o ] && printf module >"$2"
	shift
done
`, release, f.sysroot, f.notes)
	if err := os.WriteFile(f.path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return f
}

// asked is what was compiled, a line each.
func (f fakeRust) asked(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(f.notes)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(raw)
}

// on puts compilers, and nothing else, on the path.
func on(t *testing.T, compilers ...fakeRust) {
	t.Helper()
	var folders []string
	for _, f := range compilers {
		folders = append(folders, filepath.Dir(f.path))
	}
	t.Setenv("RUSTC", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("PATH", strings.Join(append(folders, "/bin"), string(os.PathListSeparator)))
}

func TestRustTakesAnInstalledTarget(t *testing.T) {
	bare, sources, unknown := newRust(t, "1.95.0"), newRust(t, "1.96.0", "sources", "lld"), newRust(t, "1.85.0-nightly", "unknown", "lld")
	on(t, bare, sources, unknown)
	m, err := toolchain.Rust(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	said := unknown.asked(t)
	if m.Toolchain != "rustc 1.85.0-nightly" || string(m.Wasm) != "module" || strings.Count(said, "\n") != 1 || strings.Contains(said, "-Clinker") ||
		!strings.Contains(said, "--target=wasm32-unknown-unknown") || bare.asked(t)+sources.asked(t) != "" {
		t.Errorf("%+v\n%s", m, said)
	}
	both := newRust(t, "1.90.0", "none", "unknown", "lld")
	t.Setenv("RUSTC", both.path)
	if _, err := toolchain.Rust(t.Context(), t.TempDir()); err != nil || !strings.Contains(both.asked(t), "--target=wasm32v1-none") {
		t.Errorf("%v\n%s", err, both.asked(t))
	}
}

// TestRustKeepsTheLibrary: core is built by the first of two builds, and by the
// first after the compiler changed.
func TestRustKeepsTheLibrary(t *testing.T) {
	compiler := newRust(t, "1.96.0", "sources", "lld")
	on(t, newRust(t, "1.95.0"), compiler)
	for range 2 {
		if _, err := toolchain.Rust(t.Context(), t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	said := compiler.asked(t)
	lines := strings.Split(said, "\n")
	if len(lines) != 6 || !strings.Contains(lines[0], "--crate-name=core ") || !strings.Contains(lines[2], "--crate-name=alloc ") ||
		!strings.Contains(lines[3], "-Clinker="+compiler.sysroot) || !strings.Contains(lines[4], "--sysroot=") {
		t.Errorf("%d lines\n%s", len(lines), said)
	}
	script, err := os.ReadFile(compiler.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(compiler.path, bytes.ReplaceAll(script, []byte("1.96.0"), []byte("1.96.1")), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := toolchain.Rust(t.Context(), t.TempDir()); err != nil || strings.Count(compiler.asked(t), "--crate-name=core ") != 2 {
		t.Errorf("%v\n%s", err, compiler.asked(t))
	}
}

func TestRustSaysWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		compiler       fakeRust
		program, found string
	}{
		"too old":   {newRust(t, "1.84.1", "none", "lld"), "rustc", "1.84.1"},
		"no target": {newRust(t, "1.95.0", "lld"), "the target wasm32v1-none of rustc 1.95.0", ""},
		"no linker": {newRust(t, "1.96.0", "none"), "wasm-ld", ""},
		"no rustc":  {fakeRust{path: filepath.Join(t.TempDir(), "rustc")}, "a rustc that runs", ""},
	} {
		t.Setenv("PATH", t.TempDir()) // sh is found by its path
		t.Setenv("RUSTC", c.compiler.path)
		_, err := toolchain.Rust(t.Context(), t.TempDir())
		var missing *toolchain.MissingError
		if !errors.As(err, &missing) || !strings.Contains(missing.Program, c.program) || missing.Found != c.found || missing.Install == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
