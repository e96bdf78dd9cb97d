package engine

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// storing writes a guest whose function stores here and there. Every choice is
// taken from the bytes that it is made with, so that a fuzzer can steer it.
type storing struct {
	choices []byte
	code    []byte
	depth   int
}

// pick takes a choice among n, the first when there are no more bytes.
func (p *storing) pick(n int) int {
	if len(p.choices) == 0 {
		return 0
	}
	c := p.choices[0]
	p.choices = p.choices[1:]
	return int(c) % n
}

func (p *storing) emit(code ...byte) { p.code = append(p.code, code...) }

func leb(v uint32) []byte {
	var out []byte
	for ; v >= 0x80; v >>= 7 {
		out = append(out, byte(v)|0x80)
	}
	return append(out, byte(v))
}

func signedLEB(v int32) []byte {
	var out []byte
	for v < -0x40 || v > 0x3f {
		out = append(out, byte(v)&0x7f|0x80)
		v >>= 7
	}
	return append(out, byte(v)&0x7f)
}

// Of the function's locals, 0 and 1 are its parameters, 2 and 3 hold addresses
// and 6 and 7 count loops. Few of them, so that they are often used again.
const (
	firstAddress, addresses = 2, 2
	firstCounter            = 6
	programPages            = 2
)

var programAddresses = []uint32{0, 8, 500, 508, 511, 512, 1020, 2047, 2048, 4090, 40_000, 65_530, 65_536, 100_000,
	programPages<<16 - 520, programPages<<16 - 9, programPages<<16 - 8, programPages<<16 - 1, programPages << 16, 0xfffe_ffff, 0xffff_0000, 0xffff_fff0}

var programOffsets = []uint32{0, 0, 0, 4, 8, 8, 8, 16, 24, 56, 60, 63, 64, 100, 120, 124, 127, 128, 200, 500, 4080, 65_536, 0xffff_0000, 0xffff_fff8}

func (p *storing) address() {
	p.emit(append([]byte{0x41}, signedLEB(int32(programAddresses[p.pick(len(programAddresses))]))...)...)
}

func (p *storing) local() byte { return byte(firstAddress + p.pick(addresses)) }

func (p *storing) statements() {
	for range 1 + p.pick(8) {
		p.statement()
	}
}

func (p *storing) statement() {
	switch p.pick(14) {
	case 0, 1, 2, 3:
		p.store()
	case 4:
		p.address()
		p.emit(0x21, p.local())
	case 5: // moves an address a little
		p.emit(0x20, p.local(), 0x41)
		p.emit(signedLEB(int32(p.pick(256) - 128))...)
		p.emit(0x6a, 0x21, p.local())
	case 6: // an address from memory
		p.emit(0x20, p.local(), 0x28, 0)
		p.emit(leb(programOffsets[p.pick(16)])...)
		p.emit(0x41, 0xff, 0x01, 0x71, 0x21, p.local())
	case 7:
		p.nested(0x02)
	case 8:
		p.loop()
	case 9:
		p.choice()
	case 10:
		p.bulk()
	case 11: // leaves a block now and then
		if p.depth > 0 {
			p.condition()
			p.emit(0x0d, 0)
		}
	case 12:
		p.emit(0x3f, 0, 0x21, p.local())
	case 13:
		p.emit(0x20, p.local(), 0x41, 1, 0x71, 0x40, 0, 0x21, p.local())
	}
}

// condition is a byte of the input.
func (p *storing) condition() { p.emit(0x20, 0, 0x2d, 0, byte(p.pick(8))) }

func (p *storing) store() {
	switch p.pick(4) {
	case 0:
		p.address()
	case 1:
		p.address()
		p.emit(0x22, p.local())
	default:
		p.emit(0x20, p.local())
	}
	op := byte(0x36 + p.pick(9))
	switch op {
	case 0x36, 0x3a, 0x3b:
		if p.pick(2) == 0 {
			p.emit(0x41, 0x7f)
		} else { // a value that moves the address while it waits
			p.address()
			p.emit(0x22, p.local())
		}
	case 0x38:
		p.emit(0x43, 1, 2, 3, 4)
	case 0x39:
		p.emit(0x44, 1, 2, 3, 4, 5, 6, 7, 8)
	default:
		p.emit(0x42, 0x7f)
	}
	p.emit(op, 0)
	p.emit(leb(programOffsets[p.pick(len(programOffsets))])...)
}

func (p *storing) nested(op byte) {
	if p.depth == 4 {
		return
	}
	p.depth++
	p.emit(op, 0x40)
	p.statements()
	p.emit(0x0b)
	p.depth--
}

// loop goes round three times.
func (p *storing) loop() {
	if p.depth > 1 {
		return
	}
	counter := byte(firstCounter + p.depth)
	p.depth++
	p.emit(0x41, 3, 0x21, counter, 0x03, 0x40, 0x02, 0x40)
	p.statements()
	p.emit(0x0b, 0x20, counter, 0x41, 1, 0x6b, 0x22, counter, 0x0d, 0, 0x0b)
	p.depth--
}

func (p *storing) choice() {
	if p.depth == 4 {
		return
	}
	p.depth++
	p.condition()
	p.emit(0x04, 0x40)
	p.statements()
	p.emit(0x05)
	p.statements()
	p.emit(0x0b)
	p.depth--
}

func (p *storing) bulk() {
	kind := p.pick(3)
	p.emit(0x20, p.local())
	if kind == 1 {
		p.emit(0x20, p.local())
	} else {
		p.emit(0x41, 1)
	}
	lengths := []int32{0, 1, 7, 500, 513, 5000, 70_000, -1}
	if kind == 0 {
		lengths = []int32{0, 1, 7}
	}
	p.emit(append([]byte{0x41}, signedLEB(lengths[p.pick(len(lengths))])...)...)
	p.emit([][]byte{{0xfc, 8, 0, 0}, {0xfc, 10, 0, 0}, {0xfc, 11, 0}}[kind]...)
}

// module returns the guest. Its answer is 16 bytes at 16.
func (p *storing) module() []byte {
	p.statements()
	body := append([]byte{1, 6, 0x7f}, p.code...)
	body = append(body, 0x42)
	body = append(body, 0x90, 0x80, 0x80, 0x80, 0x80, 0x02, 0x0b) // 16 << 32 | 16
	section := func(id byte, content ...byte) []byte {
		return append(append([]byte{id}, leb(uint32(len(content)))...), content...)
	}
	named := func(name string, kind, index byte) []byte {
		return append(append([]byte{byte(len(name))}, name...), kind, index)
	}
	sized := func(b []byte) []byte { return append(leb(uint32(len(b))), b...) }
	out := []byte("\x00asm\x01\x00\x00\x00")
	out = append(out, section(1, 3, 0x60, 0, 1, 0x7f, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 2, 0x7f, 0x7f, 1, 0x7e)...)
	out = append(out, section(3, 3, 0, 1, 2)...)
	out = append(out, section(5, 1, 1, programPages, programPages+2)...)
	exports := append([]byte{4}, named(abi.ExportMemory, 2, 0)...)
	exports = append(append(append(exports, named(abi.ExportVersion, 0, 0)...), named(abi.ExportAlloc, 0, 1)...), named(abi.ExportDecide, 0, 2)...)
	out = append(out, section(7, exports...)...)
	out = append(out, section(12, 2)...)
	code := append([]byte{3}, sized([]byte{0, 0x41, 0, 0x0b})...)
	code = append(append(code, sized([]byte{0, 0x41, 32, 0x0b})...), sized(body)...)
	out = append(out, section(10, code...)...)
	filler := []byte(strings.Repeat("0123456789abcde", 500))
	data := append(append([]byte{2, 1}, sized(filler[:8])...), 0, 0x41, 0, 0x0b)
	return append(out, section(11, append(data, sized(filler)...)...)...)
}

// checkProgram runs a program on bare wazero and under isolation: the memory
// must be the same behind each call, and that of the snapshot behind a restore.
func checkProgram(t *testing.T, e *Engine, plain wazero.Runtime, class wasm.Class, choices []byte) (answered bool) {
	ctx := context.Background()
	module := (&storing{choices: choices}).module()
	m, err := e.Load(ctx, Spec{Name: "program", Wasm: module, ABI: abi.HoldfastV1, Class: class, Pool: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(ctx)
	defer func() {
		if t.Failed() {
			t.Logf("choices %x", choices)
		}
	}()
	for _, input := range []string{"\x00\x00\x00\x00\x00\x00\x00\x00", "\x01\x00\x01\x00\x01\x00\x01\x00", "\x01\x01\x01\x01\x01\x01\x01\x01"} {
		want, err := plain.InstantiateWithConfig(ctx, module, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			t.Fatal(err)
		}
		want.Memory().WriteString(32, input)
		_, plainErr := want.ExportedFunction(abi.ExportDecide).Call(ctx, 32, uint64(len(input)))
		_, trap := m.inspect(t, abi.Call{Input: []byte(input)}, func(behind []byte) {
			after, _ := want.Memory().Read(0, want.Memory().Size())
			if !bytes.Equal(behind[wasm.MapBytes:], after) {
				t.Errorf("%x: the memories differ after the call", choices)
			}
		})
		if (plainErr == nil) != (trap == nil) {
			t.Errorf("%x: plain %v, isolated %v", choices, plainErr, trap)
		}
		answered = answered || trap == nil
		want.Close(ctx)
	}
	return answered
}

// inspect answers a call as Call does, shows the memory behind it, and checks
// that nothing of it is left once it is restored.
func (m *Module) inspect(t *testing.T, call abi.Call, see func(memory []byte)) (abi.Result, *abi.Trap) {
	t.Helper()
	s, err := m.acquire()
	if err != nil {
		t.Fatal(err)
	}
	result, trap := s.instance.answer(call)
	see(s.instance.memory.all())
	if trap != nil || !s.instance.restore() {
		m.replace(s)
		return result, trap
	}
	defer m.giveBack(s)
	if !bytes.Equal(s.instance.memory.all(), m.snapshot.image.bytes) {
		t.Errorf("%x left a trace", call.Input)
	}
	return result, trap
}

func newProgramEngines(t testing.TB, config Config) (*Engine, wazero.Runtime) {
	ctx := context.Background()
	e, err := New(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	plain := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() {
		e.Close(ctx)
		plain.Close(ctx)
	})
	return e, plain
}

// TestProgramsLeaveNoTrace runs programs made at random on both engines.
func TestProgramsLeaveNoTrace(t *testing.T) {
	for name, config := range map[string]Config{"compiled": {}, "interpreted": {Interpreter: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, plain := newProgramEngines(t, config)
			const seed, programs = 11, 300
			random := rand.New(rand.NewPCG(seed, 0))
			answered := 0
			for n := range programs {
				choices := make([]byte, 20+random.IntN(200))
				for i := range choices {
					choices[i] = byte(random.Uint32())
				}
				if checkProgram(t, e, plain, []wasm.Class{wasm.Policy, wasm.LanguageRuntime}[n%2], choices) {
					answered++
				}
				if t.Failed() {
					t.Fatalf("seed %d, program %d", seed, n)
				}
			}
			if answered < programs/4 {
				t.Errorf("seed %d: only %d of %d programs answered", seed, answered, programs)
			}
			t.Logf("%d of %d programs answered", answered, programs)
		})
	}
}

func FuzzProgramsLeaveNoTrace(f *testing.F) {
	f.Add([]byte("\x05\x00\x02\x01\x02\x00\x03\x04"))
	f.Add([]byte("\x07\x08\x03\x00\x01\x05\x06\x0a\x02\x03"))
	e, plain := newProgramEngines(f, Config{})
	f.Fuzz(func(t *testing.T, choices []byte) {
		if len(choices) < 2_000 {
			checkProgram(t, e, plain, wasm.Policy, choices)
		}
	})
}
