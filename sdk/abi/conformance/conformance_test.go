package conformance_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/internal/hostile"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/abi/conformance"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// host is our engine as the kit wants it.
type host struct {
	t      *testing.T
	engine *engine.Engine
}

func (h host) Load(ctx context.Context, g conformance.Guest) (abi.Module, error) {
	m, err := h.engine.Load(ctx, engine.Spec{Name: g.Name, Wasm: g.Wasm, ABI: g.ABI, Class: g.Class, Init: g.Init, Patterns: g.Patterns, Pool: 1})
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { m.Close(context.Background()) })
	return m, nil
}

func hosts(t *testing.T) []conformance.Host {
	var all []conformance.Host
	for _, interpreter := range []bool{false, true} {
		e, err := engine.New(t.Context(), engine.Config{Interpreter: interpreter})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close(context.Background()) })
		all = append(all, host{t, e})
	}
	return all
}

func TestOurHostsKeepTheContract(t *testing.T) {
	for _, h := range hosts(t) {
		report := conformance.CheckHost(t.Context(), h)
		if err := report.Err(); err != nil {
			t.Error(err)
		}
		if len(report) < 40 {
			t.Errorf("only %d cases", len(report))
		}
	}
}

// TestOurGuestsKeepTheContract runs a policy on the Go guest SDK, and Rego.
func TestOurGuestsKeepTheContract(t *testing.T) {
	guard, err := os.ReadFile("../../../modules/argument-guard/argument-guard.wasm")
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := rego.Compile(t.Context(), fstest.MapFS{"p.rego": {Data: []byte("package p\n\nallow if input.subject.id == \"a\"\n")}}, rego.Options{Entrypoints: []string{"p/allow"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []conformance.Guest{
		{Name: "argument-guard", Wasm: guard, ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime},
		{Name: "rego", Wasm: compiled.Wasm, ABI: abi.OPA1},
	} {
		report := conformance.CheckGuest(t.Context(), hosts(t), g)
		if err := report.Err(); err != nil {
			t.Errorf("%s: %v", g.Name, err)
		}
		t.Logf("%s: %d cases", g.Name, len(report))
	}
}

// TestBadGuestsAreCaught: for each rule, a guest that breaks it, and the case
// that says so.
func TestBadGuestsAreCaught(t *testing.T) {
	all, err := hostile.Cases()
	if err != nil {
		t.Fatal(err)
	}
	modules := map[string]hostile.Case{}
	for _, c := range all {
		modules[c.Name] = c
	}
	compiled := hosts(t)[:1]
	for name, want := range map[string]string{
		"export-decide-type":     "contract: want the exports",
		"import-foreign":         "contract: want the exports",
		"threads":                "contract: want the exports",
		"type-mismatch":          "initialise: want a guest that initialises",
		"init-refuses":           "initialise: want a guest that initialises",
		"start-trap":             "initialise: want a guest that initialises",
		"opa-entrypoints-text":   "initialise: want a guest that initialises",
		"alloc-refuses":          "request/minimal: want a valid decision",
		"alloc-over-output":      "request/minimal: want a valid decision",
		"output-refused":         "request/minimal: want a valid decision",
		"output-verdict-unknown": "request/minimal: want a valid decision",
		"output-long":            "request/minimal: want a valid decision",
		"unreachable":            "malformed/empty: want a decision, or the guest's own refusal",
		"loop":                   "malformed/empty: want a decision, or the guest's own refusal",
		"log-many":               "request/minimal: want a valid decision; 32 messages",
		"opa-result-not-json":    "request/minimal: want a valid decision",
		"opa-builtin-arity":      "malformed/null: want a decision, or the guest's own refusal",
	} {
		c, ok := modules[name]
		if !ok {
			t.Fatalf("%s is not in the corpus", name)
		}
		module, err := c.Module()
		if err != nil {
			t.Fatal(err)
		}
		report := conformance.CheckGuest(t.Context(), compiled, conformance.Guest{Name: name, Wasm: module, ABI: c.ABI, Class: c.Class})
		if err := report.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q in the report, got %v", name, want, err)
		}
	}
}

// TestAuthorsMistakes: what the author of an SDK gets wrong first, and the words
// that say what to do.
func TestAuthorsMistakes(t *testing.T) {
	compiled := hosts(t)[:1]
	counted := 0
	chance := badHost{Host: compiled[0], call: func(m abi.Module, c abi.Call) (abi.Result, error) {
		r, err := m.Call(c)
		if counted++; counted > 100 {
			r.Fuel++
		}
		return r, err
	}}
	for name, c := range map[string]struct {
		host         conformance.Host
		begins, want string
	}{
		"export-alloc-missing":   {nil, "contract", "a linker drops what no export names"},
		"export-decide-type":     {nil, "contract", "i stands for i32 and I for i64"},
		"import-foreign":         {nil, "contract", "link without libc"},
		"init-refuses":           {nil, "initialise", "holdfast_init answers 0"},
		"alloc-refuses":          {nil, "request/minimal", "holdfast_alloc answered 0"},
		"alloc-outside":          {nil, "request/minimal", "less room behind it"},
		"output-far":             {nil, "request/minimal", "ptr << 32 | len, both within the memory"},
		"output-long":            {nil, "request/minimal", "at most 65536 bytes"},
		"output-no-cbor":         {nil, "request/minimal", "no text and no JSON"},
		"output-verdict-unknown": {nil, "request/minimal", "the verdict is one of"},
		"output-refused":         {nil, "request/minimal", "decide answered 0"},
		"unreachable":            {nil, "malformed/empty", "instead of a panic or an assertion"},
		"loop":                   {nil, "malformed/empty", "stop at the end of the input"},
		"output-is-input":        {nil, "request/minimal", "a decision has only verdict, reasons, obligations and value"},
		"reference policy":       {chance, "determinism/again", "must depend on the input alone"},
	} {
		module := exampleOf(t)
		if c.host == nil {
			c.host = compiled[0]
			raw, err := os.ReadFile("../../../testdata/hostile/" + name + ".wasm")
			if err != nil {
				t.Fatal(err)
			}
			module = raw
		}
		report := conformance.CheckGuest(t.Context(), []conformance.Host{c.host}, conformance.Guest{Name: name, Wasm: module, ABI: abi.HoldfastV1})
		found := false
		for _, r := range report.Missing() {
			found = found || strings.HasPrefix(r.Case, c.begins) && strings.Contains(r.Advice, c.want)
			if r.Advice == "" {
				t.Errorf("%s: %s: no advice", name, r.Case)
			}
		}
		if !found {
			t.Errorf("%s: no advice on %s with %q in %+v", name, c.begins, c.want, report.Missing())
		}
	}
}

func exampleOf(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile("../example/policy.wasm")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// badHost is a host with one fault.
type badHost struct {
	conformance.Host
	load func(conformance.Guest) conformance.Guest
	call func(abi.Module, abi.Call) (abi.Result, error)
}

func (h badHost) Load(ctx context.Context, g conformance.Guest) (abi.Module, error) {
	if h.load != nil {
		g = h.load(g)
	}
	m, err := h.Host.Load(ctx, g)
	if err != nil || h.call == nil {
		return m, err
	}
	return badModule{m, h.call}, nil
}

type badModule struct {
	abi.Module
	call func(abi.Module, abi.Call) (abi.Result, error)
}

func (m badModule) Call(c abi.Call) (abi.Result, error) { return m.call(m.Module, c) }

// TestBadHostsAreCaught: for each promise, a host that breaks it.
func TestBadHostsAreCaught(t *testing.T) {
	good := hosts(t)[0]
	calls, random := 0, byte(0)
	for name, c := range map[string]struct {
		host badHost
		want string
	}{
		"admits everything": {badHost{load: func(g conformance.Guest) conformance.Guest {
			g.Wasm = referenceOf(t)
			return g
		}}, "refuse/no decide"},
		"forgets the parameters": {badHost{load: func(g conformance.Guest) conformance.Guest {
			g.Init = nil
			return g
		}}, "parameters: want"},
		"forgets the patterns": {badHost{load: func(g conformance.Guest) conformance.Guest {
			g.Patterns = nil
			return g
		}}, "match: want"},
		"has a clock of its own": {badHost{call: func(m abi.Module, c abi.Call) (abi.Result, error) {
			c.Now = 5
			return m.Call(c)
		}}, "clock: want"},
		"ignores the fuel": {badHost{call: func(m abi.Module, c abi.Call) (abi.Result, error) {
			c.Fuel = abi.MaxFuel
			return m.Call(c)
		}}, "fuel/exact: want"},
		"gives twice the fuel": {badHost{call: func(m abi.Module, c abi.Call) (abi.Result, error) {
			c.Fuel = min(c.Fuel, 1<<40)
			r, err := m.Call(c)
			r.Fuel *= 2
			return r, err
		}}, "fuel/maximum: want"},
		"drops the logs": {badHost{call: func(m abi.Module, c abi.Call) (abi.Result, error) {
			r, err := m.Call(c)
			r.Logs = nil
			return r, err
		}}, "log/limit: want"},
		"keeps what was counted": {badHost{call: func(m abi.Module, c abi.Call) (abi.Result, error) {
			r, err := m.Call(c)
			if err == nil && string(c.Input) == "b" {
				calls++
				r.Output[0] += byte(calls)
			}
			return r, err
		}}, "restore/counter: want"},
		"draws its own random numbers": {badHost{call: func(m abi.Module, c abi.Call) (abi.Result, error) {
			r, err := m.Call(c)
			if err == nil && string(c.Input) == "x" {
				random++
				r.Output[0] ^= random
			}
			return r, err
		}}, "restore/random: want"},
		"cuts the output": {badHost{call: func(m abi.Module, c abi.Call) (abi.Result, error) {
			r, err := m.Call(c)
			r.Output = r.Output[:min(len(r.Output), 1<<10)]
			return r, err
		}}, "output/64 KiB: want"},
		"calls every trap its own failure": {badHost{call: func(m abi.Module, c abi.Call) (abi.Result, error) {
			r, err := m.Call(c)
			if err != nil {
				err = &abi.Trap{Code: abi.TrapHost}
			}
			return r, err
		}}, "trap/divide by zero: want"},
	} {
		c.host.Host = good
		if err := conformance.CheckHost(t.Context(), c.host).Err(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("a host that %s: want %q, got %v", name, c.want, err)
		}
	}
}

func referenceOf(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile("reference.wasm")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
