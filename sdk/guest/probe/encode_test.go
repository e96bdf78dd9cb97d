package probe_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// An answer is a decision as examples/README.md has it written, slow and obvious.
type answer struct {
	value       any // nil for none, null{} for null
	reasons     [][2]string
	verdict     string
	obligations []obligation
}

type obligation struct {
	id, typ    string
	properties map[string]any
}

type null struct{}

func (a answer) encode() []byte {
	members := map[string]any{"verdict": a.verdict}
	if a.value != nil {
		members["value"] = a.value
	}
	var reasons, obligations []any
	for _, r := range a.reasons {
		reasons = append(reasons, map[string]any{"code": r[0], "text": r[1]})
	}
	for _, o := range a.obligations {
		m := map[string]any{"type": o.typ}
		if o.id != "" {
			m["id"] = o.id
		}
		if len(o.properties) > 0 {
			m["properties"] = o.properties
		}
		obligations = append(obligations, m)
	}
	if reasons != nil {
		members["reasons"] = reasons
	}
	if obligations != nil {
		members["obligations"] = obligations
	}
	return encode(nil, members)
}

func encode(out []byte, v any) []byte {
	switch v := v.(type) {
	case null, nil:
		return append(out, 0xf6)
	case bool:
		if v {
			return append(out, 0xf5)
		}
		return append(out, 0xf4)
	case int:
		return encode(out, int64(v))
	case int64:
		if v < 0 {
			return head(out, 1, uint64(-1-v))
		}
		return head(out, 0, uint64(v))
	case float64:
		return binary.BigEndian.AppendUint64(append(out, 0xfb), math.Float64bits(v))
	case string:
		return append(head(out, 3, uint64(len(v))), v...)
	case []any:
		out = head(out, 4, uint64(len(v)))
		for _, item := range v {
			out = encode(out, item)
		}
		return out
	case map[string]any:
		out = head(out, 5, uint64(len(v)))
		keys := slices.SortedFunc(maps.Keys(v), func(a, b string) int { return cmp.Or(len(a)-len(b), cmp.Compare(a, b)) })
		for _, k := range keys {
			out = encode(encode(out, k), v[k])
		}
		return out
	}
	panic(fmt.Sprintf("%T", v))
}

func head(out []byte, major byte, n uint64) []byte {
	for info, bits := range []int{0, 8, 16, 32, 64} {
		switch {
		case info == 0 && n < 24:
			return append(out, major<<5|byte(n))
		case info == 0 || bits < 64 && n>>bits != 0:
			continue
		}
		out = append(out, major<<5|byte(23+info))
		for shift := bits - 8; shift >= 0; shift -= 8 {
			out = append(out, byte(n>>shift))
		}
		return out
	}
	panic("unreachable")
}
