package wasm

// ExportPayload is how an engine module says where it wants to be told of what
// Place put into its memory: a constant global with the address of two words of
// 32 bits, which Place sets to the payload's address and its length in bytes. No
// placed module exports it.
const ExportPayload = "holdfast_payload"

// Place returns the engine module with payload in its memory, behind all that the
// engine asks for itself: a data segment of its own, the memory's minimum raised
// by whole pages, and the words at ExportPayload set. Everything else is as
// Encode writes it, so that the same engine and payload give the same bytes. An
// engine without ExportPayload, and a result beyond the limits of the class, is
// refused; an error is always a *Refusal.
func Place(engine, payload []byte, class Class) ([]byte, error) {
	limits := class.Limits()
	m, err := Parse(engine, limits)
	if err != nil {
		return nil, err
	}
	slot, err := m.payloadSlot()
	if err != nil {
		return nil, err
	}
	at, err := m.raiseMemory(len(payload), limits)
	if err != nil {
		return nil, err
	}
	words := appendWord(appendWord(nil, at), uint32(len(payload)))
	m.addData(at, payload)
	m.addData(slot, words)
	m.dropExport(ExportPayload)
	placed := m.Encode()
	if _, err := Parse(placed, limits); err != nil {
		return nil, err
	}
	return placed, nil
}

// appendWord appends 32 bits as a memory has them.
func appendWord(to []byte, v uint32) []byte {
	return append(to, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

// payloadSlot returns the address that ExportPayload names.
func (m *Module) payloadSlot() (uint32, error) {
	exported, ok := m.export(ExportPayload, kindGlobal)
	if !ok {
		return 0, &Refusal{Offset: m.sections[sectionExport].offset, Item: "export " + ExportPayload, Reason: "is missing: not an engine module"}
	}
	refuse := func(reason string) (uint32, error) {
		return 0, &Refusal{Offset: exported.offset, Item: "export " + ExportPayload, Reason: reason}
	}
	imported := len(m.globals) - m.sections[sectionGlobal].count
	if int64(exported.index) >= int64(len(m.globals)) || int(exported.index) < imported {
		return refuse("is no global of the module's own")
	}
	if g := m.globals[exported.index]; g.mutable || g.valueType != I32 {
		return refuse("is not a constant i32")
	}
	items := m.sections[sectionGlobal].items
	r := &reader{data: items, end: len(items)}
	for range int(exported.index) - imported {
		r.bytes("global", 2)
		r.constant()
	}
	r.bytes("global", 2)
	if r.byte("global") != opI32Const {
		return refuse("is not a constant")
	}
	slot := uint32(r.signed("global", 32))
	if r.byte("global") != opEnd || r.err != nil {
		return refuse("is not a constant")
	}
	if len(m.memories) == 0 || uint64(slot)+8 > uint64(m.memories[0].min)*pageBytes {
		return refuse("its address lies outside of the memory")
	}
	return slot, nil
}

// raiseMemory makes room for n bytes behind the memory's minimum and returns
// where it begins.
func (m *Module) raiseMemory(n int, limits Limits) (uint32, error) {
	memory := &m.memories[0]
	if m.sections[sectionMemory].count != 1 {
		return 0, &Refusal{Item: "memory", Reason: "an engine module defines its own"}
	}
	most := min(limits.MemoryPages, mostPages-1)
	if memory.hasMax {
		most = min(most, int(memory.max))
	}
	pages := int(memory.min) + (n+pageBytes-1)/pageBytes
	if pages > most {
		return 0, &Refusal{Item: "memory for the payload, in pages", Value: uint64(pages), Limit: uint64(most), Reason: "too many"}
	}
	at := memory.min * pageBytes
	memory.min = uint32(pages)
	m.sections[sectionMemory].items = m.encodeMemory()
	return at, nil
}

// encodeMemory returns the element of the memory section.
func (m *Module) encodeMemory() []byte {
	memory := m.memories[0]
	if !memory.hasMax {
		return appendU32([]byte{0}, memory.min)
	}
	return appendU32(appendU32([]byte{1}, memory.min), memory.max)
}

// addData appends an active data segment.
func (m *Module) addData(at uint32, content []byte) {
	element := append(appendS64([]byte{0, opI32Const}, int64(int32(at))), opEnd)
	m.add(sectionData, append(appendU32(element, uint32(len(content))), content...))
	m.segments++
	if m.sections[sectionDataCount].offset != 0 {
		m.sections[sectionDataCount].count++
	}
}

// dropExport takes the exports of that name away.
func (m *Module) dropExport(name string) {
	kept := m.Exports[:0:0]
	offset := m.sections[sectionExport].offset
	m.sections[sectionExport] = section{offset: offset}
	for _, exported := range m.Exports {
		if exported.Name == name {
			continue
		}
		kept = append(kept, exported)
		m.add(sectionExport, appendU32(append(appendName(nil, exported.Name), exported.kind), exported.index))
	}
	m.Exports = kept
}
