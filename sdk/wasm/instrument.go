package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// A Pass is one rewriting step of Instrument. Each keeps a valid module valid and
// its behaviour, but for what the pass is there for.
type Pass uint8

// The passes in the order that Instrument applies them in.
const (
	DefineMemory    Pass = iota // the memory is defined, capped and exported
	ExportGlobals               // mutable globals are exported
	ExportStart                 // the start function is exported instead of run
	MeterFuel                   // fuel is charged; needs DefineMemory for modules that import theirs
	CanonicalFloats             // floats are the same on every processor
	MeterDepth                  // the depth of calls is counted
	TrackWrites                 // writes to memory are noted
	passes
)

func (m *Module) apply(pass Pass, limits Limits) error {
	switch pass {
	case DefineMemory:
		m.defineMemory(uint32(limits.MemoryPages))
	case ExportGlobals:
		m.exportGlobals()
	case ExportStart:
		m.exportStart()
	case MeterFuel:
		return m.meterFuel()
	case CanonicalFloats:
		return m.canonicalFloats()
	case MeterDepth:
		return m.meterDepth()
	case TrackWrites:
		return m.trackWrites()
	}
	return nil
}

// Instrument scans module and returns a metered copy of it, made by all passes.
// The meters begin at zero: nothing runs before the host has set them. The same
// bytes always give the same copy. An error is always a *Refusal.
func Instrument(module []byte, class Class, kind abi.Kind) ([]byte, error) {
	all := make([]Pass, passes)
	for i := range all {
		all[i] = Pass(i)
	}
	return Rewrite(module, class, kind, all...)
}

// Rewrite is Instrument with some of the passes only, for tests and for looking
// at what one of them does. The copy is not safe to run for a guest.
func Rewrite(module []byte, class Class, kind abi.Kind, passes ...Pass) ([]byte, error) {
	limits := class.Limits()
	m, err := Parse(module, limits)
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
	for _, pass := range passes {
		if err := m.apply(pass, limits); err != nil {
			return nil, err
		}
	}
	return m.Encode(), nil
}
