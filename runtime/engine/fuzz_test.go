package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// generator writes valid code at random: expressions of every type, nested
// blocks with values, loops that end and calls that do not come back.
type generator struct {
	*rand.Rand
	program *program
	locals  string   // of the function being written, parameters first
	labels  []string // of the blocks around: what a branch carries
	number  int      // of the function
	budget  int      // instructions that may still be written
	oracle  bool     // makes NaNs canonical itself, behind every instruction
	scratch int      // of its two locals for that, f32 and f64
}

// Imports come first: now, log and match. Functions that are generated follow
// the three of the contract; each calls only those before it, or itself when the
// depth that it is given is not used up.
const firstGenerated = 3 + 3

// generate makes a module whose answer is a digest of what its functions came to.
// The oracle of a seed is the same module that also makes its NaNs canonical.
func generate(seed uint64, oracle bool) *program {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0)), oracle: oracle}
	p := guestOf(assembled{})
	p.types = append(p.types, ":I", "iii:", "iii:i")
	p.imports = []hostImport{{"holdfast_v1", "now", 3}, {"holdfast_v1", "log", 4}, {"holdfast_v1", "match", 5}}
	p.globals, p.mostPages = "iIfF", 3
	g.program = p
	for n := range 1 + g.IntN(5) {
		g.number = firstGenerated + n
		typ := "i" + g.types(3) + ":" + g.types(3)
		if g.IntN(8) == 0 {
			typ = "i" + g.types(40) + ":" + g.types(20)
		}
		p.types = append(p.types, typ)
		p.functions = append(p.functions, g.function(typ, len(p.types)-1))
	}
	p.table = len(p.functions)
	p.functions[2] = g.decide()
	return p
}

func (g *generator) types(most int) string {
	out := make([]byte, g.IntN(most+1))
	for i := range out {
		out[i] = "iIfF"[g.IntN(4)]
	}
	return string(out)
}

func (g *generator) function(typ string, index int) assembled {
	params, results := split(typ)
	declared := g.types(6)
	g.locals, g.labels, g.budget = params+declared, []string{results}, 20+g.IntN(150)
	g.scratch = len(g.locals)
	var code []byte
	// the first parameter counts calls down, so that recursion ends
	code = append(code, assemble("local.get 0 i32.eqz if void")...)
	for _, letter := range []byte(results) {
		code = g.constant(code, letter)
	}
	code = append(code, assemble("return end local.get 0 i32.const 1 i32.sub local.set 0")...)
	for g.budget > 0 && g.IntN(6) != 0 {
		code = g.statement(code)
	}
	for _, letter := range []byte(results) {
		code = g.expression(code, letter, 3)
	}
	return assembled{typ: index, locals: declared + "fF", code: code}
}

// decide calls every function and stores what it gave, and the globals, at 2048.
func (g *generator) decide() assembled {
	code := []byte{}
	at := uint64(2048)
	store := func(letter byte) {
		// the address lies below the value: a local keeps the value meanwhile
		local := 2 + indexOf("iIfF", letter)
		code = binary.AppendUvarint(append(code, 0x21), uint64(local))
		code = appendSigned(append(code, 0x41), 0)
		code = binary.AppendUvarint(append(code, 0x20), uint64(local))
		code = binary.AppendUvarint(append(code, stores[letter], 0), at)
		at += 8
	}
	for n, f := range g.program.functions[3:] {
		params, results := split(g.program.types[f.typ])
		g.locals = "ii"
		for i, letter := range []byte(params) {
			if i == 0 {
				code = append(code, assemble("local.get 0 i32.load8_u 0 0 i32.const 3 i32.and")...)
			} else {
				code = g.constant(code, letter)
			}
		}
		code = binary.AppendUvarint(append(code, 0x10), uint64(firstGenerated+n))
		for i := len(results) - 1; i >= 0; i-- {
			store(results[i])
		}
	}
	for i, letter := range []byte(g.program.globals) {
		code = append(code, 0x23, byte(i))
		store(letter)
	}
	length := int64(at - 2048)
	code = appendSigned(append(code, 0x42), 2048<<32|length)
	return assembled{export: abi.ExportDecide, typ: 2, locals: "iIfF", code: code}
}

var (
	stores = map[byte]byte{'i': 0x36, 'I': 0x37, 'f': 0x38, 'F': 0x39}
	loads  = map[byte]byte{'i': 0x28, 'I': 0x29, 'f': 0x2a, 'F': 0x2b}
)

func indexOf(in string, letter byte) int {
	for i := range len(in) {
		if in[i] == letter {
			return i
		}
	}
	return -1
}

func split(typ string) (params, results string) {
	for i := range len(typ) {
		if typ[i] == ':' {
			return typ[:i], typ[i+1:]
		}
	}
	return typ, ""
}

// constant pushes a number, often an odd one.
func (g *generator) constant(code []byte, letter byte) []byte {
	switch letter {
	case 'i':
		return appendSigned(append(code, 0x41), int64(int32([]uint64{0, 1, 1 << 31, 1<<32 - 1, g.Uint64N(100), g.Uint64()}[g.IntN(6)])))
	case 'I':
		return appendSigned(append(code, 0x42), int64([]uint64{0, 1, 1 << 63, 1<<64 - 1, g.Uint64N(100), g.Uint64()}[g.IntN(6)]))
	case 'f':
		return binary.LittleEndian.AppendUint32(append(code, 0x43), float32s[g.IntN(len(float32s))])
	}
	return binary.LittleEndian.AppendUint64(append(code, 0x44), float64s[g.IntN(len(float64s))])
}

// An operator is a numericCode instruction, with the letters of what it takes and gives.
type operator struct {
	code  []byte
	takes string
	gives byte
}

// operators returns all numericCode instructions of the MVP, sign extension and
// saturating conversions, but those that trap.
func operators() (all []operator) {
	add := func(first, last byte, takes string, gives byte) {
		for code := int(first); code <= int(last); code++ {
			all = append(all, operator{[]byte{byte(code)}, takes, gives})
		}
	}
	add(0x45, 0x45, "i", 'i')
	add(0x46, 0x4f, "ii", 'i')
	add(0x50, 0x50, "I", 'i')
	add(0x51, 0x5a, "II", 'i')
	add(0x5b, 0x60, "ff", 'i')
	add(0x61, 0x66, "FF", 'i')
	add(0x67, 0x69, "i", 'i')
	add(0x6a, 0x6c, "ii", 'i')
	add(0x71, 0x78, "ii", 'i')
	add(0x79, 0x7b, "I", 'I')
	add(0x7c, 0x7e, "II", 'I')
	add(0x83, 0x8a, "II", 'I')
	add(0x8b, 0x91, "f", 'f')
	add(0x92, 0x98, "ff", 'f')
	add(0x99, 0x9f, "F", 'F')
	add(0xa0, 0xa6, "FF", 'F')
	add(0xa7, 0xa7, "I", 'i')
	add(0xac, 0xad, "i", 'I')
	add(0xb2, 0xb3, "i", 'f')
	add(0xb4, 0xb5, "I", 'f')
	add(0xb6, 0xb6, "F", 'f')
	add(0xb7, 0xb8, "i", 'F')
	add(0xb9, 0xba, "I", 'F')
	add(0xbb, 0xbb, "f", 'F')
	add(0xbc, 0xbc, "f", 'i')
	add(0xbd, 0xbd, "F", 'I')
	add(0xbe, 0xbe, "i", 'f')
	add(0xbf, 0xbf, "I", 'F')
	add(0xc0, 0xc1, "i", 'i')
	add(0xc2, 0xc4, "I", 'I')
	for n, takes := range []string{"f", "f", "F", "F", "f", "f", "F", "F"} {
		all = append(all, operator{[]byte{0xfc, byte(n)}, takes, "iI"[n/4]})
	}
	return all
}

var numericCode = operators()

// expression pushes a value of a type.
func (g *generator) expression(code []byte, letter byte, depth int) []byte {
	g.budget--
	if depth == 0 || g.budget <= 0 {
		return g.leaf(code, letter)
	}
	switch g.IntN(12) {
	case 0, 1:
		return g.leaf(code, letter)
	case 2:
		code = g.expression(g.expression(code, letter, depth-1), letter, depth-1)
		return append(g.expression(code, 'i', depth-1), 0x1b)
	case 3: // memory.size gives 16 bits, so that most loads lie within
		code = append(g.expression(code, 'i', depth-1), assemble("i32.const 0xffff i32.and")...)
		return binary.AppendUvarint(append(code, loads[letter], 0), uint64(g.IntN(5000)))
	case 4:
		code = append(g.expression(code, 'i', depth-1), 0x04, typeBytes[letter])
		g.labels = append(g.labels, string(letter))
		code = append(g.expression(g.someStatements(code), letter, depth-1), 0x05)
		code = append(g.expression(code, letter, depth-1), 0x0b)
		g.labels = g.labels[:len(g.labels)-1]
		return code
	case 5:
		code = append(code, 0x02, typeBytes[letter])
		g.labels = append(g.labels, string(letter))
		code = g.expression(g.someStatements(code), letter, depth-1)
		code = append(g.expression(code, 'i', depth-1), 0x0d, 0, 0x0b)
		g.labels = g.labels[:len(g.labels)-1]
		return code
	case 6:
		return g.callFor(code, letter, depth)
	}
	for {
		if op := numericCode[g.IntN(len(numericCode))]; op.gives == letter {
			for _, taken := range []byte(op.takes) {
				code = g.expression(code, taken, depth-1)
			}
			return g.canonical(append(code, op.code...), op)
		}
	}
}

// canonical is the oracle's: a NaN that an instruction may give at will becomes
// the canonical one.
func (g *generator) canonical(code []byte, op operator) []byte {
	n := op.code[0]
	if !g.oracle || !(n >= 0x8d && n <= 0x97 || n >= 0x9b && n <= 0xa5 || n == 0xb6 || n == 0xbb) {
		return code
	}
	if op.gives == 'f' {
		code = binary.AppendUvarint(append(code, 0x22), uint64(g.scratch))
		code = binary.AppendUvarint(append(code, 0x20), uint64(g.scratch))
		code = append(code, 0x5c, 0x04, 0x7d, 0x43, 0, 0, 0xc0, 0x7f, 0x05)
		return append(binary.AppendUvarint(append(code, 0x20), uint64(g.scratch)), 0x0b)
	}
	code = binary.AppendUvarint(append(code, 0x22), uint64(g.scratch+1))
	code = binary.AppendUvarint(append(code, 0x20), uint64(g.scratch+1))
	code = append(code, 0x62, 0x04, 0x7c, 0x44, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f, 0x05)
	return append(binary.AppendUvarint(append(code, 0x20), uint64(g.scratch+1)), 0x0b)
}

// leaf pushes a constant, a local or a global.
func (g *generator) leaf(code []byte, letter byte) []byte {
	if local := g.IntN(len(g.locals)); g.locals[local] == letter && g.IntN(4) != 0 {
		return binary.AppendUvarint(append(code, 0x20), uint64(local))
	}
	if letter == 'I' && g.IntN(6) == 0 {
		return append(code, 0x10, 0) // now
	}
	if g.IntN(4) == 0 {
		return append(code, 0x23, byte(indexOf(g.program.globals, letter)))
	}
	return g.constant(code, letter)
}

// callFor calls a function whose last result has the type, and drops the others.
func (g *generator) callFor(code []byte, letter byte, depth int) []byte {
	for n := range len(g.program.functions) - 3 {
		f := g.program.functions[3+n]
		params, results := split(g.program.types[f.typ])
		if len(results) != 1 || results[0] != letter || len(params) > 4 {
			continue
		}
		code = append(code, 0x20, 0) // what is left of the depth
		for _, taken := range []byte(params[1:]) {
			code = g.expression(code, taken, depth-1)
		}
		if g.IntN(2) == 0 {
			code = appendSigned(append(code, 0x41), int64(3+n))
			return append(binary.AppendUvarint(append(code, 0x11), uint64(f.typ)), 0)
		}
		return binary.AppendUvarint(append(code, 0x10), uint64(firstGenerated+n))
	}
	return g.leaf(code, letter)
}

func (g *generator) someStatements(code []byte) []byte {
	for g.budget > 0 && g.IntN(3) == 0 {
		code = g.statement(code)
	}
	return code
}

// statement writes code that leaves the stack as it was.
func (g *generator) statement(code []byte) []byte {
	g.budget--
	switch g.IntN(13) {
	case 0, 1:
		local := 1 + g.IntN(max(len(g.locals)-1, 1))
		if local >= len(g.locals) {
			return code
		}
		return binary.AppendUvarint(append(g.expression(code, g.locals[local], 3), 0x21), uint64(local))
	case 2:
		global := g.IntN(len(g.program.globals))
		return append(g.expression(code, g.program.globals[global], 3), 0x24, byte(global))
	case 3, 4:
		letter := "iIfF"[g.IntN(4)]
		code = append(g.expression(code, 'i', 2), assemble("i32.const 0xffff i32.and")...)
		return binary.AppendUvarint(append(g.expression(code, letter, 3), stores[letter], 0), uint64(g.IntN(5000)))
	case 5:
		return g.block(code)
	case 6:
		return g.loop(code)
	case 7:
		return g.branch(code)
	case 8:
		code = append(g.expression(code, 'i', 2), assemble("i32.const 0xfff i32.and")...)
		code = append(g.expression(code, 'i', 2), assemble("i32.const 0xfff i32.and")...)
		code = append(g.expression(code, 'i', 2), assemble("i32.const 0x3ff i32.and")...)
		if g.IntN(2) == 0 {
			return append(code, assemble("memory.fill 0")...)
		}
		return append(code, assemble("memory.copy 0 0")...)
	case 9:
		return assembleTo(g.expression(code, 'i', 1), "i32.const 1 i32.and memory.grow 0 drop")
	case 10:
		return append(append(assembleTo(code, "i32.const 1 i32.const 16"), g.expression(nil, 'i', 1)...), assemble("i32.const 63 i32.and call 1")...)
	case 11:
		return append(g.expression(code, "iIfF"[g.IntN(4)], 3), 0x1a)
	}
	return append(code, 0x01)
}

func assembleTo(code []byte, source string) []byte { return append(code, assemble(source)...) }

// block is one that several values may leave, from inside or at its end.
func (g *generator) block(code []byte) []byte {
	results := g.types(12)
	g.program.types = append(g.program.types, ":"+results)
	code = appendSigned(append(code, 0x02), int64(len(g.program.types)-1))
	g.labels = append(g.labels, results)
	code = g.someStatements(code)
	for _, letter := range []byte(results) {
		code = g.expression(code, letter, 1)
	}
	if g.IntN(2) == 0 {
		code = append(g.expression(code, 'i', 2), 0x0d, 0)
	}
	g.labels = g.labels[:len(g.labels)-1]
	code = append(code, 0x0b)
	for range results {
		code = append(code, 0x1a)
	}
	return code
}

// loop turns at most seven times, which a local of its own counts.
func (g *generator) loop(code []byte) []byte {
	counter := len(g.locals) - 1
	if counter < 1 || g.locals[counter] != 'i' {
		return code
	}
	code = append(g.expression(code, 'i', 1), assemble("i32.const 7 i32.and")...)
	code = binary.AppendUvarint(append(code, 0x21), uint64(counter))
	code = append(code, 0x03, 0x40)
	g.labels = append(g.labels, "")
	saved := g.locals
	g.locals = g.locals[:counter] // nothing inside may set it
	code = g.someStatements(code)
	g.locals = saved
	g.labels = g.labels[:len(g.labels)-1]
	code = binary.AppendUvarint(append(code, 0x20), uint64(counter))
	code = binary.AppendUvarint(append(code, assemble("i32.const 1 i32.sub")...), uint64(0))
	code = code[:len(code)-1]
	code = binary.AppendUvarint(append(code, 0x22), uint64(counter))
	return append(code, assemble("i32.const 0 i32.gt_s br_if 0 end")...)
}

// branch leaves a block around for good, or where a condition holds.
func (g *generator) branch(code []byte) []byte {
	label := g.IntN(len(g.labels))
	carried := g.labels[len(g.labels)-1-label]
	code = append(g.expression(code, 'i', 2), 0x04, 0x40)
	g.labels = append(g.labels, "")
	for _, letter := range []byte(carried) {
		code = g.expression(code, letter, 1)
	}
	switch g.IntN(3) {
	case 0:
		code = binary.AppendUvarint(append(code, 0x0c), uint64(label+1))
	case 1:
		code = g.expression(code, 'i', 1)
		code = binary.AppendUvarint(append(code, 0x0e, 1), uint64(label+1))
		code = binary.AppendUvarint(code, uint64(label+1))
	case 2:
		code = append(g.expression(code, 'i', 1), 0x0d)
		code = binary.AppendUvarint(code, uint64(label+1))
		for range carried {
			code = append(code, 0x1a)
		}
	}
	g.labels = g.labels[:len(g.labels)-1]
	return append(code, 0x0b)
}

// plain runs the module as it was generated, on wazero's interpreter, and returns
// its answer or the code of its trap.
func plain(t *testing.T, module []byte, input byte) (string, abi.TrapCode) {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2&^api.CoreFeatureSIMD))
	defer r.Close(ctx)
	_, err := r.NewHostModuleBuilder(abi.ImportModule).
		NewFunctionBuilder().WithFunc(func() uint64 { return 77 }).Export(abi.ImportNow).
		NewFunctionBuilder().WithFunc(func(_, _, _ uint32) {}).Export(abi.ImportLog).
		NewFunctionBuilder().WithFunc(func(_, _, _ uint32) uint32 { return 0xffffffff }).Export(abi.ImportMatch).
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Instantiate(ctx, module)
	if err != nil {
		t.Fatalf("the generated module is not valid: %v", err)
	}
	base := uint32(0) // of the guest's addresses
	if m.ExportedGlobal(wasm.ExportWritten) != nil {
		base = wasm.MapBytes
	}
	m.Memory().WriteByte(base+16, input)
	for _, meter := range []string{abi.ExportFuel, abi.ExportDepth} {
		if global, ok := m.ExportedGlobal(meter).(api.MutableGlobal); ok {
			global.Set(10_000_000)
		}
	}
	results, err := m.ExportedFunction(abi.ExportDecide).Call(ctx, 16, 1)
	if err != nil {
		return "", (&instance{fuel: noMeter{}, depth: noMeter{}}).trap(err).Code
	}
	output, _ := m.Memory().Read(base+uint32(results[0]>>32), uint32(results[0]))
	return string(output), ""
}

// noMeter is the meter of a module that has none.
type noMeter struct{ api.MutableGlobal }

func (noMeter) Get() uint64 { return 1 }

// FuzzMeteredBehaviour runs a module of random code rewritten, on both engines,
// and its oracle as it is: the same answer or trap, bit for bit, and the same
// fuel; with less fuel, a trap for that at exactly the limit.
func FuzzMeteredBehaviour(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed, byte(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, input byte) { compareBehaviour(t, seed, input) })
}

func compareBehaviour(t *testing.T, seed uint64, input byte) {
	module := generate(seed, false).bytes()
	call := abi.Call{Input: []byte{input}, Now: 77, Fuel: abi.MaxFuel}
	compiled := loadTest(t, Config{}, Spec{Wasm: module, ABI: abi.HoldfastV1, Pool: 1})
	interpreted := loadTest(t, Config{Interpreter: true}, Spec{Wasm: module, ABI: abi.HoldfastV1, Pool: 1})
	first, err := compiled.Call(call)
	second, err2 := interpreted.Call(call)
	if string(first.Output) != string(second.Output) || first.Fuel != second.Fuel || codeOf(err) != codeOf(err2) {
		t.Fatalf("seed %d: compiled %x, %d units, %v; interpreted %x, %d units, %v", seed, first.Output, first.Fuel, err, second.Output, second.Fuel, err2)
	}
	if codeOf(err) == abi.TrapFuel || codeOf(err) == abi.TrapDepth {
		return
	}
	want, trap := plain(t, generate(seed, true).bytes(), input)
	if trap != codeOf(err) || want != string(first.Output) {
		t.Fatalf("seed %d: the oracle gives %x, %s; the metered one %x, %v", seed, want, trap, first.Output, err)
	}
	if err == nil && first.Fuel > 1 {
		call.Fuel = first.Fuel - 1
		if short, err := compiled.Call(call); codeOf(err) != abi.TrapFuel || short.Fuel != call.Fuel {
			t.Fatalf("seed %d: %d units are needed; with one less: %d, %v", seed, first.Fuel, short.Fuel, err)
		}
	}
}

// FuzzPass applies one pass alone to a module of random code: the copy is valid
// and gives the same answer or trap as the module itself, or, where the pass is
// the one that makes floats canonical, as its oracle.
func FuzzPass(f *testing.F) {
	for seed := range uint64(70) {
		f.Add(seed, byte(seed), byte(seed%7))
	}
	f.Fuzz(func(t *testing.T, seed uint64, input, number byte) {
		pass := wasm.Pass(number % 7)
		rewrite := func(pass wasm.Pass) []byte {
			rewritten, err := wasm.Rewrite(generate(seed, false).bytes(), wasm.Policy, abi.HoldfastV1, pass)
			if err != nil {
				t.Fatal(err)
			}
			return rewritten
		}
		if _, trap := plain(t, rewrite(wasm.MeterFuel), input); trap == abi.TrapUnreachable {
			return // it takes too long without a meter
		}
		got, trap := plain(t, rewrite(pass), input)
		if want, wantTrap := plain(t, generate(seed, pass == wasm.CanonicalFloats).bytes(), input); got != want || trap != wantTrap {
			t.Fatalf("seed %d, pass %d: %x, %q; without it %x, %q", seed, pass, got, trap, want, wantTrap)
		}
	})
}

func codeOf(err error) abi.TrapCode {
	if trap, ok := errors.AsType[*abi.Trap](err); ok {
		return trap.Code
	}
	if err != nil {
		return abi.TrapCode(fmt.Sprint(err))
	}
	return ""
}

// TestGeneratedModules says how much of the behaviour random modules have.
func TestGeneratedModules(t *testing.T) {
	outcomes := map[abi.TrapCode]int{}
	for seed := range uint64(300) {
		module := generate(seed, false).bytes()
		if _, err := wasm.Scan(module, wasm.Policy); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		_, trap := plain(t, module, byte(seed))
		outcomes[trap]++
	}
	t.Log(outcomes)
}
