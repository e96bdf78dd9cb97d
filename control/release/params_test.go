package release

import (
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// Parameters that break the package's schema are refused where they stand.
func TestParamsThatBreakTheirSchema(t *testing.T) {
	p := &bundle.Package{
		Manifest:     bundle.Manifest{Name: "a", ABI: "holdfast_v1", Class: bundle.ClassPolicy, Params: map[string]any{"cap": int64(1)}},
		Module:       []byte("\x00asm"),
		ParamsSchema: []byte(`{"properties": {"cap": {"type": "integer", "minimum": 0}}}`),
	}
	file, _, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Created: made, Package: func(string) ([]byte, error) { return file, nil }}
	text := "tenant: acme\npoints: {input: {packages: [{file: a.hfp, params: {cap: -1}}]}}\n"
	want := "package a.hfp: the parameters do not satisfy the package's schema; at /cap: minimum: got -1, want 0"
	if _, err := Parse("r.yaml", []byte(text), o); err == nil || !strings.HasPrefix(err.Error(), "r.yaml:2:") || !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
	if _, err := Parse("r.yaml", []byte(strings.Replace(text, "-1", "2", 1)), o); err != nil {
		t.Error(err)
	}
}
