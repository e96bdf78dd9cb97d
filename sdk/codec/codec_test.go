package codec_test

import (
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func codecFor(t testing.TB, kind abi.Kind) codec.Codec {
	t.Helper()
	c, err := codec.For(kind)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOPADecode(t *testing.T) {
	c := codecFor(t, abi.OPA1)
	reasons := []policy.Reason{{Code: "x", Text: "why"}}
	for out, want := range map[string]policy.Decision{
		`[{"result":true}]`:  {Verdict: policy.Allow},
		`[{"result":false}]`: {},
		`[]`:                 {},
		`[{"result":{"verdict":"throttle","reasons":[{"code":"x","text":"why"}]}}]`: {Verdict: policy.Throttle, Reasons: reasons},
		`[{"result":{"allow":true}}]`:                                        {Verdict: policy.Allow},
		`[{"result":{"allow":false,"reasons":[{"code":"x","text":"why"}]}}]`: {Reasons: reasons},
		`[{"result":{"allow":true,"limit":3}}]`:                              {Verdict: policy.Allow, Value: map[string]any{"allow": true, "limit": int64(3)}},
		`[{"result":{"allow":"yes"}}]`:                                       {Value: map[string]any{"allow": "yes"}},
		`[{"result":[1,2]}]`:                                                 {Value: []any{int64(1), int64(2)}},
		`[{"result":{"verdict":"transform","obligations":[{"type":"redact","properties":{"path":"/a"}}]}}]`: {
			Verdict: policy.Transform, Obligations: []policy.Obligation{{Type: "redact", Properties: map[string]any{"path": "/a"}}}},
	} {
		got, err := c.Decode([]byte(out))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", out, got, err, want)
		}
	}
}

// Whatever is not a decision is an error and never an allow.
func TestDecodeRefusesNonsense(t *testing.T) {
	opa := codecFor(t, abi.OPA1)
	for _, out := range []string{
		``, `x`, `{}`, `[1]`, `[{"result":true},{"result":true}]`,
		`[{"result":{"verdict":"yes"}}]`, `[{"result":{"verdict":true}}]`, `[{"result":{"verdict":"allow","extra":1}}]`,
		`[{"result":{"verdict":"deny","reasons":"x"}}]`, `[{"result":{"verdict":"deny","reasons":[{"text":"x"}]}}]`,
		`[{"result":{"verdict":"transform"}}]`, `[{"result":{"verdict":"allow","obligations":[{}]}}]`, `[{"result":true}] x`,
	} {
		if d, err := opa.Decode([]byte(out)); !errors.Is(err, codec.ErrOutput) || d.Verdict.Permits() {
			t.Errorf("%s: %+v, %v", out, d, err)
		}
	}
	own := codecFor(t, abi.HoldfastV1)
	for name, digits := range map[string]string{
		"empty":           "",
		"no verdict":      "a0",
		"verdict number":  "a16776657264696374" + "04",
		"unknown verdict": "a16776657264696374" + "63796573",
		"unknown member":  "a2" + "6776657264696374" + "65616c6c6f77" + "6178" + "01",
		"not a map":       "80",
		"cut":             "a16776657264696374" + "65616c",
		"invalid UTF-8":   "a16776657264696374" + "61ff",
	} {
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := own.Decode(b); !errors.Is(err, codec.ErrOutput) || d.Verdict.Permits() {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

func TestHoldfastRoundTrip(t *testing.T) {
	c := codecFor(t, abi.HoldfastV1)
	d := policy.Decision{Verdict: policy.Allow, Reasons: []policy.Reason{{Code: "c", Text: "t"}}, Value: map[string]any{"n": int64(1)}}
	b, err := wire.Marshal(map[string]any{"verdict": "allow", "reasons": d.Reasons, "value": d.Value})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Decode(b); err != nil || !reflect.DeepEqual(got, d) {
		t.Errorf("%+v, %v", got, err)
	}
	req, err := policy.ParseRequest("custom", []byte(`{"document":{"n":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.Encode(req)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := wire.Unmarshal(in, &m); err != nil || m["point"] != "custom" {
		t.Errorf("%v, %v", m, err)
	}
}

func TestInit(t *testing.T) {
	got, err := codecFor(t, abi.OPA1).Init(map[string]any{"a": int64(2)}, []byte(`{"roles":{"x":1.10},"params":{"a":1}}`))
	if want := `{"params":{"a":2},"roles":{"x":1.10}}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	if _, err := codecFor(t, abi.OPA1).Init(nil, []byte(`[1]`)); err == nil {
		t.Error("data that is not an object was taken")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`[{"result":{"verdict":"allow","reasons":[{"code":"x","text":"why"}]}}]`))
	f.Add([]byte("\xa1\x67verdict\x65allow"))
	opa, own := codecFor(f, abi.OPA1), codecFor(f, abi.HoldfastV1)
	f.Fuzz(func(t *testing.T, out []byte) {
		for _, c := range []codec.Codec{opa, own} {
			if d, err := c.Decode(out); err != nil && d.Verdict.Permits() {
				t.Fatalf("error %v with verdict %v", err, d.Verdict)
			}
		}
	})
}
