package hostile

import (
	"slices"
	"strings"
)

// reordered encodes the honest module with its sections changed.
func reordered(change func(sections [][]byte) [][]byte) func() []byte {
	return func() []byte {
		return append([]byte(header), slices.Concat(change(honest().sections())...)...)
	}
}

// code returns a maker of the honest module with one function more.
func code(instructions ...byte) func() []byte {
	return func() []byte { return honest().with(body(instructions...)).module() }
}

// sectionsAndNumbers break the framing.
func sectionsAndNumbers() map[string]func() []byte {
	return map[string]func() []byte{
		"section-twice": reordered(func(s [][]byte) [][]byte { return slices.Insert(s, 1, s[0]) }),
		"section-order": reordered(func(s [][]byte) [][]byte { s[0], s[1] = s[1], s[0]; return s }),
		"section-unknown": reordered(func(s [][]byte) [][]byte {
			return append(s, section(99, nil))
		}),
		"section-long": reordered(func(s [][]byte) [][]byte { s[len(s)-1][1]++; return s }),
		"section-rest": changed(func(g *guest) { g.data[0] = append(g.data[0], 0) }),
		"leb-section": reordered(func(s [][]byte) [][]byte {
			s[0] = slices.Concat(s[0][:1], []byte{s[0][1] | 0x80, 0x80, 0x80, 0x80, 0x80, 0}, s[0][2:])
			return s
		}),
		"leb-bits": func() []byte {
			return append([]byte(header), sectionType, 0x05, 0x80, 0x80, 0x80, 0x80, 0x10)
		},
		"leb-i32":  code(opI32Const, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00, opDrop),
		"leb-i64":  code(opI64Const, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00, opDrop),
		"leb-sign": code(opI32Const, 0xff, 0xff, 0xff, 0xff, 0x4f, opDrop),
		"leb-padded": code(opI32Const, 0x81, 0x80, 0x80, 0x80, 0x00, opDrop, opI64Const, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, opDrop,
			opCall, 0x83, 0x80, 0x80, 0x80, 0x00),
		"leb-endless":          code(append([]byte{opI32Const}, times(1_000, 0x80)...)...),
		"memory-maximum-below": changed(func(g *guest) { g.memories = [][]byte{{1, 2, 1}} }),
		"memory-flags":         changed(func(g *guest) { g.memories = [][]byte{{0x88, 2}} }),
	}
}

// namesAndBodies break what stands in sections.
func namesAndBodies() map[string]func() []byte {
	exported := func(name string, kind, index byte) func() []byte {
		return changed(func(g *guest) { g.exports = append(g.exports, export(name, kind, index)) })
	}
	raw := func(content ...byte) func() []byte {
		return func() []byte { return honest().with(sized(content)).module() }
	}
	constant := func(code ...byte) func() []byte {
		return changed(func(g *guest) { g.globals = [][]byte{append(append([]byte{i32, 0}, code...), opEnd)} })
	}
	return map[string]func() []byte{
		"export-twice":       exported("holdfast_decide", 0, 1),
		"export-no-function": exported("more", 0, 99),
		"export-no-memory":   exported("more", 2, 1),
		"export-kind":        exported("more", 9, 0),
		"name-long":          exported(strings.Repeat("a", 64<<10), 0, 0),
		"name-not-text":      exported("holdfast_\xff", 0, 0),
		"name-nul":           exported(strings.Repeat("\x00", 64), 0, 0),
		"start-no-function":  changed(func(g *guest) { g.start = []byte{99} }),
		"body-no-end":        raw(0, opI32Const, 0, opDrop),
		"body-two-ends":      raw(0, opEnd, opEnd),
		"body-else":          raw(0, opElse, opEnd),
		"body-empty":         raw(),
		"alignment":          code(opI32Const, 0, 0x28, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, opDrop),
		"constant-loop":      constant(opLoop, empty, opBr, 0, opEnd),
		"constant-long":      constant(append([]byte{opI32Const, 1}, times(100_000, opI32Const, 1, opI32Add)...)...),
		"constant-no-global": constant(0x23, 9),
	}
}

// proposals use what newer versions of the format have.
func proposals() map[string]func() []byte {
	typed := func(encoded ...byte) func() []byte {
		return changed(func(g *guest) { g.types = append(g.types, encoded) })
	}
	return map[string]func() []byte{
		"opcode-unknown":  code(0xff),
		"opcode-gc":       code(0xfb, 0x00, 0x00, opDrop),
		"opcode-call-ref": code(0x14, 3),
		"opcode-wide":     code(opI64Const, 1, opI64Const, 1, opI64Const, 1, opI64Const, 1, 0xfc, 0x13, opDrop, opDrop),
		"type-gc":         typed(0x5f, 1, i32, 1),
		"type-recursive":  typed(0x4e, 2, 0x60, 0, 0, 0x60, 0, 0),
		"type-nullable":   typed(0x60, 1, 0x63, 0, 0),
	}
}
