// Package toolchain compiles guests with the toolchain of their own language,
// which must be installed. The flags are such that the same source gives the
// same bytes in whatever folder it lies.
package toolchain

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// A MissingError says which program is not installed, or too old.
type MissingError struct {
	Program string // such as "go"
	Found   string // the version that was found, "" for none
	Install string // what to do
}

func (e *MissingError) Error() string {
	if e.Found != "" {
		return fmt.Sprintf("%s is too old (%s): %s", e.Program, e.Found, e.Install)
	}
	return fmt.Sprintf("%s is not installed: %s", e.Program, e.Install)
}

// A CompileError carries what the toolchain said.
type CompileError struct {
	Command string
	Output  string
}

func (e *CompileError) Error() string {
	return e.Command + ":\n" + strings.TrimRight(e.Output, "\n")
}

// A Module is a compiled guest.
type Module struct {
	Wasm []byte
	// Toolchain names the compiler and its version, such as "go1.26.8".
	Toolchain string
}

// minGo is the first version that has go:wasmexport and reactors.
const (
	minGoMinor = 24
	installGo  = "install Go 1.24 or newer from https://go.dev/dl and put it on PATH"
)

// Go compiles the main package in dir. Errors are *MissingError, *CompileError
// or those of the file system.
func Go(ctx context.Context, dir string) (*Module, error) {
	version, err := goVersion(ctx, dir)
	if err != nil {
		return nil, err
	}
	return scratch(func(tmp string) (*Module, error) {
		out := filepath.Join(tmp, "policy.wasm")
		if err := goTool(dir, "go build").compile(ctx, "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "."); err != nil {
			return nil, err
		}
		wasm, err := readModule(out, "go build")
		return &Module{Wasm: wasm, Toolchain: version}, err
	})
}

// goVersion asks the toolchain that would build dir: a go.mod may choose one.
func goVersion(ctx context.Context, dir string) (string, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return "", &MissingError{Program: "go", Install: installGo}
	}
	said, err := goTool(dir, "go env").run(ctx, "env", "GOVERSION")
	if err != nil {
		return "", &CompileError{Command: "go env GOVERSION", Output: said}
	}
	said = strings.TrimSpace(said)
	version := said[strings.LastIndexByte(said, '\n')+1:] // before it stands what go fetched
	if !newEnough(version) {
		return "", &MissingError{Program: "go", Found: version, Install: installGo}
	}
	return version, nil
}

// newEnough accepts go1.N... with N at least minGoMinor, and development versions.
func newEnough(version string) bool {
	var minor int
	if _, err := fmt.Sscanf(version, "go1.%d", &minor); err != nil {
		return strings.HasPrefix(version, "devel")
	}
	return minor >= minGoMinor
}

// goTool is the go command for wasip1, with what would change the output taken
// out of the environment.
func goTool(dir, name string) tool {
	return tool{path: "go", name: name, dir: dir, env: []string{
		"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWASM=", "GOEXPERIMENT=", "GOFIPS140=off", "GO111MODULE=on", "GOWORK=off"}}
}
