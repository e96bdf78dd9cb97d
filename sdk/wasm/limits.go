package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// Limits bound what one module may ask for. All are inclusive.
type Limits struct {
	ModuleBytes  int // custom sections included
	Types        int
	Arity        int // parameters, and results, of one type
	Imports      int
	Functions    int // defined
	BodyBytes    int // of one function
	Locals       int // of one function, parameters included
	Blocks       int // blocks, loops, ifs and br_ifs of one function
	Loops        int // of one function: compilers take quadratic time
	LiveValues   int // blocks times locals of one function: what a compiler keeps at once
	Nesting      int // blocks, loops and ifs
	TableTargets int // of all br_table instructions of the module
	Tables       int
	Memories     int
	Globals      int
	Exports      int
	NameBytes    int // of one import or export
	Segments     int // data segments, and as many element segments
	TableSize    int // elements, and entries of all element segments
	MemoryPages  int // of 64 KiB
	// Lasting admits instructions whose effect on tables and segments would
	// outlast a call. No class does: restoring would have to undo them.
	Lasting bool
	// SIMD admits vector types and instructions. No class does: neither is the
	// NaN of a lane made canonical, nor is a vector's store tracked.
	SIMD     bool
	InitFuel uint64 // units for all that runs before the first call
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
		Blocks:       8_000,
		Loops:        1_000,
		LiveValues:   500_000,
		Nesting:      256,
		TableTargets: 10_000,
		Tables:       1,
		Memories:     1,
		Globals:      1_000,
		Exports:      1_000,
		NameBytes:    512,
		Segments:     1_000,
		TableSize:    20_000,
		MemoryPages:  256,
		InitFuel:     400_000_000,
	}
	switch c {
	case Data:
		limits.MemoryPages = 1_536
		limits.InitFuel = abi.InitFuel
	case LanguageRuntime:
		limits.ModuleBytes = 16 << 20
		limits.Types = 10_000
		limits.Blocks = 16_000
		limits.LiveValues = 2_000_000
		limits.Nesting = 1_024
		limits.TableTargets = 131_072
		limits.Segments = 131_072
		limits.MemoryPages = 1_024
	}
	return limits
}
