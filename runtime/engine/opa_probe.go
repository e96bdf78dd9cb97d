package engine

import (
	"bytes"
	"encoding/binary"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// probeDocument has every kind of value, and objects that outgrow their first buckets.
const probeDocument = ` {"null":null,"true":true,"false":false,"zero":0,"int":123456789012345,"minus":-7,"long":9223372036854775810,
"float":-1.50e+3,"":"","text":"plain","caf\u00e9":"\u00fc \ud83d\ude00","escapes":"\"\\\/\b\f\n\r\t\u0001","array":[1,[],{},[true,"x"],
null,5,6,7,8,9,10,11,12],"object":{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":10,"k":11,"l":12,"m":{"n":{}}}} `

// maxProbeSteps bounds what the comparison of two values looks at: values, places
// of collections and bytes of text.
const maxProbeSteps = 1 << 14

// probe finds out whether this module's library keeps values and the evaluation
// context where layout and dump expect them: both sides make the same document
// and write it, and neither may differ. It leaves no trace in the memory.
func (g *opaGuest) probe(i *instance) (bool, *abi.Trap) {
	heap := i.module.opa.heap
	input := []byte(probeDocument)
	ours, ok := g.layout.build(uint32(heap), opaHeadroom/4, input)
	before := bytes.Clone(i.behind(heap))
	defer func() { copy(i.behind(heap), before) }()
	if !ok || !i.write(uint32(heap), g.layout.out) {
		return false, nil
	}
	theirs, trap := g.parse(i, align(heap+uint64(len(g.layout.out))), input)
	if trap != nil {
		return false, trap
	}
	text, trap := g.written(i, theirs)
	if trap != nil {
		return false, trap
	}
	d := dump{}
	text = bytes.Clone(text)
	memory, _ := i.memory.Read(0, i.memory.Size())
	mine, ok := d.json(memory, ours)
	same := ok && bytes.Equal(mine, text) && (&twins{dump{memory: memory, steps: maxProbeSteps}}).same(ours, uint32(theirs))
	fields, trap := g.probeContext(i)
	if trap != nil {
		return false, trap
	}
	_, trap = i.run(g.heapSet, heap)
	return same && fields, trap
}

// probeBytes is more than what a probe writes.
const probeBytes = 64 << 10

// behind returns the memory from an address on, as far as a probe writes.
func (i *instance) behind(at uint64) []byte {
	rest, _ := i.memory.Read(uint32(at), min(i.memory.Size()-uint32(at), probeBytes))
	return rest
}

// probeContext reports whether the evaluation context's fields are where we write them.
func (g *opaGuest) probeContext(i *instance) (bool, *abi.Trap) {
	const one, two, three = 0x01020304, 0x05060708, 0x090a0b0c
	at := i.module.opa.context
	if _, trap := i.run(g.setInput, at, one); trap != nil {
		return false, trap
	}
	if _, trap := i.run(g.setEntrypoint, at, two); trap != nil {
		return false, trap
	}
	fields, ok := i.writable(uint32(at), 16)
	if !ok {
		return false, nil
	}
	binary.LittleEndian.PutUint32(fields[contextResult:], three)
	result, trap := i.run(g.result, at)
	known := binary.LittleEndian.Uint32(fields[contextInput:]) == one &&
		binary.LittleEndian.Uint32(fields[contextEntrypoint:]) == two && uint32(result) == three
	for _, field := range []int{contextInput, contextResult, contextEntrypoint} {
		binary.LittleEndian.PutUint32(fields[field:], 0)
	}
	return known, trap
}

// twins compares two values of one memory down to their buckets. Numbers are
// compared by their text.
type twins struct{ dump }

func (t *twins) same(a, b uint32) bool {
	typ := t.typ(a)
	if t.steps--; t.steps < 0 || typ == 0 || typ != t.typ(b) {
		return false
	}
	switch typ {
	case opaArray:
		return t.sameArrays(a, b)
	case opaObject:
		return t.sameObjects(a, b)
	case opaSet: // JSON has none
		return false
	}
	var d dump
	one, ok := d.json(t.memory, a)
	one = bytes.Clone(one)
	t.steps -= len(one)
	other, okay := d.json(t.memory, b)
	return ok && okay && bytes.Equal(one, other)
}

// typ returns the type of a value, interned ones as the others, 0 out of bounds.
func (t *twins) typ(at uint32) byte {
	head := t.bytes(at, 1)
	switch {
	case head == nil:
		return 0
	case head[0] == opaStringInterned:
		return opaString
	case head[0] == opaBooleanInterned:
		return opaBoolean
	}
	return head[0]
}

// field reads the nth word behind the head of a collection.
func (t *twins) field(at uint32, n uint32) uint32 {
	word, _ := t.word(at + opaFieldAt + 4*n)
	return word
}

func (t *twins) sameArrays(a, b uint32) bool {
	if t.field(a, 1) != t.field(b, 1) {
		return false
	}
	if t.steps -= int(t.field(a, 1)); t.steps < 0 {
		return false
	}
	for n := range t.field(a, 1) {
		for _, half := range []uint32{0, 4} {
			left, ok := t.word(t.field(a, 0) + 8*n + half)
			right, okay := t.word(t.field(b, 0) + 8*n + half)
			if !ok || !okay || !t.same(left, right) {
				return false
			}
		}
	}
	return true
}

func (t *twins) sameObjects(a, b uint32) bool {
	if t.field(a, 1) != t.field(b, 1) || t.field(a, 2) != t.field(b, 2) {
		return false
	}
	if t.steps -= int(t.field(a, 1)); t.steps < 0 {
		return false
	}
	for n := range t.field(a, 1) {
		left, _ := t.word(t.field(a, 0) + 4*n)
		right, _ := t.word(t.field(b, 0) + 4*n)
		for left != 0 && right != 0 {
			if !t.sameMembers(left, right) {
				return false
			}
			left, _ = t.word(left + 8)
			right, _ = t.word(right + 8)
		}
		if left != right {
			return false
		}
	}
	return true
}

func (t *twins) sameMembers(a, b uint32) bool {
	for _, half := range []uint32{0, 4} {
		left, ok := t.word(a + half)
		right, okay := t.word(b + half)
		if !ok || !okay || !t.same(left, right) {
			return false
		}
	}
	return true
}
