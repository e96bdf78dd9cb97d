package engine

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A program is a module of holdfast_v1 in pieces. Code is text: instructions by
// name, immediates as numbers, the type of a block as void, i32 or the number of a type.
type program struct {
	types     []string // parameters:results, in the letters of wasm.FuncType
	imports   []hostImport
	functions []assembled
	globals   string // a letter each: mutable, begins as 0
	pages     uint32
	mostPages uint32
	table     int // functions that it holds, from the first defined one
}

type hostImport struct {
	module, name string
	typ          int
}

type assembled struct {
	export string
	typ    int
	locals string // a letter each
	code   []byte
}

var typeBytes = map[byte]byte{'i': 0x7f, 'I': 0x7e, 'f': 0x7d, 'F': 0x7c, 'r': 0x70}

func (p *program) bytes() []byte {
	section := func(id byte, n int, item func(int) []byte) []byte {
		if n == 0 {
			return nil
		}
		content := binary.AppendUvarint(nil, uint64(n))
		for i := range n {
			content = append(content, item(i)...)
		}
		return append(binary.AppendUvarint([]byte{id}, uint64(len(content))), content...)
	}
	out := []byte("\x00asm\x01\x00\x00\x00")
	out = append(out, section(1, len(p.types), func(i int) []byte {
		params, results, _ := strings.Cut(p.types[i], ":")
		return append(append([]byte{0x60}, letters(params)...), letters(results)...)
	})...)
	out = append(out, section(2, len(p.imports), func(i int) []byte {
		return binary.AppendUvarint(append(append(text(p.imports[i].module), text(p.imports[i].name)...), 0), uint64(p.imports[i].typ))
	})...)
	out = append(out, section(3, len(p.functions), func(i int) []byte { return binary.AppendUvarint(nil, uint64(p.functions[i].typ)) })...)
	out = append(out, section(4, min(p.table, 1), func(int) []byte { return binary.AppendUvarint([]byte{0x70, 0}, uint64(p.table)) })...)
	out = append(out, section(5, 1, func(int) []byte {
		return binary.AppendUvarint(binary.AppendUvarint([]byte{1}, uint64(p.pages)), uint64(max(p.pages, p.mostPages)))
	})...)
	out = append(out, section(6, len(p.globals), func(i int) []byte {
		zero := map[byte]string{'i': "\x41\x00", 'I': "\x42\x00", 'f': "\x43\x00\x00\x00\x00", 'F': "\x44\x00\x00\x00\x00\x00\x00\x00\x00"}
		return append(append([]byte{typeBytes[p.globals[i]], 1}, zero[p.globals[i]]...), 0x0b)
	})...)
	exports := [][]byte{append(text("memory"), 2, 0)}
	for i, f := range p.functions {
		if f.export != "" {
			exports = append(exports, binary.AppendUvarint(append(text(f.export), 0), uint64(len(p.imports)+i)))
		}
	}
	out = append(out, section(7, len(exports), func(i int) []byte { return exports[i] })...)
	out = append(out, section(9, min(p.table, 1), func(int) []byte {
		entries := binary.AppendUvarint([]byte{0, 0x41, 0, 0x0b}, uint64(p.table))
		for i := range p.table {
			entries = binary.AppendUvarint(entries, uint64(len(p.imports)+i))
		}
		return entries
	})...)
	return append(out, section(10, len(p.functions), func(i int) []byte {
		body := binary.AppendUvarint(nil, uint64(len(p.functions[i].locals)))
		for _, letter := range []byte(p.functions[i].locals) {
			body = append(body, 1, typeBytes[letter])
		}
		body = append(append(body, p.functions[i].code...), 0x0b)
		return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
	})...)
}

func letters(types string) []byte {
	out := binary.AppendUvarint(nil, uint64(len(types)))
	for i := range len(types) {
		out = append(out, typeBytes[types[i]])
	}
	return out
}

func text(s string) []byte { return append(binary.AppendUvarint(nil, uint64(len(s))), s...) }

var opcodes = map[string][]byte{
	"unreachable": {0x00}, "block": {0x02}, "loop": {0x03}, "if": {0x04}, "else": {0x05}, "end": {0x0b}, "br": {0x0c}, "br_if": {0x0d},
	"br_table": {0x0e}, "return": {0x0f}, "call": {0x10}, "call_indirect": {0x11}, "drop": {0x1a}, "select": {0x1b},
	"local.get": {0x20}, "local.set": {0x21}, "local.tee": {0x22}, "global.get": {0x23}, "global.set": {0x24}, "table.get": {0x25},
	"i32.load": {0x28}, "i64.load": {0x29}, "f32.load": {0x2a}, "f64.load": {0x2b}, "i32.load8_u": {0x2d}, "i32.load16_u": {0x2f},
	"i32.store": {0x36}, "i64.store": {0x37}, "f32.store": {0x38}, "f64.store": {0x39}, "i32.store8": {0x3a},
	"memory.size": {0x3f}, "memory.grow": {0x40}, "i32.const": {0x41}, "i64.const": {0x42}, "f32.const": {0x43}, "f64.const": {0x44},
	"i32.eqz": {0x45}, "i32.lt_s": {0x48}, "i32.gt_s": {0x4a}, "i32.add": {0x6a}, "i32.sub": {0x6b}, "i32.mul": {0x6c}, "i32.div_s": {0x6d}, "i32.rem_u": {0x70},
	"i32.and": {0x71}, "i32.or": {0x72}, "i32.shl": {0x74}, "i32.shr_u": {0x76}, "i64.popcnt": {0x7b}, "i64.add": {0x7c}, "i64.mul": {0x7e}, "i64.div_s": {0x7f},
	"i64.rem_u": {0x82}, "i64.or": {0x84}, "f64.nearest": {0x9e}, "f64.sqrt": {0x9f}, "f64.add": {0xa0}, "f64.mul": {0xa2}, "f64.div": {0xa3}, "f64.min": {0xa4},
	"f64.copysign": {0xa6}, "i64.trunc_f64_u": {0xb1}, "f64.convert_i64_u": {0xba}, "i64.trunc_sat_f64_u": {0xfc, 7}, "f64.reinterpret_i64": {0xbf},
	"memory.copy": {0xfc, 10}, "memory.fill": {0xfc, 11}, "table.size": {0xfc, 16}, "ref.func": {0xd2}, "void": {0x40}, "i32": {0x7f},
}

// assemble turns text into instructions.
func assemble(source string) []byte {
	var out []byte
	last := ""
	for _, word := range strings.Fields(source) {
		if code, ok := opcodes[word]; ok {
			out, last = append(out, code...), word
			continue
		}
		if last == "f64.const" {
			value, err := strconv.ParseFloat(word, 64)
			if err != nil {
				panic(err)
			}
			out = binary.LittleEndian.AppendUint64(out, math.Float64bits(value))
			continue
		}
		value, err := strconv.ParseInt(word, 0, 64)
		if err != nil {
			panic(fmt.Sprintf("assemble: %q", word))
		}
		if last == "i32.const" || last == "i64.const" || last == "block" || last == "loop" {
			out = appendSigned(out, value)
		} else {
			out = binary.AppendUvarint(out, uint64(value))
		}
	}
	return out
}

func appendSigned(out []byte, value int64) []byte {
	for value < -0x40 || value > 0x3f {
		out = append(out, byte(value)&0x7f|0x80)
		value >>= 7
	}
	return append(out, byte(value)&0x7f)
}
