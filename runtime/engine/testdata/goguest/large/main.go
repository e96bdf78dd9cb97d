// Command large is a guest of more than 3 MiB: it carries more of Go's library than
// a policy would. It answers what it is asked.
package main

import (
	"encoding/json"
	"encoding/xml"
	"unsafe"
)

var input [1 << 16]byte

func main() {}

//go:wasmexport holdfast_abi_v1
func version() uint32 { return 0 }

//go:wasmexport holdfast_alloc
func alloc(size uint32) uint32 { return uint32(uintptr(unsafe.Pointer(&input))) }

//go:wasmexport holdfast_decide
func decide(ptr, size uint32) uint64 {
	if text := string(input[:size]); text == "load" {
		load(text)
	}
	return uint64(uintptr(unsafe.Pointer(&input)))<<32 | uint64(size)
}

// load reaches the library, so that the linker keeps it.
func load(text string) {
	var v any
	_ = json.Unmarshal([]byte(text), &v)
	_ = xml.Unmarshal([]byte(text), &v)
}
