package toolchain_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler/toolchain"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// copyGuest puts a policy and the SDK that it imports, as a module of their own,
// into a new folder below dir and returns the policy's folder.
func copyGuest(t *testing.T, dir string) string {
	t.Helper()
	const sdk = "../../sdk/guest/go"
	write(t, filepath.Join(dir, "go.mod"), "module github.com/holdfast-policy/holdfast\n\ngo 1.24\n")
	names, err := filepath.Glob(sdk + "/*.go")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d files of the SDK, %v", len(names), err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "sdk/guest/go", filepath.Base(name)), string(raw))
	}
	policy := filepath.Join(dir, "policy")
	write(t, filepath.Join(policy, "main.go"), `package main

import guest "github.com/holdfast-policy/holdfast/sdk/guest/go"

func init() {
	guest.Register(guest.Policy{Decide: func(r guest.Request) guest.Decision {
		if guest.Match(0, r.Subject().ID()) && guest.Now() > 0 {
			guest.Log(guest.LevelInfo, "matched")
		}
		return guest.Decision{Verdict: guest.Allow}
	}})
}

func main() {}
`)
	return policy
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestGoIsReproducibleInAnyFolder(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Fatal("no go command: go test itself needs one on the PATH")
	}
	first, err := toolchain.Go(t.Context(), copyGuest(t, filepath.Join(t.TempDir(), "a")))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOFLAGS", "-tags=other")
	t.Setenv("GOFIPS140", "latest")
	second, err := toolchain.Go(t.Context(), copyGuest(t, filepath.Join(t.TempDir(), "much", "longer")))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Wasm, second.Wasm) {
		t.Error("the same source in another folder gives another module")
	}
	if !strings.HasPrefix(first.Toolchain, "go1.") {
		t.Errorf("toolchain %q", first.Toolchain)
	}
	report, err := wasm.Scan(first.Wasm, wasm.LanguageRuntime)
	if err != nil {
		t.Fatal(err)
	}
	if report.ABI != abi.HoldfastV1 {
		t.Errorf("ABI %s", report.ABI)
	}
}

func TestCompileError(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example.org/p\n\ngo 1.24\n")
	write(t, filepath.Join(dir, "main.go"), "package main\n\nfunc main() { nope() }\n")
	_, err := toolchain.Go(t.Context(), dir)
	var failed *toolchain.CompileError
	if !errors.As(err, &failed) || !strings.Contains(failed.Output, "main.go:3:15: undefined: nope") {
		t.Errorf("%v", err)
	}
}

func TestMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := toolchain.Go(t.Context(), t.TempDir())
	var missing *toolchain.MissingError
	if !errors.As(err, &missing) || missing.Program != "go" || missing.Found != "" || !strings.Contains(err.Error(), "install Go 1.24") {
		t.Errorf("%v", err)
	}
}

// TestTooOld puts a go command of another age on the path.
func TestTooOld(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte("#!/bin/sh\necho go1.21.3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	_, err := toolchain.Go(t.Context(), t.TempDir())
	var missing *toolchain.MissingError
	if !errors.As(err, &missing) || missing.Found != "go1.21.3" {
		t.Errorf("%v", err)
	}
}
