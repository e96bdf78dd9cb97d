package compiler

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/compiler/script"
	"github.com/holdfast-policy/holdfast/compiler/toolchain"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// The languages of holdfast.yaml.
const (
	Rego           = "rego"
	Go             = "go"
	Rust           = "rust"
	AssemblyScript = "assemblyscript"
	TypeScript     = "typescript" // and JavaScript
	C              = "c"          // and C++
	Zig            = "zig"
	Wasm           = "wasm" // a ready module
)

// A language is one line of the table that says all about it.
type language struct {
	name string
	// endings of its sources, which lie at the top of the folder; Rego's lie
	// anywhere in it.
	endings []string
	class   wasm.Class
	// compile is the front end; nil is Rego's and a ready module's.
	compile frontEnd
	// version returns what the toolchain says of itself; nil is a front end of ours.
	version func(ctx context.Context, dir string) (string, error)
}

// A frontEnd compiles a folder, which is dir where it is on disk.
type frontEnd func(ctx context.Context, fsys fs.FS, dir string) (*toolchain.Module, error)

// installed is the front end of a toolchain that must be on the machine.
func installed(compile func(ctx context.Context, dir string) (*toolchain.Module, error)) frontEnd {
	return func(ctx context.Context, _ fs.FS, dir string) (*toolchain.Module, error) {
		if dir == "" {
			return nil, &InputError{Reason: "this language needs its toolchain and a folder on disk, or a ready module"}
		}
		return compile(ctx, dir)
	}
}

func compileScript(ctx context.Context, fsys fs.FS, _ string) (*toolchain.Module, error) {
	m, err := script.Compile(ctx, fsys)
	if err != nil {
		return nil, err
	}
	return &toolchain.Module{Wasm: m.Wasm, Toolchain: m.Toolchain}, nil
}

var languages = []language{
	{name: Rego, endings: []string{".rego"}, class: wasm.Policy},
	{name: Go, endings: []string{".go"}, class: wasm.LanguageRuntime, compile: installed(toolchain.Go), version: toolchain.GoVersion},
	{name: Rust, endings: []string{".rs"}, class: wasm.Policy, compile: installed(toolchain.Rust), version: toolchain.RustVersion},
	{name: AssemblyScript, endings: []string{".ts"}, class: wasm.Policy, compile: installed(toolchain.AssemblyScript), version: toolchain.AssemblyScriptVersion},
	{name: TypeScript, endings: []string{".ts", ".js"}, class: wasm.LanguageRuntime, compile: compileScript},
	{name: C, endings: []string{".c", ".cc", ".cpp"}, class: wasm.Policy, compile: installed(toolchain.C), version: toolchain.CVersion},
	{name: Zig, endings: []string{".zig"}, class: wasm.Policy, compile: installed(toolchain.Zig), version: toolchain.ZigVersion},
	{name: Wasm, endings: []string{".wasm"}, class: wasm.Policy},
}

// Languages returns what "language" in holdfast.yaml may be.
func Languages() []string {
	var names []string
	for _, l := range languages {
		names = append(names, l.name)
	}
	return names
}

// Toolchain returns the version of the compiler that would build a policy of the
// language in dir, "" when none is needed. A *toolchain.MissingError says what to
// install.
func Toolchain(ctx context.Context, name, dir string) (string, error) {
	if l := languageOf(name); l.version != nil {
		return l.version(ctx, dir)
	}
	return "", nil
}

// languageOf returns the table's line, the zero one for what is not there.
func languageOf(name string) language {
	if i := slices.IndexFunc(languages, func(l language) bool { return l.name == name }); i >= 0 {
		return languages[i]
	}
	return language{}
}

// detect looks at the files' names; tests do not count, and a module counts only
// where there is no source.
func detect(fsys fs.FS) (string, error) {
	found := map[string]string{} // language to its first file
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		}
		for _, l := range languages {
			if l.has(name) && found[l.name] == "" {
				found[l.name] = name
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return oneOf(found)
}

// has reports whether a file is one of the language's sources.
func (l *language) has(name string) bool {
	ending := path.Ext(name)
	if !slices.Contains(l.endings, ending) || strings.HasSuffix(name, "_test"+ending) {
		return false
	}
	return l.name == Rego || !strings.Contains(name, "/")
}

func oneOf(found map[string]string) (string, error) {
	if len(found) > 1 {
		delete(found, Wasm)
	}
	var names, files []string
	for _, l := range languages {
		if file := found[l.name]; file != "" {
			names = append(names, l.name)
			files = append(files, fmt.Sprintf("%s (%s)", file, l.name))
		}
	}
	switch len(names) {
	case 0:
		return "", &InputError{Reason: "no policy here: want a source in one of " + strings.Join(Languages(), ", ") + ", or holdfast init to begin one"}
	case 1:
		return names[0], nil
	}
	return "", &InputError{Reason: fmt.Sprintf("this may be more than one language: %s. Say which in %s: \"language: %s\"",
		strings.Join(files, ", "), ConfigFile, strings.Join(names, "\" or \"language: "))}
}

// IsModule reports whether the folder's policy is a ready module: what the folder
// says, or else what is in it.
func IsModule(fsys fs.FS) bool {
	cfg, err := readConfig(fsys)
	if err == nil && cfg.language == "" {
		cfg.language, err = detect(fsys)
	}
	return err != nil || cfg.language == Wasm
}
