package regoindex

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// scenario is a policy with inputs to time.
type scenario struct {
	name, policy, data string
	v0                 bool
	inputs             map[string]string // by what they are
}

// thousand repeats a rule, in random order.
func thousand(head, format string, args func(i int) []any) string {
	return repeat(1000, head, format, args)
}

func repeat(n int, head, format string, args func(i int) []any) string {
	rules := make([]string, n)
	for i := range rules {
		rules[i] = fmt.Sprintf(format, args(i)...)
	}
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
	return "package p\n\n" + head + "\n\n" + strings.Join(rules, "\n\n") + "\n"
}

func number(i int) []any { return []any{i} }

func twice(i int) []any { return []any{i, i} }

// scenarios are a thousand rules of which one holds, with all that an index may
// look at, and a list that is searched.
func scenarios() []scenario {
	var ordered strings.Builder
	ordered.WriteString("package p\n\ndefault allow := false\n")
	for i := range 1000 {
		fmt.Fprintf(&ordered, "\nallow if {\n\tinput.action == \"action%d\"\n\tinput.user.role == \"admin\"\n}\n", i)
	}
	action := func(i int) string {
		return fmt.Sprintf(`{"action":"action%d","user":{"role":"admin"},"resource":{"kind":{"name":"kind%d"}},"number":%d}`, i, i, i)
	}
	one := map[string]string{"one": action(500)}
	var bindings []map[string]string
	for i := range 100 {
		bindings = append(bindings, map[string]string{"user": fmt.Sprintf("user%d", i), "role": fmt.Sprintf("role%d", i%10)})
	}
	rawBindings, _ := json.Marshal(map[string]any{"bindings": bindings})
	var chain strings.Builder
	chain.WriteString("package p\n\nallow := \"v0\" if input.action == \"action0\"")
	for i := 1; i < 200; i++ {
		fmt.Fprintf(&chain, " else := \"v%d\" if input.action == \"action%d\"", i, i)
	}
	return []scenario{
		{name: "1000 rules", policy: ordered.String(), inputs: map[string]string{"first": action(0), "middle": action(500), "last": action(999), "none": action(1000)}},
		{name: "random order", policy: thousand("default allow := false", "allow if { input.action == \"action%d\"; input.user.role == \"admin\" }", number), inputs: one},
		{name: "sets", policy: thousand("default allow := false", "allow if { input.action in {\"action%d\", \"other%d\"}; input.user.role == \"admin\" }", twice), inputs: one},
		{name: "nested", policy: thousand("default allow := false", "allow if { input.resource.kind.name == \"kind%d\"; input.user.role == \"admin\" }", number), inputs: one},
		{name: "two keys", policy: thousand("default allow := false", "allow if { input.user.role == \"admin\"; input.action == \"action%d\" }", number), inputs: one},
		{name: "partly ground", policy: thousand("default allow := false", "allow if { input.action == \"action%d\"; input.user.role == \"admin\" }", number) + strings.Repeat("\nallow if { input.user.role != \"admin\"; startswith(input.action, \"x\") }\n", 50), inputs: one},
		{name: "numbers", policy: thousand("default allow := false", "allow if { input.number == %d; input.user.role == \"admin\" }", number), inputs: one},
		{name: "function", policy: thousand("allow := f(input.action, 1)", "f(\"action%d\", x) := x if input.user.role == \"admin\"", number), inputs: one},
		{name: "else chain of 200", policy: chain.String(), inputs: map[string]string{"last": action(199), "none": action(1000)}},
		{name: "partial set", policy: thousand("", "allow contains \"v%d\" if { input.action == \"action%d\"; input.user.role == \"admin\" }", twice), inputs: one},
		// OPA's own module of 1000 has more locals than a policy may have.
		{name: "partial object, 900", policy: repeat(900, "", "allow[input.action] := %d if { input.action == \"action%d\"; input.user.role == \"admin\" }", twice), inputs: one},
		{name: "v0", v0: true, policy: thousand("default allow = false", "allow { input.action == \"action%d\"; input.user.role == \"admin\" }", number), inputs: one},
		{name: "RBAC, 100 bindings", data: string(rawBindings), policy: "package p\n\ndefault allow := false\n\nallow if { some b in data.bindings; b.user == input.user; b.role == input.role }\n",
			inputs: map[string]string{"first": `{"user":"user0","role":"role0"}`, "middle": `{"user":"user50","role":"role0"}`, "last": `{"user":"user99","role":"role9"}`, "none": `{"user":"user50","role":"none"}`}},
	}
}

// TestSpeed prints medians; it runs when HOLDFAST_BENCH is set.
func TestSpeed(t *testing.T) {
	if os.Getenv("HOLDFAST_BENCH") == "" {
		return
	}
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(context.Background())
	fmt.Printf("%-20s %-7s %10s %10s %10s %8s %8s\n", "p50 of ten, us", "", "OPA Go", "OPA Wasm", "index", "vs Go", "vs Wasm")
	for _, s := range scenarios() {
		if s.data == "" {
			s.data = "{}"
		}
		tr, err := load(t.Context(), e, s.policy, s.data, "p/allow", s.v0)
		if err != nil {
			t.Fatal(s.name, err)
		}
		for _, name := range slices.Sorted(func(yield func(string) bool) {
			for k := range s.inputs {
				if !yield(k) {
					return
				}
			}
		}) {
			row(t, tr, s, name)
		}
		tr.close(t.Context())
	}
	builds(t, e)
}

// builds prints the medians of ten of compiling and of admitting a module.
func builds(t *testing.T, e *engine.Engine) {
	fmt.Printf("\n%-20s %-9s %12s %12s %12s %10s\n", "p50 of ten, ms", "", "build", "admit", "MiB, build", "module")
	for _, s := range scenarios() {
		if s.name != "1000 rules" && s.name != "RBAC, 100 bindings" {
			continue
		}
		fsys := fstest.MapFS{"p.rego": {Data: []byte(s.policy)}, "data.json": {Data: []byte(cmp.Or(s.data, "{}"))}}
		for _, noIndex := range []bool{true, false} {
			var build, admit []time.Duration
			var module []byte
			var allocated uint64
			for range 10 {
				allocated = build1(t, fsys, noIndex, &module, &build)
				admit = append(admit, admission(t, e, module))
			}
			name := map[bool]string{true: "OPA Wasm", false: "index"}[noIndex]
			fmt.Printf("%-20s %-9s %12.1f %12.1f %12.1f %10d\n", s.name, name, median(build), median(admit), float64(allocated)/(1<<20), len(module))
		}
	}
}

func build1(t *testing.T, fsys fstest.MapFS, noIndex bool, module *[]byte, times *[]time.Duration) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	m, err := rego.Compile(t.Context(), fsys, rego.Options{Entrypoints: []string{"p/allow"}, NoIndex: noIndex})
	*times = append(*times, time.Since(start))
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	*module = m.Wasm
	return after.TotalAlloc - before.TotalAlloc
}

func admission(t *testing.T, e *engine.Engine, module []byte) time.Duration {
	start := time.Now()
	m, err := e.Load(t.Context(), engine.Spec{Name: "p", Wasm: module, ABI: abi.OPA1, Class: wasm.Policy, Pool: 1})
	took := time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	m.Close(t.Context())
	return took
}

// median is in milliseconds.
func median(times []time.Duration) float64 {
	slices.Sort(times)
	return float64(times[len(times)/2].Microseconds()) / 1000
}

func row(t *testing.T, tr *trio, s scenario, name string) {
	input := s.inputs[name]
	if same, err := tr.compare(t.Context(), input); err != nil || !same {
		t.Fatalf("%s %s: the answers differ: %v", s.name, name, err)
	}
	value := ast.MustParseTerm(input).Value
	calls := []func() error{
		func() error { _, err := tr.topdown.Eval(t.Context(), opa.EvalParsedInput(value)); return err },
		func() error { return call(tr, tr.off, input) },
		func() error { return call(tr, tr.on, input) },
	}
	var times [3][]time.Duration
	for range 10 {
		for i, f := range calls {
			times[i] = append(times[i], timed(t, f))
		}
	}
	var medians [3]float64
	for i := range times {
		slices.Sort(times[i])
		medians[i] = float64(times[i][len(times[i])/2].Nanoseconds()) / 1000
	}
	fmt.Printf("%-20s %-7s %10.2f %10.2f %10.2f %8.1f %8.1f\n", s.name, name, medians[0], medians[1], medians[2], medians[0]/medians[2], medians[1]/medians[2])
}

func call(tr *trio, m *engine.Module, input string) error {
	_, err := m.Call(abi.Call{Input: []byte(input), Entrypoint: m.Entrypoints()[tr.document], Fuel: abi.MaxFuel})
	return err
}

// timed returns the time of one of a hundred calls.
func timed(t *testing.T, f func() error) time.Duration {
	const calls = 100
	start := time.Now()
	for range calls {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(start) / calls
}
