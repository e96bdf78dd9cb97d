package guest_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/abi/conformance"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/guest"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// maxNative bounds the modules of the examples.
const maxNative = 12 << 10

// A native is an example in a language that compiles to a small module.
type native struct{ example, wasm string }

func (n native) name() string { return strings.TrimSuffix(n.wasm, ".wasm") }

func natives() []native {
	all := []native{{"spend-cap", "c/examples/spend-cap-cpp.wasm"}}
	for _, example := range guest.Examples() {
		all = append(all, native{example, "c/examples/" + example + ".wasm"}, native{example, "zig/examples/" + example + ".wasm"})
	}
	return all
}

// project is the example as a policy's folder with its committed module.
func (n native) project(t testing.TB) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	add := func(to, from string) {
		raw, err := os.ReadFile(filepath.FromSlash(from))
		if err != nil {
			t.Fatal(err)
		}
		files[to] = &fstest.MapFile{Data: raw}
	}
	shared, err := os.ReadDir("examples/" + n.example)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range shared {
		add(strings.Replace(e.Name(), "policy.yaml", "holdfast.yaml", 1), "examples/"+n.example+"/"+e.Name())
	}
	add("policy.wasm", n.wasm)
	return files
}

// built is the package of the committed module, whose vectors have passed.
func (n native) built(t testing.TB, h *loader.Host) *compiler.Built {
	t.Helper()
	b, err := compiler.BuildFS(context.Background(), n.project(t), compiler.Options{Loader: h, Prebuilt: true})
	if err != nil {
		t.Fatalf("%s: %v", n.name(), err)
	}
	return b
}

func newHost(t testing.TB, config engine.Config) *loader.Host {
	t.Helper()
	h, err := loader.OpenHost(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(context.Background()) })
	return h
}

// TestNativeIsSmall holds the modules to their size and memory, and the shared
// vectors to the default fuel.
func TestNativeIsSmall(t *testing.T) {
	h := newHost(t, engine.Config{})
	for _, n := range natives() {
		b := n.built(t, h)
		if size := len(b.Package.Module); size > maxNative {
			t.Errorf("%s: %d bytes, at most %d", n.name(), size, maxNative)
		}
		m, err := h.Open(t.Context(), b.Package)
		if err != nil {
			t.Fatal(err)
		}
		var least, most uint64
		for _, v := range b.Vectors {
			if most = max(most, v.Fuel); least == 0 || v.Fuel < least {
				least = v.Fuel
			}
		}
		if s := m.Stats(); s.MemoryBytes > 128<<10 {
			t.Errorf("%s: %d bytes of memory", n.name(), s.MemoryBytes)
		}
		t.Logf("%s: %d bytes, %d vectors, %d to %d units", n.name(), len(b.Package.Module), len(b.Vectors), least, most)
	}
}

// kitHost is our engine as the conformance kit wants it.
type kitHost struct {
	t      *testing.T
	engine *engine.Engine
}

func (h kitHost) Load(ctx context.Context, g conformance.Guest) (abi.Module, error) {
	m, err := h.engine.Load(ctx, engine.Spec{Name: g.Name, Wasm: g.Wasm, ABI: g.ABI, Class: g.Class, Init: g.Init, Patterns: g.Patterns, Pool: 1})
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { m.Close(context.Background()) })
	return m, nil
}

func kitHosts(t *testing.T) (hosts []conformance.Host) {
	for _, interpreter := range []bool{false, true} {
		e, err := engine.New(t.Context(), engine.Config{Interpreter: interpreter})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close(context.Background()) })
		hosts = append(hosts, kitHost{t, e})
	}
	return hosts
}

func guestOf(t *testing.T, pkg *bundle.Package) conformance.Guest {
	t.Helper()
	speaks, err := codec.For(abi.HoldfastV1)
	if err != nil {
		t.Fatal(err)
	}
	init, err := speaks.Init(pkg.Params, pkg.Data)
	if err != nil {
		t.Fatal(err)
	}
	return conformance.Guest{Name: pkg.Name, Wasm: pkg.Module, ABI: abi.HoldfastV1, Class: wasm.Policy, Init: init, Patterns: pkg.Patterns}
}

// BenchmarkNative asks for the first vector's decision, which allows: whole is one
// isolated decision with CBOR both ways on the host, call the module alone.
func BenchmarkNative(b *testing.B) {
	h := newHost(b, engine.Config{})
	speaks, err := codec.For(abi.HoldfastV1)
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range natives() {
		built := n.built(b, h)
		m, err := h.Open(b.Context(), built.Package)
		if err != nil {
			b.Fatal(err)
		}
		request, err := policy.ParseRequest(built.Package.Vectors[0].Point, built.Package.Vectors[0].Request)
		if err != nil {
			b.Fatal(err)
		}
		input, err := speaks.Encode(request)
		if err != nil {
			b.Fatal(err)
		}
		call := func(b *testing.B, input []byte) []byte {
			got, err := m.Call(abi.Call{Input: input, Now: vectors.Now})
			if err != nil {
				b.Fatal(err)
			}
			return got.Output
		}
		name := strings.ReplaceAll(n.name(), "/examples/", "-")
		b.Run(name+"/call", func(b *testing.B) {
			for b.Loop() {
				call(b, input)
			}
			b.ReportMetric(float64(built.Vectors[0].Fuel), "units")
		})
		b.Run(name+"/whole", func(b *testing.B) {
			for b.Loop() {
				input, err := speaks.Encode(request)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := speaks.Decode(call(b, input)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
