// Package script turns a policy in TypeScript or JavaScript into a module,
// without a toolchain: esbuild's library bundles the policy with what it imports
// from its folder, and the bundle is placed in a copy of the engine module, which
// is QuickJS as a guest of Holdfast. QuickJS compiles the script when the module
// initialises, before the snapshot: no decision parses source.
package script

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// engine is built by engine/build from the sources beside it; engine/README.md says
// how, and TestEngine holds its digest.
//
//go:embed engine/engine.wasm
var engine []byte

// Toolchain names what made a module, as a manifest states it.
const Toolchain = "esbuild 0.28.2, QuickJS 2025-04-26"

// Bounds of a policy's sources.
const (
	// MaxFile bounds one file, MaxScript the bundle: QuickJS has to compile it
	// within the fuel for initialising, which suffices for about 200 KB of code.
	MaxFile   = 1 << 18
	MaxScript = 1 << 18
	// MaxOpenings bounds the brackets and signs of one file that something may
	// stand in or behind. esbuild descends into each, and a stack of Go's that has
	// grown too large ends the process.
	MaxOpenings = 1 << 16
)

// A Module is a compiled policy.
type Module struct {
	Wasm      []byte
	Toolchain string
}

// An Error is one fault of the sources. File is relative to the folder; Line and
// Col count from 1 and are 0 when the fault has no place. Message is esbuild's,
// except for what is refused here.
type Error struct {
	File      string
	Line, Col int
	Message   string
}

func (e *Error) Error() string {
	switch {
	case e.File == "":
		return e.Message
	case e.Line == 0:
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Message)
}

// Entries are the names that the policy's own file may have, the first found wins.
var Entries = []string{"policy.ts", "policy.js"}

// Compile builds the policy of a folder: policy.ts or policy.js, and the files
// that it imports. Nothing outside of fsys is read, and no symbolic link is
// followed. The same files give the same bytes, wherever they lie. Types are
// stripped and not checked. What is wrong with the sources is an *Error, or
// several, joined.
func Compile(ctx context.Context, fsys fs.FS) (*Module, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entry, err := entryOf(fsys)
	if err != nil {
		return nil, err
	}
	b, err := bundle(fsys, entry)
	if err != nil {
		return nil, err
	}
	if len(b.script) > MaxScript {
		return nil, &Error{File: entry, Message: fmt.Sprintf("with all that it imports %d bytes, at most %d", len(b.script), MaxScript)}
	}
	placed, err := wasm.Place(engine, b.payload(), wasm.LanguageRuntime)
	if err != nil {
		return nil, err
	}
	return &Module{Wasm: placed, Toolchain: Toolchain}, nil
}

func entryOf(fsys fs.FS) (string, error) {
	for _, name := range Entries {
		if _, err := fs.Stat(fsys, name); err == nil {
			return name, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", &Error{Message: "no policy.ts and no policy.js in the folder"}
}
