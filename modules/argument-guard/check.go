package main

import (
	"strings"
	"unicode/utf8"

	guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
)

// maxReasons bounds a denial's length; the first faults are enough.
const maxReasons = 8

// check looks at the arguments and the named texts of the context.
func (r *rules) check(req guest.Request) guest.Decision {
	c := checker{rules: r}
	for name, v := range req.Context().Members() {
		if name == "arguments" || r.isText(name) {
			c.value("/context/"+escape(name), v, 0)
		}
	}
	if len(c.reasons) > 0 {
		return guest.Decision{Reasons: c.reasons}
	}
	return guest.Decision{Verdict: guest.Allow}
}

func (r *rules) isText(name string) bool {
	for _, t := range r.text {
		if t == name {
			return true
		}
	}
	return false
}

// A checker walks one request and gathers what is wrong with it.
type checker struct {
	rules   *rules
	reasons []guest.Reason
}

func (c *checker) fault(code, pointer, text string) {
	if len(c.reasons) < maxReasons {
		c.reasons = append(c.reasons, guest.Reason{Code: code, Text: printable(pointer) + ": " + text})
	}
}

func (c *checker) value(pointer string, v guest.Value, depth int) {
	switch v.Kind() {
	case guest.String:
		c.text(pointer, v.Text())
	case guest.List:
		if c.container(pointer, v, depth) {
			for i, item := range v.Items() {
				c.value(pointer+"/"+decimal(i), item, depth+1)
			}
		}
	case guest.Map:
		if c.container(pointer, v, depth) {
			for name, item := range v.Members() {
				at := pointer + "/" + escape(name)
				c.text(at, name)
				c.value(at, item, depth+1)
			}
		}
	}
}

// container checks a list or a map, and says whether to look inside.
func (c *checker) container(pointer string, v guest.Value, depth int) bool {
	switch {
	case depth >= c.rules.maxDepth:
		c.fault("too_deep", pointer, "nested more than "+decimal(c.rules.maxDepth)+" levels deep")
	case v.Len() > c.rules.maxItems:
		c.fault("too_many_items", pointer, decimal(v.Len())+" items, at most "+decimal(c.rules.maxItems))
	default:
		return true
	}
	return false
}

// text checks one string; the first fault of each kind is reported.
func (c *checker) text(pointer, s string) {
	if len(s) > c.rules.maxString {
		c.fault("too_long", pointer, decimal(len(s))+" bytes, at most "+decimal(c.rules.maxString))
		return
	}
	if at, code, text := badCharacter(s); code != "" {
		c.fault(code, pointer, text+" at byte "+decimal(at))
	}
	if f := c.rules.find(s); f != "" {
		c.fault("forbidden_text", pointer, "contains the forbidden text "+quote(f))
	}
}

// find returns the first forbidden text in s, or "".
func (r *rules) find(s string) string {
	if len(r.forbidden) == 0 {
		return ""
	}
	for i := range len(s) {
		if !r.first[fold(s[i])] {
			continue
		}
		for _, f := range r.forbidden {
			if hasPrefixFold(s[i:], f) {
				return f
			}
		}
	}
	return ""
}

func hasPrefixFold(s, lowered string) bool {
	if len(s) < len(lowered) {
		return false
	}
	for i := range len(lowered) {
		if fold(s[i]) != lowered[i] {
			return false
		}
	}
	return true
}

// badCharacter finds the first character that has no business in an argument.
// Tab, line feed and carriage return are text.
func badCharacter(s string) (at int, code, text string) {
	for i := 0; i < len(s); {
		if c := s[i]; 0x20 <= c && c < 0x7f {
			i++
			continue
		}
		ch, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case ch == utf8.RuneError && size == 1:
			return i, "invalid_text", "invalid UTF-8"
		case ch == '\t', ch == '\n', ch == '\r':
		case ch < 0x20, 0x7f <= ch && ch <= 0x9f:
			return i, "control_character", "control character " + codePoint(ch)
		case 0x202a <= ch && ch <= 0x202e, 0x2066 <= ch && ch <= 0x2069:
			return i, "bidi_control", "bidirectional control " + codePoint(ch)
		case 0xe0000 <= ch && ch <= 0xe007f:
			return i, "hidden_character", "invisible tag character " + codePoint(ch)
		}
		i += size
	}
	return 0, "", ""
}

// escape makes a member's name a token of a JSON pointer (RFC 6901).
func escape(name string) string {
	if strings.IndexByte(name, '~') < 0 && strings.IndexByte(name, '/') < 0 {
		return name
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// printable keeps hostile names out of reasons: anything but printable ASCII
// becomes "?", and what is long is cut.
func printable(s string) string {
	b := []byte(s[:min(len(s), 200)])
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = '?'
		}
	}
	return string(b)
}

func quote(s string) string { return "\"" + printable(s) + "\"" }

func codePoint(r rune) string {
	const digits = "0123456789ABCDEF"
	out := []byte("U+")
	for shift := 20; shift >= 0; shift -= 4 {
		if d := r >> shift; d > 0 || shift < 16 {
			out = append(out, digits[d&15])
		}
	}
	return string(out)
}

// decimal writes a number that is not negative.
func decimal(n int) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}
