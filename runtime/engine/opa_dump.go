package engine

import (
	"encoding/binary"
	"strconv"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// A dump writes a value in an OPA module's memory as JSON, as opa_json_dump
// does and in its order. The module may have made anything of its memory:
// nothing is followed out of bounds, deeper than maxLayoutDepth or beyond what an
// output may have.
type dump struct {
	memory []byte
	out    []byte
	steps  int // elements and buckets that may still be looked at
}

// maxDumpSteps bounds the work on collections that are mostly empty.
const maxDumpSteps = 4 * abi.MaxOutput

// json returns the text, and false where the guest's own writer must say what
// the value is. The text is valid until the next use.
func (d *dump) json(memory []byte, at uint32) ([]byte, bool) {
	d.memory, d.out, d.steps = memory, d.out[:0], maxDumpSteps
	ok := d.value(at, 0)
	d.memory = nil
	return d.out, ok
}

// bytes returns a view of the memory, nil if it is out of bounds.
func (d *dump) bytes(at, length uint32) []byte {
	end := uint64(at) + uint64(length)
	if end > uint64(len(d.memory)) {
		return nil
	}
	return d.memory[at:end:end]
}

func (d *dump) word(at uint32) (uint32, bool) {
	b := d.bytes(at, 4)
	if b == nil {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b), true
}

func (d *dump) value(at uint32, depth int) bool {
	head := d.bytes(at, 2)
	if head == nil || at == 0 || depth > maxLayoutDepth || len(d.out) > abi.MaxOutput {
		return false
	}
	switch head[0] {
	case opaNull:
		d.out = append(d.out, "null"...)
		return true
	case opaBoolean, opaBooleanInterned:
		d.out = strconv.AppendBool(d.out, head[1] != 0)
		return true
	case opaNumber:
		return d.number(at, head[1])
	case opaString, opaStringInterned:
		return d.string(at)
	}
	return d.collection(head[0], at, depth+1)
}

func (d *dump) collection(typ byte, at uint32, depth int) (ok bool) {
	brackets := "[]"
	if typ == opaObject {
		brackets = "{}"
	}
	d.out = append(d.out, brackets[0])
	switch typ {
	case opaArray:
		ok = d.array(at, depth)
	case opaObject, opaSet:
		ok = d.hashed(at, depth, typ == opaSet)
	}
	d.out = append(d.out, brackets[1])
	return ok
}

func (d *dump) number(at uint32, form byte) bool {
	field := d.bytes(at+opaNumberAt, 8)
	if field == nil {
		return false
	}
	if form == opaNumberInt {
		d.out = strconv.AppendInt(d.out, int64(binary.LittleEndian.Uint64(field)), 10)
		return true
	}
	text := d.bytes(binary.LittleEndian.Uint32(field), binary.LittleEndian.Uint32(field[4:]))
	if text == nil || form != opaNumberRef || len(text) > abi.MaxOutput {
		return false
	}
	d.out = append(d.out, text...)
	return true
}

func (d *dump) string(at uint32) bool {
	length, _ := d.word(at + opaLengthAt)
	address, ok := d.word(at + opaLengthAt + 4)
	text := d.bytes(address, length)
	if !ok || text == nil || len(text) > abi.MaxOutput {
		return false
	}
	d.out = append(d.out, '"')
	d.escape(text)
	d.out = append(d.out, '"')
	return true
}

// escape writes the text of a string as opa_json_dump escapes it.
func (d *dump) escape(text []byte) {
	const hex = "0123456789abcdef"
	plain := 0
	for n, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		d.out = append(d.out, text[plain:n]...)
		plain = n + 1
		switch c {
		case '"', '\\':
			d.out = append(d.out, '\\', c)
		case '\n':
			d.out = append(d.out, '\\', 'n')
		case '\r':
			d.out = append(d.out, '\\', 'r')
		case '\t':
			d.out = append(d.out, '\\', 't')
		default:
			d.out = append(d.out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	d.out = append(d.out, text[plain:]...)
}

func (d *dump) array(at uint32, depth int) bool {
	elements, _ := d.word(at + opaFieldAt)
	length, ok := d.word(at + opaFieldAt + 4)
	if d.steps -= int(length); !ok || d.steps < 0 {
		return false
	}
	for n := range length {
		if n > 0 {
			d.out = append(d.out, ',')
		}
		item, ok := d.word(elements + 8*n + 4)
		if !ok || !d.value(item, depth) {
			return false
		}
	}
	return true
}

// hashed writes the elements of an object or a set, bucket by bucket.
func (d *dump) hashed(at uint32, depth int, set bool) bool {
	table, _ := d.word(at + opaFieldAt)
	count, ok := d.word(at + opaFieldAt + 4)
	if d.steps -= int(count); !ok || d.steps < 0 {
		return false
	}
	first := true
	for n := range count {
		element, ok := d.word(table + 4*n)
		for ok && element != 0 {
			if d.steps--; d.steps < 0 {
				return false
			}
			if !first {
				d.out = append(d.out, ',')
			}
			first = false
			if element, ok = d.element(element, depth, set); !ok {
				return false
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// element writes one element and returns the next of its bucket, 0 behind the last.
func (d *dump) element(at uint32, depth int, set bool) (next uint32, ok bool) {
	first, _ := d.word(at)
	second, ok := d.word(at + 4)
	switch {
	case !ok:
		return 0, false
	case set:
		return second, d.value(first, depth)
	}
	if !d.name(first, depth) {
		return 0, false
	}
	d.out = append(d.out, ':')
	if !d.value(second, depth) {
		return 0, false
	}
	return d.word(at + 8)
}

// name writes the name of a member; what is not a string becomes the string of
// its JSON.
func (d *dump) name(at uint32, depth int) bool {
	if head := d.bytes(at, 1); head != nil && (head[0] == opaString || head[0] == opaStringInterned) {
		return d.string(at)
	}
	start := len(d.out)
	if !d.value(at, depth) || len(d.out) > abi.MaxOutput {
		return false
	}
	text := string(d.out[start:])
	d.out = append(d.out[:start], '"')
	d.escape([]byte(text))
	d.out = append(d.out, '"')
	return true
}
