package script_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/abi/conformance"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// echo is a policy that answers the request's context as its value, with the
// kinds of what it holds.
const echo = `import { isInt } from "./holdfast"
export function decide(r: any) {
  const c = r.context
  return { verdict: "allow", value: c, reasons: [{ code: "kinds", text: Object.keys(c).map((k) => typeof c[k] + (isInt(c[k]) ? " int" : "")).join(", ") }] }
}`

// withContext is a request in CBOR with that context.
func withContext(tb testing.TB, context any) []byte {
	tb.Helper()
	return appendValue(tb, []byte("\xa2\x67subject\xa0\x67context"), context)
}

// answered is the output of echo for a context of those kinds.
func answered(tb testing.TB, value any, kinds string) []byte {
	tb.Helper()
	out := appendValue(tb, []byte("\xa3\x65value"), value)
	out = appendValue(tb, append(out, "\x67reasons\x81\xa2\x64code\x65kinds\x64text"...), kinds)
	return append(out, "\x67verdict\x65allow"...)
}

// TestValuesPass: every number comes back as it came, byte for byte, and says of
// itself what it is.
func TestValuesPass(t *testing.T) {
	m := ready(t, map[string]string{"policy.ts": echo})
	const safe = 1<<53 - 1
	for _, c := range []struct {
		value any
		kind  string
	}{
		{int64(0), "number int"}, {int64(-1), "number int"}, {int64(23), "number int"}, {int64(24), "number int"}, {int64(255), "number int"},
		{int64(65536), "number int"}, {int64(math.MaxInt32), "number int"}, {int64(math.MaxInt32 + 1), "number int"}, {int64(math.MinInt32), "number int"},
		{int64(math.MinInt32 - 1), "number int"}, {int64(math.MaxUint32 + 1), "number int"}, {int64(safe), "number int"}, {int64(-safe), "number int"},
		{int64(safe + 1), "bigint int"}, {int64(-safe - 1), "bigint int"}, {int64(safe + 2), "bigint int"}, {int64(math.MaxInt64), "bigint int"}, {int64(math.MinInt64), "bigint int"},
		{0.0, "number"}, {math.Copysign(0, -1), "number"}, {1.0, "number"}, {-1.0, "number"}, {0.5, "number"}, {1.1, "number"},
		{float64(math.MaxInt32), "number"}, {float64(math.MinInt32), "number"}, {float64(math.MaxInt32 + 1), "number"}, {5e9, "number"}, {-5e9, "number"},
		{float64(safe), "number"}, {float64(safe + 1), "number"}, {-float64(safe + 1), "number"}, {1e19, "number"}, {1e300, "number"}, {math.MaxFloat64, "number"}, {math.SmallestNonzeroFloat64, "number"},
		{"", "string"}, {"é \U0001F600 \u202e\x00", "string"}, {true, "boolean"}, {false, "boolean"}, {nil, "object"},
		{[]any{}, "object"}, {map[string]any{}, "object"}, {[]any{int64(1), 1.0, "x", []any{nil}}, "object"},
		{map[string]any{"bb": int64(1), "a": int64(2), "c": map[string]any{}, "é": int64(3), "zz": 1.0, "": nil}, "object"},
	} {
		context := map[string]any{"v": c.value}
		r, err := m.Call(abi.Call{Input: withContext(t, context)})
		if want := answered(t, context, c.kind); err != nil || !bytes.Equal(r.Output, want) {
			t.Errorf("%v: got %q, %v %s\nwant %q", c.value, r.Output, err, logged(r), want)
		}
	}
	// What cannot be told apart: the same large number as both.
	both := map[string]any{"a": int64(5e9), "b": 5e9}
	r, err := m.Call(abi.Call{Input: withContext(t, both)})
	if want := answered(t, map[string]any{"a": int64(5e9), "b": int64(5e9)}, "number int, number int"); err != nil || !bytes.Equal(r.Output, want) {
		t.Errorf("both: got %q, %v", r.Output, err)
	}
}

// TestComputedNumbers: what a policy computes is written as JavaScript shows it.
func TestComputedNumbers(t *testing.T) {
	cases := map[string]any{
		`0.5 + 0.5`: int64(1), `3e9 - 2999999999`: int64(1), `2 ** 31`: int64(1 << 31), `2 ** 53 - 1`: int64(1<<53 - 1), `2 ** 53`: float64(1 << 53),
		`1e300`: 1e300, `1 / 3`: 1.0 / 3, `-0`: math.Copysign(0, -1), `5n`: int64(5), `-(1n << 63n)`: int64(math.MinInt64), `(1n << 63n) - 1n`: int64(math.MaxInt64),
		`Math.round(2.5)`: int64(3), `JSON.parse("1.0")`: int64(1), `Number("1e3")`: int64(1000), `[1.0, 2.5]`: []any{int64(1), 2.5}, `Math.sqrt(16)`: int64(4),
		`new Float64Array([7])[0]`: int64(7), `parseFloat("-8.0")`: int64(-8), `"a" + "b".repeat(3)`: "abbb", `{ a: undefined, b: 1 }`: map[string]any{"b": int64(1)},
		`Object.create({ inherited: 1 })`: map[string]any{}, `new (class A { x = 1; #y = 2; m() {} })()`: map[string]any{"x": int64(1)},
		`{ toJSON: 1, __proto__: { z: 1 } }`: map[string]any{"toJSON": int64(1)}, `{ ["__proto__"]: 1 }`: map[string]any{"__proto__": int64(1)},
		`Object.defineProperty({ a: 1 }, "hidden", { value: 2 })`: map[string]any{"a": int64(1)}, `{ [Symbol("s")]: 1, 10: 1, 9: 2 }`: map[string]any{"10": int64(1), "9": int64(2)},
		`"\ud83d" + "\ude00"`: "\U0001F600", `("x".repeat(3000) + "y".repeat(6000)).length`: int64(9000), `"x".repeat(3000) + "y".repeat(6000)`: strings.Repeat("x", 3000) + strings.Repeat("y", 6000),
		`typeof ({} as any).constructor`: "function", `typeof r.subject.constructor`: "undefined", `typeof r.subject.__proto__`: "undefined", `Object.getPrototypeOf(r)`: nil,
	}
	expressions := slices.Sorted(maps.Keys(cases))
	var bodies []string
	for _, e := range expressions {
		bodies = append(bodies, `return { verdict: "allow", value: { v: `+e+` } }`)
	}
	m := ready(t, decides(bodies...))
	for i, e := range expressions {
		r, err := m.Call(abi.Call{Input: number(i)})
		want := append(appendValue(t, []byte("\xa2\x65value"), map[string]any{"v": cases[e]}), "\x67verdict\x65allow"...)
		if err != nil || !bytes.Equal(r.Output, want) {
			t.Errorf("%s: got %q, %v %s\nwant %q", e, r.Output, err, logged(r), want)
		}
	}
}

// TestManyNames: the order of names does not depend on how many there are.
func TestManyNames(t *testing.T) {
	m := ready(t, map[string]string{"policy.ts": `export function decide(r: any) {
  const o: any = {}
  for (let i = 0; i < r.n; i++) o[((i * 7919) % 10007).toString(36) + "é".repeat(i % 3)] = i
  return { verdict: "allow", value: o }
}`})
	for n := range 60 {
		value := map[string]any{}
		for i := range n {
			value[strconv.FormatInt(int64(i*7919%10007), 36)+strings.Repeat("é", i%3)] = int64(i)
		}
		want := append(appendValue(t, []byte("\xa2\x65value"), value), "\x67verdict\x65allow"...)
		r, err := m.Call(abi.Call{Input: appendValue(t, []byte("\xa1\x61n"), int64(n))})
		if err != nil || !bytes.Equal(r.Output, want) {
			t.Fatalf("%d: got %q, %v %s\nwant %q", n, r.Output, err, logged(r), want)
		}
	}
}

// TestNothingIsKept: what a call does to the globals, the prototypes and the
// module's own variables is gone in the next.
func TestNothingIsKept(t *testing.T) {
	m := ready(t, map[string]string{"policy.ts": `import { allow } from "./holdfast"
let calls = 0
const kept: any[] = []
export function decide(r: any) {
  const seen = [++calls, kept.length, ({} as any).polluted, (globalThis as any).leak, [].concat.name, Object.keys(r).length].join(",")
  kept.push(r)
  ;(Object.prototype as any).polluted = true
  ;(globalThis as any).leak = 1
  Array.prototype.concat = function evil(): any { return 1 } as any
  return allow("seen", seen)
}`})
	var first abi.Result
	for i := range 50 {
		r, err := m.Call(abi.Call{Input: withContext(t, map[string]any{})})
		if err != nil {
			t.Fatal(err, logged(r))
		}
		if i == 0 {
			first = r
		}
		if !bytes.Contains(r.Output, []byte("1,0,,,concat,2")) || !bytes.Equal(r.Output, first.Output) || r.Fuel != first.Fuel {
			t.Fatalf("call %d: %q, %d units; the first: %q, %d", i, r.Output, r.Fuel, first.Output, first.Fuel)
		}
	}
}

// TestHelpers: what the SDK takes from the host.
func TestHelpers(t *testing.T) {
	cases := map[string]string{
		`"" + now()`:                                      "1767225600000000000",
		`"" + Date.now()`:                                 "1767225600000",
		`new Date().toISOString()`:                        "2026-01-01T00:00:00.000Z",
		`"" + new Date().getTimezoneOffset()`:             "0",
		`"" + match(0, "abc")`:                            "true",
		`"" + match(0, "ab\u00e9")`:                       "false",
		`"" + match(1, "\u00e9\ud83d\ude00")`:             "true",
		`"" + match(1, "\ud83d")`:                         "false",
		`(log.info("one \ud83d"), log.error("two"), "x")`: "x",
		`"" + parseTime("1970-01-01T00:00:00Z")`:          "0",
		`typeof parseTime("2026-01-01T00:00:00Z")`:        "bigint",
		`"" + parseTime(5)`:                               "undefined",
	}
	for text, want := range instants {
		cases[fmt.Sprintf("%q + parseTime(%q)", text+" ", text)] = text + " " + want
	}
	expressions := slices.Sorted(maps.Keys(cases))
	var bodies []string
	for _, e := range expressions {
		bodies = append(bodies, `return { verdict: "allow", value: `+e+` }`)
	}
	source := decides(bodies...)
	m := ready(t, source, "^[a-z]+$", "^é\U0001F600$")
	for i, e := range expressions {
		r, err := m.Call(abi.Call{Input: number(i), Now: newYear})
		want := append(appendValue(t, []byte("\xa2\x65value"), cases[e]), "\x67verdict\x65allow"...)
		if err != nil || !bytes.Equal(r.Output, want) {
			t.Errorf("%s: got %q, %v %s; want %q", e, r.Output, err, logged(r), want)
		}
		if strings.Contains(e, "log.") && !slices.Equal(r.Logs, []abi.Log{{Level: abi.LogInfo, Text: "one \ufffd"}, {Level: abi.LogError, Text: "two"}}) {
			t.Errorf("logs %q", r.Logs)
		}
	}
}

// instants are texts and what they mean in nanoseconds.
var instants = map[string]string{
	"1970-01-01T00:00:00Z": "0", "2200-12-31T23:59:59.999999999Z": "7289654399999999999", "2000-02-29T12:00:00z": "951825600000000000",
	"2100-02-29T00:00:00Z": "undefined", "2000-02-30T00:00:00Z": "undefined", "1969-12-31T23:59:59Z": "undefined", "2201-01-01T00:00:00Z": "undefined",
	"1970-01-01t00:00:00+23:59": "-86340000000000", "1970-01-01T00:00:00.1-00:01": "60100000000", "1970-01-01T00:00:00.000000001Z": "1", "1970-01-01T00:00:00.0000000001Z": "undefined",
	"1970-01-01T00:00:00.Z": "undefined", "1970-01-01T24:00:00Z": "undefined", "1970-01-01T00:60:00Z": "undefined", "1970-01-01T00:00:60Z": "undefined", "1970-01-01T00:00:00+24:00": "undefined",
	"1970-01-01T00:00:00+00:60": "undefined", "1970-01-01T00:00:00": "undefined", "1970-01-01 00:00:00Z": "undefined", "1970-1-01T00:00:00Z": "undefined", "1970-01-01T00:00:00Zx": "undefined",
	"1970-01-01T00:00:00+0000": "undefined", "1970-00-01T00:00:00Z": "undefined", "1970-13-01T00:00:00Z": "undefined", "1970-01-00T00:00:00Z": "undefined", "": "undefined", "１970-01-01T00:00:00Z": "undefined",
}

// TestMalformed: what no codec writes is refused, at the start and when it is
// first read.
func TestMalformed(t *testing.T) {
	m := ready(t, map[string]string{"policy.ts": echo})
	long := strings.Repeat("x", 3000)
	for name, digits := range map[string]string{
		"empty": "", "null": "f6", "list": "80", "cut": "a1677375626a656374a26474797065626167", "number as name": "a10102", "indefinite": "bf677375626a656374a0ff",
		"tag": "c0a0", "bytes": "a1616141ff", "undefined": "a16161f7", "NaN": "a16161f97e00", "infinity": "a16161fb7ff0000000000000", "too large": "a161611b8000000000000000", "too small": "a161613b8000000000000000",
		"twice": "a2616100616100", "not UTF-8": "a1616162fffe", "surrogate": "a1616163eda080", "overlong": "a1616162c080", "name not UTF-8": "a161ff00", "trailing": "a0a0",
		"deep": "a161" + "61" + strings.Repeat("81", 50) + "00", "huge text": "a161617bffffffffffffffff", "huge list": "a161619bffffffffffffffff", "huge map": "a16161bbffffffffffffffff",
		"cut behind what waits": hex.EncodeToString([]byte("\xa2\x61a\x79\x0b\xb8"+long)) + "6162",
	} {
		input, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(name, err)
		}
		r, err := m.Call(abi.Call{Input: input})
		if trap, ok := errors.AsType[*abi.Trap](err); !ok || trap.Code != abi.TrapRefused || !strings.Contains(logged(r), "the input: ") {
			t.Errorf("%s: got %q, %v, logs %q", name, r.Output, err, logged(r))
		}
	}
	waiting := "\xa2\x67context\xa1\x61v\x82\x79\x0b\xb8" + long + "\x62\xff\xfe" + "\x67subject\xa0"
	if r, err := m.Call(abi.Call{Input: []byte(waiting)}); err == nil || !strings.Contains(logged(r), "TypeError: the request: a text that is not UTF-8") {
		t.Errorf("a list that waits: %q, %v, logs %q", r.Output, err, logged(r))
	}
}

// TestLargeRequests: half a megabyte is read at the default fuel where the policy
// does not look at it, and answered whole where it does.
func TestLargeRequests(t *testing.T) {
	m := ready(t, decides(`return allow("x", "y")`, `return allow("x", "" + r.context.text.length)`, `return allow("x", "" + r.context.list.length)`, `return allow("x", Object.keys(r.context).join(" ") + JSON.stringify(r).length)`))
	for name, c := range map[string]struct {
		context map[string]any
		body    int
		fuel    uint64
		text    string
	}{
		"a text, not read":    {map[string]any{"text": strings.Repeat("x", 500<<10)}, 0, abi.DefaultFuel, "y"},
		"a text, its length":  {map[string]any{"text": strings.Repeat("x", 500<<10)}, 1, abi.DefaultFuel, "512000"},
		"a wide text":         {map[string]any{"text": strings.Repeat("é", 200<<10)}, 1, abi.MaxFuel, "204800"},
		"a very wide text":    {map[string]any{"text": strings.Repeat("語", 170<<10)}, 1, abi.MaxFuel, "174080"},
		"a list":              {map[string]any{"list": slices.Repeat([]any{int64(1)}, 5_000)}, 2, abi.DefaultFuel, "5000"},
		"a long list":         {map[string]any{"list": slices.Repeat([]any{int64(1)}, 50_000)}, 2, abi.MaxFuel, "50000"},
		"many maps, not read": {map[string]any{"list": slices.Repeat([]any{map[string]any{"role": "user", "content": strings.Repeat("x", 300)}}, 1_500)}, 0, abi.DefaultFuel, "y"},
		"many maps":           {map[string]any{"list": slices.Repeat([]any{map[string]any{"role": "user", "content": strings.Repeat("x", 300)}}, 1_500)}, 2, abi.MaxFuel, "1500"},
		"all of it as JSON":   {map[string]any{"a": strings.Repeat("x", 3_000), "b": map[string]any{"c": strings.Repeat("y", 3_000)}}, 3, abi.DefaultFuel, "a b6054"},
	} {
		input := appendValue(t, append([]byte("\xa2\x67subject\xa1\x62id\x61"), byte('0'+c.body)), nil)
		input = appendValue(t, append(input[:len(input)-1], "\x67context"...), c.context)
		r, err := m.Call(abi.Call{Input: input, Fuel: c.fuel})
		if err != nil || !bytes.Contains(r.Output, []byte(c.text)) {
			t.Errorf("%s: got %.200q, %v %s, %d units", name, r.Output, err, logged(r), r.Fuel)
		}
		t.Logf("%s: %d bytes, %d units", name, len(input), r.Fuel)
	}
}

// TestConformance: the guest contract, on the compiler and the interpreter.
func TestConformance(t *testing.T) {
	e := examples(t)[1]
	c, _ := codec.For(abi.HoldfastV1)
	init, err := c.Init(plain(t, e.config.Params).(map[string]any), e.data)
	if err != nil {
		t.Fatal(err)
	}
	hosts := []conformance.Host{host{t, engineOf(t, engine.Config{})}, host{t, interpreter(t)}}
	report := conformance.CheckGuest(t.Context(), hosts, conformance.Guest{Name: "spend-cap", Wasm: e.wasm, ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime, Init: init})
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	t.Logf("%d cases", len(report))
}

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
