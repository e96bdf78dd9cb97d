package hostile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// TestBothEnginesStopAtTheSameUnit runs what gets as far as a call on the
// compiler and on the interpreter.
func TestBothEnginesStopAtTheSameUnit(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	engines := []*engine.Engine{newEngine(t, engine.Config{}), newEngine(t, engine.Config{Interpreter: true})}
	compared := 0
	for _, c := range cases {
		stage, _, _ := strings.Cut(c.Outcome, ":")
		if stage != "call" && stage != "output" && stage != "answers" || strings.HasPrefix(c.Name, "quadratic") || c.Name == "functions-all" {
			continue
		}
		var outcomes [2]string
		for n, e := range engines {
			outcomes[n] = ending(t, e, &c)
		}
		if outcomes[0] != outcomes[1] {
			t.Errorf("%s: the compiler %s\nthe interpreter %s", c.Name, outcomes[0], outcomes[1])
		}
		compared++
	}
	t.Logf("%d modules compared", compared)
	if compared < 60 {
		t.Error("hardly any module was compared")
	}
}

// ending is output or trap of one call, and the fuel that initialising and the
// call used.
func ending(t *testing.T, e *engine.Engine, c *Case) string {
	t.Helper()
	module, err := c.Module()
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Load(context.Background(), engine.Spec{Name: c.Name, Wasm: module, ABI: c.ABI, Class: c.Class, Patterns: []string{"a+b"}, Pool: 1})
	if err != nil {
		return err.Error()
	}
	defer m.Close(context.Background())
	speaks, err := codec.For(c.ABI)
	if err != nil {
		t.Fatal(err)
	}
	result, err := m.Call(abi.Call{Input: input(t, speaks, "first")})
	return fmt.Sprintf("%x, %v, %d units, %d to initialise, %d messages", result.Output, err, result.Fuel, m.Stats().InitFuel, len(result.Logs))
}

// TestTruncations cuts honest modules at every byte: each beginning of a module
// is refused by the scan with the reason of truncations.txt, or is a module of
// its own because what it lacks is optional.
func TestTruncations(t *testing.T) {
	var got strings.Builder
	for _, name := range []string{"honest", "opa-honest", "call-mismatch"} {
		module, err := Case{Name: name}.Module()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := wasm.Scan(module, wasm.Policy); err != nil {
			t.Fatalf("%s, whole: %v", name, err)
		}
		fmt.Fprintf(&got, "%s\n", name)
		for n := range module {
			_, err := wasm.Scan(module[:n], wasm.Policy)
			reason := "is a module"
			var refusal *wasm.Refusal
			if errors.As(err, &refusal) {
				reason = strings.TrimPrefix(err.Error(), "module refused ")
			} else if err != nil {
				t.Fatalf("%s, the first %d bytes: %v", name, n, err)
			}
			fmt.Fprintf(&got, "  %3d  %s\n", n, reason)
		}
	}
	const file = "../../testdata/hostile/truncations.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wanted, lines := strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")
	for n, line := range lines {
		if n >= len(wanted) || wanted[n] != line {
			t.Fatalf("line %d: got %s", n+1, line)
		}
	}
}
