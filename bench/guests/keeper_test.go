package guests_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/bench/guests"
	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// nothing is what a keeper says that found nothing of the calls before.
const nothing = "deny kept: calls 0, pages 0, pool 0, secret "

// subjects have secrets of several lengths; "grow" makes a keeper grow its memory.
var subjects = []string{"alice", "s", "", "grow", strings.Repeat("secret", 10)}

// TestKeepersKeepNothing asks every keeper many times, from several goroutines,
// with calls between that end in the middle for want of fuel. A million calls go
// to one guest, the others have fewer for the sake of time.
func TestKeepersKeepNothing(t *testing.T) {
	e := newEngine(t, engine.Config{})
	for _, language := range guests.Languages() {
		calls := 10_000
		if language == "c" {
			calls = manyCalls
		}
		t.Run(language, func(t *testing.T) {
			s := spec(t, language, "keeper")
			keepsNothing(t, load(t, e, s), calls, nothing)
		})
	}
	t.Run("go", func(t *testing.T) {
		s := engine.Spec{Name: "go", Wasm: buildGo(t, "./testdata/keeper"), ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime}
		keepsNothing(t, load(t, e, s), 2_000, nothing+", random ")
	})
}

func keepsNothing(t *testing.T, m *engine.Module, calls int, want string) {
	t.Helper()
	const askers = 4
	inputs, first := firstAnswers(t, m, want)
	var wait sync.WaitGroup
	for asker := range askers {
		wait.Go(func() {
			for n := asker; n < calls; n += askers {
				subject := n % len(inputs)
				if n%10_000 >= askers && subjects[subject] == "grow" {
					subject = 0 // a new instance each time: only now and then
				}
				got, err := m.Call(abi.Call{Input: inputs[subject]})
				if err != nil || got.Fuel != first[subject].Fuel || !bytes.Equal(got.Output, first[subject].Output) {
					t.Errorf("call %d: %q, %d units, %v; before %q, %d units", n, got.Output, got.Fuel, err, first[subject].Output, first[subject].Fuel)
					return
				}
				if n%5_000 == asker {
					cut(t, m, abi.Call{Input: inputs[subject], Fuel: got.Fuel - 20})
				}
			}
		})
	}
	wait.Wait()
}

// firstAnswers are the inputs for all subjects and the first answers to them.
func firstAnswers(t *testing.T, m *engine.Module, want string) (inputs [][]byte, answers []abi.Result) {
	t.Helper()
	for _, id := range subjects {
		input := ask(t, fmt.Sprintf(`{"subject":{"type":"agent","id":%q},"action":{"name":"ask"},"resource":{"type":"tool","id":"x"}}`, id))
		result, err := m.Call(abi.Call{Input: input})
		if text := says(t, result, err); !strings.HasPrefix(text, want) || want == nothing && text != want {
			t.Fatalf("subject %q: %s", id, text)
		}
		inputs, answers = append(inputs, input), append(answers, result)
	}
	return inputs, answers
}

// cut makes a call that ends shortly before it would have answered.
func cut(t *testing.T, m *engine.Module, call abi.Call) {
	if _, err := m.Call(call); err == nil || err.Error() != string(abi.TrapFuel) {
		t.Errorf("with %d units: %v", call.Fuel, err)
	}
}

func buildGo(t testing.TB, folder string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, folder)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	module, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return module
}

// keeperRego cannot keep anything; what it reads that might differ from call to
// call must not.
const keeperRego = `package keeper

import rego.v1

answer := {"allow": true, "value": {"random": uuid.rfc4122(input.user), "now": time.now_ns(), "seen": [x | some x in data.seen; x != input.user]}}
`

func TestRegoKeepsNothing(t *testing.T) {
	built, err := rego.Compile(t.Context(), fstest.MapFS{"p.rego": {Data: []byte(keeperRego)}, "data.json": {Data: []byte(`{"seen":["bob","carol"]}`)}},
		rego.Options{Entrypoints: []string{"keeper/answer"}})
	if err != nil {
		t.Fatal(err)
	}
	c := newCodec(t, abi.OPA1)
	init, err := c.Init(nil, built.Data)
	if err != nil {
		t.Fatal(err)
	}
	m := load(t, newEngine(t, engine.Config{}), engine.Spec{Name: "rego", Wasm: built.Wasm, ABI: abi.OPA1, Init: init})
	inputs := [][]byte{askRego(t, c, "alice"), askRego(t, c, "bob")}
	var first [2]abi.Result
	for n := range 10_000 {
		got, err := m.Call(abi.Call{Input: inputs[n%2], Entrypoint: m.Entrypoints()["keeper/answer"], Now: 1})
		if err != nil {
			t.Fatal(err)
		}
		if n < 2 {
			first[n] = got
		}
		if want := first[n%2]; !bytes.Equal(got.Output, want.Output) || got.Fuel != want.Fuel {
			t.Fatalf("call %d: %s, %d units; first %s, %d units", n, got.Output, got.Fuel, want.Output, want.Fuel)
		}
	}
}

func askRego(t testing.TB, c codec.Codec, user string) []byte {
	t.Helper()
	req, err := policy.ParseRequest(policy.PointCustom, fmt.Appendf(nil, `{"document":{"user":%q}}`, user))
	if err != nil {
		t.Fatal(err)
	}
	input, err := c.Encode(req)
	if err != nil {
		t.Fatal(err)
	}
	return input
}
