// Package plaincbor encodes for tests: RFC 8949's core deterministic encoding in
// the fewest lines, written apart from sdk/wire and from the guests' SDKs, which
// are held against it.
package plaincbor

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Append appends nil or struct{} (null), a bool, an int, an int64, a float64 (in
// 64 bits), a string, a []any or a map[string]any; it panics on anything else.
func Append(out []byte, v any) []byte {
	switch v := v.(type) {
	case nil, struct{}:
		return append(out, 0xf6)
	case bool:
		if v {
			return append(out, 0xf5)
		}
		return append(out, 0xf4)
	case int:
		return Append(out, int64(v))
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
			out = Append(out, item)
		}
		return out
	case map[string]any:
		out = head(out, 5, uint64(len(v)))
		// Of two texts the shorter one has the lower head.
		keys := slices.SortedFunc(maps.Keys(v), func(a, b string) int { return cmp.Or(len(a)-len(b), cmp.Compare(a, b)) })
		for _, k := range keys {
			out = Append(Append(out, k), v[k])
		}
		return out
	}
	panic(fmt.Sprintf("%T", v))
}

func head(out []byte, major byte, n uint64) []byte {
	switch major <<= 5; {
	case n < 24:
		return append(out, major|byte(n))
	case n < 1<<8:
		return append(out, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(out, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(out, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(out, major|27), n)
}
