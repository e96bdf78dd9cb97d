package wasm

import (
	"sort"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// Scan judges module without running or compiling anything: its structure, the
// limits of its class, and that it speaks one ABI exactly, importing nothing
// else. An error is always a *Refusal.
func Scan(module []byte, class Class) (*Report, error) {
	m, err := Parse(module, class.Limits())
	if err != nil {
		return nil, err
	}
	return m.scan(class)
}

func (m *Module) scan(class Class) (*Report, error) {
	kind, err := m.abi()
	if err != nil {
		return nil, err
	}
	if len(m.memories) != 1 {
		return nil, &Refusal{Item: "memories", Value: uint64(len(m.memories)), Limit: 1, Reason: "exactly one memory is wanted"}
	}
	return m.report(class, kind), nil
}

func (m *Module) report(class Class, kind abi.Kind) *Report {
	report := &Report{
		ABI: kind, Class: class, Bytes: m.bytes, Types: len(m.types), Functions: len(m.functions),
		CodeBytes: len(m.sections[sectionCode].items), Globals: len(m.globals), Segments: m.segments,
		LongestBody: m.measured.longestBody, MostLocals: m.measured.mostLocals, MostBlocks: m.measured.mostBlocks,
		LiveValues: m.measured.liveValues, Nesting: m.measured.nesting, TableTargets: m.measured.tableTargets,
		TableSize: uint32(m.tableSize), MemoryMin: m.memories[0].min, MemoryMax: m.memories[0].max, HasMax: m.memories[0].hasMax,
		Start: m.sections[sectionStart].offset != 0,
	}
	for _, g := range m.globals {
		if g.mutable {
			report.Mutable++
		}
	}
	for _, imported := range m.Imports {
		report.Imports = append(report.Imports, imported.Module+"."+imported.Name)
	}
	for _, exported := range m.Exports {
		report.Exports = append(report.Exports, exported.Name)
	}
	return report
}

// abi finds out which contract the module speaks and checks it.
func (m *Module) abi() (abi.Kind, error) {
	kind := abi.HoldfastV1
	if _, ok := m.export("opa_wasm_abi_version", kindGlobal); ok {
		kind = abi.OPA1
	} else if _, ok := m.export(abi.ExportVersion, kindFunc); !ok {
		return "", &Refusal{Offset: m.sections[sectionExport].offset, Item: "exports",
			Reason: "neither " + abi.ExportVersion + " nor opa_wasm_abi_version: the module speaks no known contract"}
	}
	for _, check := range []func(abi.Kind) error{m.checkImports, m.checkReserved, m.checkExports, m.checkState} {
		if err := check(kind); err != nil {
			return "", err
		}
	}
	return kind, nil
}

func (m *Module) checkImports(kind abi.Kind) error {
	allowed := AllowedImports(kind)
	for _, imported := range m.Imports {
		name := imported.Module + "." + imported.Name
		want, ok := allowed[name]
		wantKind := kindFunc
		if want == memoryImport {
			wantKind = kindMemory
		}
		if !ok || imported.kind != wantKind {
			return &Refusal{Offset: imported.offset, Item: "import " + name, Reason: "the contract " + string(kind) + " does not offer it"}
		}
		if imported.kind == kindFunc && imported.Type != want {
			return &Refusal{Offset: imported.offset, Item: "import " + name, Reason: "its type is " + string(imported.Type) + ", want " + string(want)}
		}
	}
	return nil
}

func (m *Module) checkReserved(abi.Kind) error {
	for _, exported := range m.Exports {
		if strings.HasPrefix(exported.Name, abi.ReservedPrefix) {
			return &Refusal{Offset: exported.offset, Item: item("export %q", exported.Name), Reason: "the name is reserved for the meter"}
		}
	}
	return nil
}

// checkState refuses what would run, or remain, where the host cannot undo it.
func (m *Module) checkState(abi.Kind) error {
	for i, g := range m.globals {
		if g.mutable && (g.valueType == FuncRef || g.valueType == ExternRef) {
			return &Refusal{Offset: g.offset, Item: item("global %d", i), Reason: "a mutable reference could not be restored"}
		}
	}
	start := m.sections[sectionStart]
	if start.offset == 0 {
		return nil
	}
	if typ, ok := m.functionType(uint32(start.count)); !ok || typ != ":" {
		return &Refusal{Offset: start.offset, Item: item("start function %d", start.count), Reason: "its type is " + string(typ) + ", want :"}
	}
	return nil
}

func (m *Module) checkExports(kind abi.Kind) error {
	wanted := exportsOf[kind]
	names := make([]string, 0, len(wanted))
	for name := range wanted {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if err := m.checkExport(name, wanted[name]); err != nil {
			return err
		}
	}
	return nil
}

func (m *Module) checkExport(name string, want contractExport) error {
	exported, ok := m.export(name, want.kind)
	if !ok {
		for _, other := range m.Exports {
			if other.Name == name {
				return &Refusal{Offset: other.offset, Item: "export " + name, Reason: "is of another kind than the contract wants"}
			}
		}
		if want.optional {
			return nil
		}
		return &Refusal{Offset: m.sections[sectionExport].offset, Item: "export " + name, Reason: "is missing"}
	}
	if want.kind != kindFunc {
		return nil
	}
	if got, ok := m.functionType(exported.index); !ok || got != want.typ {
		return &Refusal{Offset: exported.offset, Item: "export " + name, Reason: "its type is " + string(got) + ", want " + string(want.typ)}
	}
	return nil
}
