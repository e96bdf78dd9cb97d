package toolchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
)

// library returns the sysroot to compile with, "" for the compiler's own. When
// the target is not installed, core, compiler_builtins and alloc are built from
// the compiler's sources, in some 20 seconds, and kept in the user's cache folder
// under a name that changes with the compiler. discard removes what could not be kept.
func (r *rustc) library(ctx context.Context) (sysroot string, discard func(), err error) {
	discard = func() {}
	if !r.build {
		return "", discard, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil || !filepath.IsAbs(cache) {
		tmp, err := os.MkdirTemp("", "holdfast-rust-")
		if err != nil {
			return "", discard, err
		}
		discard = func() { os.RemoveAll(tmp) }
		return tmp, discard, r.buildLibrary(ctx, tmp)
	}
	kept := filepath.Join(cache, "holdfast", "rust", r.libraryKey())
	if exists(kept) {
		return kept, discard, nil
	}
	return kept, discard, r.keepLibrary(ctx, kept)
}

// libraryKey names a library by all that its bytes depend on.
func (r *rustc) libraryKey() string {
	var flags []string
	for _, c := range r.crates("", "") {
		flags = append(flags, c.args...)
		flags = append(flags, c.env...)
	}
	sum := sha256.Sum256([]byte(r.said + r.sysroot + r.target + strings.Join(flags, " ")))
	return hex.EncodeToString(sum[:12])
}

// keepLibrary builds beside kept and renames: kept is whole or not there, and
// whoever builds at the same time loses nothing.
func (r *rustc) keepLibrary(ctx context.Context, kept string) error {
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(kept), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := r.buildLibrary(ctx, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, kept); err != nil && !exists(kept) {
		return err
	}
	return nil
}

func (r *rustc) buildLibrary(ctx context.Context, sysroot string) error {
	out := filepath.Join(sysroot, "lib", "rustlib", r.target, "lib")
	if err := os.MkdirAll(out, 0o700); err != nil {
		return err
	}
	for _, c := range r.crates(r.sources(), out) {
		t := tool{path: r.path, name: "rustc " + c.name, dir: sysroot, env: append(c.env, "RUSTC_BOOTSTRAP=1")}
		if err := t.compile(ctx, c.args...); err != nil {
			return err
		}
	}
	return nil
}

// A libraryCrate is one call of the compiler.
type libraryCrate struct {
	name string
	args []string
	env  []string
}

// crates are the parts of the library in the order of their dependencies. The
// configuration of compiler_builtins is what its build script says for this target.
func (r *rustc) crates(sources, out string) []libraryCrate {
	library := func(name string) string { return name + "=" + filepath.Join(out, "lib"+name+".rlib") }
	crate := func(name, root string, more ...string) libraryCrate {
		args := append(rustFlags(), "--target="+r.target, "--crate-name="+name, "--crate-type=rlib", "-Cembed-bitcode=yes", "-Cmetadata=holdfast",
			"-Zforce-unstable-if-unmarked", "--cap-lints=allow", "--remap-path-prefix="+sources+"=/library", "--out-dir="+out, filepath.Join(sources, root))
		return libraryCrate{name: name, args: append(args, more...)}
	}
	builtins := crate("compiler_builtins", "compiler-builtins/compiler-builtins/src/lib.rs", "--extern="+library("core"),
		`--cfg=feature="compiler-builtins"`, `--cfg=feature="mem"`, `--cfg=feature="unstable-intrinsics"`,
		"--cfg=intrinsics_enabled", "--cfg=arch_enabled", "--cfg=optimizations_enabled")
	builtins.env = []string{"CFG_CARGO_FEATURES=[]", "CFG_OPT_LEVEL=3", "CFG_TARGET_FEATURES=[]"}
	return []libraryCrate{
		crate("core", "core/src/lib.rs"),
		builtins,
		crate("alloc", "alloc/src/lib.rs", "--extern="+library("core"), "--extern="+library("compiler_builtins")),
	}
}
