package guest

import "unsafe"

// maxInput is the host's own bound on a request.
const maxInput = 512 << 10

// input and output are the module's two buffers, allocated on first use and
// reused; the host restores both with the rest of the memory.
var input, output []byte

// alloc returns the input buffer's address, 0 when it cannot hold n bytes.
//
//go:wasmexport holdfast_alloc
func alloc(n uint32) uint32 {
	if n > maxInput {
		return 0
	}
	if int(n) > cap(input) || input == nil {
		input = make([]byte, max(n, 4096))
	}
	input = input[:n]
	return address(input)
}

//go:wasmexport holdfast_abi_v1
func version() uint32 { return 0 }

//go:wasmexport holdfast_init
func initialise(_, n uint32) uint32 {
	if int(n) <= len(input) && configure(input[:n]) {
		return 0
	}
	return 1
}

//go:wasmexport holdfast_decide
func decideExport(_, n uint32) uint64 {
	if int(n) > len(input) {
		return 0
	}
	if output == nil {
		output = make([]byte, 0, 4096)
	}
	answer := decide(output[:0], input[:n])
	if len(answer) == 0 {
		return 0
	}
	output = answer
	return uint64(address(answer))<<32 | uint64(len(answer))
}

func address(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

//go:wasmimport holdfast_v1 log
func hostLog(level int32, text string)

//go:wasmimport holdfast_v1 now
func hostNow() int64

//go:wasmimport holdfast_v1 match
func hostMatch(pattern int32, text string) int32

// Log hands the host a message, which bounds it and keeps it beside the record.
func Log(level int32, text string) { hostLog(level, text) }

// Now returns the request's instant in nanoseconds since 1970. It does not move
// while a decision is made.
func Now() int64 { return hostNow() }

// Match reports whether the manifest's pattern of that number, from 0, matches
// text. The host runs it in time linear in the text. There is no such pattern:
// false.
func Match(pattern int, text string) bool { return hostMatch(int32(pattern), text) == 1 }
