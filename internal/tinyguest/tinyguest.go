// Package tinyguest makes small modules for tests.
package tinyguest

import (
	"bytes"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// Says returns a holdfast_v1 module that answers every request with output, or
// traps when there is none.
func Says(output []byte) []byte { return module(output, 0) }

// Logs is Says for a module that logs every request before it answers, and traps
// then when the request has more than longest bytes.
func Logs(output []byte, longest int) []byte { return module(output, longest) }

func module(output []byte, longest int) []byte {
	leb := func(n int) []byte {
		var b []byte
		for n >= 0x80 {
			b, n = append(b, byte(n)|0x80), n>>7
		}
		return append(b, byte(n))
	}
	vector := func(items ...[]byte) []byte { return append(leb(len(items)), bytes.Join(items, nil)...) }
	sized := func(b []byte) []byte { return append(leb(len(b)), b...) }
	section := func(id byte, body []byte) []byte { return append([]byte{id}, sized(body)...) }
	export := func(name string, kind, index byte) []byte { return append(sized([]byte(name)), kind, index) }
	signed := func(v int64) []byte { // LEB128
		var b []byte
		for {
			c := byte(v & 0x7f)
			v >>= 7
			if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
				return append(b, c)
			}
			b = append(b, c|0x80)
		}
	}
	const i32, i64, address = 0x7f, 0x7e, 1024
	decide := []byte{0} // no locals
	types := [][]byte{{0x60, 0, 1, i32}, {0x60, 1, i32, 1, i32}, {0x60, 2, i32, i32, 1, i64}}
	var imports []byte
	first := byte(0) // index of the first function that is not imported
	if longest > 0 {
		types = append(types, []byte{0x60, 3, i32, i32, i32, 0})
		imports = section(2, vector(bytes.Join([][]byte{sized([]byte(abi.ImportModule)), sized([]byte(abi.ImportLog)), {0, 3}}, nil)))
		first = 1
		decide = append(decide, 0x41, byte(abi.LogInfo), 0x20, 0, 0x20, 1, 0x10, 0)                                     // log(info, its arguments)
		decide = append(append(append(decide, 0x20, 1, 0x41), signed(int64(longest))...), 0x4b, 0x04, 0x40, 0x00, 0x0b) // if length > longest: unreachable
	}
	if output != nil {
		decide = append(append(append(decide, 0x42), signed(address<<32|int64(len(output)))...), 0x0b)
	} else {
		decide = append(decide, 0x00, 0x0b) // unreachable
	}
	return bytes.Join([][]byte{
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, vector(types...)),
		imports,
		section(3, vector([]byte{0}, []byte{1}, []byte{2})),
		section(5, vector([]byte{1, 16, 16})),
		section(7, vector(export("memory", 2, 0), export(abi.ExportVersion, 0, first), export(abi.ExportAlloc, 0, first+1), export(abi.ExportDecide, 0, first+2))),
		section(10, vector(sized([]byte{0, 0x41, 0, 0x0b}), sized(append(append([]byte{0, 0x41}, signed(8192)...), 0x0b)), sized(decide))),
		section(11, vector(append(append(append([]byte{0, 0x41}, signed(address)...), 0x0b), sized(output)...))),
	}, nil)
}
