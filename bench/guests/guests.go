// Package guests holds the measuring guests: one policy, a spend cap, and one
// adversary, a keeper of state, written in each language that compiles to a small
// module. They are for tests and benchmarks, and use the SDKs of sdk/guest.
package guests

import "embed"

// Languages are the folders of FS.
func Languages() []string { return []string{"c", "zig", "rust", "assemblyscript"} }

// FS holds LANGUAGE/spendcap.wasm and LANGUAGE/keeper.wasm, which `make guests`
// rebuilds. It is read-only.
//
//go:embed c/*.wasm zig/*.wasm rust/*.wasm assemblyscript/*.wasm
var FS embed.FS
