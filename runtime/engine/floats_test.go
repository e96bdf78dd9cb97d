package engine

import (
	"context"
	"encoding/binary"
	"math"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// floatGuest answers 8 bytes: what one instruction makes of the input. Its
// operands are loaded from the input, its result is stored as it is.
func floatGuest(code []byte, wideIn, wideOut bool, operands int) *program {
	load, store := assemble("f32.load 0"), assemble("f32.store 0 2048")
	if wideIn {
		load = assemble("f64.load 0")
	}
	if wideOut {
		store = assemble("f64.store 0 2048")
	}
	decide := assemble("i32.const 0")
	for n := range operands {
		decide = append(append(append(decide, assemble("local.get 0")...), load...), byte(8*n))
	}
	decide = append(append(decide, code...), store...)
	return guestOf(assembled{typ: 2, code: append(decide, assemble("i64.const 8796093022216")...)}) // 2048 << 32 | 8
}

// guestOf is a module of one page whose decide is given; its input lies at 16.
func guestOf(decide assembled) *program {
	decide.export = abi.ExportDecide
	return &program{
		types: []string{":i", "i:i", "ii:I"}, pages: 1,
		functions: []assembled{
			{export: abi.ExportVersion, typ: 0, code: assemble("i32.const 0")},
			{export: abi.ExportAlloc, typ: 1, code: assemble("i32.const 16")},
			decide,
		},
	}
}

// loadTest loads a module for the length of a test.
func loadTest(tb testing.TB, config Config, spec Spec) *Module {
	tb.Helper()
	e, err := New(context.Background(), config)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := e.Load(context.Background(), spec)
	if err != nil {
		e.Close(context.Background())
		tb.Fatal(err)
	}
	tb.Cleanup(func() { m.Close(context.Background()); e.Close(context.Background()) })
	return m
}

// float32s and float64s are operands: NaNs of odd payloads and of either sign,
// quiet and signalling, what makes a NaN, and numbers.
var (
	float32s = []uint32{0x7fc00000, 0xffc00000, 0x7fc12345, 0xffedcba9, 0x7f800001, 0xffbfffff, 0x7f800000, 0xff800000, 0, 0x80000000, 0x3fc00000, 0xbfc00000, 0x00000001, 0x7f7fffff}
	float64s = []uint64{0x7ff8 << 48, 0xfff8 << 48, 0x7ff8123456789abc, 0xfffedcba98765432, 0x7ff0000000000001, 0xfff7ffffffffffff, 0x7ff0 << 48, 0xfff0 << 48, 0, 1 << 63, 0x3ff8 << 48, 0xbff8 << 48, 1, 0x7fefffffffffffff}
)

// TestFloatsAreCanonical runs every float instruction that gives a float on every
// pair of odd operands, on both engines.
func TestFloatsAreCanonical(t *testing.T) {
	nans := 0
	for op := byte(0x8b); op <= 0xbb; op++ {
		wideIn := op >= 0x99 && op <= 0xa6 || op == 0xb6
		wideOut := op >= 0x99 && op <= 0xa6 || op == 0xbb
		binary := op >= 0x92 && op <= 0x98 || op >= 0xa0 && op <= 0xa6
		if op > 0xa6 && op != 0xb6 && op != 0xbb {
			continue
		}
		operands := 1
		if binary {
			operands = 2
		}
		guest := floatGuest([]byte{op}, wideIn, wideOut, operands)
		if op%2 == 0 { // in a function of many, which are made canonical in another way
			guest.functions[2].locals = "F"
			guest.functions[2].code = append(assemble(repeated(501, "local.get 2 f64.sqrt local.set 2")), guest.functions[2].code...)
		}
		module := guest.bytes()
		compiled := loadTest(t, Config{}, Spec{Wasm: module, ABI: abi.HoldfastV1, Pool: 1})
		interpreted := loadTest(t, Config{Interpreter: true}, Spec{Wasm: module, ABI: abi.HoldfastV1, Pool: 1})
		for n := range len(float64s) * len(float64s) {
			input := operandBytes(wideIn, n/len(float64s), n%len(float64s))
			first, err := compiled.Call(abi.Call{Input: input})
			second, err2 := interpreted.Call(abi.Call{Input: input})
			if err != nil || err2 != nil || string(first.Output) != string(second.Output) {
				t.Fatalf("0x%02x on %x: %x, %v; the interpreter: %x, %v", op, input, first.Output, err, second.Output, err2)
			}
			if checkFloat(t, op, wideOut, input, first.Output) {
				nans++
			}
		}
	}
	if nans < 2_000 {
		t.Errorf("only %d results were NaNs", nans)
	}
}

func operandBytes(wide bool, first, second int) []byte {
	if wide {
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, float64s[first]), float64s[second])
	}
	input := append(binary.LittleEndian.AppendUint32(nil, float32s[first]), 0, 0, 0, 0)
	return append(binary.LittleEndian.AppendUint32(input, float32s[second]), 0, 0, 0, 0)
}

// checkFloat checks the bits of a NaN, canonical or, for the three instructions
// that are exact, those of the operand; it tells whether there was one.
func checkFloat(t *testing.T, op byte, wide bool, input, output []byte) bool {
	t.Helper()
	got, first := binary.LittleEndian.Uint64(output), binary.LittleEndian.Uint64(input)
	sign, canonical := uint64(1)<<63, uint64(0x7ff8)<<48
	isNaN := math.IsNaN(math.Float64frombits(got))
	if !wide {
		sign, canonical = 1<<31, 0x7fc00000
		isNaN = math.IsNaN(float64(math.Float32frombits(uint32(got))))
	}
	want := canonical
	switch op {
	case 0x8b, 0x99: // abs
		want = first &^ sign
	case 0x8c, 0x9a: // neg
		want = first ^ sign
	case 0x98, 0xa6: // copysign
		want = first&^sign | binary.LittleEndian.Uint64(input[8:])&sign
	}
	if isNaN && got != want {
		t.Errorf("0x%02x on %x: %x, want %x", op, input, got, want)
	}
	return isNaN
}

// TestFloatsInChains evaluates long expressions, whose inner results are not
// made canonical, and expects what Go makes of them, or the canonical NaN.
func TestFloatsInChains(t *testing.T) {
	code := []byte{} // (a + b) * a / (b - a) min sqrt(a), on a local that is loaded anew
	code = append(code, assemble("f64.add local.get 0 f64.load 0 0 f64.mul local.get 0 f64.load 0 8 local.get 0 f64.load 0 0")...)
	code = append(code, 0xa1)
	code = append(code, assemble("f64.div local.get 0 f64.load 0 0 f64.sqrt f64.min")...)
	module := floatGuest(code, true, true, 2).bytes()
	compiled := loadTest(t, Config{}, Spec{Wasm: module, ABI: abi.HoldfastV1, Pool: 1})
	interpreted := loadTest(t, Config{Interpreter: true}, Spec{Wasm: module, ABI: abi.HoldfastV1, Pool: 1})
	for n := range len(float64s) * len(float64s) {
		a, b := math.Float64frombits(float64s[n/len(float64s)]), math.Float64frombits(float64s[n%len(float64s)])
		want := math.Float64bits(min((a+b)*a/(b-a), math.Sqrt(a)))
		if math.IsNaN(math.Float64frombits(want)) {
			want = 0x7ff8 << 48
		}
		input := operandBytes(true, n/len(float64s), n%len(float64s))
		for _, m := range []*Module{compiled, interpreted} {
			result, err := m.Call(abi.Call{Input: input})
			if err != nil || binary.LittleEndian.Uint64(result.Output) != want {
				t.Errorf("%v, %v: %x, %v, want %x", a, b, result.Output, err, want)
			}
		}
	}
}

// BenchmarkFloats adds up a polynomial of 64 numbers many times, with and without
// the pass that makes floats canonical, on wazero's compiler.
func BenchmarkFloats(b *testing.B) {
	turn := repeated(64, "local.get 3 f64.const 1.000001 f64.mul f64.const 0.5 f64.add local.get 4 f64.add local.set 4")
	p := guestOf(assembled{typ: 2, locals: "iFF", code: assemble("loop void " + turn +
		" local.get 2 i32.const 1 i32.add local.tee 2 i32.const 10000 i32.lt_s br_if 0 end i64.const 0")})
	for name, passes := range map[string][]wasm.Pass{"plain": nil, "canonical": {wasm.CanonicalFloats}} {
		b.Run(name, func(b *testing.B) {
			module, err := wasm.Rewrite(p.bytes(), wasm.Policy, abi.HoldfastV1, passes...)
			if err != nil {
				b.Fatal(err)
			}
			ctx := context.Background()
			r := wazero.NewRuntime(ctx)
			defer r.Close(ctx)
			m, err := r.Instantiate(ctx, module)
			if err != nil {
				b.Fatal(err)
			}
			decide := m.ExportedFunction(abi.ExportDecide)
			b.ResetTimer()
			for range b.N {
				if _, err := decide.Call(ctx, 0, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
