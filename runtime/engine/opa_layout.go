package engine

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Types of OPA's values and their places in memory (opa's wasm/src/value.h). A
// module whose library lays them out otherwise is found by opaGuest.probe.
const (
	opaNull            = 1
	opaBoolean         = 2
	opaNumber          = 3
	opaString          = 4
	opaArray           = 5
	opaObject          = 6
	opaSet             = 7
	opaStringInterned  = 8
	opaBooleanInterned = 9

	opaNumberInt = 1 // 64 bits at opaNumberAt
	opaNumberRef = 2 // text and its length at opaNumberAt

	opaNumberAt   = 8  // in a number; the type is at 0, the form at 1
	opaLengthAt   = 4  // in a string, before the address of its text
	opaFieldAt    = 4  // in a collection: elements or buckets, then two numbers
	opaBlockBytes = 12 // in front of everything that opa_malloc gave
	opaMinBuckets = 8
)

// maxLayoutDepth bounds the recursion over a document.
const maxLayoutDepth = 200

// keptLayout is the most that an instance keeps for the next call, in bytes.
const keptLayout = 256 << 10

// A layout is the form that a JSON document has in an OPA module's memory, made
// by the host: the same values in the same order in the same buckets as the
// guest's own parser makes, at a fraction of the time. Texts without escapes
// are not copied again but point into the JSON, which it begins with.
type layout struct {
	base    uint32 // address of out[0]
	limit   int    // most bytes of out
	json    []byte
	at      int // in json
	out     []byte
	links   int      // elements of buckets that may still be passed
	items   []uint32 // of the arrays that are open
	members []member // of the objects that are open
}

// member is one member of an object: addresses of its name and value.
type member struct{ name, value, hash uint32 }

// build returns the address of the document, and false where the guest's own
// parser must say what it makes of it: not JSON, a name twice, too deep or large.
func (m *layout) build(base uint32, limit int, json []byte) (uint32, bool) {
	m.base, m.limit, m.json, m.at = base, limit, json, 0
	m.out = append(m.out[:0], json...)
	m.out = append(m.out, "\x00\x00\x00"[:-len(json)&3]...)
	m.links = 1024 + len(json)/4
	m.items, m.members = m.items[:0], m.members[:0]
	root, ok := m.value(0)
	m.space()
	return root, ok && m.at == len(json)
}

// forget drops what is not worth keeping, and the request.
func (m *layout) forget() {
	m.json = nil
	if cap(m.out) > keptLayout {
		*m = layout{}
	}
}

func (m *layout) space() {
	for m.at < len(m.json) && (m.json[m.at] == ' ' || m.json[m.at] == '\n' || m.json[m.at] == '\t' || m.json[m.at] == '\r') {
		m.at++
	}
}

// next takes the next byte that is not white space.
func (m *layout) next() byte {
	m.space()
	if m.at == len(m.json) {
		return 0
	}
	m.at++
	return m.json[m.at-1]
}

func (m *layout) value(depth int) (uint32, bool) {
	if depth > maxLayoutDepth || len(m.out) > m.limit {
		return 0, false
	}
	switch first := m.next(); first {
	case '{':
		return m.object(depth + 1)
	case '[':
		return m.array(depth + 1)
	case '"':
		return m.text()
	case 'n':
		return m.node(4, opaNull, 0), m.word("ull")
	case 't':
		return m.node(4, opaBoolean, 1), m.word("rue")
	case 'f':
		return m.node(4, opaBoolean, 0), m.word("alse")
	case 0:
		return 0, false
	default:
		return m.number()
	}
}

// alloc appends a block as opa_malloc lays it out, so that the guest may free
// it, and returns where in out its zeroed data begin.
func (m *layout) alloc(size int) int {
	switch {
	case size <= 4:
		size = 4
	case size <= 8:
		size = 8
	case size <= 16:
		size = 16
	case size <= 64:
		size = 64
	}
	at := len(m.out)
	end := at + opaBlockBytes + size
	m.out = slices.Grow(m.out, end-at)[:end]
	clear(m.out[at:])
	m.put(at, uint32(size))
	return at + opaBlockBytes
}

func (m *layout) put(at int, word uint32) { binary.LittleEndian.PutUint32(m.out[at:], word) }

func (m *layout) get(at int) uint32 { return binary.LittleEndian.Uint32(m.out[at:]) }

func (m *layout) address(at int) uint32 { return m.base + uint32(at) }

// node appends a value with its two leading bytes.
func (m *layout) node(size int, typ, second byte) uint32 {
	at := m.alloc(size)
	m.out[at], m.out[at+1] = typ, second
	return m.address(at)
}

func (m *layout) word(rest string) bool {
	if !bytes.HasPrefix(m.json[m.at:], []byte(rest)) {
		return false
	}
	m.at += len(rest)
	return true
}

// number reads one whose first byte was taken. Integers of at most 15 digits
// become numbers; all others keep their text, as the guest's parser does.
func (m *layout) number() (uint32, bool) {
	start := m.at - 1
	end, integer := scanNumber(m.json[start:])
	if end == 0 {
		return 0, false
	}
	m.at = start + end
	text := m.json[start:m.at]
	if integer && len(text) <= 15 && text[0] != '-' {
		n, _ := strconv.ParseInt(string(text), 10, 64)
		return m.integer(n), true
	}
	at := m.alloc(24)
	m.out[at], m.out[at+1] = opaNumber, opaNumberRef
	m.put(at+opaNumberAt, m.address(start))
	m.put(at+opaNumberAt+4, uint32(len(text)))
	return m.address(at), true
}

func (m *layout) integer(n int64) uint32 {
	at := m.alloc(24)
	m.out[at], m.out[at+1] = opaNumber, opaNumberInt
	binary.LittleEndian.PutUint64(m.out[at+opaNumberAt:], uint64(n))
	return m.address(at)
}

// scanNumber returns the length of the JSON number that text begins with, 0 for none.
func scanNumber(text []byte) (end int, integer bool) {
	digits := func() bool {
		from := end
		for end < len(text) && '0' <= text[end] && text[end] <= '9' {
			end++
		}
		return end > from
	}
	if text[0] == '-' {
		end++
	}
	first := end
	if !digits() || text[first] == '0' && end > first+1 {
		return 0, false
	}
	integer = true
	if end < len(text) && text[end] == '.' {
		end, integer = end+1, false
		if !digits() {
			return 0, false
		}
	}
	if end < len(text) && text[end]|0x20 == 'e' {
		end, integer = end+1, false
		if end < len(text) && (text[end] == '+' || text[end] == '-') {
			end++
		}
		if !digits() {
			return 0, false
		}
	}
	return end, integer
}

// text reads a string whose opening quote was taken.
func (m *layout) text() (uint32, bool) {
	start := m.at
	ascii := true
	for ; m.at < len(m.json); m.at++ {
		switch c := m.json[m.at]; {
		case c == '"':
			raw := m.json[start:m.at]
			m.at++
			return m.string(start, len(raw)), ascii || utf8.Valid(raw)
		case c == '\\':
			return m.escaped(start)
		case c < ' ':
			return 0, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return 0, false
}

// string appends a string whose text lies in out.
func (m *layout) string(text, length int) uint32 {
	at := m.alloc(12)
	m.out[at] = opaString
	m.put(at+opaLengthAt, uint32(length))
	m.put(at+opaLengthAt+4, m.address(text))
	return m.address(at)
}

// escaped reads a string that has escapes; its text is appended decoded.
func (m *layout) escaped(start int) (uint32, bool) {
	text := len(m.out)
	m.out = append(m.out, m.json[start:m.at]...)
	for m.at < len(m.json) {
		c := m.json[m.at]
		m.at++
		switch {
		case c == '"':
			length := len(m.out) - text
			m.out = append(m.out, "\x00\x00\x00"[:-len(m.out)&3]...)
			return m.string(text, length), utf8.Valid(m.out[text : text+length])
		case c < ' ':
			return 0, false
		case c != '\\':
			m.out = append(m.out, c)
		case !m.escape():
			return 0, false
		}
	}
	return 0, false
}

// escape decodes what follows a reverse solidus.
func (m *layout) escape() bool {
	if m.at == len(m.json) {
		return false
	}
	c := m.json[m.at]
	m.at++
	if c == 'u' {
		return m.unicode()
	}
	n := bytes.IndexByte([]byte(`"\/bfnrt`), c)
	if n < 0 {
		return false
	}
	m.out = append(m.out, "\"\\/\b\f\n\r\t"[n])
	return true
}

// unicode decodes four hexadecimal digits and the other half of a pair. A half
// that is alone is left to the guest's parser.
func (m *layout) unicode() bool {
	r, ok := m.unit()
	if ok && utf16.IsSurrogate(r) {
		if !m.word(`\u`) {
			return false
		}
		var low rune
		low, ok = m.unit()
		r = utf16.DecodeRune(r, low)
		ok = ok && r != utf8.RuneError
	}
	m.out = utf8.AppendRune(m.out, r)
	return ok
}

func (m *layout) unit() (rune, bool) {
	if len(m.json)-m.at < 4 {
		return 0, false
	}
	r, err := strconv.ParseUint(string(m.json[m.at:m.at+4]), 16, 16)
	m.at += 4
	return rune(r), err == nil
}

// array reads an array whose bracket was taken.
func (m *layout) array(depth int) (uint32, bool) {
	mark := len(m.items)
	if m.space(); m.at < len(m.json) && m.json[m.at] == ']' {
		m.at++
		return m.node(16, opaArray, 0), true
	}
	for {
		item, ok := m.value(depth)
		if !ok {
			return 0, false
		}
		m.items = append(m.items, item)
		switch m.next() {
		case ',':
		case ']':
			return m.closeArray(mark), true
		default:
			return 0, false
		}
	}
}

func (m *layout) closeArray(mark int) uint32 {
	length := len(m.items) - mark
	elements := m.alloc(8 * length)
	for n, item := range m.items[mark:] {
		m.put(elements+8*n, m.integer(int64(n)))
		m.put(elements+8*n+4, item)
	}
	m.items = m.items[:mark]
	return m.collection(opaArray, elements, length, length)
}

// collection appends the head of an array or an object.
func (m *layout) collection(typ byte, elements, first, second int) uint32 {
	at := m.alloc(16)
	m.out[at] = typ
	m.put(at+opaFieldAt, m.address(elements))
	m.put(at+opaFieldAt+4, uint32(first))
	m.put(at+opaFieldAt+8, uint32(second))
	return m.address(at)
}

// object reads an object whose brace was taken.
func (m *layout) object(depth int) (uint32, bool) {
	mark := len(m.members)
	if m.space(); m.at < len(m.json) && m.json[m.at] == '}' {
		m.at++
		return m.closeObject(mark)
	}
	for {
		if m.next() != '"' {
			return 0, false
		}
		name, ok := m.text()
		if !ok || m.next() != ':' {
			return 0, false
		}
		value, ok := m.value(depth)
		if !ok {
			return 0, false
		}
		m.members = append(m.members, member{name: name, value: value, hash: hashText(m.textOf(name))})
		switch m.next() {
		case ',':
		case '}':
			return m.closeObject(mark)
		default:
			return 0, false
		}
	}
}

// closeObject fills the buckets. A name that comes twice is reported as false, and
// so are names chosen to fall into one bucket: the guest pays for those.
func (m *layout) closeObject(mark int) (uint32, bool) {
	length := len(m.members) - mark
	count := buckets(length)
	table := m.alloc(4 * count)
	for _, one := range m.members[mark:] {
		element := m.alloc(12)
		m.put(element, one.name)
		m.put(element+4, one.value)
		if !m.insert(table+4*int(one.hash&uint32(count-1)), element) {
			return 0, false
		}
	}
	m.members = m.members[:mark]
	return m.collection(opaObject, table, count, length), true
}

// insert links an element into the bucket, which is ordered by name.
func (m *layout) insert(link, element int) bool {
	text := m.textOf(m.get(element))
	for m.get(link) != 0 {
		other := int(m.get(link) - m.base)
		order := bytes.Compare(text, m.textOf(m.get(other)))
		if m.links--; order == 0 || m.links < 0 {
			return false
		}
		if order < 0 {
			break
		}
		link = other + 8
	}
	m.put(element+8, m.get(link))
	m.put(link, m.address(element))
	return true
}

// textOf returns the text of a string of the layout.
func (m *layout) textOf(address uint32) []byte {
	at := int(address-m.base) + opaLengthAt
	from := int(m.get(at+4) - m.base)
	return m.out[from : from+int(m.get(at))]
}

// buckets returns how many an object of so many members has: it doubles them
// when seven tenths are taken.
func buckets(members int) int {
	n := opaMinBuckets
	for float64(members) > float64(n)*0.7 {
		n *= 2
	}
	return n
}

// hashText is the library's hash, an FNV-1 of 32 bits.
func hashText(text []byte) uint32 {
	hash := uint32(0x811c9dc5)
	for _, c := range text {
		hash = hash*0x01000193 ^ uint32(c)
	}
	return hash
}
