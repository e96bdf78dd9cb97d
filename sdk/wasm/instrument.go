package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// Instrument scans module and returns a metered copy of it: the same module
// with its memory defined and capped, its mutable globals exported, its start
// function exported instead of run, fuel charged, floats the same on every
// processor, call depth counted and writes noted. The meters begin at zero:
// nothing runs before the host has set them. The same bytes always give the same
// copy. An error is always a *Refusal.
func Instrument(module []byte, class Class, kind abi.Kind) ([]byte, error) {
	m, err := Parse(module, class.Limits())
	if err != nil {
		return nil, err
	}
	report, err := m.scan(class)
	if err != nil {
		return nil, err
	}
	if report.ABI != kind {
		return nil, &Refusal{Item: "module", Reason: "speaks " + string(report.ABI) + ", not " + string(kind)}
	}
	m.defineMemory(uint32(class.Limits().MemoryPages))
	m.exportGlobals()
	m.exportStart()
	for _, pass := range []func() error{m.meterFuel, m.canonicalFloats, m.meterDepth, m.trackWrites} {
		if err := pass(); err != nil {
			return nil, err
		}
	}
	return m.Encode(), nil
}
