package script

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// bundled is a policy as one script.
type bundled struct {
	script []byte
	lines  []origin // of each line of it
	files  []string // that lines name
}

// Namespaces of paths, as esbuild knows them.
const (
	entrySpace  = "entry"
	policySpace = "policy"
)

// entrySource is the script's end: it gives the engine the policy's functions.
const entrySource = `import * as policy from %q
__holdfast.register(policy.decide, policy.configure)
`

// bundle makes one script of the entry and all that it imports.
func bundle(fsys fs.FS, entry string) (*bundled, error) {
	f := &folder{files: fsys}
	result := api.Build(api.BuildOptions{
		EntryPoints:   []string{entrySpace},
		Bundle:        true,
		Outfile:       "/policy.js",
		AbsWorkingDir: "/",
		Format:        api.FormatIIFE,
		Platform:      api.PlatformNeutral,
		Target:        api.ES2023,
		Charset:       api.CharsetUTF8,
		Sourcemap:     api.SourceMapExternal,
		LegalComments: api.LegalCommentsNone,
		TreeShaking:   api.TreeShakingTrue,
		LogLevel:      api.LogLevelSilent,
		LogLimit:      maxErrors,
		TsconfigRaw:   "{}",
		Supported:     unsupported(),
		Plugins:       []api.Plugin{f.plugin(entry)},
	})
	if len(result.Errors) > 0 {
		return nil, faults(result.Errors)
	}
	if err := exportsDecide(result.Warnings, entry); err != nil {
		return nil, err
	}
	return newBundled(result.OutputFiles)
}

// maxErrors bounds the faults that are told at once.
const maxErrors = 10

// unsupported lists what has no meaning in a decision: esbuild says where it is used.
func unsupported() map[string]bool {
	return map[string]bool{"async-await": false, "async-generator": false, "for-await": false, "top-level-await": false, "dynamic-import": false, "import-meta": false}
}

// exportsDecide looks for esbuild's warning that the policy has no such export.
func exportsDecide(warnings []api.Message, entry string) error {
	for _, w := range warnings {
		if w.ID == "import-is-undefined" && strings.Contains(w.Text, `"decide"`) {
			return &Error{File: entry, Message: "exports no function decide: a policy has `export function decide(request: Request): Decision`"}
		}
	}
	return nil
}

func faults(messages []api.Message) error {
	var all []error
	for _, m := range messages {
		e := &Error{Message: m.Text}
		if at := m.Location; at != nil {
			if file, ok := strings.CutPrefix(at.File, policySpace+":"); ok || at.Namespace == policySpace {
				e.File, e.Line, e.Col = file, at.Line, at.Column+1
			}
		}
		var own *Error
		if err, ok := m.Detail.(error); ok && errors.As(err, &own) {
			e.Message = own.Message
		}
		all = append(all, e)
	}
	return errors.Join(all...)
}

// A folder gives esbuild the files of a policy and no others.
type folder struct{ files fs.FS }

func (f *folder) plugin(entry string) api.Plugin {
	return api.Plugin{Name: "holdfast", Setup: func(build api.PluginBuild) {
		build.OnResolve(api.OnResolveOptions{Filter: ".*"}, func(a api.OnResolveArgs) (api.OnResolveResult, error) {
			return f.resolve(a, entry)
		})
		build.OnLoad(api.OnLoadOptions{Filter: ".*", Namespace: entrySpace}, func(api.OnLoadArgs) (api.OnLoadResult, error) {
			source := fmt.Sprintf(entrySource, "./"+entry)
			return api.OnLoadResult{Contents: &source, Loader: api.LoaderJS}, nil
		})
		build.OnLoad(api.OnLoadOptions{Filter: ".*", Namespace: policySpace}, f.load)
	}}
}

func (f *folder) resolve(a api.OnResolveArgs, entry string) (api.OnResolveResult, error) {
	switch {
	case a.Kind == api.ResolveEntryPoint:
		return api.OnResolveResult{Path: entrySpace, Namespace: entrySpace}, nil
	case a.Namespace == entrySpace:
		return api.OnResolveResult{Path: entry, Namespace: policySpace}, nil
	case a.Kind == api.ResolveJSDynamicImport:
		return api.OnResolveResult{}, &Error{Message: fmt.Sprintf("import(%q): a policy has all its files at once, import it at the top", a.Path)}
	case !strings.HasPrefix(a.Path, "./") && !strings.HasPrefix(a.Path, "../"):
		return api.OnResolveResult{}, &Error{Message: fmt.Sprintf("%q: a policy imports only files of its own folder, as \"./name\"; there are no packages and nothing of Node", a.Path)}
	}
	name, err := f.find(path.Join(path.Dir(a.Importer), a.Path), a.Path)
	return api.OnResolveResult{Path: name, Namespace: policySpace}, err
}

// find returns the file that an import means: by its name, or with an extension.
func (f *folder) find(name, asked string) (string, error) {
	if !fs.ValidPath(name) || name == "." {
		return "", &Error{Message: fmt.Sprintf("%q lies outside of the policy's folder", asked)}
	}
	candidates := []string{name, name + ".ts", name + ".js", name + ".json"}
	if stem, ok := strings.CutSuffix(name, ".js"); ok {
		candidates = append(candidates, stem+".ts")
	}
	for _, candidate := range candidates {
		info, err := fs.Stat(f.files, candidate)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
			continue
		}
		if err == nil {
			err = f.plain(candidate)
		}
		return candidate, err
	}
	return "", &Error{Message: fmt.Sprintf("%q: no such file in the policy's folder", asked)}
}

// plain refuses symbolic links, which may lead anywhere.
func (f *folder) plain(name string) error {
	for part := name; part != "."; part = path.Dir(part) {
		info, err := fs.Lstat(f.files, part)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return &Error{Message: fmt.Sprintf("%q is a symbolic link, which a policy's folder cannot have", part)}
		}
	}
	return nil
}

var loaders = map[string]api.Loader{".ts": api.LoaderTS, ".js": api.LoaderJS, ".mjs": api.LoaderJS, ".json": api.LoaderJSON}

func (f *folder) load(a api.OnLoadArgs) (api.OnLoadResult, error) {
	loader, ok := loaders[path.Ext(a.Path)]
	if !ok {
		return api.OnLoadResult{}, &Error{Message: fmt.Sprintf("%q: a policy imports .ts, .js and .json files", a.Path)}
	}
	if err := f.plain(a.Path); err != nil {
		return api.OnLoadResult{}, err
	}
	info, err := fs.Stat(f.files, a.Path)
	if err != nil {
		return api.OnLoadResult{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > MaxFile {
		return api.OnLoadResult{}, &Error{Message: fmt.Sprintf("%s is %d bytes, or no regular file; at most %d bytes", a.Path, info.Size(), MaxFile)}
	}
	raw, err := fs.ReadFile(f.files, a.Path)
	if n := openings(raw); n > MaxOpenings {
		return api.OnLoadResult{}, &Error{Message: fmt.Sprintf("%s has %d of the characters %s; at most %d", a.Path, n, opening, MaxOpenings)}
	}
	source := string(raw)
	return api.OnLoadResult{Contents: &source, Loader: loader}, err
}

// opening are the characters that alone make a syntax tree deeper.
const opening = "( [ { ! ~ + - ="

func openings(source []byte) (n int) {
	for _, c := range source {
		if c != ' ' && strings.IndexByte(opening, c) >= 0 {
			n++
		}
	}
	return n
}

func newBundled(files []api.OutputFile) (*bundled, error) {
	b := &bundled{}
	var table []byte
	for _, file := range files {
		if path.Ext(file.Path) == ".map" {
			table = file.Contents
		} else {
			b.script = file.Contents
		}
	}
	var err error
	b.files, b.lines, err = readMap(table)
	for i, name := range b.files {
		b.files[i] = strings.TrimPrefix(name, policySpace+":")
	}
	return b, err
}
