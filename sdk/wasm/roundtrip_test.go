package wasm

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// everything admits whatever the reader understands.
var everything = Limits{
	ModuleBytes: 1 << 30, Types: 1 << 30, Arity: 1 << 30, Imports: 1 << 30, Functions: 1 << 30, BodyBytes: 1 << 30,
	Locals: 1 << 30, Blocks: 1 << 30, Loops: 1 << 30, LiveValues: 1 << 60, Nesting: 1 << 30, TableTargets: 1 << 30, Tables: 1 << 30, Memories: 1,
	Globals: 1 << 30, Exports: 1 << 30, NameBytes: 1 << 30, Segments: 1 << 30, TableSize: 1 << 32, MemoryPages: 1 << 16,
	Lasting: true, SIMD: true,
}

// wazeroModules returns the folder of wazero in the module cache.
func wazeroModules(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// specVerdicts returns, by path, the assertion that the spec's scripts make of a
// module: "module" where it must be read.
func specVerdicts(t *testing.T, root string) map[string]string {
	t.Helper()
	verdicts := map[string]string{}
	scripts, err := filepath.Glob(filepath.Join(root, "internal/integration_test/spectest/*/testdata/*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range scripts {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var script struct {
			Commands []struct{ Type, Filename string }
		}
		if err := json.Unmarshal(raw, &script); err != nil {
			t.Fatal(path, err)
		}
		for _, command := range script.Commands {
			if strings.HasSuffix(command.Filename, ".wasm") {
				verdicts[filepath.Join(filepath.Dir(path), command.Filename)] = command.Type
			}
		}
	}
	return verdicts
}

// canonical is Encode's oracle: it knows sections and bodies only.
func canonical(module []byte) []byte {
	out := append([]byte{}, module[:8]...)
	for at := 8; at < len(module); {
		id := module[at]
		size, n := leb(module[at+1:])
		content := module[at+1+n : at+1+n+size]
		at += 1 + n + size
		if id == 0 || content[0] == 0 && id != 8 && id != 12 {
			continue
		}
		count, n := leb(content)
		framed := appendU32(nil, uint32(count))
		if id == 10 {
			framed = append(framed, canonicalBodies(content[n:])...)
		} else {
			framed = append(framed, content[n:]...)
		}
		out = append(appendU32(append(out, id), uint32(len(framed))), framed...)
	}
	return out
}

func canonicalBodies(code []byte) (out []byte) {
	for len(code) > 0 {
		size, n := leb(code)
		body := code[n : n+size]
		code = code[n+size:]
		groups, n := leb(body)
		framed := append(appendU32(nil, uint32(groups)), body[n:]...)
		out = append(appendU32(out, uint32(len(framed))), framed...)
	}
	return out
}

func leb(raw []byte) (value, length int) {
	for shift := 0; ; shift += 7 {
		b := raw[length]
		length++
		value |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			return value, length
		}
	}
}

// notCovered are the proposals that the reader refuses, by the folder of their
// test set, and the other files of wazero that use one.
var notCovered = map[string]string{
	"internal/integration_test/spectest/exception-handling/":        "exceptions",
	"internal/integration_test/spectest/extended-const/":            "extended constants",
	"internal/integration_test/spectest/tail-call/":                 "tail calls",
	"internal/integration_test/spectest/threads/":                   "threads",
	"internal/integration_test/spectest/typed-function-references/": "typed references",
	"internal/integration_test/engine/testdata/threads/":            "threads",
	"internal/integration_test/engine/testdata/eh_":                 "exceptions",
	"internal/integration_test/fuzzcases/testdata/2131.wasm":        "threads",
	"experimental/testdata/pthread.wasm":                            "threads",
	"experimental/testdata/memory.wasm":                             "threads",
	"experimental/testdata/fac.wasm":                                "tail calls",
	"experimental/testdata/cpp_exceptions.wasm":                     "exceptions",
}

// feature returns the proposal that the file at path may need.
func feature(path string) string {
	for prefix, name := range notCovered {
		if strings.HasPrefix(path, prefix) {
			return name
		}
	}
	return ""
}

// roundTrip returns what came of one file.
func roundTrip(t *testing.T, path, verdict string, module []byte) string {
	m, err := Parse(module, everything)
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		switch wrong := verdict == "assert_malformed" || verdict == "assert_invalid"; {
		case wrong:
			return "refused: " + verdict
		case feature(path) == "":
			t.Errorf("%s: %v", path, refusal)
		}
		return "refused: " + feature(path)
	}
	if verdict == "assert_malformed" && path != tableIndexFile {
		t.Errorf("%s is malformed, and was read", path)
	}
	written := m.Encode()
	if want := canonical(module); !bytes.Equal(written, want) {
		t.Errorf("%s: written as\n% x, want\n% x", path, written, want)
	}
	if again, err := Parse(written, everything); err != nil || !bytes.Equal(again.Encode(), written) {
		t.Errorf("%s: the second round trip differs, %v", path, err)
	}
	if bytes.Equal(written, module) {
		return "byte-exact"
	}
	return "canonical"
}

// tableIndexFile is malformed in version 1 of the spec only, where the index of
// a table in call_indirect was a byte that had to be zero.
const tableIndexFile = "internal/integration_test/spectest/v1/testdata/binary.32.wasm"

// TestRoundTrip reads every module that wazero's repository holds, the spec's
// among them, and writes it again.
func TestRoundTrip(t *testing.T) {
	root := wazeroModules(t)
	verdicts := specVerdicts(t, root)
	got := map[string]int{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".wasm") {
			return err
		}
		module, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got[roundTrip(t, filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator))), verdicts[path], module)]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{ // of wazero v1.12.0
		"byte-exact": 254, "canonical": 5858, "refused: assert_invalid": 341, "refused: assert_malformed": 1383,
		"refused: exceptions": 20, "refused: extended constants": 9, "refused: tail calls": 7, "refused: threads": 12, "refused: typed references": 89,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// FuzzParse reads any bytes and compares what is written with the oracle.
func FuzzParse(f *testing.F) {
	f.Add(newGuest().bytes())
	f.Add(full())
	for _, c := range hostile {
		if module := c.bytes(); len(module) < 4096 {
			f.Add(module)
		}
	}
	small := everything
	small.ModuleBytes, small.TableSize = 1<<20, 1<<20
	f.Fuzz(func(t *testing.T, module []byte) {
		m, err := Parse(module, small)
		if refusal, ok := errors.AsType[*Refusal](err); ok {
			if refusal.Offset < 0 || refusal.Offset > len(module) {
				t.Fatalf("offset %d of %d bytes", refusal.Offset, len(module))
			}
			return
		}
		written := m.Encode()
		if want := canonical(module); !bytes.Equal(written, want) {
			t.Fatalf("written as % x, want % x", written, want)
		}
		if again, err := Parse(written, small); err != nil || !bytes.Equal(again.Encode(), written) {
			t.Fatalf("the second round trip differs: %v", err)
		}
	})
}
