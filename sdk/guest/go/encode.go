package guest

import (
	"math"
	"slices"
	"strings"
)

// appendDecision appends the decision's CBOR to out, or returns nil when the
// decision holds something that has none. What is empty is left out, so that
// equal decisions are equal bytes in every language.
func appendDecision(out []byte, d Decision) []byte {
	out = appendHead(out, majorMap, 1+present(d.Value != nil)+present(len(d.Reasons) > 0)+present(len(d.Obligations) > 0))
	ok := true
	if d.Value != nil {
		if out, ok = appendAny(appendText(out, "value"), d.Value, 0); !ok {
			return nil
		}
	}
	if len(d.Reasons) > 0 {
		out = appendHead(appendText(out, "reasons"), majorArray, len(d.Reasons))
	}
	for _, r := range d.Reasons {
		out = appendHead(out, majorMap, 2)
		out = appendText(appendText(out, "code"), r.Code)
		out = appendText(appendText(out, "text"), r.Text)
	}
	out = appendText(appendText(out, "verdict"), d.Verdict.String())
	if len(d.Obligations) > 0 {
		out = appendHead(appendText(out, "obligations"), majorArray, len(d.Obligations))
	}
	for _, o := range d.Obligations {
		if out, ok = appendObligation(out, o); !ok {
			return nil
		}
	}
	return out
}

// present counts a member that is there.
func present(there bool) int {
	if there {
		return 1
	}
	return 0
}

func appendObligation(out []byte, o Obligation) ([]byte, bool) {
	out = appendHead(out, majorMap, 1+present(o.ID != "")+present(len(o.Properties) > 0))
	if o.ID != "" {
		out = appendText(appendText(out, "id"), o.ID)
	}
	out = appendText(appendText(out, "type"), o.Type)
	if len(o.Properties) == 0 {
		return out, true
	}
	return appendMap(appendText(out, "properties"), o.Properties, 0)
}

func appendAny(out []byte, v any, depth int) ([]byte, bool) {
	if depth > MaxDepth {
		return nil, false
	}
	switch v := v.(type) {
	case nil:
		return append(out, 0xf6), true
	case bool:
		if v {
			return append(out, 0xf5), true
		}
		return append(out, 0xf4), true
	case int:
		return appendInt(out, int64(v)), true
	case int64:
		return appendInt(out, v), true
	case float64:
		return appendFloat(out, v)
	case string:
		return appendText(out, v), true
	case Value:
		return appendValue(out, v.doc), v.Exists()
	case []string:
		out = appendHead(out, majorArray, len(v))
		for _, item := range v {
			out = appendText(out, item)
		}
		return out, true
	case []any:
		out, ok := appendHead(out, majorArray, len(v)), true
		for _, item := range v {
			if out, ok = appendAny(out, item, depth+1); !ok {
				return nil, false
			}
		}
		return out, true
	case map[string]any:
		return appendMap(out, v, depth)
	}
	return nil, false
}

// appendMap writes the members sorted, so that equal values give equal bytes.
func appendMap(out []byte, m map[string]any, depth int) ([]byte, bool) {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, byLength)
	out, ok := appendHead(out, majorMap, len(m)), true
	for _, k := range keys {
		if out, ok = appendAny(appendText(out, k), m[k], depth+1); !ok {
			return nil, false
		}
	}
	return out, true
}

// byLength orders keys as deterministic CBOR does: by length, then by bytes.
func byLength(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// appendValue copies a checked item. Floats are widened: the host writes short
// ones, and an answer has all in 64 bits.
func appendValue(out, doc []byte) []byte {
	copied, at := 0, 0
	for at < len(doc) {
		major, arg, size := head(doc[at:])
		switch {
		case major == majorText:
			at += int(arg)
		case size == 3 && major == majorSimple, size == 5 && major == majorSimple:
			out = append(out, doc[copied:at]...)
			out = appendFloatBits(out, Value{doc[at:]}.Float())
			copied = at + size
		}
		at += size
	}
	return append(out, doc[copied:]...)
}

func appendText(out []byte, s string) []byte {
	return append(appendHead(out, majorText, len(s)), s...)
}

func appendInt(out []byte, n int64) []byte {
	if n < 0 {
		return appendArg(out, majorNegint, uint64(-1-n))
	}
	return appendArg(out, majorUint, uint64(n))
}

// appendFloat refuses what JSON has no number for.
func appendFloat(out []byte, f float64) ([]byte, bool) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, false
	}
	return appendFloatBits(out, f), true
}

func appendFloatBits(out []byte, f float64) []byte {
	return append64(append(out, 0xfb), math.Float64bits(f))
}

func append64(out []byte, n uint64) []byte {
	for shift := 56; shift >= 0; shift -= 8 {
		out = append(out, byte(n>>shift))
	}
	return out
}

func appendHead(out []byte, major byte, n int) []byte { return appendArg(out, major, uint64(n)) }

func appendArg(out []byte, major byte, arg uint64) []byte {
	switch {
	case arg < 24:
		return append(out, major<<5|byte(arg))
	case arg <= math.MaxUint8:
		return append(out, major<<5|24, byte(arg))
	case arg <= math.MaxUint16:
		return append(out, major<<5|25, byte(arg>>8), byte(arg))
	case arg <= math.MaxUint32:
		return append(out, major<<5|26, byte(arg>>24), byte(arg>>16), byte(arg>>8), byte(arg))
	default:
		return append64(append(out, major<<5|27), arg)
	}
}
