package conformance

import (
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// request is a well-formed request: base with more members.
type request struct {
	name, expected string
	members        string
}

const base = `{"subject": {"type": "agent", "id": "a"}, "action": {"name": "call"}, "resource": {"type": "tool", "id": "t"}`

func (r request) json() []byte { return []byte(base + r.members + "}") }

// requests returns what every guest must answer with a decision.
func requests() []request {
	const decision = "a valid decision"
	deep := strings.Repeat(`{"a":`, 30) + "1" + strings.Repeat("}", 30)
	return []request{
		{"minimal", decision, ``},
		{"full", decision, `, "id": "r-1", "context": {"time": "2026-01-01T00:00:00Z", "ip": "192.0.2.1", "nested": {"list": [1, "two", null, true]}},
			"supported_obligations": ["redact", "cap", "notify"], "signals": [{"detector": "pii", "version": "1", "score": 0.75, "text": "an address"}]`},
		{"document", decision, `, "document": {"any": ["shape"]}`},
		{"numbers", decision, `, "context": {"max": 9223372036854775807, "min": -9223372036854775808, "tiny": 5e-324, "huge": 1.7e308, "zero": -0.0}`},
		{"text", decision, `, "context": {"empty": "", "nul": "\u0000", "wide": "\ud83d\ude00", "mixed": "\u202eabc\u2066", "": "a name of no bytes"}`},
		{"types", decision, `, "context": {"arguments": 7, "tool": [], "schema": "not an object", "document": false, "user": null}`},
		{"deep", "a valid decision on what nests 32 deep", `, "context": {"deep": ` + deep + `}`},
		{"wide", "a valid decision on 5,000 members", `, "context": {"list": [0` + strings.Repeat(", 1", 5_000) + `]}`},
		{"long", "a valid decision on 256 KiB", `, "context": {"text": "` + strings.Repeat("a", 255<<10) + `"}`},
		{"no obligations", "a decision whose obligations the host may refuse, not a trap", `, "supported_obligations": []`},
	}
}

// A junk is what no codec writes.
type junk struct {
	name  string
	input []byte
}

func malformed(kind abi.Kind) []junk {
	if kind == abi.OPA1 {
		return malformedJSON()
	}
	return []junk{
		{"empty", nil},
		{"one byte", []byte{0xa1}},
		{"null", []byte{0xf6}},
		{"number", []byte{0x18, 0x2a}},
		{"text", []byte("\x65allow")},
		{"empty map", []byte{0xa0}},
		{"list", []byte{0x80}},
		{"truncated", []byte("\xa1\x67subject\xa2\x64type\x65ag")},
		{"subject is a number", []byte("\xa1\x67subject\x01")},
		{"key is a number", []byte{0xa1, 0x01, 0x02}},
		{"indefinite", []byte("\xbf\x67subject\xa0\xff")},
		{"break alone", []byte{0xff}},
		{"reserved", []byte{0xa1, 0x61, 'a', 0x1c}},
		{"tag", []byte("\xc0\xa0")},
		{"map of 2^64 pairs", []byte("\xbb\xff\xff\xff\xff\xff\xff\xff\xff")},
		{"text of 2^63 bytes", []byte("\xa1\x7b\x80\x00\x00\x00\x00\x00\x00\x00")},
		{"list of 2^32 items", []byte("\xa1\x61a\x9a\xff\xff\xff\xff")},
		{"nested 10,000 deep", append([]byte("\xa1\x67context"), strings.Repeat("\x81", 10_000)...)},
		{"maps 10,000 deep", append([]byte("\xa1\x67context"), strings.Repeat("\xa1\x61a", 10_000)...)},
		{"twice", []byte("\xa2\x67subject\xa0\x67subject\xa0")},
		{"not UTF-8", []byte("\xa1\x67subject\xa1\x62id\x62\xff\xfe")},
		{"trailing", []byte("\xa0\xa0")},
		{"zeros, as long as an input may be", make([]byte, abi.MaxInput)},
	}
}

// malformedJSON is for opa_1, whose guests may abort on it.
func malformedJSON() []junk {
	return []junk{
		{"one byte", []byte("{")},
		{"null", []byte("null")},
		{"number", []byte("42")},
		{"not JSON", []byte("allow!")},
		{"truncated", []byte(`{"subject": {"type": "ag`)},
		{"subject is a number", []byte(`{"subject": 1}`)},
		{"not UTF-8", []byte("{\"subject\": \"\xff\xfe\"}")},
		{"nested 200 deep", []byte(strings.Repeat("[", 200))},
		{"trailing", []byte("{} {}")},
		{"twice", []byte(`{"subject": 1, "subject": 2}`)},
	}
}
