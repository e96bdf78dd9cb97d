package hostile

import (
	"bytes"
	"slices"
)

// Numbers of the binary format that the generated modules use.
const (
	i32, i64 = 0x7f, 0x7e

	opUnreachable, opBlock, opLoop, opIf, opElse, opEnd = 0x00, 0x02, 0x03, 0x04, 0x05, 0x0b
	opBr, opBrIf, opBrTable, opCall, opDrop             = 0x0c, 0x0d, 0x0e, 0x10, 0x1a
	opLocalGet, opLocalSet, opI32Const, opI64Const      = 0x20, 0x21, 0x41, 0x42
	opI32Add                                            = 0x6a
	empty                                               = 0x40 // type of a block

	sectionCustom, sectionType, sectionImport, sectionFunction, sectionTable, sectionMemory = 0, 1, 2, 3, 4, 5
	sectionGlobal, sectionExport, sectionStart, sectionElement, sectionCode, sectionData    = 6, 7, 8, 9, 10, 11
	sectionDataCount                                                                        = 12
)

var header = "\x00asm\x01\x00\x00\x00"

// guest is a module in pieces, each already encoded, so that a case can break one.
type guest struct {
	types, imports, functions, tables, memories, globals, exports, elements, bodies, data [][]byte
	start, dataCount                                                                      []byte
}

// honest returns the pieces of a module that keeps the contract and allows.
func honest() *guest {
	return &guest{
		types:     [][]byte{typeOf(0, i32), typeOf(1, i32), typeOf(2, i64), {0x60, 0, 0}},
		functions: [][]byte{{0}, {1}, {2}},
		memories:  [][]byte{{0, 2}},
		exports:   [][]byte{export("memory", 2, 0), export("holdfast_abi_v1", 0, 0), export("holdfast_alloc", 0, 1), export("holdfast_decide", 0, 2)},
		bodies:    [][]byte{body(opI32Const, 0), body(opI32Const, 0x80, 0x20), body(allow...)},
		data:      [][]byte{segment(8, "\xa1\x67verdict\x65allow")},
	}
}

// allow answers the 15 bytes at address 8.
var allow = []byte{opI64Const, 0x8f, 0x80, 0x80, 0x80, 0x80, 0x01}

// with adds a function of type () -> () to the pieces.
func (g *guest) with(encoded []byte) *guest { return g.withType(3, encoded) }

func (g *guest) withType(index byte, encoded []byte) *guest {
	g.functions = append(g.functions, []byte{index})
	g.bodies = append(g.bodies, encoded)
	return g
}

// typeOf encodes the type of a function that takes that many i32.
func typeOf(params int, result byte) []byte {
	return append(append(u32([]byte{0x60}, uint32(params)), bytes.Repeat([]byte{i32}, params)...), 1, result)
}

func export(name string, kind, index byte) []byte { return append(text(nil, name), kind, index) }

// segment encodes a data segment; at is below 64.
func segment(at byte, content string) []byte {
	return text([]byte{0, opI32Const, at, opEnd}, content)
}

// body encodes a function without locals; its end is added.
func body(code ...byte) []byte { return bodyWith([]byte{0}, code) }

func bodyWith(locals, code []byte) []byte { return sized(append(slices.Concat(locals, code), opEnd)) }

// sized puts the length of the content before it.
func sized(content []byte) []byte { return append(u32(nil, uint32(len(content))), content...) }

func section(id byte, content []byte) []byte { return append([]byte{id}, sized(content)...) }

func vector(items [][]byte) []byte {
	return slices.Concat(u32(nil, uint32(len(items))), slices.Concat(items...))
}

func text(to []byte, s string) []byte { return append(u32(to, uint32(len(s))), s...) }

func u32(to []byte, v uint32) []byte {
	for ; v >= 0x80; v >>= 7 {
		to = append(to, byte(v)|0x80)
	}
	return append(to, byte(v))
}

// times repeats an encoded piece.
func times(n int, piece ...byte) []byte { return bytes.Repeat(piece, n) }

// each is a vector of n equal elements.
func each(n int, element ...byte) [][]byte { return slices.Repeat([][]byte{element}, n) }

// sections returns the encoded sections in their order.
func (g *guest) sections() [][]byte {
	var out [][]byte
	for _, s := range []struct {
		id      byte
		items   [][]byte
		content []byte
	}{
		{sectionType, g.types, nil}, {sectionImport, g.imports, nil}, {sectionFunction, g.functions, nil}, {sectionTable, g.tables, nil},
		{sectionMemory, g.memories, nil}, {sectionGlobal, g.globals, nil}, {sectionExport, g.exports, nil}, {sectionStart, nil, g.start},
		{sectionElement, g.elements, nil}, {sectionDataCount, nil, g.dataCount}, {sectionCode, g.bodies, nil}, {sectionData, g.data, nil},
	} {
		if len(s.items) > 0 {
			s.content = vector(s.items)
		}
		if len(s.content) > 0 {
			out = append(out, section(s.id, s.content))
		}
	}
	return out
}

// module encodes the pieces, and what is to follow the last section.
func (g *guest) module(tail ...byte) []byte {
	return slices.Concat([]byte(header), slices.Concat(g.sections()...), tail)
}
