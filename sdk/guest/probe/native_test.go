package probe_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// native runs a test for C and Zig, whose documents are put together by hand.
func native(t *testing.T, f func(*testing.T, language)) {
	for _, l := range languages() {
		if l.name == "c" || l.name == "zig" {
			t.Run(l.name, func(t *testing.T) { f(t, l) })
		}
	}
}

// TestWrongDocuments: what is not whole, or not CBOR as the contract has it, is a
// guest error.
func TestWrongDocuments(t *testing.T) {
	native(t, func(t *testing.T, l language) {
		p := newProbe(t, l, nil)
		for _, how := range []string{"not closed", "no value", "no key", "key of a list", "two", "closed twice", "no type", "open property", "failed", "nothing put"} {
			p.refuses(object{"do": "wrong", "by": how})
		}
	})
}

// nested is a list of lists, so many deep.
func nested(levels int) any {
	v := any([]any{})
	for range levels - 1 {
		v = []any{v}
	}
	return v
}

// TestNesting: the host takes what is nested as deep as the SDK lets it be.
func TestNesting(t *testing.T) {
	const deepest = 28
	native(t, func(t *testing.T, l language) {
		p := newProbe(t, l, nil)
		for _, c := range []struct{ built, copied int }{{deepest, 0}, {deepest - 1, 1}, {1, deepest - 1}, {0, deepest}} {
			context := object{"do": "wrong", "by": "deep", "times": int64(c.built)}
			if c.copied > 0 {
				context["it"] = nested(c.copied)
			}
			p.wants(context, answer{value: nested(deepest)})
			if got, _, trap := p.ask(context); trap == "" {
				var out any
				if err := wire.UnmarshalLoose(got, &out); err != nil {
					t.Errorf("%d and %d: the host says %v", c.built, c.copied, err)
				}
			}
			context["times"] = int64(c.built + 1)
			p.refuses(context)
		}
	})
}

// TestTextsInPieces: what a policy cuts out of a text is UTF-8 or no answer.
func TestTextsInPieces(t *testing.T) {
	const text = "12345678é€😀ab"
	native(t, func(t *testing.T, l language) {
		p := newProbe(t, l, nil)
		for n := range len(text) + 1 {
			context := object{"do": "wrong", "by": "cut", "it": text, "times": int64(n)}
			if strings.ToValidUTF8(text[:n], "") == text[:n] {
				p.wants(context, answer{value: text[:n]})
			} else {
				p.refuses(context)
			}
		}
		for _, a := range []string{"", "a", "abc", "aab", "abcabcabd", "größer als", "12345678", "1234567890123456"} {
			for _, b := range []string{"", "a", "b", "ab", "abd", "größer", " als", "12345678", "345678", "abc", "1234567890123457", "567890123456", "x"} {
				p.wants(object{"do": "parts", "it": a, "by": b}, answer{value: []any{strings.HasPrefix(a, b), strings.HasSuffix(a, b), strings.Contains(a, b)}})
			}
		}
	})
}

// TestUnsortedInput: documents that no host writes are refused, not read in some
// other way.
func TestUnsortedInput(t *testing.T) {
	native(t, func(t *testing.T, l language) {
		p := newProbe(t, l, nil)
		const context = "\x67context\xa0"
		for doc, trap := range map[string]string{
			"\xa2\x61a\x01" + context: "", "\xa2" + context + "\x61a\x01": "guest_error", "\xa2" + context + context: "guest_error",
			"\xa3\x61a\x01\x61b\x01" + context: "", "\xa3\x61b\x01\x61a\x01" + context: "guest_error", "\xa3\x62aa\x01\x61b\x01" + context: "guest_error",
			"\xa2" + context + "\x78\x18aaaaaaaaaaaaaaaaaaaaaaaa\x01": "", "\xa2\x78\x18aaaaaaaaaaaaaaaaaaaaaaaa\x01" + context: "guest_error",
		} {
			_, err := p.module.Call(abi.Call{Input: []byte(doc)})
			if trap == "" && err != nil || trap != "" && (err == nil || err.Error() != trap) {
				t.Errorf("%q: %v", doc, err)
			}
		}
		for size, want := range map[int]string{abi.MaxInput: string(abi.TrapRefused), abi.MaxInput + 1: string(abi.TrapInput)} {
			if _, err := p.module.Call(abi.Call{Input: make([]byte, size), Fuel: abi.MaxFuel}); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	})
}

// TestMalformedBeside has what is not well-formed beside a request that would be
// answered without it.
func TestMalformedBeside(t *testing.T) {
	const asked = "\x67context\xa0"
	bad := []string{
		"\x62a", "\x77abc", "\x19\x01", "\x1b\x00", "\x82\x01", "\xa1\x61a", "\xa1", "\xc1\x01", "\x41\x01", "\x9f\xff", "\xa1\x01\x01", "\xf7", "\xf8\x20", "\xf8\x14", "\xff", "\x1c", "\xe0", "\xf3",
		"\x1b\x80\x00\x00\x00\x00\x00\x00\x00", "\x3b\x80\x00\x00\x00\x00\x00\x00\x00",
		"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", "\xbb\x80\x00\x00\x00\x00\x00\x00\x00", "\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
		"\x7b\x00\x00\x00\x01\x00\x00\x00\x00", "\x7b\x00\x00\x00\x01\x00\x00\x00\x01a", "\x9b\x00\x00\x00\x01\x00\x00\x00\x00", "\xbb\x00\x00\x00\x01\x00\x00\x00\x00",
		"\x7a\xff\xff\xff\xf0", "\x9a\xff\xff\xff\xf0", "\xa1\x7b\x00\x00\x00\x01\x00\x00\x00\x00\x01", "\xa1\x7a\xff\xff\xff\xf0\x01", "\xa1\x77abc\x01",
		strings.Repeat("\x81", 40) + "\x80", strings.Repeat("\xa1\x61a", 40) + "\xa0",
	}
	native(t, func(t *testing.T, l language) {
		p := newProbe(t, l, nil)
		for _, good := range []string{"\x01", "\x62aa", "\x78\x02aa", strings.Repeat("\x81", 38) + "\x80"} {
			for _, doc := range []string{"\xa2\x61x" + good + asked, "\xa2" + asked + "\x68xxxxxxxx" + good} {
				if _, err := p.module.Call(abi.Call{Input: []byte(doc)}); err != nil {
					t.Errorf("%q: %v", doc, err)
				}
			}
		}
		for _, item := range bad {
			for _, doc := range []string{"\xa2\x61x" + item + asked, "\xa2" + asked + "\x68xxxxxxxx" + item} {
				if _, err := p.module.Call(abi.Call{Input: []byte(doc)}); err == nil || err.Error() != string(abi.TrapRefused) {
					t.Errorf("%q: %v", doc, err)
				}
			}
		}
	})
}

// TestOnlyUTF8 has a policy answer with texts that no host would have written.
func TestOnlyUTF8(t *testing.T) {
	var texts []string
	for _, r := range []rune{0, 0x7f, 0x80, 0x7ff, 0x800, 0xfff, 0x1000, 0xcfff, 0xd000, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x3ffff, 0x40000, 0xfffff, 0x100000, 0x10ffff} {
		texts = append(texts, string(r), "1234567"+string(r), string(r)+"12345678")
	}
	for first := 0x80; first < 0x100; first++ {
		for _, second := range []byte{0x28, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff} {
			for _, rest := range []string{"", "a", "\x80", "\x80\x80", "\x80a", "\x80\xc0", "\xbf\xbf\xbf"} {
				texts = append(texts, string([]byte{byte(first), second})+rest, "12345678"+string([]byte{byte(first), second})+rest)
			}
		}
	}
	native(t, func(t *testing.T, l language) {
		p, good := newProbe(t, l, nil), 0
		for _, text := range texts {
			doc := "\xa1\x67context\xa2\x62do\x64copy\x62it" + string([]byte{0x60 | byte(len(text))}) + text
			got, err := p.module.Call(abi.Call{Input: []byte(doc)})
			switch want := (answer{value: text, verdict: "deny"}).encode(); {
			case utf8.ValidString(text) && (err != nil || string(got.Output) != string(want)):
				t.Errorf("%q: %q, %v", text, got.Output, err)
			case !utf8.ValidString(text) && (err == nil || err.Error() != string(abi.TrapRefused)):
				t.Errorf("%q: %q, %v", text, got.Output, err)
			case err == nil:
				good++
			}
		}
		if good < 100 || len(texts)-good < 1000 {
			t.Errorf("%d good of %d", good, len(texts))
		}
	})
}
