// Package hostile holds modules that try to hurt whoever runs them, as text and
// as made by wat2wasm, and the index of all hostile modules. internal/hostile
// makes those that the text format cannot say, and runs them all.
package hostile

import "embed"

//go:generate sh -c "for f in *.wat; do wat2wasm --enable-all --no-check $DOLLAR{f} -o $DOLLAR{f%.wat}.wasm; done"

// FS has corpus.txt, and NAME.wasm for each module that was written as NAME.wat.
//
//go:embed corpus.txt *.wasm
var FS embed.FS
