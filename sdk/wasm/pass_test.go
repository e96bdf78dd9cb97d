package wasm

import (
	"bytes"
	"slices"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// rewritten parses what Instrument makes of a module.
func rewritten(t *testing.T, module []byte) *Module {
	t.Helper()
	out, err := Instrument(module, Policy, abi.HoldfastV1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(out, Policy.Limits())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMemoryIsCapped(t *testing.T) {
	for _, c := range []struct {
		declared []byte
		want     pages
	}{
		{[]byte{0, 1}, pages{1 + MapPages, 256 + MapPages, true}},
		{[]byte{1, 1, 2}, pages{1 + MapPages, 2 + MapPages, true}},
		{[]byte{1, 1, 0xff, 0xff, 3}, pages{1 + MapPages, 256 + MapPages, true}},
	} {
		g := newGuest()
		g.memories = [][]byte{c.declared}
		if m := rewritten(t, g.bytes()); m.memories[0] != c.want {
			t.Errorf("% x: got %+v", c.declared, m.memories[0])
		}
	}
}

func TestMemoryImportBecomesADefinition(t *testing.T) {
	g := newGuest()
	g.memories = nil
	g.imports = [][]byte{importOf("env", "memory", kindMemory, 0, 3), importOf("holdfast_v1", "now", kindFunc, 3)}
	g.exports = g.exports[:1]
	m, err := Parse(g.bytes(), Policy.Limits())
	if err != nil {
		t.Fatal(err)
	}
	m.defineMemory(7)
	m, err = Parse(m.Encode(), Policy.Limits())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Imports) != 1 || m.Imports[0].Name != "now" || m.sections[sectionMemory].count != 1 || m.memories[0] != (pages{3, 7, true}) {
		t.Errorf("imports %v, memories %v", m.Imports, m.memories)
	}
}

func TestGlobalsAndStartAreExported(t *testing.T) {
	m := rewritten(t, full())
	var got []string
	for _, exported := range m.Exports[4:] {
		got = append(got, exported.Name)
	}
	want := []string{"holdfast_meter_global0", "holdfast_meter_global1", abi.ExportStart, "holdfast_meter_global2", abi.ExportFuel, abi.ExportDepth, ExportWritten}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if second, _ := m.export("holdfast_meter_global1", kindGlobal); second.index != 2 {
		t.Errorf("the second mutable global is %d", second.index)
	}
	if m.sections[sectionStart].offset != 0 {
		t.Error("the start section is still there")
	}
}

// TestCountedFunctions checks that every cycle of calls passes the counter, and
// that short chains without one do not.
func TestCountedFunctions(t *testing.T) {
	g := newGuest() // functions 0 to 2 call nothing
	for callee := range byte(10) {
		g.addFunction(body(opCall, 2+callee)) // 3 to 12, each calls the one before
	}
	g.addFunction(body(opCall, 14)).addFunction(body(opCall, 13)) // a cycle
	g.addFunction(body(opCall, 13))                               // into the cycle
	g.addFunction(body(opI32Const, 0, opCallIndirect, 3, 0))
	g.addFunction(body(opCall, 17)) // itself
	m, err := Parse(g.bytes(), Policy.Limits())
	if err != nil {
		t.Fatal(err)
	}
	counted, err := m.countedFunctions()
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range counted {
		if want := i > 10; got != want {
			t.Errorf("function %d: counted %v, want %v", i, got, want)
		}
	}
}

func TestSameBytesSameCopy(t *testing.T) {
	first, err := Instrument(full(), Policy, abi.HoldfastV1)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := Instrument(full(), Policy, abi.HoldfastV1)
		if err != nil || !bytes.Equal(first, again) {
			t.Fatal("the copies differ", err)
		}
	}
}

func TestIntegers(t *testing.T) {
	for _, v := range []int64{0, 1, -1, 63, 64, -64, -65, 1 << 20, 1<<31 - 1, -1 << 31, 1<<63 - 1, -1 << 63} {
		encoded := appendS64(nil, v)
		r := &reader{data: encoded, end: len(encoded)}
		if got := r.signed("v", 64); got != v || r.err != nil || r.pos != len(encoded) {
			t.Errorf("%d: got %d, %v", v, got, r.err)
		}
	}
	for _, v := range []uint32{0, 127, 128, 1 << 31, 1<<32 - 1} {
		encoded := appendU32(nil, v)
		r := &reader{data: encoded, end: len(encoded)}
		if got := r.u32("v"); got != v || r.err != nil || r.pos != len(encoded) {
			t.Errorf("%d: got %d, %v", v, got, r.err)
		}
	}
	for _, c := range []struct {
		bits    uint
		encoded []byte
		ok      bool
	}{
		{32, []byte{0xff, 0xff, 0xff, 0xff, 0x07}, true},
		{32, []byte{0xff, 0xff, 0xff, 0xff, 0x7f}, true},
		{32, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}, false},
		{32, []byte{0x80, 0x80, 0x80, 0x80, 0x70}, false},
		{33, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}, true},
		{64, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f}, true},
		{64, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, false},
		{32, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x00}, false},
		{32, []byte{0x80}, false},
	} {
		r := &reader{data: c.encoded, end: len(c.encoded)}
		if r.signed("v", c.bits); (r.err == nil) != c.ok {
			t.Errorf("% x in %d bits: %v", c.encoded, c.bits, r.err)
		}
	}
}
