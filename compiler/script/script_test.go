package script_test

import (
	"context"
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

func engineOf(tb testing.TB, config engine.Config) *engine.Engine {
	tb.Helper()
	e, err := engine.New(tb.Context(), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close(context.Background()) })
	return e
}

// interpreter is an engine that loads a module quickly and answers slowly.
func interpreter(tb testing.TB) *engine.Engine {
	return engineOf(tb, engine.Config{Interpreter: true})
}

func load(tb testing.TB, module []byte, params map[string]any, data []byte, warm [][]byte, patterns ...string) (*engine.Module, error) {
	tb.Helper()
	return loadOn(tb, engineOf(tb, engine.Config{}), module, params, data, warm, patterns...)
}

func loadOn(tb testing.TB, e *engine.Engine, module []byte, params map[string]any, data []byte, warm [][]byte, patterns ...string) (*engine.Module, error) {
	tb.Helper()
	c, err := codec.For(abi.HoldfastV1)
	if err != nil {
		tb.Fatal(err)
	}
	init, err := c.Init(params, data)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := e.Load(tb.Context(), engine.Spec{Name: "script", Wasm: module, ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime, Init: init, Patterns: patterns, Warm: warm, Pool: 1})
	if err == nil {
		tb.Cleanup(func() { m.Close(context.Background()) })
	}
	return m, err
}

// TestFirst: the smallest policy answers.
func TestFirst(t *testing.T) {
	m := ready(t, map[string]string{"policy.ts": `import { allow, Request } from "./holdfast"
export function decide(r: Request) { return allow("ok", r.subject.id + " may") }`})
	r, err := m.Call(abi.Call{Input: []byte("\xa1\x67subject\xa1\x62id\x63ada")})
	if want := "\xa2\x67reasons\x81\xa2\x64code\x62ok\x64text\x67ada may\x67verdict\x65allow"; err != nil || string(r.Output) != want {
		t.Errorf("got %q, %v", r.Output, err)
	}
	t.Logf("%d units, %+v", r.Fuel, m.Stats())
}
