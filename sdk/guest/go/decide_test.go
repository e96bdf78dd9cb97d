package guest

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

// request is a whole map with nothing in it: enough for Parse.
var request = []byte{0xa0}

// answer registers a policy that answers d and returns the output.
func answer(d Decision) []byte {
	Register(Policy{Decide: func(Request) Decision { return d }})
	defer Register(Policy{})
	return decide(nil, request)
}

func TestDecisionIsCBOR(t *testing.T) {
	for v, want := range map[Verdict]string{Deny: "deny", RequireApproval: "require_approval", Throttle: "throttle", Transform: "transform", Allow: "allow", 99: "deny"} {
		out, ok := Parse(answer(Decision{
			Verdict: v, Reasons: []Reason{{"code", "text"}},
			Obligations: []Obligation{{ID: "1", Type: "redact", Properties: map[string]any{"b": []any{1, "x"}, "a": int64(-500)}}},
			Value:       map[string]any{"f": 1.5, "n": nil, "t": true, "big": math.MaxInt64, "long": string(bytes.Repeat([]byte("x"), 70_000))},
		}))
		if !ok || out.Get("verdict").Text() != want {
			t.Fatalf("%v: %t %q", v, ok, out.Get("verdict").Text())
		}
		for _, o := range out.Get("obligations").Items() {
			if o.Get("type").Text() != "redact" || o.Path("properties", "a").Int() != -500 || o.Path("properties", "b").Len() != 2 {
				t.Error("obligation")
			}
		}
		value := out.Get("value")
		if value.Get("f").Float() != 1.5 || value.Get("n").Kind() != Null || !value.Get("t").Bool() || value.Get("big").Int() != math.MaxInt64 || value.Get("long").Len() != 70_000 {
			t.Error("value")
		}
	}
}

func TestGuestErrors(t *testing.T) {
	loop := []any{nil}
	loop[0] = loop
	for name, v := range map[string]any{"NaN": math.NaN(), "infinity": math.Inf(1), "struct": struct{}{}, "far down": []any{map[string]any{"x": uint8(1)}}, "loop": loop, "absent": Value{}} {
		if out := answer(Decision{Value: v}); out != nil {
			t.Errorf("%s: answered %x", name, out)
		}
	}
	Register(Policy{Decide: func(Request) Decision { return Decision{} }})
	defer Register(Policy{})
	if out := decide(nil, []byte{0xff}); out != nil {
		t.Errorf("answered what is no request: %x", out)
	}
	Register(Policy{})
	if out := decide(nil, request); out != nil {
		t.Errorf("answered without a policy: %x", out)
	}
}

func TestConfigure(t *testing.T) {
	doc := []byte{0xa1, 0x66, 'p', 'a', 'r', 'a', 'm', 's', 0xa1, 0x61, 'n', 7}
	var got int64
	Register(Policy{Configure: func(params, data Value) error { got = params.Get("n").Int(); return nil }})
	defer Register(Policy{})
	if !configure(doc) || got != 7 {
		t.Errorf("n is %d", got)
	}
	if configure([]byte{0xff}) {
		t.Error("accepted what is no document")
	}
	Register(Policy{Configure: func(_, _ Value) error { return errors.New("no") }})
	if configure(doc) {
		t.Error("an error is ready")
	}
}
