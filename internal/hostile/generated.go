package hostile

import (
	"bytes"
	"fmt"
	"slices"
)

// generated makes the modules that the text format cannot say, or would say in
// megabytes, by name.
func generated() map[string]func() []byte {
	all := map[string]func() []byte{
		"empty":            func() []byte { return nil },
		"header-only":      func() []byte { return []byte(header) },
		"header-version":   func() []byte { return []byte("\x00asm\x02\x00\x00\x00") },
		"header-component": func() []byte { return []byte("\x00asm\x0d\x00\x01\x00") },
		"module-long":      func() []byte { return honest().module(section(sectionCustom, make([]byte, 4<<20))...) },
	}
	for _, family := range []map[string]func() []byte{bombs(), quadratic(), counts(), sectionsAndNumbers(), namesAndBodies(), proposals()} {
		for name, make := range family {
			all[name] = make
		}
	}
	return all
}

// locals is a body of one group of n locals.
func locals(n uint32) []byte { return bodyWith(append(u32([]byte{1}, n), i64), nil) }

// bare is a module of one function and nothing else.
func bare(code []byte) []byte {
	return slices.Concat([]byte(header), section(sectionType, []byte{1, 0x60, 0, 0}), section(sectionFunction, []byte{1, 0}),
		section(sectionCode, vector([][]byte{code})))
}

// brTable branches to label 0 by a table of n targets and the default.
func brTable(n int) []byte {
	return slices.Concat([]byte{opI32Const, 0, opBrTable}, u32(nil, uint32(n)), times(n+1, 0))
}

// nested is a body of n blocks, each in the one before.
func nested(op byte, n int) []byte {
	open := []byte{op, empty}
	if op == opIf {
		open = []byte{opI32Const, 0, op, empty}
	}
	return body(slices.Concat(bytes.Repeat(open, n), times(n, opEnd))...)
}

// bombs ask for much by few bytes.
func bombs() map[string]func() []byte {
	return map[string]func() []byte{
		"locals-bomb-42": func() []byte {
			return bare(bodyWith(slices.Concat([]byte{3}, append(u32(nil, 1<<31), i64), append(u32(nil, 1<<30), i64), append(u32(nil, 1<<30-1), i64)), nil))
		},
		"locals-bomb-41": func() []byte {
			return bare(bodyWith(slices.Concat([]byte{3}, append(u32(nil, 1<<31), i64), append(u32(nil, 1<<30), i64), append(u32(nil, 1<<28-1), i64)), nil))
		},
		"locals-one-too-many": func() []byte { return honest().with(locals(1001)).module() },
		"locals-groups": func() []byte {
			return honest().with(bodyWith(append(u32(nil, 100_000), times(100_000, 0, i32)...), nil)).module()
		},
		"locals-guest":  func() []byte { return honest().with(locals(1<<32 - 1)).module() },
		"br-table-bomb": func() []byte { return honest().with(body(brTable(10_001)...)).module() },
		"br-table-many": func() []byte {
			many := bytes.Repeat(slices.Concat([]byte{opBlock, empty}, brTable(1), []byte{opEnd}), 5_001)
			return honest().with(body(many...)).module()
		},
		"br-table-runtime": func() []byte { return honest().with(body(brTable(65_537)...)).module() },
		"br-table-count": func() []byte {
			return honest().with(body(append([]byte{opI32Const, 0, opBrTable}, u32(nil, 1<<32-1)...)...)).module()
		},
		"block-bomb":      func() []byte { return honest().with(nested(opBlock, 100_000)).module() },
		"loop-bomb":       func() []byte { return honest().with(nested(opLoop, 257)).module() },
		"if-bomb":         func() []byte { return honest().with(nested(opIf, 257)).module() },
		"nesting-runtime": func() []byte { return honest().with(nested(opBlock, 1_025)).module() },
		"body-long":       func() []byte { return honest().with(body(times(512<<10, 0x01)...)).module() },
		"custom-100mb":    func() []byte { return honest().module(section(sectionCustom, make([]byte, 100<<20))...) },
		"custom-100mb-claimed": func() []byte {
			return honest().module(append(u32([]byte{sectionCustom}, 100<<20), make([]byte, 10)...)...)
		},
		"custom-many":    func() []byte { return honest().module(times(1_000_000, sectionCustom, 1, 0)...) },
		"custom-runtime": func() []byte { return honest().module(section(sectionCustom, make([]byte, 15<<20))...) },
	}
}

// quadratic are within every limit and as slow to compile as those let them be.
func quadratic() map[string]func() []byte {
	return map[string]func() []byte{
		"quadratic-blocks": func() []byte {
			var code []byte
			for n := uint32(0); len(code) < 511<<10; n++ {
				local := n % 900
				code = append(code, opLoop, empty)
				code = append(u32(append(u32(append(code, opLocalGet), local), opI32Const, 1, opI32Add, opLocalSet), local), opI32Const, 0, opBrIf, 0, opEnd)
			}
			return honest().with(bodyWith(append(u32([]byte{1}, 900), i32), code)).module()
		},
		"quadratic-live": func() []byte {
			code := times(500, opLoop, empty, opLocalGet, 0, opBrIf, 0, opEnd)
			for n := range uint32(100) {
				code = append(u32(append(code, opLocalGet), n), opDrop)
			}
			return honest().with(bodyWith(append(u32([]byte{1}, 100), i32), code)).module()
		},
		"quadratic-br-table": func() []byte {
			open := bytes.Repeat([]byte{opBlock, i32}, 250)
			table := append([]byte{opI32Const, 1, opI32Const, 1, opBrTable}, u32(nil, 9_990)...)
			for n := range uint32(9_991) {
				table = u32(table, n%250)
			}
			closing := bytes.Repeat([]byte{opEnd, opI32Const, 1, opI32Add}, 250)
			return honest().with(body(slices.Concat(open, table, closing, []byte{opDrop})...)).module()
		},
		"quadratic-ifs": func() []byte {
			return honest().with(bodyWith([]byte{1, 100, i32}, times((511<<10)/12, opLocalGet, 0, opIf, empty, opLocalGet, 1, opLocalSet, 2, opElse, opEnd, 0x01, 0x01))).module()
		},
		"quadratic-calls": func() []byte {
			g := honest()
			g.types = append(g.types, typeOf(250, i32))
			callee := byte(len(g.functions))
			g.withType(4, body(opI32Const, 0))
			call := append(times(250, opI32Const, 0), opCall, callee, opDrop)
			return g.with(body(bytes.Repeat(call, (64<<10)/len(call))...)).module()
		},
		"functions-all": func() []byte {
			g := honest()
			for range 19_997 {
				g.with(body(opLoop, empty, opI32Const, 0, opBrIf, 0, opEnd))
			}
			return g.module()
		},
	}
}

// changed returns a maker of the honest module with one change.
func changed(change func(*guest)) func() []byte {
	return func() []byte {
		g := honest()
		change(g)
		return g.module()
	}
}

// counts are one more than allowed, or lie.
func counts() map[string]func() []byte {
	raw := func(id byte, content ...byte) func() []byte {
		return func() []byte { return append([]byte(header), section(id, content)...) }
	}
	claim := u32(nil, 1<<32-1)
	return map[string]func() []byte{
		"functions-too-many":  changed(func(g *guest) { g.functions, g.bodies = each(20_001, 3), each(20_001, body()...) }),
		"types-too-many":      changed(func(g *guest) { g.types = each(2_001, 0x60, 0, 0) }),
		"parameters-too-many": changed(func(g *guest) { g.types = append(g.types, typeOf(257, i32)) }),
		"imports-too-many": changed(func(g *guest) {
			g.imports = each(129, append(text(text(nil, "holdfast_v1"), "now"), 0, 4)...)
		}),
		"globals-too-many": changed(func(g *guest) { g.globals = each(1_001, i32, 0, opI32Const, 0, opEnd) }),
		"exports-too-many": changed(func(g *guest) {
			for n := range 1_000 {
				g.exports = append(g.exports, export(fmt.Sprint(n), 0, 0))
			}
		}),
		"segments-too-many": changed(func(g *guest) { g.data = each(1_001, segment(8, "")...) }),
		"elements-too-many": changed(func(g *guest) {
			g.tables = [][]byte{{0x70, 0, 10}}
			g.elements = each(2, slices.Concat([]byte{0, opI32Const, 0, opEnd}, u32(nil, 10_001), times(10_001, 0))...)
		}),
		"counts-types":     raw(sectionType, claim...),
		"counts-functions": raw(sectionFunction, u32(nil, 20_000)...),
		"counts-code":      changed(func(g *guest) { g.bodies = g.bodies[:2] }),
		"counts-data":      changed(func(g *guest) { g.dataCount = []byte{2} }),
	}
}
