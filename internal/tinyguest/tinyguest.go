// Package tinyguest makes small modules for tests.
package tinyguest

import (
	"bytes"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// Says returns a holdfast_v1 module that answers every request with output, or
// traps when there is none.
func Says(output []byte) []byte {
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
	decide := []byte{0, 0x00, 0x0b} // unreachable
	if output != nil {
		decide = append(append([]byte{0, 0x42}, signed(address<<32|int64(len(output)))...), 0x0b)
	}
	return bytes.Join([][]byte{
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, vector([]byte{0x60, 0, 1, i32}, []byte{0x60, 1, i32, 1, i32}, []byte{0x60, 2, i32, i32, 1, i64})),
		section(3, vector([]byte{0}, []byte{1}, []byte{2})),
		section(5, vector([]byte{1, 16, 16})),
		section(7, vector(export("memory", 2, 0), export(abi.ExportVersion, 0, 0), export(abi.ExportAlloc, 0, 1), export(abi.ExportDecide, 0, 2))),
		section(10, vector(sized([]byte{0, 0x41, 0, 0x0b}), sized(append(append([]byte{0, 0x41}, signed(8192)...), 0x0b)), sized(decide))),
		section(11, vector(append(append(append([]byte{0, 0x41}, signed(address)...), 0x0b), sized(output)...))),
	}, nil)
}
