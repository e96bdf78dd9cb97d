package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
)

// The vectors test the policy as a module; here are its pieces.

func TestParameters(t *testing.T) {
	for name, tc := range map[string]struct {
		doc string
		ok  bool
	}{
		"none":            {"\xa0", true},
		"max_string: 1":   {"\xa1\x6amax_string\x01", true},
		"max_string: 0":   {"\xa1\x6amax_string\x00", false},
		"max_string: -1":  {"\xa1\x6amax_string\x20", false},
		"max_string: a":   {"\xa1\x6amax_string\x61a", false},
		"max_strin: 1":    {"\xa1\x69max_strin\x01", false},
		"forbidden: []":   {"\xa1\x69forbidden\x80", true},
		"forbidden: [A]":  {"\xa1\x69forbidden\x81\x61A", true},
		"forbidden: ['']": {"\xa1\x69forbidden\x81\x60", false},
		"forbidden: a":    {"\xa1\x69forbidden\x61a", false},
		"forbidden: [1]":  {"\xa1\x69forbidden\x81\x01", false},
	} {
		v, ok := guest.Parse([]byte(tc.doc))
		if !ok {
			t.Fatalf("%s: not CBOR", name)
		}
		if _, err := parseRules(v); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{"a/b~c": "a~1b~0c", "plain": "plain"} {
		if got := escape(in); got != want {
			t.Errorf("escape %q: %q", in, got)
		}
	}
	for r, want := range map[rune]string{0: "U+0000", 7: "U+0007", 0x202e: "U+202E", 0xe0049: "U+E0049"} {
		if got := codePoint(r); got != want {
			t.Errorf("%x: %s", r, got)
		}
	}
	if decimal(0) != "0" || decimal(1048576) != "1048576" {
		t.Error("decimal")
	}
}

// FuzzFind holds the search against a slow, obvious one, and the reasons to
// printable ASCII.
func FuzzFind(f *testing.F) {
	f.Add("1; DROP table x", "drop table", "x")
	f.Add("\u202e\x00", "a", "\u0130")
	f.Fuzz(func(t *testing.T, s, one, two string) {
		r := defaults()
		r.maxString = 64
		for _, text := range []string{one, two} {
			if text != "" {
				r.forbidden = append(r.forbidden, lower(text))
				r.first[lower(text)[0]] = true
			}
		}
		want := false
		for _, text := range r.forbidden {
			want = want || strings.Contains(lower(s), text)
		}
		if got := r.find(s) != ""; got != want {
			t.Errorf("%q in %q: %t", r.forbidden, s, got)
		}
		c := checker{rules: &r}
		c.text("/context/arguments/"+escape(s), s)
		if len(c.reasons) == 0 && !utf8.ValidString(s) {
			t.Errorf("%q passed", s)
		}
		for _, reason := range c.reasons {
			if reason.Text != printable(reason.Text) && len(reason.Text) <= 200 {
				t.Errorf("%q", reason.Text)
			}
		}
	})
}
