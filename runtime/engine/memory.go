package engine

import (
	"bytes"

	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// guestMemory is the memory of an instance as the guest addresses it. The map of
// written blocks lies before the guest's address 0.
type guestMemory struct {
	whole api.Memory
	shift uint32 // a guest's address shifted right by it is a block
}

// Size returns the guest's bytes.
func (g guestMemory) Size() uint32 { return g.whole.Size() - wasm.MapBytes }

// Grow adds pages and reports whether the memory's maximum allows it.
func (g guestMemory) Grow(pages uint32) bool {
	_, ok := g.whole.Grow(pages)
	return ok
}

// Read returns a view for reading.
func (g guestMemory) Read(at, length uint32) ([]byte, bool) {
	if at > ^uint32(0)-wasm.MapBytes {
		return nil, false
	}
	return g.whole.Read(at+wasm.MapBytes, length)
}

// Writable returns a view for writing and marks its blocks.
func (g guestMemory) Writable(at, length uint32) ([]byte, bool) {
	view, ok := g.Read(at, length)
	if !ok || length == 0 {
		return view, ok
	}
	marks := g.marks()[at>>g.shift : (at+length-1)>>g.shift+1]
	for i := range marks {
		marks[i] = 1
	}
	return view, true
}

// all returns the whole memory, the map included.
func (g guestMemory) all() []byte {
	all, _ := g.whole.Read(0, g.whole.Size())
	return all
}

// marks returns the map, with one byte for each block of the guest's memory.
func (g guestMemory) marks() []byte {
	marks, _ := g.whole.Read(0, g.Size()>>g.shift)
	return marks
}

// restore copies the marked blocks back from an image of the whole memory and
// clears the map.
func (g guestMemory) restore(image []byte) {
	memory := g.all()
	marks := memory[:g.Size()>>g.shift]
	memory, image = memory[wasm.MapBytes:], image[wasm.MapBytes:]
	for next := 0; ; {
		skipped := bytes.IndexByte(marks[next:], 1)
		if skipped < 0 {
			return
		}
		first := next + skipped
		for next = first; next < len(marks) && marks[next] != 0; next++ {
			marks[next] = 0
		}
		from, to := first<<g.shift, min(next<<g.shift+wasm.WriteSlack, len(memory))
		copy(memory[from:to], image[from:to])
	}
}

// allZero compares the bytes with themselves, one further on.
func allZero(b []byte) bool { return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }
