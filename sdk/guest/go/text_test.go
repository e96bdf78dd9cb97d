package guest

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"testing"
)

func TestText(t *testing.T) {
	for _, tc := range []struct {
		a, b  string
		equal bool
	}{{"EUR", "eur", true}, {"", "", true}, {"EUR", "EU", false}, {"@[", "`{", false}, {"É", "é", false}, {"K", "\u212a", false}, {"aé", "Aé", true}} {
		if got := EqualFold(tc.a, tc.b); got != tc.equal {
			t.Errorf("%q and %q: %t", tc.a, tc.b, got)
		}
		if got := Lower(tc.a) == Lower(tc.b); got != tc.equal {
			t.Errorf("%q and %q in lower case: %t", tc.a, tc.b, got)
		}
	}
	for _, n := range []int64{0, 9, 10, -1, -10, math.MaxInt64, math.MinInt64} {
		if got := Decimal(n); got != strconv.FormatInt(n, 10) {
			t.Errorf("%d is %s", n, got)
		}
	}
}

func TestCopies(t *testing.T) {
	doc := []byte{0x83, 0x61, 'a', 0x61, 'b', 0x60}
	v, _ := Parse(doc)
	texts, ok := v.CopyTexts()
	whole, first := v.Copy(), Value{doc[1:3]}.CopyText()
	has := v.Contains("b")
	clear(doc)
	if !ok || !slices.Equal(texts, []string{"a", "b", ""}) || first != "a" || !has || !whole.Contains("a") || whole.Contains("c") {
		t.Errorf("%q, %q, %t, %d", texts, first, has, whole.Len())
	}
	for _, doc := range [][]byte{nil, {0x81, 1}, {0x61, 'a'}, {0xa0}, {0x82, 0x61, 'a', 0xf6}} {
		if texts, ok := (Value{doc}).CopyTexts(); ok {
			t.Errorf("%x: %q", doc, texts)
		}
	}
}

func TestWhole(t *testing.T) {
	for want, doc := range map[int64][]byte{0: {0}, 23: {23}, 1000: {0x19, 0x03, 0xe8}} {
		if n, ok := (Value{doc}).Whole(); !ok || n != want {
			t.Errorf("%x: %d %t", doc, n, ok)
		}
	}
	for _, doc := range [][]byte{nil, {0x20}, {0xf9, 0x40, 0}, {0xf6}, {0x61, '1'}, {0xf4}} {
		if n, ok := (Value{doc}).Whole(); ok {
			t.Errorf("%x: %d", doc, n)
		}
	}
}

// TestAnswerBytes is the form that all languages share: what is empty is left
// out, members and keys are in the order of deterministic CBOR, floats have 64 bits.
func TestAnswerBytes(t *testing.T) {
	short, _ := Parse([]byte("\xa2\x61f\xf9\x38\x00\x64list\x82\xfa\x3f\x80\x00\x01\x01"))
	for want, d := range map[string]Decision{
		"\xa1\x67verdict\x64deny": {},
		"\xa2\x67reasons\x81\xa2\x64code\x61c\x64text\x60\x67verdict\x64deny": Denied("c", ""),
		"\xa3\x65value\x01\x67verdict\x65allow\x6bobligations\x81\xa1\x64type\x61t": {
			Verdict: Allow, Value: 1, Obligations: []Obligation{{Type: "t", Properties: map[string]any{}}}},
		"\xa2\x65value\xa3\x61z\x81\x61x\x62ab\x02\x62b\x00\x03\x67verdict\x64deny": {Value: map[string]any{"b\x00": 3, "ab": 2, "z": []string{"x"}}},
		"\xa2\x67verdict\x69transform\x6bobligations\x81\xa3\x62id\x61i\x64type\x61t\x6aproperties\xa1\x61p" +
			"\xa2\x61f\xfb\x3f\xe0\x00\x00\x00\x00\x00\x00\x64list\x82\xfb\x3f\xf0\x00\x00\x20\x00\x00\x00\x01": {
			Verdict: Transform, Obligations: []Obligation{{ID: "i", Type: "t", Properties: map[string]any{"p": short}}}},
	} {
		if got := answer(d); !bytes.Equal(got, []byte(want)) {
			t.Errorf("%+v:\n got %q\nwant %q", d, got, want)
		}
	}
}
