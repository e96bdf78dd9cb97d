package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// Limits bound what one module may ask for. All are inclusive.
type Limits struct {
	ModuleBytes  int
	Types        int
	Arity        int // parameters and results of one type
	Imports      int
	Functions    int // defined
	BodyBytes    int // of one function
	Locals       int // of one function, parameters included
	Nesting      int // blocks, loops and ifs
	TableTargets int // of all br_table instructions of the module
	Joins        int // of the module: its blocks, loops and ifs, each times the locals of its function
	Globals      int
	Exports      int
	NameBytes    int    // of one import or export
	Segments     int    // data segments, and as many element segments
	TableSize    int    // elements, and entries of all element segments
	MemoryPages  int    // of 64 KiB
	InitFuel     uint64 // units for all that runs before the first call
}

// Limits returns what modules of the class may ask for.
func (c Class) Limits() Limits {
	limits := Limits{
		ModuleBytes:  4 << 20,
		Types:        2_000,
		Arity:        256,
		Imports:      128,
		Functions:    20_000,
		BodyBytes:    512 << 10,
		Locals:       1_000,
		Nesting:      256,
		TableTargets: 10_000,
		Joins:        400_000,
		Globals:      1_000,
		Exports:      1_000,
		NameBytes:    512,
		Segments:     1_000,
		TableSize:    20_000,
		MemoryPages:  256,
		InitFuel:     200_000_000,
	}
	switch c {
	case Data:
		limits.MemoryPages = 1_536
		limits.InitFuel = abi.InitFuel
	case LanguageRuntime:
		limits.ModuleBytes = 16 << 20
		limits.Types = 10_000
		limits.Nesting = 1_024
		limits.TableTargets = 65_536
		limits.Joins = 4_000_000
		limits.Segments = 65_536
		limits.MemoryPages = 1_024
	}
	return limits
}
