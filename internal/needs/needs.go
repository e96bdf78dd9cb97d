// Package needs says what a test does where a program that it needs is missing.
package needs

import (
	"os"
	"path/filepath"
	"testing"
)

// All names the environment variable that .ci/run sets to 1 when it has installed
// everything: then nothing may be missing.
const All = "HOLDFAST_NEEDS_ALL"

// Missing skips the test, or fails it under All.
func Missing(t testing.TB, why any) {
	t.Helper()
	if os.Getenv(All) != "" {
		t.Fatalf("%v: it is missing, and %s is set", why, All)
	}
	t.Skipf("not tested here: %v", why)
}

// OnlyZig takes every compiler but Zig, and Node, which may run it, off PATH.
func OnlyZig(t testing.TB) {
	t.Helper()
	bin := t.TempDir()
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		for _, name := range []string{"zig", "node"} {
			if file, err := filepath.EvalSymlinks(filepath.Join(dir, name)); err == nil {
				_ = os.Symlink(file, filepath.Join(bin, name)) // the first of PATH wins
			}
		}
	}
	t.Setenv("CLANG", "")
	t.Setenv("PATH", bin)
}
