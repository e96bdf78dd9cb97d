package rego

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/bundle"
)

// maxBundle bounds one file of an OPA bundle, uncompressed.
const maxBundle = 16 << 20

// Bundle reads an OPA bundle (.tar.gz). One that carries a Wasm module gives
// that module as it is, with the entry points of its manifest; from any other
// the sources are compiled as Compile would.
func Bundle(ctx context.Context, raw []byte) (*Module, error) {
	b, err := bundle.NewCustomReader(bundle.NewTarballLoaderWithBaseURL(bytes.NewReader(raw), "")).
		WithSizeLimitBytes(maxBundle).WithProcessAnnotations(true).WithSkipBundleVerification(true).Read()
	if err != nil {
		return nil, positioned(err)
	}
	s := &source{version: b.RegoVersion(defaultVersion), data: b.Data}
	if len(b.WasmModules) == 0 {
		for _, m := range b.Modules {
			if isSource(m.Path) {
				s.modules = append(s.modules, m)
			}
		}
		return s.compile(ctx, nil)
	}
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
	m.Data, err = s.dataJSON()
	return m, err
}
