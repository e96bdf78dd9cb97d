package engine

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// TestAnswerJSON: sets are sorted arrays, and keys that are no strings their text.
func TestAnswerJSON(t *testing.T) {
	for text, want := range map[string]string{
		`set()`:                                 `[]`,
		`{{"result": true}}`:                    `[{"result":true}]`,
		`{{"result": {"b", "a"}}}`:              `[{"result":["a","b"]}]`,
		`{{"result": {"a": set(), "b": [{}]}}}`: `[{"result":{"a":[],"b":[{}]}}]`,
		`{{"result": {1: "x", [2, {3}]: "y"}}}`: `[{"result":{"1":"x","[2,[3]]":"y"}}]`,
		`{{"result": "set() {\"a\", b: ,"}}`:    `[{"result":"set() {\"a\", b: ,"}]`,
		`{{"result": [{10, 9}, 1.50, .5]}}`:     `[{"result":[[9,10],1.50,0.5]}]`,
		`{{"result": [.5, -.5, 0.5]}}`:          `[{"result":[0.5,-0.5,0.5]}]`,
		`{{"result": {"a", "b"`:                 ``,
		``:                                      ``,
	} {
		got, err := answerJSON([]byte(text))
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %s, %v", text, got, err)
		}
	}
}

// FuzzTerm: what was read is written so that it is read as the same again, and
// what is shown to the asker is JSON.
func FuzzTerm(f *testing.F) {
	for _, seed := range []string{`{"a": [1, {2, set()}], 3: "\u0001\"é"}`, `{{"result": {"b", "a"}}}`, `{{"result": {}}}`, `[.5,-1.5e3,null,true,false]`, `{[{{1}}]: 2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		term, err := parseTerm(slices.Clone(text))
		if err != nil {
			return
		}
		if _, isSet := term.Value.(ast.Set); isSet {
			if shown, err := answerJSON(slices.Clone(text)); err == nil && !json.Valid(shown) {
				t.Errorf("%s is shown as %s", text, shown)
			}
		}
		w := termWriter{limit: 1 << 20}
		if err := w.term(term); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		again, err := parseTerm(w.text)
		if err != nil || !again.Equal(term) {
			t.Errorf("%s is written as %s: %v", text, w.text, err)
		}
	})
}
