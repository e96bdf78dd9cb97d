package wire

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Shape knows what Marshal writes for values of one type. It holds bytes
// against that without making a value, so that those who need only digests of
// what is inside need not pay for the rest. What it accepts, Unmarshal accepts;
// what it is not sure of it does not accept. Nor does it accept a document that
// has a member with the tag shape:"seldom", about which more is to be said than
// its form: that is left to those who make a value.
type Shape struct {
	root  *shape
	watch reflect.Type
}

// NewShape describes the type T and watches for values of the type W inside it.
// It panics for a type that Marshal does not write in a way that Shape knows.
func NewShape[T, W any]() *Shape {
	s := &Shape{watch: reflect.TypeFor[W]()}
	known := map[reflect.Type]*shape{}
	var err error
	if s.root, err = s.describe(reflect.TypeFor[T](), known); err != nil {
		panic(err) // our own type
	}
	return s
}

// Check reports whether doc is the deterministic encoding of a value of the
// shape's type, and appends the encodings of the watched type in it to found, in
// order. They share doc's memory.
func (s *Shape) Check(doc []byte, found [][]byte) ([][]byte, bool) {
	c := checker{doc: doc, found: found}
	ok := c.value(s.root, 0) && c.at == len(doc)
	return c.found, ok
}

// Unmarshal is Unmarshal for a value of the shape's type, and faster.
func (s *Shape) Unmarshal(doc []byte, v any) error {
	if _, ok := s.Check(doc, nil); ok {
		return modes().dec.Unmarshal(doc, v)
	}
	return Unmarshal(doc, v)
}

type form uint8

const (
	formAny form = iota
	formUint
	formInt
	formBool
	formFloat
	formBytes
	formText
	formName // text of a fixed list
	formList
	formMap // of text to any
	formStruct
)

type shape struct {
	form    form
	max     uint64 // of formUint; length of formBytes, 0 for any
	names   []string
	element *shape
	members []member // in the order of their encoded keys
	watched bool
}

type member struct {
	key      []byte // encoded
	value    *shape
	optional bool // left out when its encoding is empty
	seldom   bool // a document that has it is not accepted
}

var (
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	digestType    = reflect.TypeFor[Digest]()
)

func (s *Shape) describe(t reflect.Type, known map[reflect.Type]*shape) (*shape, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if have := known[t]; have != nil {
		return have, nil
	}
	out := &shape{watched: t == s.watch}
	known[t] = out
	switch {
	case t == digestType:
		out.form, out.max = formBytes, uint64(len(Digest{}))
		return out, nil
	case reflect.PointerTo(t).Implements(textMarshaler):
		return out, out.enumerate(t)
	}
	var err error
	switch t.Kind() {
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		out.form, out.max = formUint, math.MaxUint64>>(64-t.Bits())
	case reflect.Int64:
		out.form = formInt
	case reflect.Bool:
		out.form = formBool
	case reflect.Float64:
		out.form = formFloat
	case reflect.String:
		out.form = formText
	case reflect.Interface:
		out.form = formAny
	case reflect.Map:
		out.form = formMap
		if t.Key().Kind() != reflect.String || t.Elem().Kind() != reflect.Interface {
			err = errShape(t)
		}
	case reflect.Array:
		out.form, out.max = formBytes, uint64(t.Len())
		if t.Elem().Kind() != reflect.Uint8 {
			err = errShape(t)
		}
	case reflect.Slice:
		if out.form = formBytes; t.Elem().Kind() != reflect.Uint8 {
			out.form = formList
			out.element, err = s.describe(t.Elem(), known)
		}
	case reflect.Struct:
		out.form = formStruct
		out.members, err = s.fields(t, known)
	default:
		err = errShape(t)
	}
	return out, err
}

func errShape(t reflect.Type) error { return errors.New("wire: no shape for " + t.String()) }

// enumerate lists the names of a small type that writes itself as text.
func (o *shape) enumerate(t reflect.Type) error {
	o.form = formName
	if t.Kind() != reflect.Uint8 {
		return errShape(t)
	}
	for n := range 256 {
		v := reflect.New(t)
		v.Elem().SetUint(uint64(n))
		if name, err := v.Interface().(encoding.TextMarshaler).MarshalText(); err == nil {
			o.names = append(o.names, string(name))
		}
	}
	return nil
}

func (s *Shape) fields(t reflect.Type, known map[reflect.Type]*shape) (out []member, err error) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := strings.Split(f.Tag.Get("cbor"), ",")
		if tag[0] == "-" {
			continue
		}
		if tag[0] == "" || !f.IsExported() || slices.Contains(tag, "omitzero") {
			return nil, errShape(t)
		}
		m := member{optional: slices.Contains(tag, "omitempty"), seldom: f.Tag.Get("shape") == "seldom"}
		var key any = tag[0]
		if slices.Contains(tag, "keyasint") {
			if key, err = strconv.ParseUint(tag[0], 10, 32); err != nil {
				return nil, errShape(t)
			}
		}
		if m.key, err = Marshal(key); err != nil {
			return nil, err
		}
		if m.value, err = s.describe(f.Type, known); err != nil {
			return nil, err
		}
		if m.optional && f.Type.Kind() == reflect.Struct && slices.ContainsFunc(m.value.members, func(m member) bool { return !m.optional }) {
			return nil, errShape(f.Type) // when it is left out is not for its bytes alone to say
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b member) int { return bytes.Compare(a.key, b.key) })
	return out, nil
}

// A checker walks through one document.
type checker struct {
	doc   []byte
	at    int
	found [][]byte
}

// The major types of CBOR.
const (
	majorUint = iota
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

// head reads the head of an item, which must have its shortest form.
func (c *checker) head() (major byte, n uint64, ok bool) {
	if c.at >= len(c.doc) {
		return 0, 0, false
	}
	first := c.doc[c.at]
	c.at++
	major, low := first>>5, first&31
	if low < 24 {
		return major, uint64(low), true
	}
	size := 1 << (low - 24)
	if low > 27 || len(c.doc)-c.at < size {
		return 0, 0, false
	}
	b := c.doc[c.at : c.at+size]
	c.at += size
	switch size {
	case 1:
		n = uint64(b[0])
		ok = n >= 24
	case 2:
		n = uint64(binary.BigEndian.Uint16(b))
		ok = n > math.MaxUint8
	case 4:
		n = uint64(binary.BigEndian.Uint32(b))
		ok = n > math.MaxUint16
	default:
		n = binary.BigEndian.Uint64(b)
		ok = n > math.MaxUint32
	}
	return major, n, ok
}

// CutUint reads the unsigned integer of deterministic CBOR with which b begins.
func CutUint(b []byte) (n uint64, rest []byte, ok bool) {
	c := checker{doc: b}
	major, n, ok := c.head()
	return n, b[c.at:], ok && major == majorUint
}

// value takes one value of a shape inside of so many open arrays and maps.
func (c *checker) value(s *shape, depth int) bool {
	if depth > MaxGuestDepth { // below MaxDepth, to be sure
		return false
	}
	switch s.form {
	case formAny:
		return c.any(depth)
	case formFloat:
		return c.float()
	}
	start := c.at
	major, n, ok := c.head()
	if !ok {
		return false
	}
	switch s.form {
	case formUint:
		return major == majorUint && n <= s.max
	case formInt:
		return (major == majorUint || major == majorNegative) && n <= math.MaxInt64
	case formBool:
		return major == majorSimple && (n == 20 || n == 21) && c.at == start+1
	case formBytes:
		return major == majorBytes && (s.max == 0 || n == s.max) && c.skip(n)
	case formText:
		return major == majorText && c.text(n)
	case formName:
		return major == majorText && c.skip(n) && slices.Contains(s.names, string(c.doc[c.at-int(n):c.at]))
	case formList:
		ok = major == majorArray && n <= maxElements
		for ; ok && n > 0; n-- {
			ok = c.value(s.element, depth+1)
		}
		return ok
	case formMap:
		return major == majorMap && c.pairs(n, depth)
	}
	if major != majorMap || !c.members(s.members, n, depth) {
		return false
	}
	if s.watched {
		c.found = append(c.found, c.doc[start:c.at])
	}
	return true
}

// maxElements bounds arrays, as Unmarshal does.
const maxElements = 1 << 20

// members takes the n members of a struct.
func (c *checker) members(all []member, n uint64, depth int) bool {
	for i := range all {
		m := &all[i]
		if n == 0 || !bytes.HasPrefix(c.doc[c.at:], m.key) {
			if !m.optional {
				return false
			}
			continue
		}
		c.at += len(m.key)
		if m.seldom || m.optional && c.empty() || !c.value(m.value, depth+1) {
			return false
		}
		n--
	}
	return n == 0
}

// empty reports whether the next item is one that an optional member never is.
func (c *checker) empty() bool {
	if c.at >= len(c.doc) {
		return false
	}
	switch c.doc[c.at] {
	case 0x00, 0x40, 0x60, 0x80, 0xa0, 0xf4, 0xf6, 0xf7:
		return true
	case half:
		rest := c.doc[c.at+1:]
		return len(rest) >= 2 && rest[0]&0x7f == 0 && rest[1] == 0
	}
	return false
}

// any takes a value of unknown shape: what policies may hold.
func (c *checker) any(depth int) bool {
	if depth > MaxGuestDepth || c.at >= len(c.doc) {
		return false
	}
	if c.doc[c.at]>>5 == majorSimple {
		return c.simple()
	}
	major, n, ok := c.head()
	if !ok {
		return false
	}
	switch major {
	case majorUint, majorNegative:
		return n <= math.MaxInt64
	case majorBytes:
		return c.skip(n)
	case majorText:
		return c.text(n)
	case majorArray:
		ok = n <= maxElements
		for ; ok && n > 0; n-- {
			ok = c.any(depth + 1)
		}
		return ok
	case majorMap:
		return c.pairs(n, depth)
	}
	return false
}

// simple takes false, true, null or a float.
func (c *checker) simple() bool {
	if first := c.doc[c.at]; first >= 0xf4 && first <= 0xf6 {
		c.at++
		return true
	}
	return c.float()
}

// The first bytes of floats of 2, 4 and 8 bytes.
const (
	half   = 0xf9
	single = 0xfa
	double = 0xfb
)

// float takes a finite float that has no shorter form.
func (c *checker) float() bool {
	if c.at >= len(c.doc) {
		return false
	}
	rest := c.doc[c.at+1:]
	switch first := c.doc[c.at]; {
	case first == half && len(rest) >= 2:
		c.at += 3
		return rest[0]>>2&0x1f != 0x1f
	case first == single && len(rest) >= 4:
		c.at += 5
		f := math.Float32frombits(binary.BigEndian.Uint32(rest))
		return finite(float64(f)) && !fitsHalf(f)
	case first == double && len(rest) >= 8:
		c.at += 9
		f := math.Float64frombits(binary.BigEndian.Uint64(rest))
		return finite(f) && float64(float32(f)) != f
	}
	return false
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// fitsHalf reports whether a float has a form of 2 bytes: 11 significant bits
// from 2^-14 to 2^15, and multiples of 2^-24 below.
func fitsHalf(f float32) bool {
	scaled := math.Abs(float64(f)) * (1 << 24)
	switch {
	case scaled < 1<<10:
		return scaled == math.Trunc(scaled)
	case scaled >= 1<<40:
		return false
	}
	fraction, _ := math.Frexp(scaled)
	return fraction*(1<<11) == math.Trunc(fraction*(1<<11))
}

// pairs takes the n pairs of a map from text to anything, in order.
func (c *checker) pairs(n uint64, depth int) bool {
	if n > maxElements {
		return false
	}
	var last []byte
	for ; n > 0; n-- {
		start := c.at
		major, length, ok := c.head()
		if !ok || major != majorText || !c.text(length) {
			return false
		}
		key := c.doc[start:c.at]
		if last != nil && bytes.Compare(last, key) >= 0 {
			return false
		}
		last = key
		if !c.any(depth + 1) {
			return false
		}
	}
	return true
}

func (c *checker) skip(n uint64) bool {
	if n > uint64(len(c.doc)-c.at) {
		return false
	}
	c.at += int(n)
	return true
}

func (c *checker) text(n uint64) bool {
	return c.skip(n) && utf8.Valid(c.doc[c.at-int(n):c.at])
}
