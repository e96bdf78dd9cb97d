package toolchain

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// minClang is the first version whose wasm-ld and C17 are known to do.
const minClang = 15

var clangInstall = install{
	apt:    "apt-get install clang lld",
	dnf:    "dnf install clang lld",
	brew:   "brew install llvm lld",
	winget: "winget install LLVM.LLVM",
	other: "install clang 15 or newer with its wasm-ld (LLVM's lld; releases.llvm.org) or Zig 0.16, whose `zig cc` will do; " +
		"they are looked for on PATH, or where CLANG and ZIG say",
}

// clangs are looked for in this order when CLANG does not name one.
var clangs = []string{"clang", "clang-22", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15"}

// cFlags apply to every source. Nothing of the machine goes into the object:
// no debug information, no path but the one that is relative to the folder, and
// the macros of date and time are an error.
var cFlags = []string{"-O2", "-ffreestanding", "-mbulk-memory", "-fvisibility=hidden", "-fno-ident", "-g0", "-Wall", "-Werror=date-time", "-Werror=return-type",
	"-Werror=implicit-function-declaration", "-I."}

var cxxFlags = []string{"-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"}

// cLink makes a module with a small stack.
var cLink = []string{"-nostdlib", "-Wl,--no-entry", "-Wl,-z,stack-size=32768", "-Wl,--strip-all"}

// clangLink puts the stack below the data, so that an overflow traps and reaches
// nothing, and makes numbers as short as they can be. Zig does the first by itself, and
// knows neither flag.
var clangLink = []string{"-Wl,--stack-first", "-Wl,--compress-relocations"}

// cEnv are variables that would change what a C compiler finds or does.
var cEnv = []string{"CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "CCC_OVERRIDE_OPTIONS", "COMPILER_PATH", "CLANG_CONFIG_FILE_USER_DIR"}

// C compiles and links all .c, .cc and .cpp files of dir, not those of folders
// below. It takes clang, or `zig cc` where there is none. Errors are
// *MissingError, *CompileError or those of the file system.
func C(ctx context.Context, dir string) (*Module, error) {
	names, err := sources(dir, ".c", ".cc", ".cpp")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no .c, .cc or .cpp file in %s", dir)
	}
	cc, err := findC(ctx, dir)
	if err != nil {
		return nil, err
	}
	return scratch(func(tmp string) (*Module, error) { return cc.build(ctx, tmp, names) })
}

// A cCompiler is clang, or zig in its place.
type cCompiler struct {
	tool
	first   []string // arguments before all others
	link    []string // arguments of the linker's, beside cLink
	version string   // such as "clang 19.1.7"
}

func (c *cCompiler) build(ctx context.Context, tmp string, names []string) (*Module, error) {
	c.env = append(c.env, zigCaches(tmp)...)
	var objects []string
	for n, name := range names {
		object := filepath.Join(tmp, strconv.Itoa(n)+".o")
		language := cxxFlags
		if filepath.Ext(name) == ".c" {
			language = []string{"-std=c17"}
		}
		args := slices.Concat(c.first, cFlags, language)
		if err := c.compile(ctx, append(args, "-c", "-o", object, name)...); err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	out := filepath.Join(tmp, "policy.wasm")
	args := slices.Concat(c.first, cLink, c.link)
	if err := c.compile(ctx, append(append(args, "-o", out), objects...)...); err != nil {
		return nil, trimObjects(err, tmp, names)
	}
	wasm, err := readModule(out, c.name)
	return &Module{Wasm: wasm, Toolchain: c.version}, err
}

// trimObjects names sources where the linker named objects.
func trimObjects(err error, tmp string, names []string) error {
	failed, ok := err.(*CompileError)
	if !ok {
		return err
	}
	for n, name := range names {
		failed.Output = strings.ReplaceAll(failed.Output, filepath.Join(tmp, strconv.Itoa(n)+".o"), strings.TrimPrefix(name, "./"))
	}
	return failed
}

// findC returns the first compiler that will do. When none does, the error is
// about the first that is there.
func findC(ctx context.Context, dir string) (*cCompiler, error) {
	candidates := clangs
	named := os.Getenv("CLANG")
	if named != "" {
		candidates = []string{absolute(named)}
	}
	missing := &MissingError{Program: "clang", Install: clangInstall.hint()}
	for _, path := range candidates {
		c, problem, err := clangAt(ctx, dir, path)
		if err != nil {
			return nil, err
		}
		if c != nil {
			return c, nil
		}
		missing.Found = cmp.Or(missing.Found, problem)
	}
	if named == "" {
		if c, err := zigCC(ctx, dir); err == nil || ctx.Err() != nil {
			return c, err
		}
	}
	return nil, missing
}

var clangVersion = regexp.MustCompile(`clang version (([0-9]+)\.[0-9]+\.[0-9]+)`)

// clangAt tries one program. The problem is what it lacks, "" when it is not there.
func clangAt(ctx context.Context, dir, path string) (c *cCompiler, problem string, err error) {
	if _, err := exec.LookPath(path); err != nil {
		return nil, "", nil
	}
	t := tool{path: path, name: "clang", dir: dir, unset: cEnv, env: []string{"LC_ALL=C"}}
	said, _ := t.run(ctx, "--version")
	if ctx.Err() != nil {
		return nil, "", ctx.Err()
	}
	found := clangVersion.FindStringSubmatch(said)
	if found == nil {
		return nil, "not clang: " + strings.TrimSpace(firstLine(said)), nil
	}
	if major, err := strconv.Atoi(found[2]); err != nil || major < minClang {
		return nil, found[1], nil
	}
	if targets, _ := t.run(ctx, "--print-targets"); !strings.Contains(targets, "wasm32") {
		return nil, found[1] + ", without the target wasm32", ctx.Err()
	}
	linker, _ := t.run(ctx, "--target=wasm32", "--print-prog-name=wasm-ld")
	if _, err := exec.LookPath(strings.TrimSpace(linker)); err != nil {
		return nil, found[1] + ", without wasm-ld", ctx.Err()
	}
	return &cCompiler{tool: t, first: []string{"--target=wasm32"}, link: clangLink, version: "clang " + found[1]}, "", nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
