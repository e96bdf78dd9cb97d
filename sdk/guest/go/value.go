package guest

import (
	"iter"
	"math"
	"unsafe"
)

// MaxDepth bounds the nesting of a document that Parse accepts.
const MaxDepth = 40

// A Kind says what a Value is.
type Kind uint8

// The kinds. Absent is the zero Value: a member that is not there.
const (
	Absent Kind = iota
	Null
	Bool
	Int
	Float
	String
	List
	Map
)

// A Value is a view into a CBOR document that Parse has checked. It copies
// nothing: a Value and the strings it returns are valid as long as the document,
// for a policy that is one call. The zero Value is Absent, and every method of
// an absent Value, or of one of another kind, returns the zero of its result.
type Value struct{ doc []byte }

// Parse checks that doc is exactly one well-formed item of the CBOR that
// Holdfast writes - definite lengths, text keys, no tags, no byte strings, at
// most MaxDepth levels - and returns it.
func Parse(doc []byte) (Value, bool) {
	n, ok := wellFormed(doc, 0)
	if !ok || n != len(doc) {
		return Value{}, false
	}
	return Value{doc}, true
}

// CBOR major types, shifted down.
const (
	majorUint   = 0
	majorNegint = 1
	majorText   = 3
	majorArray  = 4
	majorMap    = 5
	majorSimple = 7
)

// head reads an item's initial byte and argument; size 0 is malformed.
func head(b []byte) (major byte, arg uint64, size int) {
	if len(b) > 0 && b[0]&31 < 24 {
		return b[0] >> 5, uint64(b[0] & 31), 1
	}
	return longHead(b)
}

// longHead reads a head whose argument stands in the bytes that follow.
func longHead(b []byte) (major byte, arg uint64, size int) {
	if len(b) == 0 || b[0]&31 > 27 { // an indefinite length is not ours
		return 0, 0, 0
	}
	n := 1 << (b[0]&31 - 24)
	if len(b) < 1+n {
		return 0, 0, 0
	}
	for _, c := range b[1 : 1+n] {
		arg = arg<<8 | uint64(c)
	}
	return b[0] >> 5, arg, 1 + n
}

// wellFormed returns the length of the first item of b.
func wellFormed(b []byte, depth int) (int, bool) {
	major, arg, n := head(b)
	if n == 0 || depth > MaxDepth {
		return 0, false
	}
	switch major {
	case majorUint, majorNegint:
		return n, arg <= math.MaxInt64
	case majorText:
		if arg > uint64(len(b)-n) {
			return 0, false
		}
		return n + int(arg), true
	case majorSimple:
		return n, n > 1 && b[0] != 0xf8 || arg >= 20 && arg <= 22 && n == 1
	case majorArray, majorMap:
		return wellFormedItems(b, n, arg, depth, major == majorMap)
	default:
		return 0, false
	}
}

func wellFormedItems(b []byte, n int, count uint64, depth int, pairs bool) (int, bool) {
	if count > uint64(len(b)) {
		return 0, false
	}
	for range count {
		if pairs {
			key, ok := wellFormed(b[n:], depth+1)
			if !ok || b[n]>>5 != majorText {
				return 0, false
			}
			n += key
		}
		item, ok := wellFormed(b[n:], depth+1)
		if !ok {
			return 0, false
		}
		n += item
	}
	return n, true
}

// skip returns the length of the first item of a checked document.
func skip(b []byte) int {
	n := 0
	for left := uint64(1); left > 0; left-- {
		major, arg, size := head(b[n:])
		n += size
		switch major {
		case majorText:
			n += int(arg)
		case majorArray:
			left += arg
		case majorMap:
			left += 2 * arg
		}
	}
	return n
}

// Kind returns what the value is.
func (v Value) Kind() Kind {
	if len(v.doc) == 0 {
		return Absent
	}
	switch b := v.doc[0]; b >> 5 {
	case majorUint, majorNegint:
		return Int
	case majorText:
		return String
	case majorArray:
		return List
	case majorMap:
		return Map
	default:
		switch b {
		case 0xf4, 0xf5:
			return Bool
		case 0xf6:
			return Null
		case 0xf9, 0xfa, 0xfb:
			return Float
		}
		return Absent
	}
}

// Exists reports whether the value is there; null is.
func (v Value) Exists() bool { return v.Kind() != Absent }

// Bool returns a boolean.
func (v Value) Bool() bool { return len(v.doc) > 0 && v.doc[0] == 0xf5 }

// Int returns an integer.
func (v Value) Int() int64 {
	major, arg, _ := head(v.doc)
	switch {
	case v.Kind() != Int:
		return 0
	case major == majorNegint:
		return -1 - int64(arg)
	default:
		return int64(arg)
	}
}

// Float returns a number of either kind; integers beyond 2^53 are rounded.
func (v Value) Float() float64 {
	_, arg, _ := head(v.doc)
	switch v.Kind() {
	case Int:
		return float64(v.Int())
	case Float:
		switch v.doc[0] {
		case 0xf9:
			return half(uint16(arg))
		case 0xfa:
			return float64(math.Float32frombits(uint32(arg)))
		default:
			return math.Float64frombits(arg)
		}
	}
	return 0
}

// half widens an IEEE 754 binary16.
func half(h uint16) float64 {
	exp, frac := int(h>>10&31), float64(h&1023)
	var f float64
	switch exp {
	case 0:
		f = math.Ldexp(frac, -24)
	case 31:
		f = math.Inf(1)
		if frac != 0 {
			f = math.NaN()
		}
	default:
		f = math.Ldexp(frac+1024, exp-25)
	}
	if h>>15 == 1 {
		return -f
	}
	return f
}

// Text returns a string, without copying it.
func (v Value) Text() string {
	if v.Kind() != String {
		return ""
	}
	_, arg, n := head(v.doc)
	if arg == 0 {
		return ""
	}
	return unsafe.String(&v.doc[n], int(arg))
}

// Len returns the number of bytes of a string, items of a list or members of a map.
func (v Value) Len() int {
	switch v.Kind() {
	case String, List, Map:
		_, arg, _ := head(v.doc)
		return int(arg)
	}
	return 0
}

// Get returns a map's member, or Absent.
func (v Value) Get(key string) Value {
	if v.Kind() != Map {
		return Value{}
	}
	_, count, n := head(v.doc)
	for range count {
		_, length, size := head(v.doc[n:])
		name := v.doc[n+size : n+size+int(length)]
		n += size + int(length)
		item := skip(v.doc[n:])
		if string(name) == key {
			return Value{v.doc[n : n+item]}
		}
		n += item
	}
	return Value{}
}

// Path returns what is found by following the keys through maps, or Absent.
func (v Value) Path(keys ...string) Value {
	for _, k := range keys {
		v = v.Get(k)
	}
	return v
}

// Items yields a list's items in their order.
func (v Value) Items() iter.Seq2[int, Value] {
	return func(yield func(int, Value) bool) {
		if v.Kind() != List {
			return
		}
		_, count, n := head(v.doc)
		for i := range int(count) {
			size := skip(v.doc[n:])
			if !yield(i, Value{v.doc[n : n+size]}) {
				return
			}
			n += size
		}
	}
}

// Members yields a map's members in the document's order.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.Kind() != Map {
			return
		}
		_, count, n := head(v.doc)
		for range count {
			key := skip(v.doc[n:])
			name := Value{v.doc[n : n+key]}.Text()
			n += key
			size := skip(v.doc[n:])
			if !yield(name, Value{v.doc[n : n+size]}) {
				return
			}
			n += size
		}
	}
}
