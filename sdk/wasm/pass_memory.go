package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// defineMemory makes the module define and export its memory, imported or not,
// with a maximum of at most limit pages.
func (m *Module) defineMemory(limit uint32) {
	memory := m.memories[0]
	if !memory.hasMax || memory.max > limit {
		memory.max, memory.hasMax = limit, true
	}
	m.memories[0] = memory
	m.sections[sectionMemory] = section{}
	m.add(sectionMemory, appendU32(appendU32([]byte{1}, memory.min), memory.max))
	m.dropMemoryImport()
	if _, ok := m.export(abi.ExportMemory, kindMemory); !ok {
		m.addExport(abi.ExportMemory, kindMemory, 0)
	}
}

func (m *Module) dropMemoryImport() {
	kept := m.Imports[:0]
	m.sections[sectionImport] = section{}
	for _, imported := range m.Imports {
		if imported.kind != kindMemory {
			kept = append(kept, imported)
			m.add(sectionImport, imported.raw)
		}
	}
	m.Imports = kept
}
