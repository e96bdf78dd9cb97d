package rawjson_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/rawjson"
)

// again writes what Each finds, with white space taken out.
func again(doc []byte, at int, out *strings.Builder) int {
	if doc[at] != '{' && doc[at] != '[' {
		end := rawjson.Skip(doc, at)
		if end != rawjson.Bad {
			out.Write(doc[at:end])
		}
		return end
	}
	out.WriteByte(doc[at])
	closing := map[byte]byte{'{': '}', '[': ']'}[doc[at]]
	end := rawjson.Each(doc, at, func(name []byte, index, from int) int {
		if from >= len(doc) {
			return rawjson.Bad
		}
		if index > 0 {
			out.WriteByte(',')
		}
		if name != nil {
			out.WriteString(`"` + string(name) + `":`)
		}
		return again(doc, from, out)
	})
	out.WriteByte(closing)
	return end
}

// FuzzEach holds Each and Skip against encoding/json: the same ends and, but for
// white space, the same text.
func FuzzEach(f *testing.F) {
	for _, doc := range []string{
		`{}`, `[]`, ` {"a" : [1, -2.5e+3, "x\"]}\\", null , true],"":{"b":{}}} `, `"\u00e9\\"`, `{"a":}`, `[1,]`, `{"a"`, `["`, `{`, `[1 2]`, `{"a":1]`, `-`,
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		at := rawjson.Space(doc, 0)
		end := rawjson.Skip(doc, at)
		if end > len(doc) {
			t.Fatalf("%q: end %d", doc, end)
		}
		var out strings.Builder
		walked := rawjson.Bad
		if at < len(doc) {
			walked = again(doc, at, &out)
		}
		if !json.Valid(doc) {
			return
		}
		if rawjson.Space(doc, end) != len(doc) || walked != end {
			t.Fatalf("%q: skipped to %d, walked to %d", doc, end, walked)
		}
		var want bytes.Buffer
		if err := json.Compact(&want, doc); err != nil || out.String() != want.String() {
			t.Fatalf("%q: %q", doc, out.String())
		}
	})
}

func TestUnquote(t *testing.T) {
	for raw, want := range map[string]string{``: ``, `a`: `a`, `\u00e9\n\"`: "é\n\""} {
		if s, ok := rawjson.Unquote([]byte(raw)); !ok || s != want {
			t.Errorf("%s: %q, %t", raw, s, ok)
		}
	}
	if s, ok := rawjson.Unquote([]byte(`\x`)); ok {
		t.Errorf("%q", s)
	}
}
