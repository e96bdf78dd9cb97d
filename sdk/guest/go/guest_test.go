package guest_test

import (
	"bytes"
	"math"
	"testing"

	guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func parse(t *testing.T, v any) guest.Value {
	t.Helper()
	raw, err := wire.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out, ok := guest.Parse(raw)
	if !ok {
		t.Fatalf("refused %x", raw)
	}
	return out
}

func TestRequest(t *testing.T) {
	req, err := policy.ParseRequest("tool.pre_call", []byte(`{"id":"7","subject":{"type":"agent","id":"a","properties":{"role":"clerk"}},
		"action":{"name":"tools/call"},"resource":{"type":"tool","id":"pay"},"context":{"arguments":{"n":[1,-2,1.5,1e300],"t":"é","b":true,"z":null}},
		"supported_obligations":["redact"]}`))
	if err != nil {
		t.Fatal(err)
	}
	r := guest.Request{Value: parse(t, req)}
	if r.Point() != "tool.pre_call" || r.ID() != "7" || r.Subject().Type() != "agent" || r.Subject().ID() != "a" ||
		r.Subject().Property("role").Text() != "clerk" || r.Action() != "tools/call" || r.Resource().ID() != "pay" {
		t.Errorf("%s %s", r.Point(), r.ID())
	}
	if !r.Performs("redact") || r.Performs("route") || r.Document().Exists() || r.Path("context", "nothing", "there").Exists() {
		t.Error("what is there, or is not")
	}
	args := r.Context().Get("arguments")
	var numbers []float64
	for _, n := range args.Get("n").Items() {
		numbers = append(numbers, n.Float())
	}
	if len(numbers) != 4 || numbers[0] != 1 || numbers[1] != -2 || numbers[2] != 1.5 || numbers[3] != 1e300 {
		t.Errorf("%v", numbers)
	}
	if args.Get("t").Text() != "é" || !args.Get("b").Bool() || args.Get("z").Kind() != guest.Null || args.Len() != 4 {
		t.Error("scalars")
	}
}

// TestNumbers holds the reader against the host's encoder.
func TestNumbers(t *testing.T) {
	for _, n := range []int64{0, 23, 24, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64, -1, -24, -25, -256, math.MinInt64} {
		if got := parse(t, n); got.Int() != n || got.Kind() != guest.Int {
			t.Errorf("%d: got %d", n, got.Int())
		}
	}
	for _, f := range []float64{0.5, -1.5, 65504, 5.960464477539063e-08, 6.103515625e-05, 1.1, math.MaxFloat64, math.SmallestNonzeroFloat64, 3.4028234663852886e+38, math.Copysign(0, -1)} {
		if got := parse(t, f).Float(); math.Float64bits(got) != math.Float64bits(f) {
			t.Errorf("%g: got %g", f, got)
		}
	}
}

// TestOtherKinds: every method of a value of another kind gives its zero.
func TestOtherKinds(t *testing.T) {
	for _, v := range []guest.Value{{}, parse(t, nil), parse(t, true), parse(t, 7), parse(t, 1.5), parse(t, "s"), parse(t, []any{}), parse(t, map[string]any{})} {
		k := v.Kind()
		if k != guest.Int && v.Int() != 0 || k != guest.Int && k != guest.Float && v.Float() != 0 || k != guest.String && v.Text() != "" ||
			k != guest.Bool && v.Bool() || k != guest.String && v.Len() != 0 || v.Get("x").Exists() {
			t.Errorf("kind %d", k)
		}
		for range v.Items() {
			t.Errorf("kind %d has items", k)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, doc := range map[string][]byte{
		"empty": {}, "cut head": {0x19, 1}, "cut text": {0x62, 'a'}, "cut list": {0x82, 1}, "cut map": {0xa1, 0x61, 'a'},
		"two items": {1, 1}, "tag": {0xc1, 1}, "bytes": {0x41, 1}, "indefinite": {0x9f, 0xff}, "number as key": {0xa1, 1, 1},
		"undefined": {0xf7}, "simple": {0xf8, 32}, "break": {0xff}, "reserved": {0x1c}, "too large": {0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"huge list": {0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "huge text": {0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"deep": bytes.Repeat([]byte{0x81}, 100_000),
	} {
		if _, ok := guest.Parse(doc); ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzParse: what Parse accepts can be walked to the end, and every text is
// where the document has it.
func FuzzParse(f *testing.F) {
	for _, v := range []any{nil, 1.5, []any{"a", int64(-7)}, map[string]any{"a": map[string]any{"b": []any{true}}}} {
		raw, err := wire.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		v, ok := guest.Parse(doc)
		if ok && !v.Exists() {
			t.Error("accepted, and nothing there")
		}
		walk(v)
	})
}

func walk(v guest.Value) (n int) {
	n = len(v.Text()) + int(v.Int()) + int(v.Float())
	for _, item := range v.Items() {
		n += walk(item)
	}
	for name, item := range v.Members() {
		n += len(name) + walk(item)
	}
	return n
}
