package engine_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// readable admits whatever the reader understands.
var readable = wasm.Limits{
	ModuleBytes: 1 << 30, Types: 1 << 30, Arity: 1 << 30, Imports: 1 << 30, Functions: 1 << 30, BodyBytes: 1 << 30,
	Locals: 1 << 30, Blocks: 1 << 30, Loops: 1 << 30, LiveValues: 1 << 60, Nesting: 1 << 30, TableTargets: 1 << 30, Tables: 1 << 30, Memories: 1,
	Globals: 1 << 30, Exports: 1 << 30, NameBytes: 1 << 30, Segments: 1 << 30, TableSize: 1 << 32, MemoryPages: 1 << 16,
	Lasting: true, SIMD: true,
}

// TestReadAndWrittenIsAsValid compares wazero's verdict on every module that its
// repository holds, valid or not, with its verdict on what the reader and writer
// make of it. What the reader refuses must not be valid where it says that it
// covers the features; that is sdk/wasm's own test.
func TestReadAndWrittenIsAsValid(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2))
	defer r.Close(ctx)
	valid := func(module []byte) bool {
		compiled, err := r.CompileModule(ctx, module)
		if err == nil {
			compiled.Close(ctx)
		}
		return err == nil
	}
	verdicts := map[bool]int{}
	err = filepath.WalkDir(strings.TrimSpace(string(out)), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".wasm") {
			return err
		}
		module, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		m, err := wasm.Parse(module, readable)
		if err != nil {
			return nil
		}
		was, is := valid(module), valid(m.Encode())
		if was != is {
			t.Errorf("%s: valid %v, after reading and writing it %v", path, was, is)
		}
		verdicts[is]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(verdicts)
	if verdicts[true] < 2_700 || verdicts[false] < 3_200 {
		t.Errorf("only %d modules are valid and %d are not", verdicts[true], verdicts[false])
	}
}
