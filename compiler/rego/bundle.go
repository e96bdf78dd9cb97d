package rego

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/loader/filter"
)

// A Verification says which key must have signed an OPA bundle, as OPA's own
// flags do. With one, a bundle without a signature is refused.
type Verification struct {
	Key       string // a public key in PEM, or the secret of an HMAC
	KeyID     string // "" is "default"
	Algorithm string // "" is RS256
	Scope     string
}

// Bundle reads an OPA bundle (.tar.gz). One that carries a Wasm module gives
// that module as it is, with the entry points of its manifest; from any other
// the sources are compiled as Compile would.
func Bundle(ctx context.Context, raw []byte, opts Options) (*Module, error) {
	files, err := unpack(raw)
	if err != nil {
		return nil, err
	}
	b, err := readBundle(files, opts)
	if err != nil {
		return nil, err
	}
	if len(b.WasmModules) == 0 {
		return bundleSource(b, opts).compile(ctx, opts.Entrypoints)
	}
	return ready(b)
}

func readBundle(files []bundleFile, opts Options) (*bundle.Bundle, error) {
	r := bundle.NewCustomReader(&archive{files: files}).WithSizeLimitBytes(maxFileBytes).WithProcessAnnotations(true).
		WithRegoVersion(opts.version()).WithBundleVerificationConfig(opts.Verification.config()).WithSkipBundleVerification(opts.Verification == nil)
	b, err := r.Read()
	if err != nil {
		return nil, positioned(err)
	}
	if b.Type() != bundle.SnapshotBundleType {
		return nil, errors.New("a delta bundle changes another one: build the whole bundle")
	}
	return &b, nil
}

func (v *Verification) config() *bundle.VerificationConfig {
	if v == nil {
		return nil
	}
	id, algorithm := v.KeyID, v.Algorithm
	if id == "" {
		id = "default"
	}
	if algorithm == "" {
		algorithm = "RS256"
	}
	keys := map[string]*bundle.KeyConfig{id: {Key: v.Key, Algorithm: algorithm, Scope: v.Scope}}
	return bundle.NewVerificationConfig(keys, id, v.Scope, nil)
}

// bundleSource is what a folder's source is.
func bundleSource(b *bundle.Bundle, opts Options) *source {
	s := &source{version: b.RegoVersion(defaultVersion), data: b.Data}
	for _, m := range b.Modules {
		if opts.takes(m.Path) {
			s.modules = append(s.modules, m)
		}
	}
	return s
}

// ready takes the bundle's own module.
func ready(b *bundle.Bundle) (*Module, error) {
	if len(b.WasmModules) > 1 {
		return nil, fmt.Errorf("the bundle has %d Wasm modules, want one", len(b.WasmModules))
	}
	m := &Module{Wasm: b.WasmModules[0].Raw}
	for _, r := range b.Manifest.WasmResolvers {
		m.Entrypoints = append(m.Entrypoints, r.Entrypoint)
	}
	if len(m.Entrypoints) == 0 {
		return nil, errors.New("the bundle has a Wasm module, but its manifest names no entry point for it")
	}
	s := &source{data: b.Data}
	var err error
	m.Data, err = s.dataJSON()
	return m, err
}

// isBundle reports whether a folder is an OPA bundle that is not packed: one
// with a manifest or signatures.
func isBundle(fsys fs.FS) bool {
	for _, name := range []string{".manifest", ".signatures.json"} {
		if _, err := fs.Stat(fsys, name); err == nil {
			return true
		}
	}
	return false
}

// folderBundle reads such a folder. What describes it to Holdfast is none of the
// bundle's.
func folderBundle(fsys fs.FS, opts Options) (*source, error) {
	files, err := collect(fsys, opts.Beside)
	if err != nil {
		return nil, err
	}
	b, err := readBundle(files, opts)
	if err != nil {
		return nil, err
	}
	return bundleSource(b, opts), nil
}

// archive gives files that are read already to OPA's reader.
type archive struct {
	files []bundleFile
	next  int
}

type bundleFile struct {
	name string
	raw  []byte
}

func (a *archive) NextFile() (*bundle.Descriptor, error) {
	if a.next == len(a.files) {
		return nil, io.EOF
	}
	f := a.files[a.next]
	a.next++
	name := "/" + f.name // as OPA's own loaders have it, and its manifests
	return bundle.NewDescriptor(name, name, bytes.NewBuffer(f.raw)), nil
}

// The files were chosen and bounded when they were read.
func (a *archive) WithFilter(filter.LoaderFilter) bundle.DirectoryLoader         { return a }
func (a *archive) WithPathFormat(bundle.PathFormat) bundle.DirectoryLoader       { return a }
func (a *archive) WithSizeLimitBytes(int64) bundle.DirectoryLoader               { return a }
func (a *archive) WithFollowSymlinks(followSymlinks bool) bundle.DirectoryLoader { return a }
