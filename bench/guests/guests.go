// Package guests holds the measuring guests: one policy, a spend cap, and one
// adversary, a keeper of state, written in each language that compiles to a small
// module. They are for tests and benchmarks. Rust's and AssemblyScript's use the SDKs
// of sdk/guest; beside the others, the file named holdfast is the reader, the writer
// and the contract, and nothing of the policy.
package guests

import "embed"

// Languages are the folders of FS.
func Languages() []string { return []string{"c", "zig", "rust", "assemblyscript"} }

// FS holds LANGUAGE/spendcap.wasm and LANGUAGE/keeper.wasm, which `make guests`
// rebuilds. It is read-only.
//
//go:embed c/*.wasm zig/*.wasm rust/*.wasm assemblyscript/*.wasm
var FS embed.FS
