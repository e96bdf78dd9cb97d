package script_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/compiler/script"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

const typescript = "../../sdk/guest/typescript"

func readFile(tb testing.TB, name string) []byte {
	tb.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// compile compiles a policy, given as the content of files.
func compile(tb testing.TB, files map[string]string) (*script.Module, error) {
	tb.Helper()
	fsys := fstest.MapFS{"holdfast.ts": {Data: readFile(tb, filepath.Join(typescript, "holdfast.ts"))}}
	for name, content := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return script.Compile(tb.Context(), fsys)
}

func load(tb testing.TB, module []byte, params map[string]any, data []byte, warm [][]byte, patterns ...string) (*engine.Module, error) {
	tb.Helper()
	e, err := engine.New(tb.Context(), engine.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close(tb.Context()) })
	c, _ := codec.For(abi.HoldfastV1)
	init, err := c.Init(params, data)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := e.Load(tb.Context(), engine.Spec{Name: "script", Wasm: module, ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime, Init: init, Patterns: patterns, Warm: warm, Pool: 1})
	if err == nil {
		tb.Cleanup(func() { m.Close(tb.Context()) })
	}
	return m, err
}

func TestHello(t *testing.T) {
	m, err := compile(t, map[string]string{"policy.ts": `import { allow, Request } from "./holdfast"
export function decide(r: Request) { return allow("ok", r.subject.id + " may") }`})
	if err != nil {
		t.Fatal(err)
	}
	e, err := load(t, m.Wasm, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", e.Stats())
	r, err := e.Call(abi.Call{Input: []byte("\xa1\x67subject\xa1\x62id\x63ada"), Now: 1})
	t.Logf("%q %d %v %v", r.Output, r.Fuel, r.Logs, err)
}
