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

// Mounts names the environment variable that .ci/run sets to 1 where it could
// mount a file system: nothing that it installs makes that possible elsewhere, as
// it takes root, and /dev/fuse for disks that lose power.
const Mounts = "HOLDFAST_NEEDS_MOUNTS"

// Mounting skips a test that could not mount, or fails it under Mounts.
func Mounting(t testing.TB, err error) {
	t.Helper()
	if os.Getenv(Mounts) != "" {
		t.Fatalf("mount: %v, and %s is set", err, Mounts)
	}
	t.Skipf("not tested here, mounting takes root and /dev/fuse: %v", err)
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
