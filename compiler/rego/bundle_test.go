package rego_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"

	"github.com/holdfast-policy/holdfast/compiler/rego"
)

const allowX = "package p\n\nallow := data.p.x\n"

// packed writes entries in order, and lets each change its header.
func packed(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	tw := tar.NewWriter(gz)
	for _, h := range entries {
		text := h.PAXRecords["text"]
		h.PAXRecords, h.Mode = nil, 0o600
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Size = int64(len(text))
		}
		err := tw.WriteHeader(&h)
		if err == nil {
			_, err = io.WriteString(tw, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func file(name, text string) tar.Header {
	return tar.Header{Name: name, PAXRecords: map[string]string{"text": text}}
}

// zeros is a bundle whose only file is n zero bytes.
func zeros(t *testing.T, n int64) []byte {
	t.Helper()
	var out bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	tw := tar.NewWriter(gz)
	err := tw.WriteHeader(&tar.Header{Name: "d/data.json", Mode: 0o600, Size: n})
	for block := make([]byte, 1<<20); err == nil && n > 0; n -= int64(len(block)) {
		_, err = tw.Write(block[:min(n, int64(len(block)))])
	}
	if err = errors.Join(err, tw.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// manyZeros is a bundle of files that are each small enough.
func manyZeros(t *testing.T, files int) []byte {
	t.Helper()
	var all []tar.Header
	text := strings.Repeat("\x00", 4<<20)
	for i := range files {
		all = append(all, file(fmt.Sprintf("%d/x.bin", i), text))
	}
	return packed(t, all...)
}

func TestBadBundles(t *testing.T) {
	good := packed(t, file("/p.rego", allowX), file("/p/data.json", `{"x": true}`), file("/.manifest", `{"roots": ["p"]}`))
	if _, err := rego.Bundle(t.Context(), good, rego.Options{}); err != nil {
		t.Fatal(err)
	}
	broken := slices.Clone(good)
	broken[len(broken)-6] ^= 1 // of the checksum
	tests := map[string]struct {
		raw  []byte
		want string
	}{
		"climbs out":         {packed(t, file("../p.rego", allowX)), `"../p.rego" leads out of the bundle`},
		"climbs out below":   {packed(t, file("a/../../p.rego", allowX)), "leads out of the bundle"},
		"backslash":          {packed(t, file(`..\p.rego`, allowX)), "leads out of the bundle"},
		"link":               {packed(t, tar.Header{Name: "p.rego", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), "neither a file nor a folder"},
		"device":             {packed(t, tar.Header{Name: "p.rego", Typeflag: tar.TypeChar}), "neither a file nor a folder"},
		"a file twice":       {packed(t, file("/p.rego", allowX), file("./p.rego", allowX)), `"p.rego" twice`},
		"duplicate roots":    {packed(t, file("p.rego", allowX), file(".manifest", `{"roots": ["p", "p"]}`)), "overlapped roots"},
		"roots in roots":     {packed(t, file("p.rego", allowX), file(".manifest", `{"roots": ["p", "p/q"]}`)), "overlapped roots"},
		"outside its roots":  {packed(t, file("p.rego", allowX), file(".manifest", `{"roots": ["q"]}`)), "roots [q] do not permit"},
		"data outside":       {packed(t, file("p.rego", allowX), file("data.json", `{"z": 1}`), file(".manifest", `{"roots": ["p"]}`)), "do not permit data at path '/z'"},
		"manifest no JSON":   {packed(t, file("p.rego", allowX), file(".manifest", `{`)), "manifest decode"},
		"data no JSON":       {packed(t, file("p.rego", allowX), file("p/data.json", `{`)), "p/data.json"},
		"data no YAML":       {packed(t, file("p.rego", allowX), file("p/data.yaml", "a: [")), "p/data.yaml"},
		"delta":              {packed(t, file("patch.json", `{"data": [{"op": "upsert", "path": "/a", "value": 1}]}`)), "delta bundle"},
		"syntax":             {packed(t, file("/d/p.rego", "package p\n\nallow :=\n")), "d/p.rego:4:0: rego_parse_error"},
		"refused":            {packed(t, file("/p.rego", "package p\n\nx := http.send({})\n")), "p.rego:3:6: holdfast_builtin_refused"},
		"empty":              {nil, "ends too early"},
		"not compressed":     {[]byte("package p, and no archive"), "invalid header"},
		"no archive inside":  {gzipped(t, strings.Repeat("x", 2048)), "invalid tar header"},
		"nothing":            {packed(t), "no .rego file"},
		"cut":                {good[:len(good)/2], "ends too early"},
		"cut at the end":     {good[:len(good)-4], "ends too early"},
		"wrong checksum":     {broken, "checksum"},
		"bomb in one file":   {zeros(t, 16<<20), "at most 8388608"},
		"bomb in many files": {manyZeros(t, 10), "more than 33554432 bytes uncompressed"},
		"bomb behind":        {append(slices.Clone(good), gzipped(t, strings.Repeat("\x00", 64<<20))...), "more than 33554432 bytes uncompressed"},
		"too many files":     {packed(t, slices.Repeat([]tar.Header{{Name: "d/", Typeflag: tar.TypeDir}}, 4_001)...), "more than 4000 files"},
	}
	for name, c := range tests {
		if _, err := rego.Bundle(t.Context(), c.raw, rego.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	_, err := io.WriteString(gz, text)
	if err = errors.Join(err, gz.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// signed is a bundle that OPA itself signs with a shared secret.
func signed(t *testing.T, secret string) []byte {
	t.Helper()
	b := bundle.Bundle{
		Modules: []bundle.ModuleFile{{URL: "/p.rego", Path: "/p.rego", Raw: []byte(allowX), Parsed: ast.MustParseModule(allowX)}},
		Data:    map[string]any{"p": map[string]any{"x": true}},
	}
	b.Manifest.Init()
	if err := b.GenerateSignature(bundle.NewSigningConfig(secret, "HS256", ""), "default", false); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := bundle.NewWriter(&out).Write(b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSignatures(t *testing.T) {
	raw := signed(t, "secret")
	files := unpackToFS(t, raw)
	key := func(k string) rego.Options {
		return rego.Options{Verification: &rego.Verification{Key: k, Algorithm: "HS256"}}
	}
	both := func(name string, raw []byte, fsys fs.FS, opts rego.Options, want string) {
		_, packedErr := rego.Bundle(t.Context(), raw, opts)
		_, folderErr := rego.Compile(t.Context(), fsys, opts)
		for _, err := range []error{packedErr, folderErr} {
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
	both("right key", raw, files, key("secret"), "")
	both("not checked without a key", raw, files, rego.Options{}, "")
	both("wrong key", raw, files, key("other"), "failed to verify")
	both("another key's name", raw, files, rego.Options{Verification: &rego.Verification{Key: "secret", KeyID: "k2", Algorithm: "HS256", Scope: "s"}}, "scope mismatch")

	changed := with(files, "data.json", `{"p": {"x": false}}`)
	both("changed data", tarball(t, texts(changed)), changed, key("secret"), "digest mismatch")
	more := with(files, "q.rego", "package q\n\ny := 1\n")
	both("a file more", tarball(t, texts(more)), more, key("secret"), "not included in bundle signature")
	fewer := with(files, "", "")
	delete(fewer, "data.json")
	both("a file fewer", tarball(t, texts(fewer)), fewer, key("secret"), "not found in the target bundle")
	unsigned := with(files, "", "")
	delete(unsigned, ".signatures.json")
	both("no signature", tarball(t, texts(unsigned)), unsigned, key("secret"), "missing .signatures.json")

	if _, err := rego.Compile(t.Context(), folder("p.rego", allowX), key("secret")); err == nil {
		t.Error("a folder without a signature passes a check")
	}
}

func unpackToFS(t *testing.T, raw []byte) fstest.MapFS {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	out := fstest.MapFS{}
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(h.Name, "/")] = &fstest.MapFile{Data: content}
	}
}

// with copies a folder and sets one file of it.
func with(in fstest.MapFS, name, text string) fstest.MapFS {
	out := fstest.MapFS{}
	for k, v := range in {
		out[k] = v
	}
	if name != "" {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func texts(in fstest.MapFS) map[string]string {
	out := map[string]string{}
	for k, v := range in {
		out[k] = string(v.Data)
	}
	return out
}

// FuzzBundle gives the front end archives of three files, and the raw bytes.
func FuzzBundle(f *testing.F) {
	f.Add("/p.rego", allowX, `{"roots": ["p"]}`, `{"p": {"x": true}}`)
	f.Add("../p.rego", allowX, `{"rego_version": 0, "file_rego_versions": {"*": 1}}`, `[`)
	f.Add("/policy.wasm", "\x00asm", `{"wasm": [{"entrypoint": "p", "module": "/policy.wasm"}]}`, "")
	f.Add("patch.json", `{"data": [{"op": "replace", "path": "x", "value": 1}]}`, "{", "{}")
	f.Fuzz(func(t *testing.T, name, text, manifest, data string) {
		if strings.ContainsRune(name, 0) || name == "" || len(name) > 90 {
			return // no archive can say it
		}
		raws := [][]byte{[]byte(text), packed(t, file("x/"+name, text), file(".manifest", manifest), file("data.json", data))}
		for _, raw := range raws {
			m, err := rego.Bundle(t.Context(), raw, rego.Options{})
			if err == nil && (len(m.Wasm) == 0 || len(m.Entrypoints) == 0) {
				t.Error("neither a module nor an error")
			}
		}
	})
}
