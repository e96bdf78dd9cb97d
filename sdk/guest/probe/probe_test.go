// Package probe_test tries the small SDKs where the example policies do not
// reach: one policy, written in each language, does what a request tells it.
package probe_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/compiler/toolchain"
	"github.com/holdfast-policy/holdfast/internal/needs"
	"github.com/holdfast-policy/holdfast/internal/plaincbor"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/abi/conformance"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

var update = flag.Bool("update", false, "rebuild the committed modules")

// A language is one that the probe is written in.
type language struct {
	name, ending string
	compiler     string // whose output is committed
	build        func(context.Context, string) (*toolchain.Module, error)
	most         int    // bytes of an example's module
	header       string // of the SDK, where it is not named as the sources are
	pages        int    // of memory, for a policy that keeps nothing
}

func languages() []language {
	return []language{
		{"rust", ".rs", "rustc 1.96.0", toolchain.Rust, 12 << 10, "", 1},
		{"assemblyscript", ".ts", "asc 0.28.20", toolchain.AssemblyScript, 16 << 10, "", 1},
		{"c", ".c", "clang 19.1.7", toolchain.C, 12 << 10, "holdfast.h", 2},
		{"zig", ".zig", "zig 0.16.0", toolchain.Zig, 12 << 10, "", 2},
	}
}

// each runs a test for each language.
func each(t *testing.T, f func(*testing.T, language)) {
	for _, l := range languages() {
		t.Run(l.name, func(t *testing.T) { f(t, l) })
	}
}

// modules are a language's committed modules by the source of each.
func (l language) modules() map[string]string {
	folder := ""
	if l.name == "c" {
		folder = "testdata/" // a Go package has no C
	}
	out := map[string]string{folder + "probe" + l.ending: l.name + ".wasm"}
	for _, example := range []string{"tool-authz", "spend-cap", "residency"} {
		out["../"+l.name+"/examples/"+example+l.ending] = "../" + l.name + "/examples/" + example + ".wasm"
	}
	return out
}

// sdk is the name of the SDK's file.
func (l language) sdk() string { return cmp.Or(l.header, "holdfast"+l.ending) }

func read(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestModulesAreAsBuilt: the committed modules are what their sources give, and
// the examples are no larger than they may be.
func TestModulesAreAsBuilt(t *testing.T) {
	each(t, func(t *testing.T, l language) {
		for source, module := range l.modules() {
			if size := len(read(t, module)); size > l.most && module != l.name+".wasm" {
				t.Errorf("%s: %d bytes, at most %d", module, size, l.most)
			}
			dir := t.TempDir()
			for to, from := range map[string]string{"policy" + l.ending: source, l.sdk(): "../" + l.name + "/" + l.sdk()} {
				if err := os.WriteFile(filepath.Join(dir, to), read(t, from), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			m, err := l.build(t.Context(), dir)
			if missing, ok := errors.AsType[*toolchain.MissingError](err); ok {
				needs.Missing(t, missing)
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.Toolchain != l.compiler {
				t.Skipf("the committed modules are made by %s, here is %s", l.compiler, m.Toolchain)
			}
			if *update {
				if err := os.WriteFile(filepath.FromSlash(module), m.Wasm, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(read(t, module), m.Wasm) {
				t.Errorf("%s is not what %s gives: go test ./sdk/guest/probe -update", module, source)
			}
		}
	})
}

// A host is an engine as the conformance kit wants it.
type host struct{ *engine.Engine }

func newHost(t *testing.T, config engine.Config) host {
	t.Helper()
	e, err := engine.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	return host{e}
}

func (h host) Load(ctx context.Context, g conformance.Guest) (abi.Module, error) {
	return h.Engine.Load(ctx, engine.Spec{Name: g.Name, Wasm: g.Wasm, ABI: g.ABI, Class: g.Class, Init: g.Init, Patterns: g.Patterns})
}

// The parameters of the examples, for the conformance kit.
var params = map[string]map[string]any{
	"spend-cap":  {"cap": int64(1000), "approval_over": int64(250), "currency": "EUR", "tools": []any{"t"}, "window_hours": int64(24)},
	"tool-authz": {"max_delegation": int64(2)},
	"residency":  {"default_class": "public", "allowed": map[string]any{"public": []any{"*"}}, "routes": map[string]any{}},
}

func guestOf(t *testing.T, name string, module []byte, params map[string]any, data []byte) conformance.Guest {
	t.Helper()
	c, err := codec.For(abi.HoldfastV1)
	if err != nil {
		t.Fatal(err)
	}
	init, err := c.Init(params, data)
	if err != nil {
		t.Fatal(err)
	}
	return conformance.Guest{Name: name, Wasm: module, ABI: abi.HoldfastV1, Class: wasm.Policy, Init: init, Patterns: []string{"^[a-z]+$", "^größer$"}}
}

func TestConformance(t *testing.T) {
	compiled, interpreted := newHost(t, engine.Config{}), newHost(t, engine.Config{Interpreter: true})
	each(t, func(t *testing.T, l language) {
		for example, params := range params {
			g := guestOf(t, example, read(t, "../"+l.name+"/examples/"+example+".wasm"), params, read(t, "../examples/tool-authz/data.json"))
			if err := conformance.CheckGuest(t.Context(), []conformance.Host{compiled, interpreted}, g).Err(); err != nil {
				t.Errorf("%s: %v", example, err)
			}
		}
	})
}

// A probe is the module of a language with the parameters.
type probe struct {
	*testing.T
	module *engine.Module
}

func newProbe(t *testing.T, l language, params map[string]any) probe {
	t.Helper()
	m, err := newHost(t, engine.Config{}).Load(t.Context(), guestOf(t, l.name, read(t, l.name+".wasm"), params, nil))
	if err != nil {
		t.Fatal(err)
	}
	return probe{t, m.(*engine.Module)}
}

// ask makes a request of the context and returns the answer, or the trap.
func (p probe) ask(context map[string]any) (out []byte, logs []abi.Log, trap string) {
	p.Helper()
	c, err := codec.For(abi.HoldfastV1)
	if err != nil {
		p.Fatal(err)
	}
	input, err := c.Encode(&policy.Request{
		Point: "custom", ID: "r-1", Subject: policy.Entity{Type: "user", ID: "größer", Properties: map[string]any{"a": int64(1)}},
		Action: policy.Action{Name: "act"}, Resource: policy.Entity{Type: "tool", ID: "t"}, Context: context, Supported: []string{"cap", "redact"},
	})
	if err != nil {
		p.Fatal(err)
	}
	result, err := p.module.Call(abi.Call{Input: input, Now: 1_767_225_600_000_000_001, Fuel: abi.MaxFuel})
	if err != nil {
		return nil, nil, err.Error()
	}
	return result.Output, result.Logs, ""
}

// wants checks an answer's bytes.
func (p probe) wants(context map[string]any, want answer) {
	p.Helper()
	if want.verdict == "" {
		want.verdict = "deny"
	}
	got, _, trap := p.ask(context)
	if trap != "" || !bytes.Equal(got, want.encode()) {
		p.Errorf("%.300v: got %s %.600q, want %.600q", context, trap, got, want.encode())
	}
}

// refuses checks that what was asked for is a guest error.
func (p probe) refuses(context map[string]any) {
	p.Helper()
	if got, _, trap := p.ask(context); trap != string(abi.TrapRefused) {
		p.Errorf("%.300v: got %s %.600q", context, trap, got)
	}
}

type object = map[string]any

// values are of every kind and at every bound of a head's width.
func values() []any {
	wide := make([]any, 300)
	many := object{}
	for i := range wide {
		wide[i] = int64(i * i)
		many[strings.Repeat("k", i%7)+fmt.Sprint(i)] = float64(i) / 3
	}
	out := []any{true, false, null{}, "", "a", strings.Repeat("x", 23), strings.Repeat("x", 24), strings.Repeat("é", 200), strings.Repeat("x", 60_000),
		[]any{}, object{}, wide, many, object{"a": []any{object{"b": 0.5}, 1.5, "c"}, "": null{}, "ä": 1e300}, []any{0.1, 0.25, math.MaxFloat32, 5e-324, math.Copysign(0, -1)}}
	for _, n := range []int64{0, 23, 24, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64} {
		out = append(out, n, -n, -n-1)
	}
	for _, f := range []float64{0.5, -0.25, 65504, 5.960464477539063e-08, 6.103515625e-05, 1.1, 3.4028234663852886e+38, 1.401298464324817e-45, math.MaxFloat64, 2, math.Copysign(0, -1)} {
		out = append(out, f)
	}
	return out
}

// plain is v as a request holds it.
func plain(v any) any {
	switch v := v.(type) {
	case null:
		return nil
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plain(v[i])
		}
		return out
	case object:
		out := object{}
		for k := range v {
			out[k] = plain(v[k])
		}
		return out
	}
	return v
}

func TestValues(t *testing.T) {
	each(t, func(t *testing.T, l language) {
		p := newProbe(t, l, nil)
		for _, v := range values() {
			p.wants(object{"do": "copy", "it": plain(v)}, answer{value: v})
			if m, ok := v.(object); ok {
				want := object{}
				for k, item := range m {
					want[k] = []any{item, length(item)}
				}
				p.wants(object{"do": "members", "it": plain(v)}, answer{value: want})
			}
			kind, size := kindOf(v), length(v)
			yes := ""
			if v == true {
				yes = " true"
			}
			p.wants(object{"do": "kind", "it": plain(v)}, answer{verdict: "allow", reasons: [][2]string{{"kind", fmt.Sprintf("%s %d%s", kind, size, yes)}}})
			switch v := v.(type) {
			case int64:
				p.wants(object{"do": "float", "it": v}, answer{value: float64(v)})
				p.wants(object{"do": "say", "it": v, "times": int64(0)}, answer{reasons: [][2]string{{"said", fmt.Sprint(v)}}})
			case float64:
				p.wants(object{"do": "float", "it": v}, answer{value: v})
			default:
				p.wants(object{"do": "float", "it": plain(v)}, answer{value: -1.0})
			}
		}
		p.wants(object{"do": "kind"}, answer{verdict: "allow", reasons: [][2]string{{"kind", "absent 0"}}})
		p.refuses(object{"do": "copy"})
		p.refuses(object{"do": "divide", "it": int64(1), "by": int64(0)})
		p.refuses(object{"do": "divide", "it": int64(0), "by": 0.0})
		p.wants(object{"do": "divide", "it": int64(1), "by": int64(4)}, answer{value: 0.25})
		p.wants(object{}, answer{})
	})
}

func kindOf(v any) string {
	switch v.(type) {
	case null:
		return "null"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case string:
		return "text"
	case []any:
		return "list"
	}
	return "map"
}

func length(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case []any:
		return len(v)
	case object:
		return len(v)
	}
	return 0
}

// TestMapsAreSorted sets members in many orders; a key set twice is an error.
func TestMapsAreSorted(t *testing.T) {
	keys := []string{"", "a", "b", "aa", "ab", "ba", "Z", "zz", "aaa", "größe", "longest", strings.Repeat("k", 30), strings.Repeat("k", 29) + "j", strings.Repeat("l", 300), "\u00e9", "\U0001F600"}
	for n := range 30 {
		keys = append(keys, fmt.Sprintf("n%d", n))
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	each(t, func(t *testing.T, l language) {
		p, random := newProbe(t, l, nil), rand.New(rand.NewPCG(seed, 1))
		for range 200 {
			order := random.Perm(len(keys))[:random.IntN(len(keys))+1]
			var list []any
			want := object{}
			for i, n := range order {
				list = append(list, keys[n])
				want[keys[n]] = i
			}
			p.wants(object{"do": "sort", "it": list}, answer{value: want})
			p.refuses(object{"do": "sort", "it": append(list, list[random.IntN(len(list))])})
		}
		p.wants(object{"do": "nest", "it": []any{1.5, "x"}}, answer{value: object{
			"later": []any{object{}, null{}, true, []any{}, -1}, "a": object{"zz": []any{1.5, "x"}, "b": 0.5, "a": false}, "": "größer"}})
	})
}

// TestTexts has texts of all lengths at which a head changes its width.
func TestTexts(t *testing.T) {
	each(t, func(t *testing.T, l language) {
		p := newProbe(t, l, nil)
		for _, n := range []int64{0, 1, 21, 22, 23, 24, 252, 253, 254, 255, 256, 257, 5000, 65000} {
			p.wants(object{"do": "say", "it": "x", "times": n}, answer{reasons: [][2]string{{"said", strings.Repeat("x", int(n)) + "0"}}})
		}
		for _, n := range []int{1, 2, 23, 24, 30} {
			want := answer{}
			for i := range n {
				want.reasons = append(want.reasons, [2]string{"one", fmt.Sprintf("%dwhy", i)})
				want.obligations = append(want.obligations, obligation{typ: "first"}, obligation{"größe", "second", object{"n": i}})
			}
			p.wants(object{"do": "reasons", "it": "why", "times": int64(n)}, want)
		}
		for _, c := range []struct {
			a, b string
			want []any
		}{
			{"EUR", "eUr", []any{true, false, false}}, {"EUR", "EUR", []any{true, true, false}}, {"", "", []any{true, true, false}}, {"größer", "GRößER", []any{true, false, true}},
			{"größer", "GRÖSSER", []any{false, false, true}}, {"[", "{", []any{false, false, false}}, {"@", "`", []any{false, false, false}}, {"aZ", "Az", []any{true, false, false}},
			{"gröẞer", "größer", []any{false, false, false}}, {"abcdefghijkl", "ABCDEFGHIJKL", []any{true, false, false}}, {"abcdefghijkl", "abcdefghijkm", []any{false, false, false}},
		} {
			p.wants(object{"do": "case", "it": c.a, "by": c.b}, answer{value: c.want})
		}
		p.wants(object{"do": "case", "it": int64(1), "by": "1"}, answer{value: []any{false, false, false}})
	})
}

func TestHost(t *testing.T) {
	each(t, func(t *testing.T, l language) {
		p := newProbe(t, l, object{"words": []any{"kept", "größer", ""}, "f": 0.5})
		p.wants(object{"do": "host", "it": "abc"}, answer{value: []any{true, false, false}})
		p.wants(object{"do": "host", "it": "größer"}, answer{value: []any{false, true, false}})
		if _, logs, _ := p.ask(object{"do": "host"}); len(logs) != 1 || logs[0] != (abi.Log{Level: abi.LogWarn, Text: "at 1767225600000000001"}) {
			t.Errorf("logs %v", logs)
		}
		p.wants(object{"do": "request", "it": object{"x": nil}}, answer{verdict: "allow", reasons: [][2]string{{"request", "custom|r-1|user|größer|act|tool|t|"}}, value: []any{true, false, true, true, false}})
		p.wants(object{"do": "kept"}, answer{verdict: "allow", reasons: [][2]string{{"kept", "kept größer "}}, value: object{"words": []any{"kept", "größer", ""}, "f": 0.5}})
		_, err := newHost(t, engine.Config{}).Load(t.Context(), guestOf(t, l.name, read(t, l.name+".wasm"), object{"refuse": true}, nil))
		if trap, ok := errors.AsType[*abi.Trap](err); !ok || trap.Code != abi.TrapRefused {
			t.Errorf("refused parameters: %v", err)
		}
	})
}

// TestBounds: the longest request and the longest answer fit, the next byte of an
// answer is a guest error, and what a large configuration takes is not missing later.
func TestBounds(t *testing.T) {
	each(t, func(t *testing.T, l language) {
		p := newProbe(t, l, nil)
		// What stands around the text in the answer.
		frame := int64(len(answer{reasons: [][2]string{{"said", strings.Repeat("x", 64_000) + "0"}}, verdict: "deny"}.encode())) - 64_000
		p.wants(object{"do": "say", "it": "x", "times": abi.MaxOutput - frame}, answer{reasons: [][2]string{{"said", strings.Repeat("x", int(abi.MaxOutput-frame)) + "0"}}})
		for _, more := range []int64{1, 2, 80} {
			p.refuses(object{"do": "say", "it": "x", "times": abi.MaxOutput - frame + more})
		}
		p.refuses(object{"do": "copies", "it": strings.Repeat("y", 40_000), "times": int64(2)})
		p.refuses(object{"do": "reasons", "it": strings.Repeat("y", 1_000), "times": int64(70)})
		for _, n := range []int{1 << 10, 40 << 10, 300 << 10, 511 << 10} {
			text := strings.Repeat("z", n)
			p.wants(object{"do": "kind", "it": text}, answer{verdict: "allow", reasons: [][2]string{{"kind", fmt.Sprintf("text %d", n)}}})
		}
		p.wants(object{"do": "allocate", "times": int64(100_000)}, answer{value: 700_000})

		for more := range 16 { // wherever the end of a page falls
			large := newProbe(t, l, object{"words": []any{strings.Repeat("w", 600<<10+more*4096)}})
			pages := int(large.module.Stats().MemoryBytes / (64 << 10))
			large.wants(object{"do": "pages", "it": strings.Repeat("z", 12<<10)}, answer{value: pages})
		}
		if small := newProbe(t, l, nil).module.Stats().MemoryBytes; small > uint64(l.pages)<<16 {
			t.Errorf("%d bytes of memory for nothing", small)
		}
	})
}

// TestLongestOnDefaultFuel: the check of what comes in leaves room for a policy.
func TestLongestOnDefaultFuel(t *testing.T) {
	input, err := wire.Marshal(object{"context": object{"text": strings.Repeat("x", abi.MaxInput-32)}})
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, l language) {
		result, err := newProbe(t, l, nil).module.Call(abi.Call{Input: input})
		if err != nil || result.Fuel > abi.DefaultFuel/2 {
			t.Errorf("%d bytes: %d units, %v", len(input), result.Fuel, err)
		}
	})
}

// TestMalformed: every document that is no single well-formed item is refused,
// among them every cut of a good one, and its cuts beside the end of memory.
func TestMalformed(t *testing.T) {
	good, err := wire.Marshal(object{"context": object{"do": "copy", "it": []any{object{"a": 0.5, "bb": "größer", "c": []any{int64(1000), int64(-70_000), 1.1, nil, true}}}}})
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string][]byte{
		"two items": append(bytes.Clone(good), 0), "tag": {0xc1, 0xa0}, "bytes": {0xa1, 0x61, 'a', 0x41, 1}, "indefinite": {0x9f, 0xff}, "number as key": {0xa1, 1, 1},
		"undefined": {0x81, 0xf7}, "simple": {0x81, 0xf8, 32}, "simple false": {0x81, 0xf8, 20}, "break": {0x81, 0xff}, "reserved": {0x81, 0x1c},
		"too large": {0x81, 0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0}, "too small": {0x81, 0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"huge list": {0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "huge map": {0xbb, 0x80, 0, 0, 0, 0, 0, 0, 1}, "2^63 + 1 pairs": {0xbb, 0x80, 0, 0, 0, 0, 0, 0, 1, 0x61, 'a', 1}, "huge text": {0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"text of 4 GiB": {0x7b, 0, 0, 0, 1, 0, 0, 0, 0}, "text to the end of memory": {0x7a, 0xff, 0xff, 0xff, 0xf0}, "list of 4 GiB": {0x9b, 0, 0, 0, 1, 0, 0, 0, 0}, "map of 4 GiB": {0xba, 0x80, 0, 0, 1, 0x60, 0},
		"deep": append(bytes.Repeat([]byte{0x81}, 41), 0), "very deep": bytes.Repeat([]byte{0x81}, abi.MaxInput), "head behind the end": append(bytes.Repeat([]byte{0x81}, 3), 0x1b),
	}
	for n := range good {
		bad[fmt.Sprintf("cut at %d", n)] = good[:n]
	}
	wide := map[string][]byte{} // of which Rust's texts and AssemblyScript's strings cannot be
	for _, text := range []string{"\x80", "\xc0\xaf", "\xc2", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xef\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc3\x28", "12345678\xff", "1234567\xff", "é2345678\xe2\x82"} {
		wide[fmt.Sprintf("%q", text)] = append([]byte{0x60 | byte(len(text))}, text...)
	}
	each(t, func(t *testing.T, l language) {
		p, bad := newProbe(t, l, nil), maps.Clone(bad)
		if l.name != "c" && l.name != "zig" {
			maps.Copy(bad, wide)
		}
		for name, input := range bad {
			for _, filler := range []int{0, 65_000, 300_000} { // so that the end lies elsewhere
				doc := input
				if filler > 0 && len(input) < 1000 {
					doc = append(plaincbor.Append([]byte{0x82}, strings.Repeat("f", filler)), input...)
				}
				if result, err := p.module.Call(abi.Call{Input: doc, Fuel: abi.MaxFuel}); err == nil || err.Error() != string(abi.TrapRefused) {
					t.Errorf("%s after %d: %.200q, %v", name, filler, result.Output, err)
				}
			}
		}
		result, err := p.module.Call(abi.Call{Input: append(bytes.Repeat([]byte{0x81}, 39), 0x80)})
		if err != nil || !bytes.Equal(result.Output, answer{verdict: "deny"}.encode()) {
			t.Errorf("39 deep: %q, %v", result.Output, err)
		}
	})
}

// TestTimes holds the SDKs' times against Go's, on good and bad ones.
func TestTimes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	texts := []string{"1970-01-01T00:00:00Z", "1970-01-01T00:00:00+23:59", "2200-12-31T23:59:59.999999999-23:59", "2000-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2100-02-28T23:59:59Z", "1972-02-29T12:00:00z",
		"1969-12-31T23:59:59Z", "2201-01-01T00:00:00Z", "2024-02-30T00:00:00Z", "2023-02-29T00:00:00Z", "2024-04-31T00:00:00Z", "2024-13-01T00:00:00Z", "2024-00-01T00:00:00Z", "2024-01-00T00:00:00Z",
		"2024-01-01T24:00:00Z", "2024-01-01T23:60:00Z", "2024-06-30T23:59:60Z", "2024-01-01T00:00:00.Z", "2024-01-01T00:00:00.1234567890Z", "2024-01-01T00:00:00,5Z", "2024-01-01 00:00:00Z",
		"2024-01-01T00:00:00", "2024-01-01T00:00:00+24:00", "2024-01-01T00:00:00+00:60", "2024-01-01T00:00:00+0000", "2024-01-01T00:00:00Z ", " 2024-01-01T00:00:00Z", "", "Z", "2024-01-01T00:00:00é", "2024-01-01T00:00:00.5"}
	for range 3000 {
		at := time.Unix(random.Int64N(7_500_000_000)-100_000_000, random.Int64N(1_000_000_000)).In(time.FixedZone("", (random.IntN(2879)-1439)*60))
		text := at.Format([]string{time.RFC3339, time.RFC3339Nano, "2006-01-02t15:04:05.000000000Z07:00", "2006-01-02T15:04:05.0Z07:00"}[random.IntN(4)])
		texts = append(texts, text)
		broken := []byte(text)
		for range 1 + random.IntN(2) {
			broken[random.IntN(len(broken))] = "0123456789-:.+TtZz /"[random.IntN(20)]
		}
		texts = append(texts, string(broken), text[:random.IntN(len(text))], text+"0")
	}
	each(t, func(t *testing.T, l language) {
		p, good := newProbe(t, l, nil), 0
		for _, text := range texts {
			want := answer{value: null{}}
			if ns, ok := instant(text); ok {
				want.value = ns
				good++
			}
			p.wants(object{"do": "time", "it": text}, want)
		}
		if good < 2000 || len(texts)-good < 2000 {
			t.Errorf("%d good of %d", good, len(texts))
		}
		p.wants(object{"do": "time", "it": int64(1)}, answer{value: null{}})
	})
}

// instant is examples/README.md's RFC 3339, by Go's parser, which is laxer in
// some places and stricter about the case of letters.
func instant(text string) (int64, bool) {
	upper := strings.ToUpper(text)
	if len(upper) < 20 || strings.ContainsAny(upper, ",") {
		return 0, false
	}
	if dot := strings.IndexByte(upper, '.'); dot >= 0 {
		if digits := strings.IndexAny(upper[dot:], "Z+-"); digits < 2 || digits > 10 {
			return 0, false
		}
	}
	if zone := len(upper) - 6; upper[len(upper)-1] != 'Z' && (upper[zone+1:zone+3] > "23" || upper[zone+4:] > "59") {
		return 0, false
	}
	at, err := time.Parse(time.RFC3339Nano, upper)
	if err != nil || upper[:4] < "1970" || upper[:4] > "2200" {
		return 0, false
	}
	return at.UnixNano(), true
}

// onNode makes calls on a host that restores nothing: Node, which AssemblyScript
// needs anyway. The host puts stale into the input buffer before each request.
func onNode(t *testing.T, l language, stale, request []byte, calls int) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		needs.Missing(t, "no node on PATH: install Node.js")
	}
	init, err := wire.Marshal(object{"params": object{"words": []any{"kept"}}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, "testdata/calls.mjs", l.name+".wasm", fmt.Sprintf("%x", init), fmt.Sprintf("%x", stale), fmt.Sprintf("%x", request), fmt.Sprint(calls))
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%x after %x: %v: %s", request, stale, err, said)
	}
	return strings.TrimSpace(string(said))
}

func TestArenaIsReset(t *testing.T) {
	request, err := wire.Marshal(object{"context": object{"do": "allocate", "times": int64(5_000)}})
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, l language) {
		want := fmt.Sprintf("%x", answer{value: 35_000, verdict: "deny"}.encode())
		if said := onNode(t, l, nil, request, 20_000); said != want {
			t.Errorf("%s, want %s", said, want)
		}
	})
}

// TestStaleBytes: what an earlier request left behind the end is not read as if
// it belonged to this one.
func TestStaleBytes(t *testing.T) {
	each(t, func(t *testing.T, l language) {
		for _, cut := range [][]byte{{0x82, 1, 0x7a}, {0x82, 1, 0x7b, 0xff}, {0x82, 1, 0x9b}, {0x82, 1, 0xbb, 0x7f}, {0x82, 1, 0x19}, {0x81, 0x78}, {0x7a}} {
			for _, filler := range []byte{0xff, 0x7f, 1} {
				if said := onNode(t, l, bytes.Repeat([]byte{filler}, 4096), cut, 2); said != "" {
					t.Errorf("%x before bytes of %x: %s", cut, filler, said)
				}
			}
		}
	})
}
