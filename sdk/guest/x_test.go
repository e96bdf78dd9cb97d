package guest_test

import (
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func BenchmarkCallOnly(b *testing.B) {
	h := newHost(b, engine.Config{})
	speaks, _ := codec.For(abi.HoldfastV1)
	for _, n := range natives() {
		built := n.built(b, h)
		m, _ := h.Open(b.Context(), built.Package)
		for i, v := range built.Package.Vectors {
			if v.Params != nil || i > 0 && built.Vectors[i].Fuel < 7000 {
				continue
			}
			r, _ := policy.ParseRequest(v.Point, v.Request)
			input, _ := speaks.Encode(r)
			out := make([]byte, 0, 4096)
			b.Run(n.name()+"/"+v.Name, func(b *testing.B) {
				var fuel uint64
				for b.Loop() {
					got, err := m.Call(abi.Call{Input: input, Output: out[:0], Now: 1_767_225_600_000_000_000})
					if err != nil {
						b.Fatal(err)
					}
					fuel = got.Fuel
				}
				b.ReportMetric(float64(fuel), "units")
				b.ReportMetric(float64(len(input)), "bytes")
			})
			_ = i
		}
	}
}
