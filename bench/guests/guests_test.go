package guests_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/bench/guests"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

func newEngine(t testing.TB, config engine.Config) *engine.Engine {
	t.Helper()
	e, err := engine.New(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	return e
}

func newCodec(t testing.TB, kind abi.Kind) codec.Codec {
	t.Helper()
	c, err := codec.For(kind)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func load(t testing.TB, e *engine.Engine, spec engine.Spec) *engine.Module {
	t.Helper()
	m, err := e.Load(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(context.Background()) })
	return m
}

// spec is a measuring guest's with the parameters that all tests use.
func spec(t testing.TB, language, name string) engine.Spec {
	t.Helper()
	module, err := guests.FS.ReadFile(language + "/" + name + ".wasm")
	if err != nil {
		t.Fatal(err)
	}
	init, err := newCodec(t, abi.HoldfastV1).Init(map[string]any{"tools": []any{"search", int64(7), "pay", "größer"}, "cap": int64(1000)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Spec{Name: language + "/" + name, Wasm: module, ABI: abi.HoldfastV1, Init: init}
}

// ask is the input of a holdfast_v1 guest for a request in JSON.
func ask(t testing.TB, request string) []byte {
	t.Helper()
	req, err := policy.ParseRequest(policy.PointCustom, []byte(request))
	if err != nil {
		t.Fatal(err)
	}
	input, err := newCodec(t, abi.HoldfastV1).Encode(req)
	if err != nil {
		t.Fatal(err)
	}
	return input
}

// asks is a request to use a tool with the context's members.
func asks(tool, context string) string {
	return fmt.Sprintf(`{"subject":{"type":"agent","id":"a7","properties":{"team":"payments","level":3}},"action":{"name":"tools/call"},
		"resource":{"type":"tool","id":%q},"context":{"trace":["t1",{"deep":[true,null,-2.5]}],%s}}`, tool, context)
}

// vectors are requests and what every language must answer.
var vectors = []struct{ request, want string }{
	{asks("pay", `"arguments":{"amount":250},"spent":700`), "allow within_cap: 250 on top of 700 is within 1000"},
	{asks("search", `"arguments":{"amount":0}`), "allow within_cap: 0 on top of 0 is within 1000"},
	{asks("pay", `"arguments":{"amount":300},"spent":700`), "allow within_cap: 300 on top of 700 is within 1000"},
	{asks("pay", `"arguments":{"amount":301},"spent":700`), "require_approval over_cap: 301 on top of 700 is more than 1000"},
	{asks("pay", `"arguments":{"amount":9223372036854775807},"spent":9223372036854775807`), "require_approval over_cap: 9223372036854775807 on top of 9223372036854775807 is more than 1000"},
	{asks("größer", `"arguments":{"amount":1}`), "allow within_cap: 1 on top of 0 is within 1000"},
	{asks("delete", `"arguments":{"amount":1}`), "deny tool_denied: delete is not an allowed tool"},
	{asks("", `"arguments":{"amount":1}`), "deny tool_denied:  is not an allowed tool"},
	{asks("paying", `"arguments":{"amount":1}`), "deny tool_denied: paying is not an allowed tool"},
	{asks(strings.Repeat("x", 300), `"arguments":{"amount":1}`), "deny tool_denied: " + strings.Repeat("x", 300) + " is not an allowed tool"},
	{asks("pay", `"arguments":{"amount":-1}`), "deny amount_invalid: the amount is not a whole number from 0"},
	{asks("pay", `"arguments":{"amount":1.5}`), "deny amount_invalid: the amount is not a whole number from 0"},
	{asks("pay", `"arguments":{"amount":"9"}`), "deny amount_invalid: the amount is not a whole number from 0"},
	{asks("pay", `"arguments":[250]`), "deny amount_invalid: the amount is not a whole number from 0"},
	{asks("pay", `"x":1`), "deny amount_invalid: the amount is not a whole number from 0"},
	{asks("pay", `"arguments":{"amount":1},"spent":-9223372036854775808`), "deny spent_invalid: what was spent is not a whole number from 0"},
	{asks("pay", `"arguments":{"amount":1},"spent":null`), "deny spent_invalid: what was spent is not a whole number from 0"},
	{asks(strings.Repeat("x", 1025), `"arguments":{"amount":1}`), "deny tool_denied: " + strings.Repeat("x", 1025) + " is not an allowed tool"},
	{asks("pay", `"arguments":`+strings.Repeat("[", 30)+strings.Repeat("]", 30)), "deny amount_invalid: the amount is not a whole number from 0"},
	{asks("pay", `"arguments":{"amount":1},"long":"`+strings.Repeat("y", 33_000)+`"`), "allow within_cap: 1 on top of 0 is within 1000"},
}

// malformed are documents that no guest may take for a request.
var malformed = map[string][]byte{
	"cut head": {0x19, 1}, "cut text": {0x62, 'a'}, "cut list": {0x82, 1}, "cut map": {0xa1, 0x61, 'a'}, "no value": {0xa1, 0x61},
	"two items": {1, 1}, "tag": {0xc1, 1}, "bytes": {0x41, 1}, "indefinite": {0x9f, 0xff}, "number as key": {0xa1, 1, 1},
	"undefined": {0xf7}, "simple": {0xf8, 32}, "break": {0xff}, "reserved": {0x1c}, "too large": {0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0},
	"huge list": {0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "huge text": {0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	"text of 4 GiB": {0x7b, 0, 0, 0, 1, 0, 0, 0, 0}, "list of 4 GiB": {0x9b, 0, 0, 0, 1, 0, 0, 0, 0},
	"deep": append(bytes.Repeat([]byte{0x81}, 41), 0), "very deep": bytes.Repeat([]byte{0x81}, 30_000),
}

// TestOneAnswer: all languages answer all vectors with the same bytes on both
// engines, and each engine needs the same fuel for it.
func TestOneAnswer(t *testing.T) {
	inputs, wants := map[string][]byte{}, map[string]string{}
	for i, v := range vectors {
		name := fmt.Sprintf("vector %d", i)
		inputs[name], wants[name] = ask(t, v.request), v.want
	}
	for name, doc := range malformed {
		inputs[name], wants[name] = doc, string(abi.TrapRefused)
	}
	first := map[string][]byte{}
	compiled, interpreted := newEngine(t, engine.Config{}), newEngine(t, engine.Config{Interpreter: true})
	for _, language := range guests.Languages() {
		fast, slow := load(t, compiled, spec(t, language, "spendcap")), load(t, interpreted, spec(t, language, "spendcap"))
		for name, input := range inputs {
			got, err := fast.Call(abi.Call{Input: input})
			if text := says(t, got, err); text != wants[name] {
				t.Errorf("%s, %s: got %q, want %q", language, name, text, wants[name])
			}
			again, againErr := slow.Call(abi.Call{Input: input})
			if !bytes.Equal(again.Output, got.Output) || again.Fuel != got.Fuel || fmt.Sprint(againErr) != fmt.Sprint(err) {
				t.Errorf("%s, %s: compiled %x, %d units, %v; interpreted %x, %d units, %v", language, name, got.Output, got.Fuel, err, again.Output, again.Fuel, againErr)
			}
			if first[name] == nil {
				first[name] = append([]byte{}, got.Output...)
			}
			if !bytes.Equal(got.Output, first[name]) {
				t.Errorf("%s, %s: %x, others %x", language, name, got.Output, first[name])
			}
		}
	}
}

// TestGoAgrees: the Go SDK's version says the same.
func TestGoAgrees(t *testing.T) {
	s := spec(t, "c", "spendcap")
	s.Wasm, s.Class = buildGo(t, "./testdata/spendcap"), wasm.LanguageRuntime
	m := load(t, newEngine(t, engine.Config{}), s)
	for i, v := range vectors {
		got, err := m.Call(abi.Call{Input: ask(t, v.request)})
		if text := says(t, got, err); text != v.want {
			t.Errorf("vector %d: got %q, want %q", i, text, v.want)
		}
	}
}

// says is what a module answered, as "verdict code: text" or the trap.
func says(t *testing.T, result abi.Result, err error) string {
	t.Helper()
	if err != nil {
		return err.Error()
	}
	d, err := newCodec(t, abi.HoldfastV1).Decode(result.Output)
	if err != nil || len(d.Reasons) != 1 {
		t.Fatalf("%x: %+v, %v", result.Output, d, err)
	}
	return fmt.Sprintf("%v %s: %s", d.Verdict, d.Reasons[0].Code, d.Reasons[0].Text)
}

func TestParametersAreChecked(t *testing.T) {
	e := newEngine(t, engine.Config{})
	for _, language := range guests.Languages() {
		for name, params := range map[string]map[string]any{
			"none": {}, "negative cap": {"cap": int64(-1), "tools": []any{}}, "cap is text": {"cap": "1", "tools": []any{}},
			"no list": {"cap": int64(1), "tools": "pay"},
		} {
			s := spec(t, language, "spendcap")
			init, err := newCodec(t, abi.HoldfastV1).Init(params, nil)
			if err != nil {
				t.Fatal(err)
			}
			s.Init = init
			_, err = e.Load(context.Background(), s)
			if trap, ok := errors.AsType[*abi.Trap](err); !ok || trap.Code != abi.TrapRefused {
				t.Errorf("%s, %s: got %v", language, name, err)
			}
		}
	}
}
