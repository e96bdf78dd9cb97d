package script_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// An example is one of the policies that every SDK carries.
type example struct {
	name   string
	wasm   []byte
	config struct {
		Params   map[string]any
		Patterns []string
	}
	data    []byte
	vectors []vector
}

type vector struct {
	Name    string
	Params  map[string]any
	Request map[string]any
	Expect  struct {
		Verdict     string
		Reasons     []map[string]any
		Obligations []map[string]any
		Value       any
	}
}

// newYear is the instant at which the golden vectors run.
const newYear = 1_767_225_600_000_000_000

func examples(tb testing.TB) []example {
	tb.Helper()
	var all []example
	for _, name := range []string{"tool-authz", "spend-cap", "residency"} {
		folder := filepath.Join("../../sdk/guest/examples", name)
		e := example{name: name}
		m, err := compile(tb, map[string]string{"policy.ts": string(readFile(tb, filepath.Join(typescript, "examples", name+".ts")))})
		if err != nil {
			tb.Fatal(err)
		}
		e.wasm = m.Wasm
		e.data, _ = os.ReadFile(filepath.Join(folder, "data.json"))
		for file, to := range map[string]any{"policy.yaml": &e.config, "vectors.yaml": &e.vectors} {
			if err := yaml.Unmarshal(readFile(tb, filepath.Join(folder, file)), to); err != nil {
				tb.Fatal(err)
			}
		}
		all = append(all, e)
	}
	return all
}

// load makes the example ready, with parameters that replace its own.
func (e *example) load(tb testing.TB, on *engine.Engine, params map[string]any) *engine.Module {
	tb.Helper()
	merged := plain(tb, e.config.Params).(map[string]any)
	if params != nil {
		maps.Copy(merged, plain(tb, params).(map[string]any))
	}
	var warm [][]byte
	for i := range e.vectors {
		warm = append(warm, e.vectors[i].input(tb))
	}
	m, err := loadOn(tb, on, e.wasm, merged, e.data, warm, e.config.Patterns...)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// plain gives a document of YAML the types that one of JSON has.
func plain(tb testing.TB, v any) any {
	tb.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	out, err := policy.ParseValue(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func (v *vector) input(tb testing.TB) []byte {
	tb.Helper()
	raw, err := json.Marshal(v.Request)
	if err != nil {
		tb.Fatal(err)
	}
	request, err := policy.ParseRequest("tool.pre_call", raw)
	if err != nil {
		tb.Fatal(err)
	}
	c, _ := codec.For(abi.HoldfastV1)
	input, err := c.Encode(request)
	if err != nil {
		tb.Fatal(err)
	}
	return input
}

// output is the decision that the vector expects, byte for byte.
func (v *vector) output(tb testing.TB) []byte {
	tb.Helper()
	members := 1
	var body []byte
	add := func(name string, value any) {
		body = appendValue(tb, appendValue(tb, body, name), value)
	}
	if v.Expect.Value != nil {
		members++
		add("value", plain(tb, v.Expect.Value))
	}
	if len(v.Expect.Reasons) > 0 {
		members++
		add("reasons", plain(tb, v.Expect.Reasons))
	}
	add("verdict", v.Expect.Verdict)
	if len(v.Expect.Obligations) > 0 {
		members++
		add("obligations", plain(tb, v.Expect.Obligations))
	}
	return append([]byte{0xa0 | byte(members)}, body...)
}

// appendValue is wire.Marshal with all floats in 64 bits, as guests write them.
func appendValue(tb testing.TB, out []byte, v any) []byte {
	tb.Helper()
	head := func(major byte, n int) {
		raw, err := wire.Marshal(n)
		if err != nil {
			tb.Fatal(err)
		}
		raw[0] |= major << 5
		out = append(out, raw...)
	}
	switch v := v.(type) {
	case float64:
		return binary.BigEndian.AppendUint64(append(out, 0xfb), math.Float64bits(v))
	case []any:
		head(4, len(v))
		for _, item := range v {
			out = appendValue(tb, out, item)
		}
	case map[string]any:
		head(5, len(v))
		names := slices.SortedFunc(maps.Keys(v), func(a, b string) int {
			return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
		})
		for _, name := range names {
			out = appendValue(tb, appendValue(tb, out, name), v[name])
		}
	default:
		raw, err := wire.Marshal(v)
		if err != nil {
			tb.Fatal(err)
		}
		return append(out, raw...)
	}
	return out
}

func BenchmarkExamples(b *testing.B) {
	for _, e := range examples(b) {
		m := e.load(b, engineOf(b, engine.Config{}), nil)
		input := e.vectors[0].input(b)
		b.Run(e.name, func(b *testing.B) {
			b.ReportAllocs()
			var fuel uint64
			var output []byte
			for b.Loop() {
				r, err := m.Call(abi.Call{Input: input, Now: newYear, Output: output[:0]})
				if err != nil {
					b.Fatal(err)
				}
				fuel, output = r.Fuel, r.Output
			}
			b.ReportMetric(float64(fuel), "fuel")
		})
	}
}

func TestExamples(t *testing.T) {
	shared := engineOf(t, engine.Config{})
	for _, e := range examples(t) {
		modules := map[string]*engine.Module{}
		var most uint64
		for _, v := range e.vectors {
			key, _ := json.Marshal(v.Params)
			if modules[string(key)] == nil {
				modules[string(key)] = e.load(t, shared, v.Params)
			}
			r, err := modules[string(key)].Call(abi.Call{Input: v.input(t), Now: newYear})
			if err != nil {
				t.Errorf("%s: %s: %v %v", e.name, v.Name, err, r.Logs)
				continue
			}
			if want := v.output(t); !bytes.Equal(want, r.Output) {
				t.Errorf("%s: %s:\ngot  %q\nwant %q", e.name, v.Name, r.Output, want)
			}
			most = max(most, r.Fuel)
		}
		t.Logf("%s: %d vectors, at most %d units; %+v", e.name, len(e.vectors), most, modules["null"].Stats())
	}
}
