package engine

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// A dump writes a value in an OPA module's memory as JSON, as opa_json_dump
// does and in its order, but for sets, which are sorted. The module may have made anything of its memory:
// nothing is followed out of bounds, deeper than maxLayoutDepth or beyond what an
// output may have.
type dump struct {
	memory []byte
	out    []byte
	texts  [][]byte // of the set that is written
	steps  int      // elements and buckets that may still be looked at
}

// maxDumpSteps bounds the work on collections that are mostly empty.
const maxDumpSteps = 4 * abi.MaxOutput

// maxSetTexts is how many strings of a set are sorted here.
const maxSetTexts = 1 << 10

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
		text, ok := d.text(at)
		d.quote(text)
		return ok
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
	case opaObject:
		ok = d.object(at, depth)
	case opaSet:
		ok = d.set(at)
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

// text returns the text of a string, and false for anything else.
func (d *dump) text(at uint32) ([]byte, bool) {
	head := d.bytes(at, 1)
	if head == nil || head[0] != opaString && head[0] != opaStringInterned {
		return nil, false
	}
	length, _ := d.word(at + opaLengthAt)
	address, ok := d.word(at + opaLengthAt + 4)
	text := d.bytes(address, length)
	return text, ok && text != nil && len(text) <= abi.MaxOutput
}

func (d *dump) quote(text []byte) {
	d.out = append(d.out, '"')
	d.escape(text)
	d.out = append(d.out, '"')
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

// each calls yield for every element of an object or a set, bucket by bucket,
// and stops when it returns false. next is where an element has the one behind it.
func (d *dump) each(at, next uint32, yield func(element uint32) bool) bool {
	table, _ := d.word(at + opaFieldAt)
	count, ok := d.word(at + opaFieldAt + 4)
	if d.steps -= int(count); !ok || d.steps < 0 {
		return false
	}
	for n := range count {
		element, ok := d.word(table + 4*n)
		for ok && element != 0 {
			if d.steps--; d.steps < 0 || !yield(element) {
				return false
			}
			element, ok = d.word(element + next)
		}
		if !ok {
			return false
		}
	}
	return true
}

func (d *dump) object(at uint32, depth int) bool {
	first := true
	return d.each(at, 8, func(element uint32) bool {
		if !first {
			d.out = append(d.out, ',')
		}
		first = false
		name, _ := d.word(element)
		value, ok := d.word(element + 4)
		if !ok || !d.name(name, depth) {
			return false
		}
		d.out = append(d.out, ':')
		return d.value(value, depth)
	})
}

// set writes a set of strings in their order. What order others have is not known
// here.
func (d *dump) set(at uint32) bool {
	texts, length := d.texts[:0], len(d.out)
	ok := d.each(at, 4, func(element uint32) bool {
		value, ok := d.word(element)
		text, isText := d.text(value)
		texts, length = append(texts, text), length+len(text)
		return ok && isText && len(texts) <= maxSetTexts && length <= abi.MaxOutput
	})
	if ok {
		slices.SortFunc(texts, bytes.Compare)
		for n, text := range texts {
			if n > 0 {
				d.out = append(d.out, ',')
			}
			d.quote(text)
		}
	}
	clear(texts)
	d.texts = texts[:0]
	return ok
}

// name writes the name of a member; what is not a string becomes the string of
// its JSON.
func (d *dump) name(at uint32, depth int) bool {
	if text, ok := d.text(at); ok {
		d.quote(text)
		return true
	}
	start := len(d.out)
	if !d.value(at, depth) || len(d.out) > abi.MaxOutput {
		return false
	}
	text := string(d.out[start:])
	d.out = d.out[:start]
	d.quote([]byte(text))
	return true
}
