package wasm

import (
	"fmt"
	"strings"
)

// ValueType is the type of a value as the binary format encodes it.
type ValueType byte

// The value types that modules may use.
const (
	I32       ValueType = 0x7f
	I64       ValueType = 0x7e
	F32       ValueType = 0x7d
	F64       ValueType = 0x7c
	V128      ValueType = 0x7b
	FuncRef   ValueType = 0x70
	ExternRef ValueType = 0x6f
)

var valueTypeLetters = map[ValueType]byte{I32: 'i', I64: 'I', F32: 'f', F64: 'F', V128: 'v', FuncRef: 'r', ExternRef: 'e'}

// FuncType is the type of a function in letters, parameters before the colon
// and results after it: i and I are i32 and i64, f and F are f32 and f64, v is
// v128, r and e are funcref and externref. "ii:I" takes two i32 and returns an i64.
type FuncType string

// params returns the number of parameters.
func (t FuncType) params() int { return max(strings.IndexByte(string(t), ':'), 0) }

// results returns the letters of the results.
func (t FuncType) results() string { return string(t[t.params()+1:]) }

// Kinds of imports and exports.
const (
	kindFunc byte = iota
	kindTable
	kindMemory
	kindGlobal
)

// An Import names a thing that the host provides.
type Import struct {
	Module, Name string
	Type         FuncType // of a function
	kind         byte
	typeIndex    uint32 // of a function
	raw          []byte // as encoded
	offset       int
}

// An Export names a thing that the module provides.
type Export struct {
	Name   string
	kind   byte
	index  uint32
	offset int
}

type pages struct {
	min, max uint32
	hasMax   bool
}

type global struct {
	offset    int
	valueType ValueType
	mutable   bool
}

// function is a defined function.
type function struct {
	typeIndex  uint32
	offset     int    // of the first instruction in the module
	localDecls []byte // groups, without their count
	groups     int
	locals     int    // declared and parameters
	body       []byte // instructions, the last one is end
}

// addLocal declares one more local of a type and returns its index.
func (f *function) addLocal(t ValueType) uint32 {
	f.localDecls = append(f.localDecls[:len(f.localDecls):len(f.localDecls)], 1, byte(t))
	f.groups++
	f.locals++
	return uint32(f.locals - 1)
}

// section holds the elements of a section that passes append to or that is
// written as it was read.
type section struct {
	count  int // of a start section the function, of a data count section what it counts
	items  []byte
	offset int // of the content in the module; 0 when there is no such section
}

// Section numbers of the binary format.
const (
	sectionCustom = iota
	sectionType
	sectionImport
	sectionFunction
	sectionTable
	sectionMemory
	sectionGlobal
	sectionExport
	sectionStart
	sectionElement
	sectionCode
	sectionData
	sectionDataCount
	sectionKinds
)

// Module is a parsed module. Custom sections are not kept.
type Module struct {
	Imports []Import
	Exports []Export

	types     []FuncType
	functions []function
	memories  []pages  // imported ones first
	globals   []global // imported ones first
	tableSize uint64   // of all tables, imported or not
	tables    int
	segments  int
	bytes     int
	sections  [sectionKinds]section
	measured  measured
}

// measured is what Parse found in the bodies.
type measured struct {
	longestBody, mostLocals, mostBlocks, liveValues, nesting, tableTargets int
}

// importedFunctions is the number of functions that precede the defined ones.
func (m *Module) importedFunctions() int {
	n := 0
	for _, imported := range m.Imports {
		if imported.kind == kindFunc {
			n++
		}
	}
	return n
}

// functionType returns the type of the function with the given index.
func (m *Module) functionType(index uint32) (FuncType, bool) {
	for _, imported := range m.Imports {
		if imported.kind != kindFunc {
			continue
		}
		if index == 0 {
			return imported.Type, true
		}
		index--
	}
	if uint64(index) >= uint64(len(m.functions)) {
		return "", false
	}
	return m.types[m.functions[index].typeIndex], true
}

// export returns the export of that name and kind.
func (m *Module) export(name string, kind byte) (Export, bool) {
	for _, exported := range m.Exports {
		if exported.Name == name && exported.kind == kind {
			return exported, true
		}
	}
	return Export{}, false
}

func item(format string, args ...any) string { return fmt.Sprintf(format, args...) }
