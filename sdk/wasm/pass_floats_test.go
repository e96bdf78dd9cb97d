package wasm

import (
	"slices"
	"testing"
)

// TestShownFloats checks of which results the bits may be seen.
func TestShownFloats(t *testing.T) {
	const add, eq, neg, nearest = 0xa0, opF64Eq, 0x9a, 0x9e
	for _, c := range []struct {
		name string
		body []byte
		want []bool
	}{
		{"kept in a local", []byte{opLocalGet, 0, opLocalGet, 0, add, opLocalSet, 0, opEnd}, []bool{true}},
		{"summed up", []byte{opLocalGet, 0, opLocalGet, 0, add, opLocalGet, 0, add, opLocalSet, 0, opEnd}, []bool{false, true}},
		{"as the second operand", []byte{opLocalGet, 0, opLocalGet, 0, opLocalGet, 0, add, add, opLocalSet, 0, opEnd}, []bool{false, true}},
		{"with an address computed between", []byte{opLocalGet, 0, nearest, opLocalGet, 1, opLocalGet, 1, opI32Add, 0x2b, 3, 0, add, opLocalSet, 0, opEnd}, []bool{false, true}},
		{"compared", []byte{opLocalGet, 0, nearest, opLocalGet, 0, eq, opDrop, opEnd}, []bool{false}},
		{"dropped", []byte{opLocalGet, 0, nearest, opDrop, opEnd}, []bool{false}},
		{"converted to an integer", []byte{opLocalGet, 0, nearest, 0xaa, opDrop, opLocalGet, 0, nearest, prefixMisc, 2, opDrop, opEnd}, []bool{false, false}},
		{"negated", []byte{opLocalGet, 0, nearest, neg, nearest, opDrop, opEnd}, []bool{true, false}},
		{"the sign copied", []byte{opLocalGet, 0, opLocalGet, 0, nearest, opF64Copysign, opDrop, opEnd}, []bool{true}},
		{"reinterpreted", []byte{opLocalGet, 0, nearest, 0xbd, opDrop, opEnd}, []bool{true}},
		{"stored", []byte{opLocalGet, 1, opLocalGet, 0, nearest, 0x39, 3, 0, opEnd}, []bool{true}},
		{"returned", []byte{opLocalGet, 0, nearest, opEnd}, []bool{true}},
		{"selected", []byte{opLocalGet, 0, nearest, opLocalGet, 0, opLocalGet, 1, opSelect, nearest, opDrop, opEnd}, []bool{true, false}},
		{"carried over the end of a block", []byte{opBlock, byte(F64), opLocalGet, 0, nearest, opEnd, nearest, opDrop, opEnd}, []bool{true, false}},
		{"below a call", []byte{opLocalGet, 0, nearest, opCall, 0, add, opDrop, opEnd}, []bool{true, false}},
	} {
		pass := floatPass{code: c.body}
		if err := pass.find(); err != nil {
			t.Fatal(c.name, err)
		}
		var got []bool
		for _, p := range pass.producers {
			got = append(got, p.shown)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
