package bundle_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func pkg() *bundle.Package {
	return &bundle.Package{
		Manifest: bundle.Manifest{
			Name: "tool-authz", Version: "1", ABI: string(abi.OPA1), Class: bundle.ClassPolicy, Language: "rego",
			Entrypoint: "tool_authz/decision", Points: []string{policy.PointPreCall}, Patterns: []string{"^a+$"},
			Params: map[string]any{"limit": int64(10), "share": 0.1, "roles": []any{"a", nil, true}},
		},
		Module: []byte("\x00asm\x01\x00\x00\x00"),
		Data:   []byte(`{"roles":{"a":["x"]}}`),
		Vectors: []bundle.Vector{
			{Name: "allows", Point: policy.PointPreCall, Request: []byte(`{"document":{"a":1}}`), Params: map[string]any{"limit": int64(2)},
				Expect: bundle.Expect{Verdict: policy.Allow, Codes: []string{"c"}, Obligations: []string{"redact"}, Value: []any{int64(1)}, HasValue: true}},
			{Name: "traps", Point: policy.PointPreCall, Request: []byte(`{"document":null}`), Expect: bundle.Expect{Trap: string(abi.TrapFuel)}},
		},
		ParamsSchema: []byte(`{}`),
	}
}

func encode(t testing.TB, p *bundle.Package) ([]byte, wire.Digest) {
	t.Helper()
	file, digest, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return file, digest
}

func TestPackage(t *testing.T) {
	want := pkg()
	file, digest := encode(t, want)
	got, d, err := bundle.OpenPackage(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	if d != digest || !reflect.DeepEqual(got, want) {
		t.Errorf("%s %s\ngot  %+v\nwant %+v", d, digest, got, want)
	}
	if got.Manifest.Module != wire.Sum(want.Module) {
		t.Error("the manifest does not name the module")
	}
	again, _ := encode(t, got)
	if !bytes.Equal(again, file) {
		t.Error("the same package, another file")
	}
}

func TestMerged(t *testing.T) {
	p := pkg()
	got := p.Merged(map[string]any{"limit": int64(1), "new": "x"})
	if got["limit"] != int64(1) || got["new"] != "x" || got["share"] != 0.1 || p.Params["limit"] != int64(10) {
		t.Errorf("%v; defaults now %v", got, p.Params)
	}
	if got := (&bundle.Manifest{}).Merged(nil); got == nil || len(got) != 0 {
		t.Errorf("%#v", got)
	}
}

func TestPackageRefuses(t *testing.T) {
	for name, change := range map[string]func(*bundle.Package){
		"no module":             func(p *bundle.Package) { p.Module = nil },
		"no name":               func(p *bundle.Package) { p.Name = "" },
		"long name":             func(p *bundle.Package) { p.Name = strings.Repeat("x", bundle.MaxText+1) },
		"unknown abi":           func(p *bundle.Package) { p.ABI = "holdfast_v2" },
		"unknown class":         func(p *bundle.Package) { p.Class = "huge" },
		"too much fuel":         func(p *bundle.Package) { p.Fuel = abi.MaxFuel + 1 },
		"bad point":             func(p *bundle.Package) { p.Points = []string{"*"} },
		"bad pattern":           func(p *bundle.Package) { p.Patterns = []string{"("} },
		"backreference":         func(p *bundle.Package) { p.Patterns = []string{`(a)\1`} },
		"long pattern":          func(p *bundle.Package) { p.Patterns = []string{strings.Repeat("a", bundle.MaxPattern+1)} },
		"many patterns":         func(p *bundle.Package) { p.Patterns = make([]string, bundle.MaxPatterns+1) },
		"params not a value":    func(p *bundle.Package) { p.Params = map[string]any{"a": []byte("x")} },
		"params infinite":       func(p *bundle.Package) { p.Params = map[string]any{"a": math.Inf(1)} },
		"params name not UTF-8": func(p *bundle.Package) { p.Params = map[string]any{"\xff": true} },
		"data not JSON":         func(p *bundle.Package) { p.Data = []byte("{") },
		"data null":             func(p *bundle.Package) { p.Data = []byte("null") },
		"data a list":           func(p *bundle.Package) { p.Data = []byte("[]") },
		"data duplicate key":    func(p *bundle.Package) { p.Data = []byte(`{"a":1,"a":2}`) },
		"data with params":      func(p *bundle.Package) { p.Data = []byte(`{"params":{}}`) },
		"long schema":           func(p *bundle.Package) { p.ParamsSchema = make([]byte, bundle.MaxParamsSchema+1) },
		"many vectors":          func(p *bundle.Package) { p.Vectors = make([]bundle.Vector, bundle.MaxVectors+1) },
		"vector twice":          func(p *bundle.Package) { p.Vectors[1].Name = p.Vectors[0].Name },
		"vector without name":   func(p *bundle.Package) { p.Vectors[0].Name = "" },
		"vector point":          func(p *bundle.Package) { p.Vectors[0].Point = "A" },
		"vector request":        func(p *bundle.Package) { p.Vectors[0].Request = []byte(`{"subject":1}`) },
		"vector without one":    func(p *bundle.Package) { p.Vectors[0].Request = nil },
		"vector other point":    func(p *bundle.Package) { p.Vectors[0].Request = []byte(`{"point":"input","document":1}`) },
		"vector params":         func(p *bundle.Package) { p.Vectors[0].Params = map[string]any{"a": uint8(1)} },
		"vector verdict":        func(p *bundle.Package) { p.Vectors[0].Expect.Verdict = 9 },
		"vector value":          func(p *bundle.Package) { p.Vectors[0].Expect.Value = []byte("x") },
	} {
		p := pkg()
		change(p)
		if _, _, err := p.Encode(); !errors.Is(err, bundle.ErrPackage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file that was not written by Encode is checked like one that was.
func TestOpenPackageRefuses(t *testing.T) {
	file, _ := encode(t, pkg())
	raw, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	digest := wire.Sum(pkg().Module)
	for name, change := range map[string]func([]byte) []byte{
		"trailing byte":      func(b []byte) []byte { return append(b, 0) },
		"not a map":          func([]byte) []byte { return []byte{0x80} },
		"empty map":          func([]byte) []byte { return []byte{0xa0} },
		"empty":              func([]byte) []byte { return nil },
		"module not as said": func(b []byte) []byte { return bytes.Replace(b, []byte("\x00asm\x01"), []byte("\x00asm\x02"), 1) },
		"digest not as said": func(b []byte) []byte { d := digest; d[0]++; return bytes.Replace(b, digest[:], d[:], 1) },
		"unknown abi":        func(b []byte) []byte { return bytes.Replace(b, []byte("opa_1"), []byte("opa_2"), 1) },
		"unknown class":      func(b []byte) []byte { return bytes.Replace(b, []byte("policy"), []byte("polizy"), 1) },
		"unknown member":     func(b []byte) []byte { return bytes.Replace(b, []byte("language"), []byte("lanquage"), 1) },
		"vector request":     func(b []byte) []byte { return bytes.Replace(b, []byte(`{"a":1}`), []byte(`{"a":x}`), 1) },
	} {
		changed := change(bytes.Clone(raw))
		if bytes.Equal(changed, raw) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, _, err := bundle.OpenPackage(wire.Compress(changed), bundle.MaxPackage); !errors.Is(err, bundle.ErrPackage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := bundle.OpenPackage(file, len(raw)-1); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("a byte more than allowed: %v", err)
	}
	if _, _, err := bundle.OpenPackage(file, len(raw)); err != nil {
		t.Errorf("as long as allowed: %v", err)
	}
	if _, _, err := bundle.OpenPackage(append(bytes.Clone(file), file...), bundle.MaxPackage); !errors.Is(err, bundle.ErrPackage) {
		t.Errorf("two frames: %v", err)
	}
	if _, _, err := bundle.OpenPackage(make([]byte, bundle.MaxPackageFile+1), bundle.MaxPackage); !errors.Is(err, bundle.ErrPackage) {
		t.Errorf("long file: %v", err)
	}
}

func TestCutPackage(t *testing.T) {
	file, _ := encode(t, pkg())
	raw, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	for i := range file {
		if _, _, err := bundle.OpenPackage(file[:i], bundle.MaxPackage); !errors.Is(err, bundle.ErrPackage) {
			t.Errorf("file cut at %d: %v", i, err)
		}
	}
	for i := range raw {
		if _, _, err := bundle.OpenPackage(wire.Compress(raw[:i]), bundle.MaxPackage); !errors.Is(err, bundle.ErrPackage) {
			t.Errorf("content cut at %d: %v", i, err)
		}
	}
}

// A flipped bit is refused or gives another digest, never the same package.
func TestFlippedPackage(t *testing.T) {
	file, digest := encode(t, pkg())
	for i := range file {
		for bit := range 8 {
			c := bytes.Clone(file)
			c[i] ^= 1 << bit
			p, d, err := bundle.OpenPackage(c, bundle.MaxPackage)
			if err == nil && d == digest && !reflect.DeepEqual(p, pkgAsRead(t, file)) {
				t.Errorf("bit %d of byte %d: another package under the same digest", bit, i)
			}
			if err != nil && !errors.Is(err, bundle.ErrPackage) {
				t.Errorf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
}

func pkgAsRead(t testing.TB, file []byte) *bundle.Package {
	t.Helper()
	p, _, err := bundle.OpenPackage(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestZipBomb(t *testing.T) {
	bomb := wire.Compress(make([]byte, 256<<20))
	if _, _, err := bundle.OpenPackage(bomb, math.MaxInt); !errors.Is(err, bundle.ErrPackage) || !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("%d bytes that stand for 256 MiB: %v", len(bomb), err)
	}
	if _, _, err := bundle.OpenPackage(bomb, 1000); !errors.Is(err, wire.ErrTooLarge) {
		t.Error(err)
	}
	if _, _, err := bundle.OpenPackage(bomb, -1); !errors.Is(err, bundle.ErrPackage) {
		t.Error(err)
	}
}

func exact() *bundle.Package {
	text := func(s string) *string { return &s }
	p := pkg()
	p.Vectors[0].Expect = bundle.Expect{
		Verdict: policy.Allow, FuelMax: 9,
		Reasons: []bundle.ExpectedReason{{Code: "a"}, {Code: "b", Text: text("")}, {Code: "c", Text: text("why")}},
		ExactObligations: []bundle.ExpectedObligation{
			{Type: "cap"}, {Type: "cap", ID: text(""), Properties: map[string]any{}}, {Type: "cap", ID: text("i"), Properties: map[string]any{"n": 1.0}},
		},
	}
	return p
}

// Nothing, empty and something are three things, also when they were written.
func TestExactExpectations(t *testing.T) {
	want := exact()
	file, _ := encode(t, want)
	got := pkgAsRead(t, file)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got.Vectors[0], want.Vectors[0])
	}
	for name, change := range map[string]func(*bundle.Expect){
		"both forms of reasons":     func(e *bundle.Expect) { e.Codes = []string{"a"} },
		"both forms of obligations": func(e *bundle.Expect) { e.Obligations = []string{"cap"} },
		"no code":                   func(e *bundle.Expect) { e.Reasons[0].Code = "" },
		"no type":                   func(e *bundle.Expect) { e.ExactObligations[0].Type = "" },
		"text not UTF-8":            func(e *bundle.Expect) { *e.Reasons[2].Text = "\xff" },
		"id not UTF-8":              func(e *bundle.Expect) { *e.ExactObligations[2].ID = "\xff" },
		"properties not a value":    func(e *bundle.Expect) { e.ExactObligations[2].Properties["n"] = uint8(1) },
	} {
		p := exact()
		change(&p.Vectors[0].Expect)
		if _, _, err := p.Encode(); !errors.Is(err, bundle.ErrPackage) || !strings.Contains(err.Error(), "expect: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A package that the first version wrote opens, and is still the same file.
func TestOpensWhatTheFirstVersionWrote(t *testing.T) {
	file, err := os.ReadFile("testdata/first-light.hfp")
	if err != nil {
		t.Fatal(err)
	}
	p, digest, err := bundle.OpenPackage(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	if digest.String() != "sha256:a8a09b1c02cdfa60672d5d7257e7461ffda4d1846c25acd43c673702b5c482bd" || len(p.Vectors) != 5 {
		t.Errorf("%s, %d vectors", digest, len(p.Vectors))
	}
	if _, again := encode(t, p); again != digest {
		t.Errorf("written again it is %s: older versions could not read it", again)
	}
}
