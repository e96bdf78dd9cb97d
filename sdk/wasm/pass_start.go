package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// exportStart exports the start function, so that the host calls it when the
// meters are set; encode writes no start section.
func (m *Module) exportStart() {
	if m.hasStart {
		m.addExport(abi.ExportStart, kindFunc, m.start)
	}
}
