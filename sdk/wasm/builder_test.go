package wasm

// guest is a module in pieces, each already encoded, so that a test can break one.
type guest struct {
	types, imports, functions, tables, memories, globals, exports, elements, bodies, data [][]byte
	start, dataCount                                                                      []byte
	tail                                                                                  []byte // behind the last section
}

// newGuest returns the pieces of the smallest holdfast_v1 module.
func newGuest() *guest {
	return &guest{
		types:     [][]byte{typeOf("", "i"), typeOf("i", "i"), typeOf("ii", "I"), typeOf("", "")},
		functions: [][]byte{{0}, {1}, {2}},
		memories:  [][]byte{{0, 1}},
		exports: [][]byte{
			exportOf("memory", kindMemory, 0), exportOf("holdfast_abi_v1", kindFunc, 0),
			exportOf("holdfast_alloc", kindFunc, 1), exportOf("holdfast_decide", kindFunc, 2),
		},
		bodies: [][]byte{
			body(opI32Const, 0), body(opI32Const, 8), body(opI64Const, 0),
		},
	}
}

func typeOf(params, results string) []byte {
	encoded := []byte{0x60}
	for _, letters := range []string{params, results} {
		encoded = append(encoded, byte(len(letters)))
		for i := range len(letters) {
			encoded = append(encoded, byte(valueTypeOf(letters[i])))
		}
	}
	return encoded
}

func exportOf(name string, kind byte, index uint32) []byte {
	return appendU32(append(appendName(nil, name), kind), index)
}

func importOf(module, name string, description ...byte) []byte {
	return append(appendName(appendName(nil, module), name), description...)
}

// body encodes a function without locals; its end is added.
func body(code ...byte) []byte { return bodyWith([]byte{0}, code...) }

func bodyWith(locals []byte, code ...byte) []byte {
	inner := append(append(append([]byte{}, locals...), code...), opEnd)
	return append(appendU32(nil, uint32(len(inner))), inner...)
}

// addFunction appends a function of type 3, () -> ().
func (g *guest) addFunction(encoded []byte) *guest {
	g.functions = append(g.functions, []byte{3})
	g.bodies = append(g.bodies, encoded)
	return g
}

func vector(items [][]byte) []byte {
	encoded := appendU32(nil, uint32(len(items)))
	for _, one := range items {
		encoded = append(encoded, one...)
	}
	return encoded
}

func (g *guest) bytes() []byte {
	out := append([]byte{}, header...)
	for _, s := range []struct {
		id    byte
		items [][]byte
	}{
		{sectionType, g.types}, {sectionImport, g.imports}, {sectionFunction, g.functions}, {sectionTable, g.tables},
		{sectionMemory, g.memories}, {sectionGlobal, g.globals}, {sectionExport, g.exports},
		{sectionStart, nil}, {sectionElement, g.elements}, {sectionDataCount, nil}, {sectionCode, g.bodies}, {sectionData, g.data},
	} {
		content := map[byte][]byte{sectionStart: g.start, sectionDataCount: g.dataCount}[s.id]
		if len(s.items) > 0 {
			content = vector(s.items)
		}
		if len(content) > 0 {
			out = append(append(append(out, s.id), appendU32(nil, uint32(len(content)))...), content...)
		}
	}
	return append(out, g.tail...)
}
