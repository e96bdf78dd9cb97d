package guest

import (
	"math"
	"slices"
)

// appendDecision appends the decision's CBOR to out, or returns nil when the
// decision holds something that has none.
func appendDecision(out []byte, d Decision) []byte {
	out = appendHead(out, majorMap, 4)
	out = appendText(appendText(out, "verdict"), d.Verdict.String())
	out = appendHead(appendText(out, "reasons"), majorArray, len(d.Reasons))
	for _, r := range d.Reasons {
		out = appendHead(out, majorMap, 2)
		out = appendText(appendText(out, "code"), r.Code)
		out = appendText(appendText(out, "text"), r.Text)
	}
	out = appendHead(appendText(out, "obligations"), majorArray, len(d.Obligations))
	ok := true
	for _, o := range d.Obligations {
		out, ok = appendObligation(out, o)
		if !ok {
			return nil
		}
	}
	out, ok = appendAny(appendText(out, "value"), d.Value, 0)
	if !ok {
		return nil
	}
	return out
}

func appendObligation(out []byte, o Obligation) ([]byte, bool) {
	out = appendHead(out, majorMap, 3)
	out = appendText(appendText(out, "id"), o.ID)
	out = appendText(appendText(out, "type"), o.Type)
	return appendAny(appendText(out, "properties"), o.Properties, 0)
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
		return append(out, v.doc...), v.Exists()
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
	slices.Sort(keys)
	out, ok := appendHead(out, majorMap, len(m)), true
	for _, k := range keys {
		if out, ok = appendAny(appendText(out, k), m[k], depth+1); !ok {
			return nil, false
		}
	}
	return out, true
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
	b := math.Float64bits(f)
	out = append(out, 0xfb)
	for shift := 56; shift >= 0; shift -= 8 {
		out = append(out, byte(b>>shift))
	}
	return out, true
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
		out = append(out, major<<5|27)
		for shift := 56; shift >= 0; shift -= 8 {
			out = append(out, byte(arg>>shift))
		}
		return out
	}
}
