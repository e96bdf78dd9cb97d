package backend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sections of the binary format.
const (
	sectionCustom   = 0
	sectionType     = 1
	sectionImport   = 2
	sectionFunction = 3
	sectionTable    = 4
	sectionGlobal   = 6
	sectionExport   = 7
	sectionStart    = 8
	sectionElement  = 9
	sectionCode     = 10
	sectionData     = 11

	kindMemory = 2
)

var magic = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// module is a module that OPA's compiler wrote, cut into the parts that are
// added to or replaced. What the back end leaves alone stays as it was encoded.
type module struct {
	types, globals []byte // contents of their sections
	exports        []byte
	imports        [][]byte
	functionImport int
	functions      []byte // type indices, one byte string
	functionCount  int
	tableMin       uint32
	segments       []byte // element segments
	segmentCount   int
	elements       uint32 // of the table that are taken
	bodies         [][]byte
	data           []segment
	names          map[string]uint32
}

type segment struct {
	offset uint32
	init   []byte
}

// reader reads OPA's own output. Anything unexpected is an error of this
// package's knowledge of OPA, not of the user's.
type reader struct {
	data []byte
	err  error
}

var errShape = errors.New("OPA's module has another shape than this version of the back end knows")

func (r *reader) u32() uint32 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 || v > 1<<32-1 {
		r.fail()
		return 0
	}
	r.data = r.data[n:]
	return uint32(v)
}

func (r *reader) fail() { r.data, r.err = nil, errShape }

func (r *reader) byte() byte {
	b := r.take(1)
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.data)) {
		r.fail()
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) name() string { return string(r.take(r.u32())) }

// constant reads a constant expression: one i32.const.
func (r *reader) constant() uint32 {
	if r.byte() != opI32Const {
		r.fail()
	}
	v := r.s32()
	if r.byte() != opEnd {
		r.fail()
	}
	return v
}

func (r *reader) s32() uint32 {
	var v int64
	for shift := uint(0); r.err == nil && shift < 35; shift += 7 {
		b := r.byte()
		v |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			if b&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			break
		}
	}
	return uint32(v)
}

// readModule cuts a module of OPA's compiler.
func readModule(raw []byte) (*module, error) {
	if !bytes.HasPrefix(raw, magic) {
		return nil, errShape
	}
	m := &module{names: map[string]uint32{}}
	r := &reader{data: raw[len(magic):]}
	for len(r.data) > 0 && r.err == nil {
		id := r.byte()
		section := &reader{data: r.take(r.u32())}
		if m.section(id, section); section.err != nil {
			return nil, fmt.Errorf("section %d: %w", id, section.err)
		}
	}
	return m, r.err
}

func (m *module) section(id byte, r *reader) {
	switch id {
	case sectionCustom:
		if r.name() == "name" {
			m.readNames(r)
		}
	case sectionType:
		m.types = r.data
	case sectionImport:
		m.readImports(r)
	case sectionFunction:
		m.functionCount = int(r.u32())
		m.functions = r.data
	case sectionTable:
		m.readTable(r)
	case sectionGlobal:
		m.globals = r.data
	case sectionExport:
		m.exports = r.data
	case sectionStart:
	case sectionElement:
		m.readElements(r)
	case sectionCode:
		for range r.u32() {
			m.bodies = append(m.bodies, r.take(r.u32()))
		}
	case sectionData:
		for range r.u32() {
			r.u32()
			m.data = append(m.data, segment{r.constant(), r.take(r.u32())})
		}
	default:
		r.fail()
	}
}

// readImports keeps the functions; the memory is imported anew.
func (m *module) readImports(r *reader) {
	for range r.u32() {
		from := r.data
		r.name()
		r.name()
		if r.byte() == kindMemory {
			flags := r.byte()
			r.u32()
			if flags != 0 {
				r.fail()
			}
			continue
		}
		r.u32()
		m.imports = append(m.imports, from[:len(from)-len(r.data)])
	}
	m.functionImport = len(m.imports)
}

func (m *module) readTable(r *reader) {
	if r.u32() != 1 || r.byte() != 0x70 || r.byte() != 1 {
		r.fail()
	}
	m.tableMin = r.u32()
}

// readElements keeps all segments but the last, which names the functions of
// the policy that OPA compiled.
func (m *module) readElements(r *reader) {
	m.segmentCount = int(r.u32()) - 1
	whole := r.data
	for range m.segmentCount {
		r.u32()
		at, n := r.constant(), r.u32()
		for range n {
			r.u32()
		}
		m.elements = max(m.elements, at+n)
	}
	if r.err == nil {
		m.segments = whole[:len(whole)-len(r.data)]
	}
}

// readNames reads the functions' names. Of two that are the same the first is
// kept, as OPA does.
func (m *module) readNames(r *reader) {
	for len(r.data) > 0 && r.err == nil {
		id := r.byte()
		part := &reader{data: r.take(r.u32())}
		if id != 1 {
			continue
		}
		for range part.u32() {
			index, name := part.u32(), part.name()
			if _, ok := m.names[name]; !ok {
				m.names[name] = index
			}
		}
		r.err = errors.Join(r.err, part.err)
	}
}

// dataEnd is the first address behind the data.
func (m *module) dataEnd() uint32 {
	end := uint32(0)
	for _, s := range m.data {
		end = max(end, s.offset+uint32(len(s.init)))
	}
	return end
}

// firstCall returns the function that a body calls first.
func firstCall(body []byte) (uint32, error) {
	r := &reader{data: body}
	for range r.u32() {
		r.u32()
		r.byte()
	}
	for r.err == nil {
		switch r.byte() {
		case opBlock:
			r.byte()
		case opI32Const:
			r.s32()
		case opLocalGet, opLocalSet, opLocalTee:
			r.u32()
		case opCall:
			return r.u32(), r.err
		default:
			r.fail()
		}
	}
	return 0, r.err
}
