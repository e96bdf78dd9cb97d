// Package wasm reads, judges and rewrites core WebAssembly modules. It is the
// gate before the engine: Scan bounds what a module may ask of a compiler, and
// Instrument makes a copy that cannot run unmetered. Neither panics on any
// bytes. Neither checks types: the engine validates what Instrument wrote.
package wasm

import (
	"fmt"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// Class is a set of limits that a module is admitted under. The zero Class is Policy.
type Class uint8

const (
	// Policy is the class of ordinary policies.
	Policy Class = iota
	// Data is Policy with more memory, for policies with large data.
	Data
	// LanguageRuntime is for guests that bring a language's run time (Go, QuickJS).
	LanguageRuntime
)

var classNames = [...]string{Policy: "policy", Data: "data", LanguageRuntime: "language-runtime"}

// ParseClass reads the name of a class as String writes it.
func ParseClass(name string) (Class, error) {
	for class, known := range classNames {
		if name == known {
			return Class(class), nil
		}
	}
	return Policy, fmt.Errorf("module class %q: want policy, data or language-runtime", name)
}

// String returns the name of the class as manifests write it.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// A Refusal says why a module is not admitted: where, what, how much was found
// and how much would have been allowed. Value and Limit are 0 where the reason
// is not a quantity.
type Refusal struct {
	Offset int    // byte offset in the module
	Item   string // what was read, such as "locals of function 3"
	Value  uint64
	Limit  uint64
	Reason string
}

func (r *Refusal) Error() string {
	if r.Limit == 0 && r.Value == 0 {
		return fmt.Sprintf("module refused at offset %d: %s: %s", r.Offset, r.Item, r.Reason)
	}
	return fmt.Sprintf("module refused at offset %d: %s: %s (%d, limit %d)", r.Offset, r.Item, r.Reason, r.Value, r.Limit)
}

// A Report describes a module that passed the scan.
type Report struct {
	ABI          abi.Kind
	Class        Class
	Bytes        int
	Types        int
	Functions    int // defined, not imported
	CodeBytes    int
	LongestBody  int
	MostLocals   int // declared and parameters, of one function
	MostBlocks   int // of one function
	LiveValues   int // most blocks times locals of one function
	Nesting      int // deepest
	TableTargets int // of all br_table instructions
	Globals      int
	Mutable      int // of the globals
	Segments     int // data and elements
	TableSize    uint32
	MemoryMin    uint32 // pages of 64 KiB
	MemoryMax    uint32 // pages, as declared; HasMax says whether it was
	HasMax       bool
	Start        bool
	Imports      []string // "module.name", in the order of the module
	Exports      []string // in the order of the module
}
