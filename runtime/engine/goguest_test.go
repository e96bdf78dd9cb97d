package engine_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// buildGo compiles a Go guest as its author would.
func buildGo(tb testing.TB, folder string) []byte {
	tb.Helper()
	out := filepath.Join(tb.TempDir(), "guest.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, "./"+folder)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if text, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, text)
	}
	return readFile(tb, out)
}

func TestGoGuest(t *testing.T) {
	spec := engine.Spec{
		Name: "goguest", Wasm: buildGo(t, "testdata/goguest"), ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime,
		Init: []byte("\xa2\x64data\x07\x66params\xa1\x61k\x05"),
	}
	m := load(t, newEngine(t, engine.Config{}), spec)
	t.Logf("%+v", m.Stats())
	call := abi.Call{Input: []byte("hello"), Now: frozen}
	first, err := m.Call(call)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s, %d units", first.Output, first.Fuel)
	for _, want := range []string{"hello calls=1 seen=1 now=1700000000000000000 ", " params=a264646174610766706172616d73a1616b05"} {
		if !strings.Contains(string(first.Output), want) {
			t.Errorf("%q is not in %q", want, first.Output)
		}
	}
	for n := range 2_000 {
		again, err := m.Call(call)
		if err != nil || !bytes.Equal(again.Output, first.Output) || again.Fuel != first.Fuel {
			t.Fatalf("call %d: %s, %d units, %v", n, again.Output, again.Fuel, err)
		}
		if n%500 == 0 {
			if result, err := m.Call(abi.Call{Input: []byte("panic")}); err == nil || len(result.Logs) == 0 {
				t.Fatalf("a panicking guest: %v, logs %v", err, result.Logs)
			}
		}
	}
	if result, err := m.Call(abi.Call{Input: []byte("print")}); err != nil || len(result.Logs) != 1 || result.Logs[0].Text != "a line of output\n" {
		t.Errorf("got %v, %v", result.Logs, err)
	}
}
