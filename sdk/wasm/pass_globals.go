package wasm

import (
	"strconv"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// exportGlobals exports every mutable global as ExportGlobal and a number that
// counts from 0, so that the host can restore it.
func (m *Module) exportGlobals() {
	n := 0
	for i, g := range m.globals {
		if g.mutable {
			m.addExport(abi.ExportGlobal+strconv.Itoa(n), kindGlobal, uint32(i))
			n++
		}
	}
}
