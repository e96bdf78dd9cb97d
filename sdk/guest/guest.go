// Package guest holds what the author of a policy is given: for each language an
// SDK, and three example policies that answer the same bytes in all of them.
// Project composes a folder of them that builds as it is, without a registry.
//
// The SDKs themselves are in the folders below; examples/README.md says what the
// policies do.
package guest

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed examples/*/*
//go:embed go/*.go go/README.md go/examples/*/main.go
//go:embed c/holdfast.h c/README.md c/examples/*.c c/examples/*.cpp
//go:embed zig/holdfast.zig zig/README.md zig/examples/*.zig
//go:embed rust/holdfast.rs rust/README.md rust/examples/*.rs
//go:embed assemblyscript/holdfast.ts assemblyscript/README.md assemblyscript/examples/*.ts
//go:embed typescript/holdfast.ts typescript/README.md typescript/examples/*.ts
var files embed.FS

// A Language is one that a policy can be written in with an SDK of ours.
type Language struct {
	Name  string // as --lang takes it, such as "go"
	Title string // as people write it, such as "Go"
	// Config is what "language" in holdfast.yaml says.
	Config string
	// Source is the name of the policy's source in a project.
	Source string
	// Install says what must be on the machine to build it, "" for nothing.
	Install string
	// Fuel is what the policy needs beyond the default, in units; 0 for none.
	Fuel uint64

	folder string            // below sdk/guest
	ending string            // of the examples' sources
	sdk    map[string]string // from a project's file, or folder, to that of the folder
	added  map[string]string // what a project has beside, by name
}

// Languages returns all languages, in the order of their names.
func Languages() []Language {
	c := Language{
		Name: "c", Title: "C", Config: "c", Source: "policy.c", folder: "c", ending: ".c",
		Install: "clang 15 or newer with wasm-ld, or Zig 0.16, whose `zig cc` will do",
		sdk:     map[string]string{"holdfast.h": "holdfast.h", page: "README.md"},
	}
	cpp := c
	cpp.Name, cpp.Title, cpp.Source, cpp.ending = "c++", "C++", "policy.cpp", ".cpp"
	return []Language{
		{
			Name: "assemblyscript", Title: "AssemblyScript", Config: "assemblyscript", Source: "policy.ts", folder: "assemblyscript", ending: ".ts",
			Install: "Node.js 20 or newer, and AssemblyScript 0.28: `npm install` in this folder",
			sdk:     map[string]string{"holdfast.ts": "holdfast.ts", page: "README.md"},
			added:   map[string]string{"package.json": packageJSON},
		},
		c, cpp,
		{
			Name: "go", Title: "Go", Config: "go", Source: "main.go", folder: "go", ending: "/main.go", Fuel: 10_000_000,
			Install: "Go 1.24 or newer, from https://go.dev/dl",
			sdk:     map[string]string{"holdfast": "."},
			added:   map[string]string{"go.mod": goMod, "holdfast/go.mod": goSDKMod},
		},
		{
			Name: "rust", Title: "Rust", Config: "rust", Source: "policy.rs", folder: "rust", ending: ".rs",
			Install: "Rust 1.85 or newer with the target wasm32v1-none (`rustup target add wasm32v1-none`), or on Debian rustc-web, rust-web-src and lld",
			sdk:     map[string]string{"holdfast.rs": "holdfast.rs", page: "README.md"},
		},
		{
			Name: "typescript", Title: "TypeScript", Config: "typescript", Source: "policy.ts", folder: "typescript", ending: ".ts", Fuel: 10_000_000,
			sdk: map[string]string{"holdfast.ts": "holdfast.ts", page: "README.md"},
		},
		{
			Name: "zig", Title: "Zig", Config: "zig", Source: "policy.zig", folder: "zig", ending: ".zig",
			Install: "Zig 0.16, from https://ziglang.org/download",
			sdk:     map[string]string{"holdfast.zig": "holdfast.zig", page: "README.md"},
		},
	}
}

// page is what a project calls the SDK's page where the SDK is one file.
const page = "holdfast.md"

// packageJSON has npm install put asc where holdfast build looks for it.
const packageJSON = `{
  "private": true,
  "devDependencies": {
    "assemblyscript": "0.28.20"
  }
}
`

// A project's go.mod finds the SDK in the project, so that the imports are the
// same here and there. The module's name is fixed: it is in the module's bytes.
const (
	goMod = `module policy

go 1.24

require github.com/holdfast-policy/holdfast/sdk/guest/go v0.0.0

replace github.com/holdfast-policy/holdfast/sdk/guest/go => ./holdfast
`
	goSDKMod = `module github.com/holdfast-policy/holdfast/sdk/guest/go

go 1.24
`
)

// DefaultExample is the policy of a project whose author named none.
const DefaultExample = "spend-cap"

// Examples returns the names of the example policies.
func Examples() []string { return []string{"tool-authz", "spend-cap", "residency"} }

// Find returns the language of that name.
func Find(name string) (Language, bool) {
	all := Languages()
	i := slices.IndexFunc(all, func(l Language) bool { return l.Name == name })
	if i < 0 {
		return Language{}, false
	}
	return all[i], true
}

// Project returns the files of a policy's folder, by their names with slashes:
// the example's source, the SDK, holdfast.yaml with the policy's name, golden
// vectors and a README. The same arguments give the same bytes.
func (l Language) Project(example, name string) (map[string][]byte, error) {
	if !slices.Contains(l.Examples(), example) {
		return nil, fmt.Errorf("no example %q in %s: want %s", example, l.Title, strings.Join(l.Examples(), ", "))
	}
	source, err := files.ReadFile(l.sourceOf(example))
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{l.Source: source}
	if err := shared(out, "examples/"+example); err != nil {
		return nil, err
	}
	out["holdfast.yaml"] = l.config(out["policy.yaml"], name)
	delete(out, "policy.yaml")
	for to, from := range l.sdk {
		if err := copyTree(out, to, path.Join(l.folder, from)); err != nil {
			return nil, err
		}
	}
	for to, text := range l.added {
		out[to] = []byte(text)
	}
	out["README.md"] = l.readme(out, name)
	return out, nil
}

func (l Language) sourceOf(example string) string {
	return path.Join(l.folder, "examples", example+l.ending)
}

// Examples returns the names of those that the language has.
func (l Language) Examples() []string {
	return slices.DeleteFunc(Examples(), func(e string) bool {
		_, err := fs.Stat(files, l.sourceOf(e))
		return err != nil
	})
}

// Module returns where the example's committed module lies, below sdk/guest, of a
// language that needs a toolchain. It is not embedded; sdk/guest/rebuild writes it and
// says the same.
func (l Language) Module(example string) string {
	switch l.Name {
	case "go":
		return "go/examples/" + example + "/policy.wasm"
	case "c++":
		return "c/examples/" + example + "-cpp.wasm"
	}
	return l.folder + "/examples/" + example + ".wasm"
}

// shared adds what every language has of an example.
func shared(out map[string][]byte, folder string) error {
	entries, err := files.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if out[e.Name()], err = files.ReadFile(folder + "/" + e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// copyTree adds a file, or the files of a folder that are no tests.
func copyTree(out map[string][]byte, to, from string) error {
	info, err := fs.Stat(files, from)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		out[to], err = files.ReadFile(from)
		return err
	}
	entries, err := files.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		if out[path.Join(to, e.Name())], err = files.ReadFile(path.Join(from, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// config is holdfast.yaml: the example's own, with the policy's name and what
// the language needs.
func (l Language) config(policy []byte, name string) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "language: %s\n", l.Config)
	for line := range strings.Lines(string(policy)) {
		if strings.HasPrefix(line, "name: ") {
			line = "name: " + name + "\n"
		}
		out.WriteString(line)
	}
	if l.Fuel > 0 {
		fmt.Fprintf(&out, "fuel: %d # units for one decision; `holdfast test` says how many it took\n", l.Fuel)
	}
	return out.Bytes()
}
