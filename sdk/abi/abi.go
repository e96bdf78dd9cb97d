// Package abi names the contract between host and guest: versions, imports,
// exports, status codes and limits, so that both sides, the
// admission scan and the documentation speak of the same thing.
package abi

// Kind is the contract that a module speaks.
type Kind string

const (
	// HoldfastV1 is our own contract: CBOR in, CBOR out.
	HoldfastV1 Kind = "holdfast_v1"
	// OPA1 is Open Policy Agent's Wasm ABI, major version 1: JSON in, JSON out.
	OPA1 Kind = "opa_1"
)

// Exports of a holdfast_v1 guest. Signatures never change within v1.
const (
	ExportMemory     = "memory"
	ExportVersion    = "holdfast_abi_v1" // () -> i32 feature bits
	ExportAlloc      = "holdfast_alloc"  // (len i32) -> ptr i32, 0 = refused
	ExportDecide     = "holdfast_decide" // (ptr i32, len i32) -> i64: ptr << 32 | len, 0 = guest error
	ExportInit       = "holdfast_init"   // optional (ptr i32, len i32) -> i32: 0 = ready
	ExportInitialize = "_initialize"     // optional () -> (), WASI reactor
	ImportModule     = "holdfast_v1"     // module of all host functions
	ImportLog        = "log"             // (level i32, ptr i32, len i32)
	ImportNow        = "now"             // () -> i64 ns since 1970, one frozen instant per request
	ImportMatch      = "match"           // (pattern i32, ptr i32, len i32) -> i32: 1, 0, -1 = no such pattern
	WASIModule       = "wasi_snapshot_preview1"
)

// Exports and imports of an opa_1 guest (OPA's documentation, "Wasm").
const (
	OPAImportModule = "env"
)

// Names that the rewriter adds. A module that brings one of them is refused,
// so that nobody brings his own meter.
const (
	// ReservedPrefix begins every name that the rewriter adds.
	ReservedPrefix = "holdfast_meter_"
	ExportFuel     = "holdfast_meter_fuel"   // mutable i64 global, fuel left
	ExportDepth    = "holdfast_meter_depth"  // mutable i32 global, calls that may still nest
	ExportStart    = "holdfast_meter_start"  // the former start function
	ExportGlobal   = "holdfast_meter_global" // prefix of mutable globals exported for restore
)

// Limits of one decision. A release may tighten those that it names.
const (
	DefaultFuel = 1_000_000
	MaxFuel     = 20_000_000
	// InitFuel bounds start, _initialize, holdfast_init and OPA's parsing of data,
	// in the class that may use the most.
	InitFuel       = 2_000_000_000
	MaxCallDepth   = 1_000
	MaxOutput      = 64 << 10
	MaxInput       = 512 << 10
	MaxLogBytes    = 4 << 10 // per decision, over all messages
	MaxLogMessages = 32
)

// Log levels of holdfast_v1.log.
const (
	LogDebug int32 = iota
	LogInfo
	LogWarn
	LogError
)

// TrapCode says why a call of a guest ended without a decision. The code is
// part of the record and never changes its meaning.
type TrapCode string

// The trap codes.
const (
	TrapFuel        TrapCode = "fuel_exhausted"
	TrapDepth       TrapCode = "call_depth_exceeded"
	TrapMemory      TrapCode = "memory_out_of_bounds"
	TrapUnreachable TrapCode = "unreachable"
	TrapArithmetic  TrapCode = "arithmetic" // divide by zero, overflow, invalid conversion
	TrapCall        TrapCode = "indirect_call"
	TrapAbort       TrapCode = "guest_abort" // OPA's abort, WASI proc_exit
	TrapRefused     TrapCode = "guest_error" // the guest answered 0
	TrapInput       TrapCode = "input_refused"
	TrapOutput      TrapCode = "output_invalid" // out of bounds, too long, not a decision
	TrapBuiltin     TrapCode = "builtin_error"
	TrapHost        TrapCode = "host_error" // our own failure, not the guest's
)

// A Call is one decision asked of a module.
type Call struct {
	// Input is the codec's encoding of the request; the host copies it in.
	Input []byte
	// Entrypoint is OPA's entry point number; 0 for holdfast_v1.
	Entrypoint int32
	// Fuel bounds the call; 0 means DefaultFuel, more than MaxFuel is MaxFuel.
	Fuel uint64
	// Now is what the guest's clock shows throughout the call, in nanoseconds since 1970.
	Now int64
}

// A Log is one message of a guest.
type Log struct {
	Level int32  `cbor:"level" json:"level"`
	Text  string `cbor:"text" json:"text"`
}

// A Result is what a module answered.
type Result struct {
	Output []byte // a copy, at most MaxOutput bytes
	Fuel   uint64 // units used
	Logs   []Log  // at most MaxLogMessages and MaxLogBytes
}

// A Trap is the error of a call that ended without an answer. The instance that
// trapped is never used again.
type Trap struct {
	Code   TrapCode
	Detail string
	Fuel   uint64 // units used up to the trap
}

func (t *Trap) Error() string {
	if t.Detail == "" {
		return string(t.Code)
	}
	return string(t.Code) + ": " + t.Detail
}

// A Module answers calls. Implementations are safe for concurrent use, and a
// call's answer depends on nothing but the Call. An error is always a *Trap.
type Module interface {
	Call(Call) (Result, error)
}
