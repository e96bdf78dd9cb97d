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
	m, err := Parse(module, class)
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
	if typ, ok := m.functionType(m.start); m.hasStart && (!ok || typ != ":") {
		return nil, &Refusal{Offset: m.sections[sectionStart].offset, Item: "start function", Reason: "takes and returns nothing, or does not exist"}
	}
	report := m.report(class, kind)
	if err := m.scanBodies(class.Limits(), report); err != nil {
		return nil, err
	}
	return report, nil
}

func (m *Module) report(class Class, kind abi.Kind) *Report {
	report := &Report{
		ABI: kind, Class: class, Bytes: m.bytes, Types: len(m.types), Functions: len(m.functions),
		CodeBytes: len(m.sections[sectionCode].items), Globals: len(m.globals), Segments: m.segments,
		TableSize: m.tableSize, MemoryMin: m.memories[0].min, MemoryMax: m.memories[0].max, HasMax: m.memories[0].hasMax,
		Start: m.hasStart,
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

func (m *Module) scanBodies(limits Limits, report *Report) error {
	var in instruction
	for i := range m.functions {
		f := &m.functions[i]
		report.LongestBody = max(report.LongestBody, len(f.body))
		report.MostLocals = max(report.MostLocals, f.locals)
		r := &reader{data: f.body, end: len(f.body)}
		if err := scanBody(r, &in, f.locals, limits, report); err != nil {
			refusal := *err.(*Refusal)
			refusal.Offset += f.offset
			refusal.Item += item(" in function %d", i)
			return &refusal
		}
	}
	return nil
}

// scanBody checks the instructions of one body and that blocks are balanced. A
// compiler that joins every local at every block needs time and memory for their
// product, which is therefore bounded.
func scanBody(r *reader, in *instruction, locals int, limits Limits, report *Report) error {
	open := make([]opcode, 0, 32) // the body's own block is not in it
	for r.next(in) {
		switch in.op {
		case opBlock, opLoop, opIf:
			open = append(open, in.op)
			report.Nesting = max(report.Nesting, len(open))
			r.within("nesting", uint64(len(open)), limits.Nesting)
			report.Joins += locals
			r.within("blocks times locals", uint64(report.Joins), limits.Joins)
		case opBr, opBrIf:
			r.within("label", uint64(in.index), len(open))
		case opBrTable:
			report.TableTargets += len(in.labels)
			r.within("br_table targets", uint64(report.TableTargets), limits.TableTargets)
			for _, label := range in.labels {
				r.within("label", uint64(label), len(open))
			}
		case opElse:
			if len(open) == 0 || open[len(open)-1] != opIf {
				r.refuse("else", "outside of an if")
			} else {
				open[len(open)-1] = opElse
			}
		case opEnd:
			if len(open) == 0 {
				return bodyEnds(r)
			}
			open = open[:len(open)-1]
		}
	}
	return r.err
}

func bodyEnds(r *reader) error {
	if r.pos != r.end {
		r.refuse("body", "instructions after its end")
	}
	return r.err
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
	for _, check := range []func(abi.Kind) error{m.checkImports, m.checkReserved, m.checkExports} {
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
		if !ok || (want == memoryImport) != (imported.kind == kindMemory) {
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
