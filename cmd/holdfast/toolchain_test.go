package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/internal/needs"
	"github.com/holdfast-policy/holdfast/sdk/guest"
)

// holdfast runs the program in this process.
func holdfast(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// begin writes a policy of the language into a new folder.
func begin(t *testing.T, l guest.Language) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "my-policy")
	if code, out, errs := holdfast(t, "init", dir, "--lang", l.Name); code != exitOK {
		t.Fatalf("%s: exit code %d: %s%s", l.Name, code, out, errs)
	}
	return dir
}

// orSkip skips where the language's compiler is not on this machine.
func orSkip(t *testing.T, l guest.Language, dir string) {
	t.Helper()
	if _, err := compiler.Toolchain(t.Context(), l.Config, dir); err != nil {
		needs.Missing(t, err)
	}
}

// onlyPrograms leaves nothing on the machine that is a compiler, but programs of
// the test's own, which print a version.
func onlyPrograms(t *testing.T, says map[string]string) {
	t.Helper()
	bin := t.TempDir()
	for program, text := range says {
		if err := os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/sh\ncat <<'END'\n"+text+"\nEND\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if len(says) > 0 { // the scripts want a cat
		if err := os.Symlink("/bin/cat", filepath.Join(bin, "cat")); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	t.Setenv("HOME", bin)
	for _, name := range []string{"CLANG", "ZIG", "ASC"} {
		t.Setenv(name, "")
	}
	t.Setenv("RUSTC", filepath.Join(bin, "rustc")) // it is looked for in /usr/bin too
}

// TestMissingToolchain: init says what to install and writes the policy all the
// same, build says it and ends with 3.
func TestMissingToolchain(t *testing.T) {
	for _, l := range guest.Languages() {
		t.Run(l.Name, func(t *testing.T) {
			onlyPrograms(t, nil)
			dir := filepath.Join(t.TempDir(), "my-policy")
			code, out, _ := holdfast(t, "init", dir, "--lang", l.Name)
			if l.Install == "" {
				if code != exitOK || strings.Contains(out, "install") {
					t.Errorf("exit code %d, %s", code, out)
				}
				return
			}
			if code != exitOK || !strings.Contains(out, "before that: ") || !strings.Contains(out, " is not installed: ") {
				t.Errorf("exit code %d, %s", code, out)
			}
			code, _, errs := holdfast(t, "build", dir, "-o", filepath.Join(dir, "x.hfp"))
			if code != exitMissing || !strings.Contains(errs, " is not installed: ") || !strings.Contains(errs, "install ") {
				t.Errorf("exit code %d, %s", code, errs)
			}
			if _, err := os.Stat(filepath.Join(dir, "x.hfp")); err == nil {
				t.Error("a package without a compiler")
			}
		})
	}
}

// old says what compilers said that are too old.
var old = map[string]map[string]string{
	"go":             {"go": "go1.23.9"},
	"c":              {"clang": "Debian clang version 14.0.6"},
	"c++":            {"clang": "Debian clang version 14.0.6"},
	"zig":            {"zig": "0.15.2"},
	"rust":           {"rustc": "rustc 1.84.1 (e71f9a9a9 2025-01-27)\nhost: x86_64-unknown-linux-gnu\nrelease: 1.84.1"},
	"assemblyscript": {"node": "v20.1.0", "asc": "Version 0.27.30"},
}

func TestOldToolchain(t *testing.T) {
	for _, l := range guest.Languages() {
		if l.Install == "" {
			continue
		}
		t.Run(l.Name, func(t *testing.T) {
			if old[l.Name] == nil {
				t.Fatal("which version of its compiler is too old?")
			}
			onlyPrograms(t, old[l.Name])
			code, _, errs := holdfast(t, "build", begin(t, l))
			if code != exitMissing || !strings.Contains(errs, " is too old (") || !strings.Contains(errs, "install ") {
				t.Errorf("exit code %d, %s", code, errs)
			}
		})
	}
}

// TestSyntaxError: the compiler's own message, with file and line, and exit code 2.
func TestSyntaxError(t *testing.T) {
	for _, l := range guest.Languages() {
		t.Run(l.Name, func(t *testing.T) {
			dir := begin(t, l)
			orSkip(t, l, dir)
			source := filepath.Join(dir, l.Source)
			text, err := os.ReadFile(source)
			if err == nil {
				err = os.WriteFile(source, append(text, "\n) nonsense (\n"...), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			code, _, errs := holdfast(t, "build", dir, "-o", filepath.Join(dir, "x.hfp"))
			if code != exitUsage || !strings.Contains(errs, l.Source) {
				t.Errorf("exit code %d, %s", code, errs)
			}
			if strings.Contains(errs, dir) {
				t.Errorf("the folder in the message: %s", errs)
			}
			if _, err := os.Stat(filepath.Join(dir, "x.hfp")); err == nil {
				t.Error("a package of nonsense")
			}
		})
	}
}

// TestReproducible: two projects in different folders are the same package, their
// modules those that are committed when the compiler is the pinned one.
func TestReproducible(t *testing.T) {
	for _, l := range guest.Languages() {
		t.Run(l.Name, func(t *testing.T) {
			first, second := begin(t, l), filepath.Join(t.TempDir(), "quite another", "folder", "my-policy")
			orSkip(t, l, first)
			if code, _, errs := holdfast(t, "init", second, "--lang", l.Name); code != exitOK {
				t.Fatal(errs)
			}
			var files, modules [][]byte
			for _, dir := range []string{first, second} {
				file, module := filepath.Join(dir, "x.hfp"), filepath.Join(dir, "x.wasm")
				if code, _, errs := holdfast(t, "build", dir, "-o", file, "--wasm-out", module); code != exitOK {
					t.Fatal(errs)
				}
				files, modules = append(files, mustRead(t, file)), append(modules, mustRead(t, module))
			}
			if !bytes.Equal(files[0], files[1]) {
				t.Error("the same policy in another folder is another package")
			}
			version, err := compiler.Toolchain(t.Context(), l.Config, first)
			if err != nil {
				t.Fatal(err)
			}
			if l.Install == "" {
				return // no toolchain, and no module committed
			}
			if pinned[l.Name] != version {
				t.Skipf("not held against the committed module: that is of %q, here is %q", pinned[l.Name], version)
			}
			if !bytes.Equal(modules[0], mustRead(t, filepath.Join("../../sdk/guest", l.Module(guest.DefaultExample)))) {
				t.Errorf("%s gives another module than the committed one: make guests", version)
			}
		})
	}
}

// pinned are the compilers whose modules are committed, as .ci/toolchains has them.
var pinned = map[string]string{
	"go": "go1.26.8", "c": "clang 19.1.7", "c++": "clang 19.1.7", "zig": "zig 0.16.0", "rust": "rustc 1.96.0", "assemblyscript": "asc 0.28.20",
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestEveryLanguageBuilds: what init offers, the compiler knows.
func TestEveryLanguageBuilds(t *testing.T) {
	for _, l := range guest.Languages() {
		if !slices.Contains(compiler.Languages(), l.Config) {
			t.Errorf("%s: the compiler knows no %q", l.Name, l.Config)
		}
	}
}
