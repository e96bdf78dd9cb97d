package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// TestMetersDoNotChangeTheAnswer compares the metered module with the one that
// its author wrote, on plain wazero.
func TestMetersDoNotChangeTheAnswer(t *testing.T) {
	module := readFile(t, "testdata/shapes.wasm")
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	plain, err := r.Instantiate(ctx, module)
	if err != nil {
		t.Fatal(err)
	}
	spec := engine.Spec{Name: "shapes", Wasm: module, ABI: abi.HoldfastV1}
	compiled := load(t, newEngine(t, engine.Config{}), spec)
	interpreted := load(t, newEngine(t, engine.Config{Interpreter: true}), spec)
	for n := range uint32(2_000) {
		input := binary.LittleEndian.AppendUint32(nil, n)
		plain.Memory().Write(2048, make([]byte, 96))
		plain.Memory().Write(1024, input)
		if _, err := plain.ExportedFunction(abi.ExportDecide).Call(ctx, 1024, 4); err != nil {
			t.Fatal(err)
		}
		want, _ := plain.Memory().Read(2048, 96)
		got, err := compiled.Call(abi.Call{Input: input})
		if err != nil || string(got.Output) != string(want) {
			t.Fatalf("%d: got %x, %v\nwant %x", n, got.Output, err, want)
		}
		again, err := interpreted.Call(abi.Call{Input: input})
		if err != nil || string(again.Output) != string(want) || again.Fuel != got.Fuel {
			t.Fatalf("%d on the interpreter: %x, %d units (compiler %d), %v", n, again.Output, again.Fuel, got.Fuel, err)
		}
	}
}

func TestStartLoopEndsWithTheFuel(t *testing.T) {
	e := newEngine(t, engine.Config{})
	start := time.Now()
	_, err := e.Load(context.Background(), engine.Spec{Name: "startloop", Wasm: readFile(t, "testdata/startloop.wasm"), ABI: abi.HoldfastV1})
	if trap, ok := errors.AsType[*abi.Trap](err); !ok || trap.Code != abi.TrapFuel {
		t.Errorf("got %v", err)
	}
	t.Logf("%d units in %v", abi.InitFuel, time.Since(start))
}

func TestBuiltinInsideOfABuiltinTraps(t *testing.T) {
	m := load(t, newEngine(t, engine.Config{}), engine.Spec{Name: "reenter", Wasm: readFile(t, "testdata/reenter.wasm"), ABI: abi.OPA1})
	for range 3 {
		if _, err := m.Call(abi.Call{}); trapCode(t, err) != abi.TrapBuiltin {
			t.Fatalf("got %v", err)
		}
	}
}

// TestTrapsAreQuick holds every behaviour of the probe that never ends against
// a generous bound of time and memory at the default fuel.
func TestTrapsAreQuick(t *testing.T) {
	m := load(t, newEngine(t, engine.Config{}), probe(t))
	for _, c := range probes {
		if !c.allFuel && c.trap != abi.TrapDepth {
			continue
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		result, _ := m.Call(abi.Call{Input: []byte(c.input)})
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		t.Logf("%-24s %8v  %.2f ns a unit, %d KiB allocated", c.name, took, float64(took.Nanoseconds())/float64(result.Fuel), (after.TotalAlloc-before.TotalAlloc)>>10)
		if took > 500*time.Millisecond {
			t.Errorf("%s took %v", c.name, took)
		}
	}
}

// TestHostOffersWhatTheScanAllows instantiates a module that imports everything.
func TestHostOffersWhatTheScanAllows(t *testing.T) {
	offered := engine.HostFunctionNames()
	for _, kind := range []abi.Kind{abi.HoldfastV1, abi.OPA1} {
		for name := range wasm.AllowedImports(kind) {
			if name != "env.memory" && !offered[name] {
				t.Errorf("the scan allows %s, which the host does not have", name)
			}
		}
	}
}

// FuzzMeteredModulesValidate checks that rewriting keeps a valid module valid.
func FuzzMeteredModulesValidate(f *testing.F) {
	files, err := filepath.Glob("testdata/*.wasm")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		module, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(module)
	}
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, module []byte) {
		report, err := wasm.Scan(module, wasm.Policy)
		if err != nil {
			return
		}
		r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().
			WithCoreFeatures(api.CoreFeaturesV2&^api.CoreFeatureSIMD).WithMemoryLimitPages(1_536))
		defer r.Close(ctx)
		if _, err := r.CompileModule(ctx, module); err != nil {
			return
		}
		metered, err := wasm.Instrument(module, wasm.Policy, report.ABI)
		if err != nil {
			t.Fatalf("a valid module that passed the scan is refused: %v", err)
		}
		if _, err := r.CompileModule(ctx, metered); err != nil {
			t.Fatalf("the metered module is not valid: %v", err)
		}
	})
}
