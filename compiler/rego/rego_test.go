package rego_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/compiler/rego"
)

const rbac = `package rbac

import data.lib

default allow := false

allow if lib.admin(input.user)
`

const lib = `package lib

admin(user) if user in data.admins
`

func folder(files ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(files); i += 2 {
		fsys[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return fsys
}

func TestCompile(t *testing.T) {
	for _, tc := range []struct {
		name        string
		files       fstest.MapFS
		opts        rego.Options
		entrypoints []string
		data        string
	}{
		{"every package", folder("rbac.rego", rbac, "sub/lib.rego", lib, "data.json", `{"admins":["a"]}`), rego.Options{}, []string{"lib", "rbac", "rbac/allow"}, `{"admins":["a"]}`},
		{"rules of every kind", folder("p.rego", "package p\n\nf(x) := x\n\na.b.c := 1\n\na.b[x] := x if some x in [2]\n\ns contains 1\n\np[q.r] := 1 if q := {\"r\": 2}\n\ns contains 2\n", "q.rego", "package p.s2\n\ns := 1\n"), rego.Options{}, []string{"p", "p/s2", "p/a/b", "p/a/b/c", "p/p", "p/s", "p/s2/s"}, ""},
		{"asked for", folder("rbac.rego", rbac, "lib.rego", lib), rego.Options{Entrypoints: []string{"rbac/allow"}}, []string{"rbac/allow"}, ""},
		{"annotated", folder("p.rego", "package p\n\n# METADATA\n# entrypoint: true\nallow := true\n\nother := 1\n"), rego.Options{}, []string{"p/allow"}, ""},
		{"tests left out", folder("p.rego", "package p\n\nallow := true\n", "p_test.rego", "package p_test\n\nnot rego at all"), rego.Options{}, []string{"p", "p/allow"}, ""},
		{"data in folders", folder("p.rego", "package p\n\nallow := data.a.b.c\n", "data.yaml", "a: {x: 1}", "a/b/data.json", `{"c": 1.50}`), rego.Options{}, []string{"p", "p/allow"}, `{"a":{"b":{"c":1.50},"x":1}}`},
		{"v0", folder("p.rego", "package p\n\nallow { input.x }\n"), rego.Options{V0: true}, []string{"p", "p/allow"}, ""},
		{"v0 by manifest", folder("p.rego", "package p\n\nallow { input.x }\n", ".manifest", `{"rego_version": 0}`), rego.Options{}, []string{"p", "p/allow"}, ""},
		{"v1 in a v0 folder", folder("p.rego", "package p\n\nimport rego.v1\n\nallow if input.x\n"), rego.Options{V0: true}, []string{"p", "p/allow"}, ""},
		{"replaced", folder("p.rego", "package p\n\nf := http.send({})\n\nx := 1 if f == {} with http.send as {}\n"), rego.Options{Entrypoints: []string{"p/x"}}, []string{"p/x"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := rego.Compile(t.Context(), tc.files, tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(m.Entrypoints, tc.entrypoints) || string(m.Data) != tc.data {
				t.Errorf("entry points %q, data %s", m.Entrypoints, m.Data)
			}
			if !bytes.HasPrefix(m.Wasm, []byte("\x00asm\x01\x00\x00\x00")) {
				t.Errorf("not a module: %x", m.Wasm[:8])
			}
		})
	}
}

// TestSameBytesInAnyFolder compiles two copies on disk.
func TestSameBytesInAnyFolder(t *testing.T) {
	var modules [2][]byte
	for i, dir := range []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "long", "way", "down")} {
		if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"rbac.rego": rbac, "sub/lib.rego": lib} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m, err := rego.Compile(t.Context(), os.DirFS(dir), rego.Options{})
		if err != nil {
			t.Fatal(err)
		}
		modules[i] = m.Wasm
	}
	if !bytes.Equal(modules[0], modules[1]) {
		t.Error("the same source in another folder gives another module")
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		files      fstest.MapFS
	}{
		{"syntax", "p.rego:4:0: rego_parse_error: unexpected eof token", folder("p.rego", "package p\n\nallow if\n")},
		{"v0 read as v1", "p.rego:3:1: rego_parse_error: `if` keyword is required", folder("p.rego", "package p\n\nallow { input.x }\n")},
		{"unsafe variable", "p.rego:3:10: rego_unsafe_var_error: var x is unsafe", folder("p.rego", "package p\n\nallow if x == input.y\n")},
		{"undefined function", "p.rego:3:10: rego_type_error: undefined function nope", folder("p.rego", "package p\n\nallow if nope(1)\n")},
		{"recursion", "rego_recursion_error", folder("p.rego", "package p\n\na if b\n\nb if a\n")},
		{"every file", "b.rego:4:", folder("a.rego", "package a\n\nx :=\n", "b.rego", "package b\n\ny :=\n")},
		{"network", "p.rego:3:6: holdfast_builtin_refused: built-in http.send", folder("p.rego", "package p\n\nx := http.send({})\n")},
		{"lookup", "p.rego:4:2: holdfast_builtin_refused: built-in net.lookup_ip_addr", folder("p.rego", "package p\n\nx if {\n\tnet.lookup_ip_addr(\"h\")\n}\n")},
		{"runtime", "holdfast_builtin_refused: built-in opa.runtime", folder("p.rego", "package p\n\nf(a) := opa.runtime()[a]\n\nx := f(\"env\")\n")},
		{"with", "p.rego:7:6: holdfast_builtin_refused: built-in opa.runtime", folder("p.rego", "package p\n\nf := 1\n\nx if f == 1 with opa.runtime as {}\n\ny := opa.runtime()\n")},
		{"data where a rule is", "p.rego:3:1: rego_compile_error: conflicting rule for data path p/allow found", folder("p.rego", "package p\n\nallow if input.x\n", "data.json", `{"p": {"allow": true}}`)},
		{"no source", "no .rego file", folder("a.txt", "")},
		{"bad data", "data.json", folder("p.rego", "package p\n\nx := 1\n", "data.json", "{")},
		{"data is a list", "data.json: data is an object", folder("p.rego", "package p\n\nx := 1\n", "data.json", "[]")},
		{"data twice", "defined in another data file", folder("p.rego", "package p\n\nx := 1\n", "data.json", `{"a": 1}`, "data.yaml", "a: 2")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := rego.Compile(t.Context(), tc.files, rego.Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
	_, err := rego.Compile(t.Context(), folder("p.rego", "package p\n\nx := 1\n"), rego.Options{Entrypoints: []string{"p/nope"}})
	if err == nil {
		t.Error("an entry point that is not there is accepted")
	}
	var errs rego.Errors
	if _, err := rego.Compile(t.Context(), folder("p.rego", "package p\n\na := b\n\nc := d\n"), rego.Options{}); !errors.As(err, &errs) || len(errs) != 2 {
		t.Errorf("not both errors: %v", err)
	}
}

func TestBundle(t *testing.T) {
	b := tarball(t, map[string]string{"p/p.rego": "package p\n\nallow := data.p.x\n", "p/data.json": `{"x": true}`, "p/p_test.rego": "package p_test\n\ntest_x if p.y\n\np := 1\n"})
	m, err := rego.Bundle(t.Context(), b, rego.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.Entrypoints, []string{"p", "p/allow"}) || string(m.Data) != `{"p":{"x":true}}` {
		t.Errorf("%q, %s", m.Entrypoints, m.Data)
	}
	ready, err := rego.Bundle(t.Context(), tarball(t, map[string]string{
		"/policy.wasm": string(m.Wasm), ".manifest": `{"wasm": [{"entrypoint": "p", "module": "/policy.wasm"}]}`,
	}), rego.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ready.Wasm, m.Wasm) || !slices.Equal(ready.Entrypoints, []string{"p"}) {
		t.Error("a ready module is not taken as it is")
	}
	for name, raw := range map[string][]byte{"empty": nil, "text": []byte("no bundle"), "cut": b[:len(b)/2]} {
		if _, err := rego.Bundle(t.Context(), raw, rego.Options{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func tarball(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	tw := tar.NewWriter(gz)
	for name, text := range files {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func FuzzCompile(f *testing.F) {
	f.Add(rbac, `{"admins": []}`)
	f.Add(lib, "")
	f.Add("package p\n\nallow { input.x }", "[")
	f.Add("package p\n\nx := http.send({})", "{}")
	f.Fuzz(func(t *testing.T, source, data string) {
		files := folder("p.rego", source)
		if data != "" {
			files["data.json"] = &fstest.MapFile{Data: []byte(data)}
		}
		m, err := rego.Compile(t.Context(), files, rego.Options{})
		if err == nil && (len(m.Wasm) == 0 || len(m.Entrypoints) == 0) {
			t.Error("neither a module nor an error")
		}
	})
}
