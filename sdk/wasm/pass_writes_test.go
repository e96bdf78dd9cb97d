package wasm

import (
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// TestMarksEndWhereWaysMeet follows instructions behind a store through local 2.
func TestMarksEndWhereWaysMeet(t *testing.T) {
	m, err := Parse(newGuest().bytes(), Policy.Limits())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		code []byte
		want bool
	}{
		{"nothing", nil, true},
		{"a block begins", []byte{opBlock, blockEmpty}, true},
		{"an if begins", []byte{opI32Const, 1, opIf, blockEmpty}, true},
		{"a call", []byte{opI32Const, 1, opCall, 1, 0x1a}, true},
		{"another local", []byte{opI32Const, 1, opLocalSet, 3}, true},
		{"a loop begins", []byte{opLoop, blockEmpty}, false},
		{"a block ends", []byte{opBlock, blockEmpty, opEnd}, false},
		{"an else", []byte{opI32Const, 1, opIf, blockEmpty, opElse}, false},
		{"the local is set", []byte{opI32Const, 1, opLocalSet, 2}, false},
		{"the local is tee'd", []byte{opI32Const, 1, opLocalTee, 2}, false},
	} {
		k := marks{set: []mark{{local: 2, quantum: 64}}}
		r := &reader{data: c.code, end: len(c.code)}
		var in instruction
		for r.more() && r.next(&in) {
			k.follow(m, &in)
		}
		if got := k.covers(2, 64, 8); got != c.want || r.err != nil {
			t.Errorf("%s: covered %v, %v", c.name, got, r.err)
		}
	}
	k := marks{set: []mark{{local: 2, quantum: 64}}}
	for offset, want := range map[uint32]bool{63: false, 64: true, 64 + WriteSlack - 8: true, 64 + WriteSlack - 7: false} {
		if k.covers(2, offset, 8) != want {
			t.Errorf("offset %d: want %v", offset, want)
		}
	}
}

// The map has a byte for every block and for the place behind the memory.
func TestMapHoldsEveryBlock(t *testing.T) {
	for pages := uint32(1); pages <= 65_536; pages *= 2 {
		for _, n := range []uint32{pages - 1, pages, pages + 1} {
			shift := blockShift(n)
			if uint64(n)*pageBytes>>shift >= MapBytes {
				t.Errorf("%d pages: block %d is outside of the map", n, uint64(n)*pageBytes>>shift)
			}
		}
	}
}

func TestDataOffsetsAreMoved(t *testing.T) {
	for offset, want := range map[uint32]uint32{0: MapBytes, 5: MapBytes + 5, ^uint32(0): ^uint32(0), ^uint32(0) - MapBytes: ^uint32(0), ^uint32(0) - MapBytes + 1: ^uint32(0)} {
		if got := moved(offset); got != want {
			t.Errorf("%d: got %d, want %d", offset, got, want)
		}
	}
	g := newGuest()
	g.globals = [][]byte{{byte(I32), 0, opI32Const, 1, opEnd}}
	g.data = [][]byte{{0, opGlobalGet, 0, opEnd, 1, 'x'}}
	if _, err := Instrument(g.bytes(), Policy, abi.HoldfastV1); err == nil {
		t.Error("a segment whose place is not known was accepted")
	}
}
