package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// exportStart makes the start function an export, so that the host calls it
// when the meters are set.
func (m *Module) exportStart() {
	if m.sections[sectionStart].offset == 0 {
		return
	}
	m.addExport(abi.ExportStart, kindFunc, uint32(m.sections[sectionStart].count))
	m.sections[sectionStart] = section{}
}
