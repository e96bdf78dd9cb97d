package toolchain_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler/toolchain"
)

const ascSDK, ascPolicy = "../../sdk/guest/assemblyscript/holdfast.ts", "../../sdk/guest/assemblyscript/examples/tool-authz.ts"

func copyAssemblyScript(t *testing.T, dir string) string {
	return copyFiles(t, dir, [2]string{"policy.ts", ascPolicy}, [2]string{"holdfast.ts", ascSDK})
}

func TestAssemblyScriptIsReproducibleInAnyFolder(t *testing.T) {
	sameAnywhere(t, toolchain.AssemblyScript, copyAssemblyScript, "asc 0.")
}

func TestAssemblyScriptCompileError(t *testing.T) {
	dir := copyAssemblyScript(t, t.TempDir())
	write(t, filepath.Join(dir, "policy.ts"), "import * as holdfast from \"./holdfast\";\nexport function f(): void {\n  nope();\n}\n")
	_, err := toolchain.AssemblyScript(t.Context(), dir)
	var failed *toolchain.CompileError
	if !errors.As(err, &failed) {
		need(t, err)
	}
	if failed == nil || !strings.Contains(failed.Output, "in policy.ts(3,3)") || strings.Contains(failed.Output, dir) {
		t.Errorf("%v", err)
	}
}

// fakeTool makes a program.
func fakeTool(t *testing.T, name, text string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the fake compilers are shell scripts")
	}
	write(t, name, "#!/bin/sh\n"+text)
	if err := os.Chmod(name, 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestAssemblyScriptRunsNothingOfTheFolder: asc would run the programs that the
// folder's asconfig.json names.
func TestAssemblyScriptRunsNothingOfTheFolder(t *testing.T) {
	dir := copyAssemblyScript(t, t.TempDir())
	mark := filepath.Join(dir, "ran")
	write(t, filepath.Join(dir, "asconfig.json"), `{"options": {"transform": ["./own.mjs"]}}`)
	write(t, filepath.Join(dir, "own.mjs"), "import fs from 'fs'\nfs.writeFileSync('ran', '')\nexport default class {}\n")
	_, err := toolchain.AssemblyScript(t.Context(), dir)
	need(t, err)
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the folder's own program was run")
	}
}

// TestRelativePath: a relative part of PATH, which would mean the policy's folder,
// is not searched by what a compiler starts.
func TestRelativePath(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	fakeTool(t, filepath.Join(bin, "node"), "")
	fakeTool(t, filepath.Join(bin, "asc"), "[ $1 = --version ] && echo Version 0.28.20 && exit\nhelper\nprintf module >$3\n")
	fakeTool(t, filepath.Join(dir, "helper"), ": >ran\n")
	t.Setenv("PATH", strings.Join([]string{bin, ".", ""}, string(filepath.ListSeparator)))
	t.Setenv("ASC", "")
	if _, err := toolchain.AssemblyScript(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("the folder's own program was run")
	}
}

// TestRelativeTemp: tools run in the policy's folder, and the temporary folder may
// be given relative to another.
func TestRelativeTemp(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	fakeTool(t, filepath.Join(bin, "node"), "")
	fakeTool(t, filepath.Join(bin, "asc"), "[ $1 = --version ] && echo Version 0.28.20 || printf module >$3\n")
	t.Setenv("PATH", bin)
	t.Setenv("ASC", "")
	t.Chdir(t.TempDir())
	write(t, filepath.Join("tmp", "x"), "")
	t.Setenv("TMPDIR", "tmp")
	if _, err := toolchain.AssemblyScript(t.Context(), dir); err != nil {
		t.Error(err)
	}
}

func TestAssemblyScriptFindsNPMs(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	fakeTool(t, filepath.Join(bin, "node"), "")
	fakeTool(t, filepath.Join(bin, "asc"), "echo Version 0.27.9\n")
	t.Setenv("PATH", bin)
	t.Setenv("ASC", "")
	_, err := toolchain.AssemblyScript(t.Context(), dir)
	var missing *toolchain.MissingError
	if !errors.As(err, &missing) || missing.Found != "0.27.9" || !strings.Contains(missing.Install, "npm install") {
		t.Errorf("%v", err)
	}
	fakeTool(t, filepath.Join(dir, "node_modules/.bin/asc"), "[ $1 = --version ] && echo Version 0.28.20 || printf module >$3\n")
	policy := filepath.Join(dir, "policies", "a")
	if err := os.MkdirAll(policy, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := toolchain.AssemblyScript(t.Context(), policy)
	if err != nil || m.Toolchain != "asc 0.28.20" || string(m.Wasm) != "module" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestAssemblyScriptSaysWhatIsMissing(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	t.Setenv("ASC", "")
	lacks := func(program string) {
		t.Helper()
		_, err := toolchain.AssemblyScript(t.Context(), t.TempDir())
		var missing *toolchain.MissingError
		if !errors.As(err, &missing) || !strings.Contains(missing.Program, program) || missing.Found != "" || missing.Install == "" {
			t.Errorf("want %s: %v", program, err)
		}
	}
	lacks("node")
	fakeTool(t, filepath.Join(bin, "node"), "")
	lacks("asc")
	fakeTool(t, filepath.Join(bin, "asc"), "exit 1\n")
	lacks("an asc that runs")
}
