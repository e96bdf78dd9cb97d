package guest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/abi/conformance"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/guest"
	"github.com/holdfast-policy/holdfast/sdk/policy"
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

// TestNativeVectors runs the shared vectors, within the default fuel, and holds
// the modules to their size and memory.
func TestNativeVectors(t *testing.T) {
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

func TestNativeConformance(t *testing.T) {
	h := newHost(t, engine.Config{})
	for _, n := range natives() {
		t.Run(n.name(), func(t *testing.T) {
			report := conformance.CheckGuest(t.Context(), kitHosts(t), guestOf(t, n.built(t, h).Package))
			if err := report.Err(); err != nil {
				t.Error(err)
			}
			if len(report) < 30 {
				t.Errorf("only %d cases", len(report))
			}
		})
	}
}

// TestNativeTimes holds hf_time and its like against Go's time package, through
// spend-cap: at the instant itself the window has begun, a nanosecond before it
// has not.
func TestNativeTimes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	times := append(oddTimes(), randomTimes(rand.New(rand.NewPCG(seed, 1)), 4_000)...)
	h := newHost(t, engine.Config{})
	for _, n := range natives() {
		if n.example != "spend-cap" {
			continue
		}
		m, err := h.Open(t.Context(), n.built(t, h).Package)
		if err != nil {
			t.Fatal(err)
		}
		valid := 0
		for _, text := range times {
			want, ok := instant(text)
			if !ok {
				if got := window(t, m, text, 1<<62); got != "window_invalid: the start of the window is not a time" {
					t.Errorf("%s: %q: %s", n.name(), text, got)
				}
				continue
			}
			valid++
			if got := window(t, m, text, want); got != "over_cap: 5000 on top of 0 is more than 1000 EUR" {
				t.Errorf("%s: %q at %d: %s", n.name(), text, want, got)
			}
			if got := window(t, m, text, want-1); got != "window_invalid: the window begins in the future" {
				t.Errorf("%s: %q before %d: %s", n.name(), text, want, got)
			}
		}
		if valid < 1_000 || len(times)-valid < 1_000 {
			t.Errorf("%d valid of %d", valid, len(times))
		}
	}
}

// instant is Go's reading of the times that the examples' README describes.
func instant(text string) (int64, bool) {
	fraction := strings.IndexByte(text, '.')
	digits := 0
	for fraction >= 0 && fraction+1+digits < len(text) && text[fraction+1+digits] >= '0' && text[fraction+1+digits] <= '9' {
		digits++
	}
	if digits > 9 || strings.Contains(text, ",") || len(text) < 20 || text[10] != 'T' && text[10] != 't' {
		return 0, false
	}
	strict := []byte(text)
	strict[10] = 'T'
	if last := len(strict) - 1; strict[last] == 'z' {
		strict[last] = 'Z'
	}
	at, err := time.Parse(time.RFC3339Nano, string(strict))
	_, offset := at.Zone()
	year := text[:4]
	if strings.HasSuffix(text, ":60") {
		return 0, false // which Go takes for an offset
	}
	if err != nil || year < "1970" || year > "2200" || offset <= -24*3600 || offset >= 24*3600 || at.Format(":05") != text[16:19] {
		return 0, false
	}
	return at.UnixNano(), true
}

func oddTimes() []string {
	return []string{
		"", "T", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00+23:59", "1969-12-31T23:59:59Z", "2200-12-31T23:59:59.999999999-23:59", "2201-01-01T00:00:00Z",
		"2100-02-29T00:00:00Z", "2000-02-29T00:00:00Z", "2024-02-29T23:59:59z", "2023-02-29T00:00:00Z", "2024-02-30T00:00:00Z", "2024-04-31T00:00:00Z", "2024-12-31t00:00:00Z",
		"2024-00-10T00:00:00Z", "2024-13-10T00:00:00Z", "2024-01-00T00:00:00Z", "2024-01-32T00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01T23:60:00Z", "2024-01-01T23:59:60Z",
		"2024-01-01T00:00:00", "2024-01-01T00:00:00.", "2024-01-01T00:00:00.Z", "2024-01-01T00:00:00.1", "2024-01-01T00:00:00.123456789Z", "2024-01-01T00:00:00.1234567890Z",
		"2024-01-01T00:00:00+24:00", "2024-01-01T00:00:00+23:60", "2024-01-01T00:00:00+0100", "2024-01-01T00:00:00+01", "2024-01-01T00:00:00 Z", "2024-01-01 00:00:00Z",
		"2024-01-01T00:00:00ZZ", "2024-1-01T00:00:00Z0", "+024-01-01T00:00:00Z", "2024-01-01T00:00:0 Z", "2024-01-01T00:00:00,5Z", "2024-01-01T-1:00:00Z", "２024-01-01T00:00:00Z", "2024-01-01T00:00:00−01:00",
	}
}

// randomTimes are mostly near the bounds, and one in three has a byte changed.
func randomTimes(r *rand.Rand, n int) []string {
	out := make([]string, n)
	for i := range out {
		text := fmt.Sprintf("%04d-%02d-%02d%c%02d:%02d:%02d", 1968+r.IntN(236), r.IntN(14), r.IntN(33), "Tt"[r.IntN(2)], r.IntN(25), r.IntN(61), r.IntN(61))
		if r.IntN(4) > 0 {
			text = fmt.Sprintf("%04d-%02d-%02dT%02d:%02d:%02d", 1970+r.IntN(231), 1+r.IntN(12), 1+r.IntN(30), r.IntN(24), r.IntN(60), r.IntN(60))
		}
		if r.IntN(2) == 0 {
			text += "." + fmt.Sprintf("%010d", r.Int64N(10_000_000_000))[:r.IntN(11)]
		}
		zone := fmt.Sprintf("%c%02d:%02d", "+-"[r.IntN(2)], r.IntN(25), r.IntN(61))
		text += []string{"Z", "z", zone, zone}[r.IntN(4)]
		if r.IntN(3) == 0 {
			b := []byte(text)
			b[r.IntN(len(b))] = "0123456789TZtz:.+- a"[r.IntN(20)]
			text = string(b)
		}
		out[i] = text
	}
	return out
}

// window asks spend-cap for too much, with the start of the window, and returns
// the reason.
func window(t *testing.T, m *engine.Module, start string, now int64) string {
	t.Helper()
	d := ask(t, m, now, map[string]any{"arguments": map[string]any{"amount": int64(5000), "currency": "EUR"}, "window_start": start})
	return d.Reasons[0].Code + ": " + d.Reasons[0].Text
}

func ask(t *testing.T, m *engine.Module, now int64, context map[string]any) policy.Decision {
	t.Helper()
	speaks, err := codec.For(abi.HoldfastV1)
	if err != nil {
		t.Fatal(err)
	}
	input, err := speaks.Encode(&policy.Request{Subject: policy.Entity{Type: "agent", ID: "a"}, Action: policy.Action{Name: "call"},
		Resource: policy.Entity{Type: "tool", ID: "pay"}, Context: context})
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Call(abi.Call{Input: input, Now: now})
	if err != nil {
		t.Fatalf("%v: %v", context, err)
	}
	d, err := speaks.Decode(got.Output)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// BenchmarkNative is one isolated decision with CBOR both ways, of the request
// that needs the most fuel among the vectors that allow.
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
		heaviest := 0
		for i, v := range built.Vectors {
			if built.Package.Vectors[i].Params == nil && v.Fuel > built.Vectors[heaviest].Fuel {
				heaviest = i
			}
		}
		vector := built.Package.Vectors[heaviest]
		request, err := policy.ParseRequest(vector.Point, vector.Request)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(strings.ReplaceAll(n.name(), "/examples/", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				input, err := speaks.Encode(request)
				if err != nil {
					b.Fatal(err)
				}
				got, err := m.Call(abi.Call{Input: input, Now: 1_767_225_600_000_000_000})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := speaks.Decode(got.Output); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(built.Vectors[heaviest].Fuel), "units")
		})
	}
}
