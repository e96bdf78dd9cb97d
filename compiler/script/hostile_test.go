package script_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// decides makes a policy that answers with the function body whose number is the
// subject's id. Body n stands in line n+2.
func decides(bodies ...string) map[string]string {
	var b strings.Builder
	b.WriteString("import { allow, decision, deny, isInt, log, match, now, parseTime, Request } from \"./holdfast\"; const bodies: any[] = []\n")
	for i, body := range bodies {
		fmt.Fprintf(&b, "bodies[%d] = function body(r: any): any { %s }\n", i, body)
	}
	b.WriteString("export const decide = (r: any): any => bodies[Number(r.subject.id)](r)\n")
	return map[string]string{"policy.ts": b.String()}
}

// number is the request that body n answers.
func number(n int) []byte {
	id := strconv.Itoa(n)
	return append([]byte("\xa1\x67subject\xa1\x62id"), append([]byte{0x60 | byte(len(id))}, id...)...)
}

// ready compiles and loads a policy.
func ready(tb testing.TB, files map[string]string, patterns ...string) *engine.Module {
	tb.Helper()
	m, err := compile(tb, files)
	if err != nil {
		tb.Fatal(err)
	}
	loaded, err := load(tb, m.Wasm, nil, nil, nil, patterns...)
	if err != nil {
		tb.Fatal(err)
	}
	return loaded
}

func logged(r abi.Result) string {
	var all []string
	for _, l := range r.Logs {
		all = append(all, l.Text)
	}
	return strings.Join(all, "\n")
}

// TestHostile: what a script does to itself ends the call and nothing else, and
// the next call is answered as if nothing had been.
func TestHostile(t *testing.T) {
	const deepJS = `let d = 0; const again = (): any => { d++; return %s }; again()`
	cases := map[string]struct {
		body string
		trap abi.TrapCode
		said string
	}{
		"endless loop":          {`for (;;);`, abi.TrapFuel, ""},
		"recursion":             {fmt.Sprintf(deepJS, "again()"), abi.TrapRefused, "stack overflow\n    at again (policy.ts:LINE)"},
		"recursion in map":      {fmt.Sprintf(deepJS, "[1].map(again)"), abi.TrapRefused, "stack overflow"},
		"recursion in sort":     {fmt.Sprintf(deepJS, "[1, 2].sort(again)"), abi.TrapRefused, "stack overflow"},
		"recursion in call":     {fmt.Sprintf(deepJS, "again.call(null)"), abi.TrapRefused, "stack overflow"},
		"recursion in apply":    {fmt.Sprintf(deepJS, "Reflect.apply(again, null, [])"), abi.TrapRefused, "stack overflow"},
		"recursion in replace":  {fmt.Sprintf(deepJS, `"a".replace(/a/, again)`), abi.TrapRefused, "stack overflow"},
		"recursion in new":      {`class A { constructor() { new A() } }; new A()`, abi.TrapRefused, "stack overflow"},
		"recursion in getters":  {`const o = { get a(): any { return this.a } }; o.a`, abi.TrapRefused, "stack overflow"},
		"recursion in proxies":  {`const p: any = new Proxy({}, { get: (t: any, k: any, r: any) => r[k] }); p.a`, abi.TrapRefused, "stack overflow"},
		"recursion in toString": {`const o = { toString(): any { return "" + o } }; "" + o`, abi.TrapRefused, "stack overflow"},
		"recursion of yield":    {`function* f(): any { yield* f() }; return [...f()]`, abi.TrapRefused, "stack overflow"},
		"deep JSON":             {`JSON.parse("[".repeat(5000))`, abi.TrapDepth, ""},
		"deep flat":             {`let v: any = []; for (let i = 0; i < 3000; i++) v = [v]; v.flat(Infinity)`, abi.TrapDepth, ""},
		"many objects":          {`const a: any[] = []; for (;;) a.push(new Array(1000).fill(1))`, abi.TrapFuel, ""},
		"large buffers":         {`const a: any[] = []; for (;;) a.push(new ArrayBuffer(1 << 20))`, abi.TrapFuel, ""},
		"a text beyond memory":  {`return allow("x", "x".repeat(1 << 29))`, abi.TrapFuel, ""},
		"a text beyond 2^30":    {`let s = "x"; for (;;) s += s`, abi.TrapRefused, "string too long"},
		"huge power":            {`return allow("x", "" + 2n ** 100000000n)`, abi.TrapRefused, "BigInt is too large"},
		"huge product":          {`let a = 3n; for (;;) a *= a`, abi.TrapFuel, ""},
		"regex catastrophe":     {`return allow("x", "" + /^(a+)+$/.test("a".repeat(40) + "b"))`, abi.TrapFuel, ""},
		"throws":                {`throw new TypeError("no")`, abi.TrapRefused, "(policy.ts:LINE)"},
		"throws a text":         {`throw "no"`, abi.TrapRefused, "no"},
		"throws what throws":    {`throw { toString() { throw 1 } }`, abi.TrapRefused, "an exception that has no text"},
		"throws a lying stack":  {`const e = new Error("x"); Object.defineProperty(e, "stack", { get() { throw 1 } }); throw e`, abi.TrapRefused, "Error: x"},
		"reads undefined":       {`return r.context.a`, abi.TrapRefused, "cannot read property 'a' of undefined\n    at body"},
		"eval":                  {`return (0, eval)("1")`, abi.TrapRefused, "eval is not supported"},
		"Function":              {`return new Function("return 1")()`, abi.TrapRefused, "eval is not supported"},
		"Math.random":           {`return allow("x", "" + Math.random())`, abi.TrapRefused, "Math.random: a decision depends on its input alone"},
		"a pattern that is not": {`return match(7, "x") ? allow("a", "b") : deny("a", "b")`, abi.TrapRefused, "the manifest has no pattern 7"},
	}
	names := slices.Sorted(maps.Keys(cases))
	bodies := []string{`return allow("x", "y")`}
	for _, name := range names {
		bodies = append(bodies, cases[name].body)
	}
	m := ready(t, decides(bodies...))
	before, err := m.Call(abi.Call{Input: number(0)})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		c := cases[name]
		r, err := m.Call(abi.Call{Input: number(i + 1), Fuel: abi.MaxFuel})
		trap, _ := errors.AsType[*abi.Trap](err)
		if trap == nil || trap.Code != c.trap || !strings.Contains(logged(r), strings.ReplaceAll(c.said, "LINE", strconv.Itoa(i+3))) {
			t.Errorf("%s: got %q, %v; want %s; logs %q", name, r.Output, err, c.trap, logged(r))
		}
		after, err := m.Call(abi.Call{Input: number(0)})
		if err != nil || string(after.Output) != string(before.Output) || after.Fuel != before.Fuel {
			t.Errorf("%s: the next call: %q, %d units, %v; want %q, %d", name, after.Output, after.Fuel, err, before.Output, before.Fuel)
		}
	}
}

// TestHostileDecisions: what is no decision is the guest's error, and says why.
func TestHostileDecisions(t *testing.T) {
	cases := map[string]string{
		`return (async () => ({ verdict: "allow" }))()`: "is a promise: nothing is asynchronous",
		`return undefined`:                                                                                    "what decide returned is not a plain object",
		`return null`:                                                                                         "is not a plain object",
		`return "allow"`:                                                                                      "is not a plain object",
		`return [1]`:                                                                                          "is not a plain object",
		`return new Map([["verdict", "allow"]])`:                                                              "is not a plain object",
		`return new Proxy({ verdict: "allow" }, {})`:                                                          "is not a plain object",
		`return {}`:                                                                                           "verdict is none of allow",
		`return { verdict: "ALLOW" }`:                                                                         "verdict is none of allow",
		`return { verdict: new String("allow") }`:                                                             "verdict is none of allow",
		`return { verdict: { toString: () => "allow" } }`:                                                     "verdict is none of allow",
		`return { verdict: "allow", reason: [] }`:                                                             "has a member that it cannot have",
		`return { get verdict() { throw new Error("getter") } }`:                                              "getter\n    at get verdict (policy.ts:LINE)",
		`return { verdict: "allow", toJSON() { return {} } }`:                                                 "has a member that it cannot have",
		`return { verdict: "allow", reasons: "x" }`:                                                           "reasons is not a list",
		`return { verdict: "allow", reasons: { length: 1 } }`:                                                 "reasons is not a list",
		`return { verdict: "allow", reasons: [{ code: "a" }] }`:                                               "a reason's text is not a text",
		`return { verdict: "allow", reasons: [{ code: "a", text: 1 }] }`:                                      "a reason's text is not a text",
		`return { verdict: "allow", reasons: [{ code: "a", text: "b", c: 1 }] }`:                              "a reason has a member that it cannot have",
		`return { verdict: "allow", reasons: [, 1] }`:                                                         "a reason is not a plain object",
		`return { verdict: "allow", obligations: [{ id: "a" }] }`:                                             "an obligation's type is not a text",
		`return { verdict: "allow", obligations: [{ type: "" }] }`:                                            "an obligation's type is empty",
		`return { verdict: "allow", obligations: [{ type: "a", properties: [] }] }`:                           "an obligation's properties are not a plain object",
		`return { verdict: "allow", value: () => 1 }`:                                                         "value is a function",
		`return { verdict: "allow", value: Symbol("x") }`:                                                     "value is a symbol",
		`return { verdict: "allow", value: { a: [undefined] } }`:                                              "value has an item that is undefined",
		`return { verdict: "allow", value: NaN }`:                                                             "value is NaN",
		`return { verdict: "allow", value: [-1 / 0] }`:                                                        "value is infinite",
		`return { verdict: "allow", value: 1n << 63n }`:                                                       "value is an integer beyond 64 bits",
		`return { verdict: "allow", value: -(1n << 63n) - 1n }`:                                               "value is an integer beyond 64 bits",
		`return { verdict: "allow", value: 1n << 100000n }`:                                                   "value is an integer beyond 64 bits",
		`return { verdict: "allow", value: new Date(0) }`:                                                     "value is neither a list nor a plain object",
		`return { verdict: "allow", value: new Map() }`:                                                       "value is neither a list nor a plain object",
		`return { verdict: "allow", value: new Uint8Array(3) }`:                                               "value is neither a list nor a plain object",
		`return { verdict: "allow", value: Object(1) }`:                                                       "value is neither a list nor a plain object",
		`return { verdict: "allow", value: new Proxy([], {}) }`:                                               "value is neither a list nor a plain object",
		`const a: any = {}; a.a = a; return { verdict: "allow", value: a }`:                                   "nests too deep, or contains itself",
		`const a: any = []; a[0] = a; return { verdict: "allow", value: a }`:                                  "nests too deep, or contains itself",
		`return { verdict: "allow", value: "\ud800" }`:                                                        "value has half a surrogate pair",
		`return { verdict: "allow", value: "\udc00\ud800" }`:                                                  "value has half a surrogate pair",
		`return { verdict: "allow", value: { "\ud800": 1 } }`:                                                 "value has a name with half a surrogate pair",
		`return allow("a", "\ud83d\ude00".slice(0, 1))`:                                                       "a reason's text has half a surrogate pair",
		`return { verdict: "allow", value: "x".repeat(65530) }`:                                               "longer than 65536 bytes",
		`return { verdict: "allow", value: new Array(70000).fill(1) }`:                                        "has too many items",
		`return { verdict: "allow", value: new Array(40000).fill(300) }`:                                      "longer than 65536 bytes",
		`return { verdict: "allow", value: { get a() { throw new Error("deep getter") } } }`:                  "deep getter",
		`const a: any[] = [{ get x() { a.length = 1; return 1 } }, 2]; return { verdict: "allow", value: a }`: "has an item that is undefined",
	}
	bodies := slices.Sorted(maps.Keys(cases))
	m := ready(t, decides(bodies...))
	for i, body := range bodies {
		r, err := m.Call(abi.Call{Input: number(i), Fuel: abi.MaxFuel})
		want := strings.ReplaceAll(cases[body], "LINE", strconv.Itoa(i+2))
		if trap, ok := errors.AsType[*abi.Trap](err); !ok || trap.Code != abi.TrapRefused || !strings.Contains(logged(r), want) {
			t.Errorf("%s\ngot %q, %v, logs %q; want %q", body, r.Output, err, logged(r), want)
		}
	}
}

// TestBadStarts: a script that cannot start is not loaded, and the error says why.
func TestBadStarts(t *testing.T) {
	const decide = "\nexport function decide() { return { verdict: \"allow\" } }"
	for source, want := range map[string]string{
		`for (;;);` + decide:                                                  "_initialize: fuel_exhausted: 400000000 units are not enough to start: an endless loop, or too much to do once",
		`const f = (): any => f(); f()` + decide:                              "stack overflow",
		`throw new RangeError("at the start")` + decide:                       "RangeError: at the start\n    at <anonymous> (policy.ts:1)",
		`export const decide = 5`:                                             "the script registers no function decide",
		`export function configure() { for (;;); }` + decide:                  "holdfast_init: fuel_exhausted: 400000000 units",
		`export function configure() { throw new Error("refused") }` + decide: "refused\n    at configure (policy.ts:1)",
		`const a = []; for (;;) a.push(new ArrayBuffer(1 << 20))` + decide:    "out of memory",
		`eval("1")` + decide:                                                  "eval is not supported",
		`Math.random()` + decide:                                              "Math.random",
	} {
		m, err := compile(t, map[string]string{"policy.ts": source})
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if _, err := load(t, m.Wasm, nil, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", source, err, want)
		}
	}
}
