package wasm

func appendU32(to []byte, v uint32) []byte {
	for v >= 0x80 {
		to = append(to, byte(v)|0x80)
		v >>= 7
	}
	return append(to, byte(v))
}

func appendS64(to []byte, v int64) []byte {
	for v < -0x40 || v > 0x3f {
		to = append(to, byte(v)&0x7f|0x80)
		v >>= 7
	}
	return append(to, byte(v)&0x7f)
}

func appendName(to []byte, name string) []byte {
	return append(appendU32(to, uint32(len(name))), name...)
}

// writeOrder is the order of sections in a file.
var writeOrder = [...]byte{
	sectionType, sectionImport, sectionFunction, sectionTable, sectionMemory, sectionGlobal,
	sectionExport, sectionStart, sectionElement, sectionDataCount, sectionCode, sectionData,
}

// Encode writes the module in canonical form: without custom and empty
// sections, with sizes and counts of sections and bodies in as few bytes as
// possible, and everything else byte for byte as it was read or as a pass left
// it. Encoding what Parse makes of the result gives the same bytes.
func (m *Module) Encode() []byte {
	m.sections[sectionCode].items = m.encodeCode()
	out := append(make([]byte, 0, 2*m.bytes), header...)
	for _, id := range writeOrder {
		s := m.sections[id]
		if s.count == 0 && id != sectionDataCount && id != sectionStart || s.offset == 0 {
			continue
		}
		count := appendU32(nil, uint32(s.count))
		out = append(out, id)
		out = appendU32(out, uint32(len(count)+len(s.items)))
		out = append(append(out, count...), s.items...)
	}
	return out
}

func (m *Module) encodeCode() []byte {
	items := make([]byte, 0, m.bytes)
	for _, f := range m.functions {
		groups := appendU32(nil, uint32(f.groups))
		items = appendU32(items, uint32(len(groups)+len(f.localDecls)+len(f.body)))
		items = append(append(append(items, groups...), f.localDecls...), f.body...)
	}
	return items
}

// add appends one element to a section, which may not exist yet.
func (m *Module) add(id int, element []byte) {
	s := &m.sections[id]
	if s.offset == 0 {
		s.offset = m.bytes
	}
	s.count++
	s.items = append(s.items, element...)
}

// addExport exports the thing of that kind and index under a name.
func (m *Module) addExport(name string, kind byte, index uint32) {
	m.add(sectionExport, appendU32(append(appendName(nil, name), kind), index))
	m.Exports = append(m.Exports, Export{Name: name, kind: kind, index: index})
}

// addGlobal defines an exported mutable global that begins as zero and returns its index.
func (m *Module) addGlobal(name string, t ValueType) uint32 { return m.addGlobalOf(name, t, 0) }

// addGlobalOf is addGlobal for one that begins as another value.
func (m *Module) addGlobalOf(name string, t ValueType, initial int64) uint32 {
	constant := byte(opI32Const)
	if t == I64 {
		constant = opI64Const
	}
	index := uint32(len(m.globals))
	m.add(sectionGlobal, append(appendS64([]byte{byte(t), 1, constant}, initial), opEnd))
	m.globals = append(m.globals, global{valueType: t, mutable: true})
	m.addExport(name, kindGlobal, index)
	return index
}
