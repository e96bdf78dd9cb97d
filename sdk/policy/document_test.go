package policy

import (
	"reflect"
	"strings"
	"testing"
)

// agree checks that a request which parseBare takes is the one that the parser reads.
func agree(t *testing.T, body []byte) (bare bool) {
	t.Helper()
	fast, ok := parseBare(PointCustom, body)
	if !ok {
		return false
	}
	slow, err := parseRequest(PointCustom, body)
	if err != nil {
		t.Fatalf("%q is taken, but: %v", body, err)
	}
	full, err := fast.WithDocument()
	if err != nil || !reflect.DeepEqual(full, slow) {
		t.Fatalf("%q: %+v, want %+v (%v)", body, full, slow, err)
	}
	return true
}

func TestBareDocument(t *testing.T) {
	for _, body := range []string{
		`{"document":null}`, ` { "document" : [ ] } `, `{"document":{}}`, `{"document":{"a":[1,-0,2.50,"x\n\"é",true,false,null,{"b":{}}]}}`,
		`{"document":9223372036854775810}`, `{"document":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`,
		`{"document":` + strings.Repeat(`{"a":`, 31) + `1` + strings.Repeat("}", 32),
	} {
		if !agree(t, []byte(body)) {
			t.Errorf("%q goes the long way", body)
		}
	}
	for _, body := range []string{
		``, `{}`, `[]`, `{"document"}`, `{"document":}`, `{"document":1,}`, `{"document":1}x`, `{"document":1} {}`, `{"document":1,"id":"x"}`, `{"id":"x","document":1}`,
		`{"document":{"a":1,"a":2}}`, `{"document":{"a":1,"\u0061":2}}`, `{"document":01}`, `{"document":1.}`, `{"document":1e400}`, `{"document":-}`, `{"document":+1}`,
		"{\"document\":\"\xff\"}", `{"document":"\ud800"}`, "{\"document\":\"\x01\"}", "{\"document\":1}\x00", `{"document":` + strings.Repeat("9", 400) + `}`,
		`{"document":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
		`{"document":` + strings.Repeat(`{"a":`, 32) + `1` + strings.Repeat("}", 33), `{"document":{"\/":1,"/":2}}`, `{"document":` + strings.Repeat(" ", MaxRequestBytes) + `1}`,
	} {
		if agree(t, []byte(body)) {
			t.Errorf("%.60q goes the short way", body)
		}
	}
}

func FuzzBareDocument(f *testing.F) {
	for _, seed := range []string{`{"document":{"a":[1,-0,2.50,"x\n\"é",true]}}`, `{"document":{"a":1,"a":2}}`, `{"document":1e5}`, good} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) { agree(t, body) })
}

const good = `{"subject":{"type":"user","id":"u"},"action":{"name":"a"},"resource":{"type":"t","id":"r"}}`
