package toolchain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// minRustMinor is the first version with edition 2024, which the SDK is written in.
const minRustMinor = 85

var rustInstall = install{
	apt:   "apt-get install rustc-web rust-web-src lld",
	other: "install Rust 1.85 or newer with rustup (rustup.rs) and run `rustup target add wasm32v1-none`; rustc is looked for on PATH, or where RUSTC says",
}

var lldInstall = install{
	apt: "apt-get install lld", dnf: "dnf install lld", brew: "brew install lld",
	other: "install LLVM's lld (releases.llvm.org) and put wasm-ld on PATH",
}

// rustTargets are the targets that a policy can be built for, the first preferred.
func rustTargets() []string { return []string{"wasm32v1-none", "wasm32-unknown-unknown"} }

// rustFlags are what every policy is built with: nothing of the folder or the
// hour in the output, and a stack that does not make every instance 1 MiB large.
func rustFlags() []string {
	return []string{"--edition=2024", "-Copt-level=s", "-Cpanic=abort", "-Ccodegen-units=1", "-Cdebuginfo=0",
		"-Ctarget-feature=+bulk-memory,+sign-ext,+nontrapping-fptoint"}
}

// Rust compiles policy.rs in dir, and the modules beside it that it names, with
// rustc alone. The compiler is $RUSTC, else the first one found that can build for
// WebAssembly: one with the target installed, or one with the sources of core,
// which is then built once and kept in the user's cache folder. Errors are
// *MissingError, *CompileError or those of the file system.
func Rust(ctx context.Context, dir string) (*Module, error) {
	compiler, err := findRust(ctx, dir)
	if err != nil {
		return nil, err
	}
	sysroot, discard, err := compiler.library(ctx)
	if err != nil {
		return nil, err
	}
	defer discard()
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return scratch(func(tmp string) (*Module, error) {
		out := filepath.Join(tmp, "policy.wasm")
		args := slices.Concat(rustFlags(), compiler.link(), []string{"--target=" + compiler.target, "--crate-name=policy", "--crate-type=cdylib",
			"-Clto", "-Cstrip=symbols", "-Clink-arg=-zstack-size=32768", "--remap-path-prefix=" + absolute + "=/policy", "-o", out, "policy.rs"})
		if sysroot != "" {
			args = append(args, "--sysroot="+sysroot)
		}
		if err := compiler.compile(ctx, args...); err != nil {
			return nil, err
		}
		wasm, err := readModule(out, compiler.name)
		return &Module{Wasm: wasm, Toolchain: "rustc " + compiler.release}, err
	})
}

// A rustc is a compiler that was asked what it is.
type rustc struct {
	tool
	said    string // rustc -vV
	release string
	sysroot string // its own
	target  string // one that is installed, or else the one to build the library for
	linker  string // "" is the compiler's own
	build   bool   // the library must be built
}

// link are the arguments that name the linker, if it is not the compiler's own.
func (r *rustc) link() []string {
	if r.linker == "" {
		return nil
	}
	return []string{"-Clinker=" + r.linker, "-Clinker-flavor=wasm-ld"}
}

// findRust returns the first compiler that serves. When there is none the error
// says what to do about the first.
func findRust(ctx context.Context, dir string) (*rustc, error) {
	var best *MissingError
	var sources *rustc
	for _, path := range rustPaths() {
		r, err := askRust(ctx, dir, path)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		switch missing := (*MissingError)(nil); {
		case errors.As(err, &missing):
			best = cmp.Or(best, missing)
		case err != nil:
			return nil, err
		case !r.build:
			return r, nil
		case sources == nil:
			sources = r
		}
	}
	switch {
	case sources != nil:
		return sources, nil
	case best != nil:
		return nil, best
	}
	return nil, &MissingError{Program: "rustc", Install: rustInstall.hint()}
}

// rustPaths are the compilers to ask: rustup's and the system's may both be there.
func rustPaths() []string {
	if own := os.Getenv("RUSTC"); own != "" {
		return []string{absolute(own)}
	}
	folders := filepath.SplitList(os.Getenv("PATH"))
	if runtime.GOOS != "windows" {
		folders = append(folders, "/usr/bin", "/usr/local/bin")
	}
	if home, err := os.UserHomeDir(); err == nil {
		folders = append(folders, filepath.Join(home, ".cargo", "bin"))
	}
	var paths []string
	for _, folder := range folders {
		if !filepath.IsAbs(folder) {
			continue // never a program of the policy's own folder
		}
		if path, err := exec.LookPath(filepath.Join(folder, "rustc")); err == nil && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// askRust returns the compiler at path, or a *MissingError that says what it lacks.
func askRust(ctx context.Context, dir, path string) (*rustc, error) {
	t := tool{path: path, name: "rustc policy.rs", dir: dir}
	said, err := t.run(ctx, "-vV")
	if err != nil {
		return nil, &MissingError{Program: "a rustc that runs (" + path + ": " + err.Error() + ")", Install: rustInstall.hint()}
	}
	root, err := t.run(ctx, "--print=sysroot")
	if err != nil {
		return nil, &CompileError{Command: path + " --print=sysroot", Output: root}
	}
	r := &rustc{tool: t, said: said, release: lineOf(said, "release: "), sysroot: strings.TrimSpace(root)}
	if !rustNewEnough(r.release) {
		return nil, &MissingError{Program: path, Found: r.release, Install: rustInstall.hint()}
	}
	if err := r.choose(lineOf(said, "host: ")); err != nil {
		return nil, err
	}
	return r, nil
}

// choose sets what to build for and to link with.
func (r *rustc) choose(host string) error {
	r.target, r.build = rustTargets()[0], true
	for _, target := range slices.Backward(rustTargets()) {
		if found, _ := filepath.Glob(filepath.Join(r.libraries(target), "libcore-*.rlib")); len(found) > 0 {
			r.target, r.build = target, false
		}
	}
	if r.build && !exists(filepath.Join(r.sources(), "core", "src", "lib.rs")) {
		return &MissingError{Program: "the target " + r.target + " of rustc " + r.release + " (" + r.path + ")", Install: rustInstall.hint()}
	}
	own := filepath.Join(r.sysroot, "lib", "rustlib", host, "bin", "rust-lld")
	if exists(own) || exists(own+".exe") {
		if r.build { // the default is looked for in the sysroot of the built library
			r.linker = own
		}
		return nil
	}
	if r.linker = findLinker(); r.linker == "" {
		return &MissingError{Program: "wasm-ld", Install: lldInstall.hint()}
	}
	return nil
}

func (r *rustc) libraries(target string) string {
	return filepath.Join(r.sysroot, "lib", "rustlib", target, "lib")
}

func (r *rustc) sources() string {
	return filepath.Join(r.sysroot, "lib", "rustlib", "src", "rust", "library")
}

// findLinker returns a wasm-ld, of which Debian installs several with their
// version in the name, the newest first.
func findLinker() string {
	if path, err := exec.LookPath("wasm-ld"); err == nil {
		return path
	}
	for version := 30; version >= 15; version-- {
		if path, err := exec.LookPath(fmt.Sprintf("wasm-ld-%d", version)); err == nil {
			return path
		}
	}
	return ""
}

// rustNewEnough accepts 1.N.P, with any suffix, with N at least minRustMinor.
func rustNewEnough(release string) bool {
	var minor int
	_, err := fmt.Sscanf(release, "1.%d", &minor)
	return err == nil && minor >= minRustMinor
}

// lineOf returns the rest of the line that begins with prefix, "" for none.
func lineOf(text, prefix string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
