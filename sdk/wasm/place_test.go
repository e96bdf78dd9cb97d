package wasm

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// newEngine returns the pieces of an engine module: a guest of two pages with a
// slot at 1,000 and a data segment on it.
func newEngine() *guest {
	g := newGuest()
	g.memories = [][]byte{{1, 2, 9}}
	g.globals = [][]byte{{byte(I64), 1, opI64Const, 7, opEnd}, append(appendS64([]byte{byte(I32), 0, opI32Const}, 1000), opEnd)}
	g.exports = append(g.exports, exportOf(ExportPayload, kindGlobal, 1), exportOf("other", kindGlobal, 0))
	g.data = [][]byte{append(append(appendS64([]byte{0, opI32Const}, 998), opEnd), 3, 'a', 'b', 'c')}
	return g
}

// initial is the memory as the module's active segments make it.
func initial(tb testing.TB, m *Module) []byte {
	tb.Helper()
	memory := make([]byte, m.memories[0].min*pageBytes)
	r := &reader{data: m.sections[sectionData].items, end: len(m.sections[sectionData].items)}
	for r.more() {
		if r.u32("kind") != 0 || r.byte("constant") != opI32Const {
			tb.Fatal("not an active segment")
		}
		at := r.signed("address", 32)
		r.byte("end")
		content := r.bytes("content", r.u32("size"))
		if copy(memory[at:], content) != len(content) {
			tb.Fatal("a segment beyond the memory")
		}
	}
	if r.err != nil {
		tb.Fatal(r.err)
	}
	return memory
}

func TestPlace(t *testing.T) {
	for _, payload := range []string{"", "x", strings.Repeat("script ", 10_000), strings.Repeat("x", 7*pageBytes)} {
		for name, count := range map[string][]byte{"counted": {1}, "not counted": nil} {
			g := newEngine()
			g.dataCount = count
			placed, err := Place(g.bytes(), []byte(payload), Policy)
			if err != nil {
				t.Fatal(name, err)
			}
			m, err := Parse(placed, Policy.Limits())
			if err != nil {
				t.Fatal(name, err)
			}
			if _, err := Scan(placed, Policy); err != nil {
				t.Error(name, err)
			}
			memory := initial(t, m)
			want := appendWord(appendWord(nil, 2*pageBytes), uint32(len(payload)))
			if got := memory[1000:1008]; !bytes.Equal(got, want) || string(memory[998:1000]) != "ab" {
				t.Errorf("%s: the words are %x, want %x", name, got, want)
			}
			if got := string(memory[2*pageBytes:]); strings.TrimRight(got, "\x00") != payload || len(got)-len(payload) >= pageBytes || m.memories[0].max != 9 {
				t.Errorf("%s: %d bytes behind the memory for a payload of %d", name, len(got), len(payload))
			}
			if _, ok := m.export(ExportPayload, kindGlobal); ok || len(m.Exports) != 5 || m.Exports[4].Name != "other" {
				t.Errorf("%s: exports %v", name, m.Exports)
			}
			if count != nil && m.sections[sectionDataCount].count != 3 {
				t.Errorf("%s: data count %d", name, m.sections[sectionDataCount].count)
			}
			if again, err := Place(g.bytes(), []byte(payload), Policy); err != nil || !bytes.Equal(again, placed) {
				t.Errorf("%s: another time gives other bytes, or %v", name, err)
			}
			if _, err := Place(placed, nil, Policy); err == nil {
				t.Errorf("%s: placed twice", name)
			}
		}
	}
}

func TestPlaceRefuses(t *testing.T) {
	slot := func(global []byte) func(*guest) { return func(g *guest) { g.globals[1] = global } }
	for name, c := range map[string]struct {
		spoil func(*guest)
		n     int
		want  string
	}{
		"no slot":        {func(g *guest) { g.exports = g.exports[:4] }, 1, "not an engine module"},
		"a function":     {func(g *guest) { g.exports[4] = exportOf(ExportPayload, kindFunc, 0) }, 1, "not an engine module"},
		"no such global": {func(g *guest) { g.exports[4] = exportOf(ExportPayload, kindGlobal, 9) }, 1, "no global of the module's own"},
		"an imported global": {func(g *guest) {
			g.imports = [][]byte{importOf("m", "g", kindGlobal, byte(I32), 0)}
			g.exports[4] = exportOf(ExportPayload, kindGlobal, 0)
		}, 1, "no global of the module's own"},
		"mutable":            {slot([]byte{byte(I32), 1, opI32Const, 0, opEnd}), 1, "not a constant i32"},
		"of another type":    {slot([]byte{byte(I64), 0, opI64Const, 0, opEnd}), 1, "not a constant i32"},
		"another global":     {slot([]byte{byte(I32), 0, opGlobalGet, 0, opEnd}), 1, "not a constant"},
		"outside":            {slot(append(appendS64([]byte{byte(I32), 0, opI32Const}, 2*pageBytes-7), opEnd)), 1, "outside of the memory"},
		"negative":           {slot([]byte{byte(I32), 0, opI32Const, 0x7f, opEnd}), 1, "outside of the memory"},
		"an imported memory": {func(g *guest) { g.memories = nil; g.imports = [][]byte{importOf("m", "m", kindMemory, 0, 2)} }, 1, "defines its own"},
		"no memory":          {func(g *guest) { g.memories = nil; g.exports = g.exports[1:]; g.data = nil }, 1, "outside of the memory"},
		"beyond its maximum": {func(*guest) {}, 7*pageBytes + 1, "(10, limit 9)"},
		"beyond the class":   {func(g *guest) { g.memories = [][]byte{{0, 250, 1}} }, 7 * pageBytes, "(257, limit 256)"},
		"a long module":      {func(g *guest) { g.memories = [][]byte{{0, 2}} }, 5 << 20, "too many bytes"},
		"cut":                {func(g *guest) { g.tail = []byte{sectionData} }, 1, ""},
	} {
		g := newEngine()
		c.spoil(g)
		_, err := Place(g.bytes(), make([]byte, c.n), Policy)
		refusal, ok := errors.AsType[*Refusal](err)
		if !ok || !strings.Contains(refusal.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// FuzzPlace: whatever the engine, there is no panic, and what is placed is read
// again with the payload where the words say.
func FuzzPlace(f *testing.F) {
	f.Add(newEngine().bytes(), []byte("script"))
	f.Add(newGuest().bytes(), []byte{})
	g := newEngine()
	g.dataCount = []byte{1}
	f.Add(g.bytes(), bytes.Repeat([]byte{7}, 70_000))
	f.Fuzz(func(t *testing.T, engine, payload []byte) {
		placed, err := Place(engine, payload, Policy)
		if err != nil {
			if _, ok := errors.AsType[*Refusal](err); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		m, err := Parse(placed, Policy.Limits())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Encode(), placed) {
			t.Error("not in canonical form")
		}
		if !bytes.Contains(placed, payload) {
			t.Error("the payload is not in it")
		}
	})
}
