package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/compiler/toolchain"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// host runs packages for the author's commands. It is the compiler's Loader.
type host struct{ *loader.Host }

func newHost(ctx context.Context) (*host, error) {
	h, err := loader.OpenHost(ctx, engine.Config{Worker: engine.Self(), Cache: codeDir()})
	return &host{h}, err
}

// codeDir is where this user's compiled modules are; "" where users have no cache.
func codeDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "holdfast", "compiled")
}

// findEntrypoint returns the number of the module's entry point that is path, or
// the longest that path lies under, and the rest of the path, which leads into
// its value. An empty path is the only entry point.
func findEntrypoint(m *engine.Module, path string) (number int32, rest []string, err error) {
	all := m.Entrypoints()
	names := slices.Sorted(maps.Keys(all))
	if path == "" && len(names) == 1 {
		return all[names[0]], nil, nil
	}
	steps := strings.Split(path, "/")
	for n := len(steps); n > 0; n-- {
		if number, ok := all[strings.Join(steps[:n], "/")]; ok {
			return number, unescaped(steps[n:]), nil
		}
	}
	return 0, nil, fmt.Errorf("no entry point %q; the module has %s", path, strings.Join(names, ", "))
}

// unescaped returns the steps of a path as they were before they were joined.
func unescaped(steps []string) []string {
	for i, s := range steps {
		if plain, err := url.PathUnescape(s); err == nil {
			steps[i] = plain
		}
	}
	return steps
}

// openPackage opens a .hfp, or builds anything else that build builds without
// running its vectors' verdicts through; nil flags are the defaults.
func (h *host) openPackage(ctx context.Context, path string, source *sourceFlags) (*bundle.Package, wire.Digest, error) {
	if !strings.HasSuffix(path, ".hfp") {
		opts, err := source.options(h)
		if err != nil {
			return nil, wire.Digest{}, err
		}
		built, err := compiler.Build(ctx, path, opts)
		var failed *compiler.VectorError
		if err != nil && !errors.As(err, &failed) {
			return nil, wire.Digest{}, authorError(err)
		}
		return built.Package, built.Digest, nil
	}
	raw, err := readBounded(path, bundle.MaxPackageFile)
	if err != nil {
		return nil, wire.Digest{}, err
	}
	pkg, digest, err := bundle.OpenPackage(raw, bundle.MaxPackage)
	if err != nil {
		return nil, wire.Digest{}, fmt.Errorf("%s: %w", path, err)
	}
	return pkg, digest, nil
}

// authorError gives a failed build its exit code: what is missing is 3, what was
// checked and found wanting 1, and what cannot be read 2.
func authorError(err error) error {
	var missing *toolchain.MissingError
	var refusal *wasm.Refusal
	var trap *abi.Trap
	var failed *compiler.VectorError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &missing):
		return &exitError{code: exitMissing, err: err}
	case errors.As(err, &refusal), errors.As(err, &trap), errors.As(err, &failed):
		return &exitError{code: exitCheck, err: err}
	}
	return &exitError{code: exitUsage, err: err}
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAtMost(f, path, limit)
}

func readAtMost(r io.Reader, name string, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return raw, err
}

// readInput reads a file, or stdin for "-".
func (e *env) readInput(path string, limit int64) ([]byte, error) {
	if path == "-" {
		return readAtMost(e.stdin, "standard input", limit)
	}
	return readBounded(path, limit)
}

// printJSON writes one JSON value and a line feed.
func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// A question is a request on its way to one module.
type question struct {
	name       string // of the vector; "" for one from a file
	pkg        *bundle.Package
	module     *engine.Module
	codec      codec.Codec
	entrypoint int32
	rest       []string // into the entry point's value, for --raw
	fuel       uint64
	point      string
	body       []byte
	raw        bool
	now        int64 // 0 for the time of the machine
}

// ask decides once, from the request's bytes to the decision's, and returns
// those and the units of fuel.
func (q *question) ask() ([]byte, uint64, error) {
	req, err := policy.ParseRequest(q.point, q.body)
	if err != nil {
		return nil, 0, err
	}
	input, err := q.codec.Encode(req)
	if err != nil {
		return nil, 0, err
	}
	res, err := q.module.Call(abi.Call{Input: input, Entrypoint: q.entrypoint, Fuel: q.fuel, Now: cmp.Or(q.now, clockNow())})
	if err != nil {
		return nil, 0, &exitError{code: exitCheck, err: fmt.Errorf("the policy did not answer: %w", err)}
	}
	var answer []byte
	if q.raw {
		answer, err = codec.Document(res.Output, q.rest)
	} else {
		answer, err = q.decision(res.Output)
	}
	if err != nil {
		return nil, res.Fuel, &exitError{code: exitCheck, err: err}
	}
	return answer, res.Fuel, nil
}

// decision is the answer that a node would give, without what recording adds.
func (q *question) decision(out []byte) ([]byte, error) {
	d, err := q.codec.Decode(out)
	if err != nil {
		return nil, err
	}
	return json.Marshal(decisionJSON{
		Permits: d.Verdict.Permits(), Verdict: d.Verdict, Reasons: orEmpty(d.Reasons), Obligations: orEmpty(d.Obligations), Value: d.Value,
	})
}

type decisionJSON struct {
	Permits     bool                `json:"decision"`
	Verdict     policy.Verdict      `json:"verdict"`
	Reasons     []policy.Reason     `json:"reasons"`
	Obligations []policy.Obligation `json:"obligations"`
	Value       any                 `json:"value,omitempty"`
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// questionFor prepares to ask a package's module at a point; raw wraps bare
// documents.
func (h *host) questionFor(ctx context.Context, pkg *bundle.Package, point, entrypoint string, raw bool) (question, error) {
	q := question{pkg: pkg, fuel: pkg.Fuel, point: cmp.Or(point, firstPoint(pkg)), raw: raw}
	if raw && pkg.ABI != string(abi.OPA1) {
		return q, fmt.Errorf("--raw is for Rego; package %s speaks %s", pkg.Name, pkg.ABI)
	}
	if err := bundle.CheckPoint(q.point); err != nil {
		return q, err
	}
	var err error
	if q.codec, err = codec.For(abi.Kind(pkg.ABI)); err != nil {
		return q, err
	}
	if q.module, err = h.Open(ctx, pkg); err != nil {
		return q, authorError(err)
	}
	if pkg.ABI == string(abi.OPA1) {
		q.entrypoint, q.rest, err = findEntrypoint(q.module, strings.Trim(cmp.Or(entrypoint, pkg.Entrypoint), "/"))
		if err == nil && !raw && len(q.rest) > 0 {
			err = fmt.Errorf("entry point %s: the module has none of that name, only one above it; ask with --raw", entrypoint)
		}
	}
	return q, err
}

func firstPoint(pkg *bundle.Package) string {
	if len(pkg.Points) > 0 {
		return pkg.Points[0]
	}
	return policy.PointCustom
}

// wrapDocument makes a request of a bare input document.
func wrapDocument(doc []byte) []byte {
	return slices.Concat([]byte(`{"document":`), doc, []byte{'}'})
}
