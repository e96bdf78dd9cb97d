// Package toolchain compiles guests with the toolchain of their own language,
// which must be installed. The flags are such that the same source gives the
// same bytes in whatever folder it lies.
package toolchain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
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

// maxModule bounds what is read back; admission has the limits that count.
const maxModule = 64 << 20

// Go compiles the main package in dir. Errors are *MissingError, *CompileError
// or those of the file system.
func Go(ctx context.Context, dir string) (*Module, error) {
	version, err := goVersion(ctx, dir)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "holdfast-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "policy.wasm")
	args := []string{"build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "."}
	if said, err := goTool(ctx, dir, args...); err != nil {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		return nil, &CompileError{Command: "go build", Output: said}
	}
	info, err := os.Stat(out)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxModule {
		return nil, fmt.Errorf("go build wrote %d bytes, at most %d", info.Size(), maxModule)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return &Module{Wasm: wasm, Toolchain: version}, nil
}

// GoVersion returns the version of the go command, or a *MissingError.
func GoVersion(ctx context.Context) (string, error) { return goVersion(ctx, "") }

// goVersion asks the toolchain that would build dir: a go.mod may choose one.
func goVersion(ctx context.Context, dir string) (string, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return "", &MissingError{Program: "go", Install: installGo}
	}
	said, err := goTool(ctx, dir, "env", "GOVERSION")
	if err != nil {
		return "", &CompileError{Command: "go env GOVERSION", Output: said}
	}
	version := strings.TrimSpace(said)
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

// goTool runs the go command for wasip1, with what would change the output
// taken out of the environment.
func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWASM=", "GOEXPERIMENT=", "GO111MODULE=on", "GOWORK=off")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), err
}
