// Package layers holds no code: its test reads the import statements of the
// whole project and fails on an arrow that DESIGN does not have. Changing an
// arrow is a commit of its own, with the reason.
package layers

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/holdfast-policy/holdfast/"

// arrows says which of the project's packages a package may import. A rule
// applies to the folder and everything below it; the longest one wins. An entry
// that ends in "/" stands for everything below it.
var arrows = map[string][]string{
	"sdk/policy":            {},
	"sdk/wire":              {},
	"sdk/abi":               {},
	"sdk/abi/conformance":   {"sdk/"},
	"sdk/wasm":              {"sdk/abi"},
	"sdk/codec":             {"sdk/policy", "sdk/wire", "sdk/abi"},
	"sdk/bundle":            {"sdk/policy", "sdk/wire", "sdk/abi"},
	"sdk/vectors":           {"sdk/policy", "sdk/wire", "sdk/abi", "sdk/codec", "sdk/bundle"},
	"sdk/schema":            {"sdk/policy", "sdk/bundle"},
	"sdk/audit":             {"sdk/policy", "sdk/wire", "sdk/inorder"},
	"sdk/inorder":           {},
	"sdk/bus":               {"sdk/wire", "sdk/bus/auth"},
	"sdk/bus/auth":          {},
	"sdk/bus/embed":         {"sdk/bus/auth", "sdk/sparing"},
	"sdk/sparing":           {},
	"sdk/guest":             {},
	"sdk/guest/go/examples": {"sdk/guest/go"},
	"sdk/client":            {"sdk/policy", "sdk/wire"},

	"compiler/rego":         {"sdk/wasm", "sdk/abi", "compiler/rego/backend"},
	"compiler/rego/backend": {},
	"compiler/toolchain":    {"sdk/wasm", "sdk/abi"},
	"compiler/script":       {"sdk/wasm"},
	"compiler":              {"compiler/", "sdk/", "internal/yamlfile"},

	"runtime/decide":        {"runtime/mask", "sdk/policy", "sdk/wire", "sdk/abi", "sdk/codec"},
	"runtime/edge":          {"runtime/", "sdk/"},
	"runtime/engine":        {"sdk/wasm", "sdk/abi"},
	"runtime/guard":         {"sdk/policy", "sdk/bundle", "sdk/wire"},
	"runtime/journal":       {"sdk/audit", "sdk/wire", "sdk/policy"},
	"runtime/loader":        {"runtime/engine", "runtime/decide", "runtime/mask", "sdk/"},
	"runtime/mask":          {"runtime/rawjson", "sdk/bundle", "sdk/policy", "sdk/wire"},
	"runtime/rawjson":       {},
	"runtime/replay":        {"runtime/decide", "runtime/engine", "runtime/guard", "runtime/loader", "sdk/"},
	"runtime/serve":         {"sdk/policy", "sdk/wire"},
	"runtime/serve/natsapi": {"sdk/policy", "sdk/bus"},
	"runtime/ship":          {"runtime/journal", "sdk/audit", "sdk/policy", "sdk/sparing"},
	"runtime/watch":         {"sdk/"},

	"control/ledger":         {"sdk/audit", "sdk/wire", "sdk/policy"},
	"control/ledger/formats": {"sdk/abi", "sdk/audit", "sdk/policy", "sdk/wire"},
	"control/ledger/index":   {"sdk/audit", "sdk/inorder", "sdk/policy", "sdk/wire"},
	"control/jetstream":      {"sdk/"},
	"control/release":        {"sdk/", "internal/yamlfile"},
	"control/rollout":        {"sdk/audit", "sdk/bundle"},
	"control/registry":       {"sdk/audit", "sdk/bundle", "sdk/wire", "control/rollout"},
	"control/hub":            {"sdk/audit", "sdk/bundle", "control/rollout", "control/registry"},

	"modules":              {"sdk/guest/"},
	"internal/cut":         {},
	"internal/demo":        {"modules", "sdk/", "testdata/"},
	"internal/hostile":     {"sdk/", "testdata/"},
	"internal/assembly":    {"runtime/", "control/", "sdk/", "internal/"},
	"internal/fleetkit":    {"internal/assembly", "sdk/"},
	"internal/layers":      {},
	"internal/lossyfs":     {},
	"internal/needs":       {},
	"internal/plaincbor":   {},
	"internal/regocases":   {},
	"internal/regoindex":   {},
	"internal/regiontest":  {"internal/cut", "control/jetstream", "sdk/"},
	"internal/tinyguest":   {"sdk/abi"},
	"internal/yamlfile":    {"sdk/policy"},
	"testdata":             {},
	"cmd/holdfast":         {"compiler", "compiler/", "runtime/", "control/", "sdk/", "internal/", "modules"},
	"cmd/holdfastd":        {"runtime/", "control/", "sdk/", "internal/assembly"},
	"bench":                {"compiler", "compiler/", "runtime/", "control/", "sdk/", "internal/", "modules", "bench/", "testdata/"},
	"internal/policyinput": {"sdk/", "testdata/"},
}

// soleImporters has one home for each library that shapes the architecture.
var soleImporters = map[string][]string{
	"github.com/tetratelabs/wazero":      {"runtime/engine"},
	"github.com/nats-io/nats.go":         {"sdk/bus"},
	"github.com/nats-io/nats-server/v2":  {"sdk/bus/embed"},
	"github.com/nats-io/jwt/v2":          {"sdk/bus/auth"},
	"github.com/nats-io/nkeys":           {"sdk/bus/auth", "sdk/bus"}, // sdk/bus: a test's hostile leaf signs by itself
	"github.com/fxamacker/cbor/v2":       {"sdk/wire"},
	"github.com/evanw/esbuild":           {"compiler/script"},
	"github.com/klauspost/compress/zstd": {"sdk/wire"},

	"github.com/santhosh-tekuri/jsonschema/v6": {"sdk/schema"},
	"github.com/hanwen/go-fuse/v2":             {"internal/lossyfs"},                       // tests alone import that
	"github.com/parquet-go/parquet-go":         {"control/ledger/formats", "cmd/holdfast"}, // cmd/holdfast: a test reads what was written
}

func TestArrows(t *testing.T) {
	packages := imports(t, false)
	for _, from := range sorted(packages) {
		allowed, ok := rule(from)
		if !ok {
			t.Errorf("%s: no rule; add the package to this test", from)
			continue
		}
		for _, to := range packages[from] {
			if to, ours := strings.CutPrefix(to, module); ours && to != from && !permits(allowed, to) {
				t.Errorf("%s imports %s", from, to)
			}
		}
	}
}

func TestSoleImporters(t *testing.T) {
	for from, list := range imports(t, true) {
		for _, to := range list {
			for library, homes := range soleImporters {
				if (to == library || strings.HasPrefix(to, library+"/")) && !slices.Contains(homes, from) {
					t.Errorf("%s imports %s, which only %v may", from, to, homes)
				}
			}
		}
	}
}

// The daemon must not carry our compiler, not even through others.
func TestDaemonDoesNotReachTheCompiler(t *testing.T) {
	packages := imports(t, false)
	seen := map[string]bool{}
	var visit func(p string, path []string)
	visit = func(p string, path []string) {
		if seen[p] {
			return
		}
		seen[p] = true
		path = append(path[:len(path):len(path)], p)
		if p == "compiler" || strings.HasPrefix(p, "compiler/") {
			t.Errorf("reached by %s", strings.Join(path, " -> "))
		}
		for _, to := range packages[p] {
			if to, ours := strings.CutPrefix(to, module); ours {
				visit(to, path)
			}
		}
	}
	if len(packages["cmd/holdfastd"]) == 0 {
		t.Fatal("cmd/holdfastd has no imports: this test looks at nothing")
	}
	visit("cmd/holdfastd", nil)
}

// imports maps every package folder to what its files import. Tests may look
// across planes, so they count only where asked for.
func imports(t *testing.T, tests bool) map[string][]string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" && filepath.Dir(path) != root || strings.HasPrefix(d.Name(), ".") && path != root) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || !tests && strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, _ := filepath.Rel(root, filepath.Dir(path))
		dir = filepath.ToSlash(dir)
		if _, ok := out[dir]; !ok {
			out[dir] = nil
		}
		for _, spec := range f.Imports {
			out[dir] = append(out[dir], strings.Trim(spec.Path.Value, `"`))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func rule(pkg string) (allowed []string, ok bool) {
	for dir := pkg; dir != "."; dir = filepath.ToSlash(filepath.Dir(dir)) {
		if allowed, ok := arrows[dir]; ok {
			return allowed, true
		}
	}
	return nil, false
}

func permits(allowed []string, to string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		return a == to || strings.HasSuffix(a, "/") && strings.HasPrefix(to, a)
	})
}

func sorted(m map[string][]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
