// Command goguest is a guest in Go for the engine's tests. It answers how often
// it was asked, its idea of the time and of randomness, and its parameters.
package main

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"
	"unsafe"
)

var (
	input  [1 << 16]byte
	output []byte
	params []byte
	calls  int
	seen   []string
)

func main() {}

//go:wasmexport holdfast_abi_v1
func version() uint32 { return 0 }

//go:wasmexport holdfast_alloc
func alloc(size uint32) uint32 {
	if size > uint32(len(input)) {
		return 0
	}
	return uint32(uintptr(unsafe.Pointer(&input)))
}

//go:wasmexport holdfast_init
func initialise(ptr, size uint32) uint32 {
	params = append(params, input[:size]...)
	return 0
}

//go:wasmexport holdfast_decide
func decide(ptr, size uint32) uint64 {
	calls++
	text := string(input[:size])
	seen = append(seen, strings.Repeat(text, 10))
	random := make([]byte, 4)
	rand.Read(random)
	switch text {
	case "panic":
		panic("a guest may panic")
	case "print":
		fmt.Println("a line of output")
	}
	words := map[string]int{"a": 1, "b": 2, "c": 3, "d": 4}
	order := ""
	for word := range words {
		order += word
	}
	output = fmt.Appendf(nil, "%s calls=%d seen=%d now=%d random=%x order=%s params=%x", text, calls, len(seen), time.Now().UnixNano(), random, order, params)
	return uint64(uintptr(unsafe.Pointer(&output[0])))<<32 | uint64(len(output))
}
