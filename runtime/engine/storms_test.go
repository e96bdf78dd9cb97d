package engine

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// Functions and types of every storm's module.
const (
	stormNothing = 3 // () -> ()
	stormOne     = 4 // (i32) -> i32
	stormWide    = 5 // 256 values -> ()
	stormTurn    = 6 // 64 values -> 64 values
)

// A storm runs one kind of instruction or call for ever: setup once, then a turn.
type storm struct {
	name, setup, turn string
	pages, most       uint32
	charge            uint64 // of the largest single charge, where that is not small
}

func repeated(n int, code string) string { return strings.Repeat(code+" ", n) }

// far repeats an instruction with offsets all over 16 MiB.
func far(n int, before, op string) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, "%s %s 0 %d ", before, op, i*29120%16_700_000)
	}
	return out.String()
}

// chain lays addresses from 0 on, one in every 64 bytes of all pages, so that
// following them passes every line; it is holdfast_init's.
const chain = `memory.size 0 i32.const 10 i32.shl local.tee 3 drop
	loop void
		local.get 2 i32.const 6 i32.shl
		local.get 2 i32.const 166525 i32.mul i32.const 39041 i32.add local.get 3 i32.const 1 i32.sub i32.and i32.const 6 i32.shl
		i32.store 0 0
		local.get 2 i32.const 1 i32.add local.tee 2 local.get 3 i32.lt_s br_if 0
	end i32.const 0`

// Numbers of imports and functions that storms call.
const (
	callNow, callLog, callMatch, callRandom = "call 0", "call 1", "call 2", "call 3"
	callLeaf, callTree, callWide, callTurn  = "call 8", "call 9", "call 10", "call 11"
)

var storms = []storm{
	{name: "empty loop"},
	{name: "loop that turns 64 values", setup: repeated(64, "local.get 2") + "loop 6 i32.const 0 br 0 end unreachable"},
	{name: "straight line", turn: repeated(20_000, "local.get 3 i64.const 1000001 i64.add local.set 3")},
	{name: "ifs", turn: repeated(1_000, "local.get 2 if void i64.const 3 local.set 3 end")},
	{name: "br_if at random", turn: "local.get 2 i32.const 1664525 i32.mul i32.const 1013904223 i32.add local.tee 2 i32.const 0 i32.lt_s br_if 0"},
	{name: "br_table", turn: `local.get 2 i32.const 1664525 i32.mul i32.const 1013904223 i32.add local.set 2
		block void block void block void block void local.get 2 i32.const 29 i32.shr_u br_table 7 0 1 2 3 0 2 1 3 end br 3 end br 2 end br 1 end`},
	{name: "recursion", turn: "i32.const 900 " + callTree + " drop"},
	{name: "recursion that works on its way back", turn: "i32.const 900 call 13 drop"},
	{name: "calls", turn: repeated(16, callLeaf)},
	{name: "calls of 256 parameters", turn: repeated(4, repeated(256, "local.get 2")+callWide)},
	{name: "calls of 64 results", turn: repeated(64, "local.get 2") + callTurn + repeated(64, " drop")},
	{name: "call_indirect", turn: repeated(16, "i32.const 4 call_indirect 3 0")},
	{name: "call_indirect to cold functions", turn: `i32.const 1 local.get 2 i32.const 1664525 i32.mul i32.const 1013904223 i32.add local.tee 2
		i32.const 8000 i32.rem_u i32.const 10 i32.add call_indirect 4 0 drop`},
	{name: "loads of a chain over 512 KiB", turn: repeated(16, "local.get 2 i32.load 0 0 local.set 2"), pages: 8},
	{name: "loads of a chain over 1 MiB", turn: repeated(16, "local.get 2 i32.load 0 0 local.set 2"), pages: 16},
	{name: "loads of a chain over 16 MiB", turn: "local.get 2 " + repeated(16, "i32.load 0 0") + "local.set 2", pages: 256},
	{name: "stores along a chain over 16 MiB", turn: repeated(8, "local.get 2 i32.load 0 0 local.tee 2 local.get 2 i32.store 0 8"), pages: 256},
	{name: "stores all over 16 MiB", turn: far(4_000, "i32.const 0 i64.const 7", "i64.store"), pages: 256},
	{name: "stores of bytes all over 16 MiB", turn: far(4_000, "i32.const 0 i32.const 7", "i32.store8"), pages: 256},
	{name: "stores at one place", turn: repeated(16, "i32.const 4096 i64.const 7 i64.store 0 0")},
	{name: "memory.fill of 1 byte", turn: repeated(4, "i32.const 8192 i32.const 1 i32.const 1 memory.fill 0")},
	{name: "memory.fill of 64 bytes", turn: repeated(4, "i32.const 8192 i32.const 1 i32.const 64 memory.fill 0")},
	{name: "memory.fill of 64 KiB", turn: "i32.const 8192 i32.const 1 i32.const 65536 memory.fill 0"},
	{name: "memory.fill of 8 MiB", turn: "i32.const 8192 i32.const 1 i32.const 8388608 memory.fill 0", pages: 256, charge: 1 << 20},
	{name: "memory.copy of 1 byte", turn: repeated(4, "i32.const 8193 i32.const 65536 i32.const 1 memory.copy 0 0")},
	{name: "memory.copy of 64 KiB", turn: "i32.const 8193 i32.const 131072 i32.const 65536 memory.copy 0 0"},
	{name: "memory.copy of 512 KiB", turn: "i32.const 8193 i32.const 8388608 i32.const 524288 memory.copy 0 0", pages: 256, charge: 1 << 16},
	{name: "memory.grow by 0", turn: "i32.const 0 memory.grow 0 drop", charge: 8 * 4_096},
	{name: "memory.grow by 1", turn: "i32.const 1 memory.grow 0 drop", pages: 1, most: 256, charge: 256 * 4_096},
	{name: "memory.grow by 15", turn: "i32.const 15 memory.grow 0 drop", pages: 1, most: 256, charge: 256 * 4_096},
	{name: "memory.grow that fails", turn: "i32.const 1 memory.grow 0 drop", charge: 9 * 4_096},
	{name: "now", turn: callNow + " drop"},
	{name: "log of 1 byte", turn: "i32.const 1 i32.const 0 i32.const 1 " + callLog},
	{name: "log of 4 KiB", turn: "i32.const 1 i32.const 0 i32.const 4096 " + callLog},
	{name: "match of nothing", turn: "i32.const 0 i32.const 0 i32.const 0 " + callMatch + " drop"},
	{name: "match of 64 bytes", setup: "i32.const 65536 i32.const 97 i32.const 60000 memory.fill 0", turn: "i32.const 0 i32.const 65536 i32.const 64 " + callMatch + " drop"},
	{name: "match of 4 KiB", setup: "i32.const 65536 i32.const 97 i32.const 60000 memory.fill 0", turn: "i32.const 0 i32.const 65536 i32.const 4096 " + callMatch + " drop", charge: 1 << 20},
	{name: "random of 1 byte", turn: "i32.const 4096 i32.const 1 " + callRandom + " drop"},
	{name: "random of 64 KiB", turn: "i32.const 4096 i32.const 65536 " + callRandom + " drop", charge: 1 << 16},
	{name: "i64.div_s", turn: repeated(16, "i64.const 0x7ffffffffffffff7 local.get 3 i64.div_s i64.const 3 i64.or local.set 3"), setup: "i64.const 3 local.set 3"},
	{name: "i64.rem_u", turn: repeated(16, "i64.const 0x7ffffffffffffff7 local.get 3 i64.rem_u i64.const 3 i64.or local.set 3"), setup: "i64.const 3 local.set 3"},
	{name: "f64.div", turn: repeated(16, "f64.const 7.7 local.get 4 f64.div local.set 4"), setup: "f64.const 3.3 local.set 4"},
	{name: "f64.sqrt", turn: repeated(16, "local.get 4 f64.sqrt local.set 4"), setup: "f64.const 3.3 local.set 4"},
	{name: "f64.add", turn: repeated(16, "f64.const 7.7 local.get 4 f64.add local.set 4"), setup: "f64.const 3.3 local.set 4"},
	{name: "f64.mul of denormals", turn: repeated(16, "f64.const 0.77 local.get 4 f64.mul local.set 5"), setup: "f64.const 1e-315 local.set 4"},
	{name: "f64.min", turn: repeated(16, "f64.const 7.7 local.get 4 f64.min local.set 4"), setup: "f64.const 3.3 local.set 4"},
	{name: "i64.trunc_f64_u", turn: repeated(16, "local.get 4 i64.trunc_f64_u f64.convert_i64_u local.set 4"), setup: "f64.const 3.3 local.set 4"},
	{name: "i64.trunc_sat_f64_u", turn: repeated(16, "local.get 4 i64.trunc_sat_f64_u f64.convert_i64_u local.set 4"), setup: "f64.const 3.3 local.set 4"},
	{name: "i64.mul", turn: repeated(16, "local.get 3 i64.const 77 i64.mul local.set 3")},
	{name: "i64.popcnt", turn: repeated(16, "local.get 3 i64.popcnt local.set 3")},
	{name: "global", turn: repeated(16, "global.get 0 i64.const 1 i64.add global.set 0")},
	{name: "ref.func", turn: repeated(16, "ref.func 8 local.set 6")},
	{name: "table.get", turn: repeated(16, "i32.const 1 table.get 0 local.set 6")},
	{name: "table.size", turn: repeated(16, "table.size 0 drop")},
	{name: "memory.size", turn: repeated(16, "memory.size 0 drop")},
}

// manyLocals enters a function of 900 locals, which no turn of the others does.
var manyLocals = storm{name: "calls of 900 locals", turn: repeated(16, "i32.const 0 call 12 drop")}

func (s *storm) module() []byte {
	p := guestOf(assembled{typ: 2, locals: "iIFFr", code: assemble(s.setup + " loop void " + s.turn + " br 0 end unreachable")})
	p.functions[2].code = assemble("i32.const 0 drop " + s.setup + " loop void " + s.turn + " br 0 end i64.const 0")
	p.functions[2].locals = "iIFFr"
	p.types = append(p.types, ":", "i:i", strings.Repeat("i", 256)+":", strings.Repeat("i", 64)+":"+strings.Repeat("i", 64), ":I", "iii:", "iii:i")
	p.imports = []hostImport{{"holdfast_v1", "now", 7}, {"holdfast_v1", "log", 8}, {"holdfast_v1", "match", 9}, {"wasi_snapshot_preview1", "random_get", 10}}
	p.types = append(p.types, "ii:i")
	p.functions = append(p.functions,
		assembled{export: abi.ExportInit, typ: 10, locals: "ii", code: assemble(chain)},
		assembled{typ: stormNothing}, // 8: a leaf
		assembled{typ: stormOne, code: assemble(`local.get 0 i32.eqz if void i32.const 1 return end
			local.get 0 i32.const 1 i32.sub call 9 drop local.get 0 i32.const 1 i32.sub call 9`)},
		assembled{typ: stormWide},
		assembled{typ: stormTurn, code: assemble(turned())},
		assembled{typ: stormOne, locals: strings.Repeat("I", 900), code: assemble(keepAll())},
		assembled{typ: stormOne, locals: "I", code: assemble("local.get 0 i32.eqz if void i32.const 0 return end local.get 0 i32.const 1 i32.sub call 13 drop " +
			"local.get 0 if void " + repeated(300, "local.get 1 i64.const 1 i64.add local.set 1") + " end i32.const 0")},
	)
	if strings.Contains(s.name, "cold") {
		for i := range 8_000 {
			p.functions = append(p.functions, assembled{typ: stormOne, code: assemble(fmt.Sprintf(`local.get 0 i32.eqz if void
				i32.const 8 i32.const 16 i64.load 0 0 i64.const %d i64.mul i64.store 0 0 end local.get 0`, i*1_000_000_007))})
		}
	}
	p.table, p.globals, p.pages, p.mostPages = len(p.functions), "I", 8, s.most
	if s.pages > 0 {
		p.pages = s.pages
	}
	return p.bytes()
}

// turned gives 64 parameters back in another order.
func turned() string {
	var out strings.Builder
	for i := range 64 {
		fmt.Fprintf(&out, "local.get %d ", 63-i)
	}
	return out.String()
}

// keepAll has use for 900 locals, where its parameter is not 0.
func keepAll() string {
	var out strings.Builder
	for _, code := range []string{"local.get %d i64.const 3 i64.add local.set %[1]d ", "i32.const 0 local.get %d i64.store 0 0 "} {
		out.WriteString("local.get 0 if void ")
		for i := range 900 {
			fmt.Fprintf(&out, code, i+1)
		}
		out.WriteString("end ")
	}
	return out.String() + "local.get 0"
}

func loadStorm(tb testing.TB, s *storm, config Config) *Module {
	tb.Helper()
	return loadTest(tb, config, Spec{Name: s.name, Wasm: s.module(), ABI: abi.HoldfastV1, Class: wasm.Policy, Pool: 1,
		Init: []byte("\xa1\x66params\xa0"), Patterns: []string{`(a|a?){6,20}(x+x+)+y$`}})
}

// TestStormsEndWithTheirFuel reads the counter itself where a storm trapped: what
// it says was spent beyond the limit is at most a tenth of it, without the one
// charge that came before the work and ended it.
func TestStormsEndWithTheirFuel(t *testing.T) {
	const limit = 100_000
	for _, s := range append(storms, manyLocals) {
		m := loadStorm(t, &s, Config{})
		i, err := m.acquire()
		if err != nil {
			t.Fatal(err)
		}
		_, trap := i.instance.answer(abi.Call{Input: []byte{0}, Fuel: limit})
		over := -int64(i.instance.fuel.Get())
		m.replace(i)
		if trap == nil || trap.Code != abi.TrapFuel || trap.Fuel != limit {
			t.Errorf("%s: %v", s.name, trap)
		}
		if over <= 0 || over > int64(limit/10+s.charge) {
			t.Errorf("%s: trapped with %d units beyond %d", s.name, over, limit)
		}
	}
}

// BenchmarkStorms reports the nanoseconds that a unit takes at the default fuel,
// the quickest of its runs, and so the worst that a guest can buy with it. What a
// call costs beside its fuel is subtracted: a call that has a hundredth of it.
func BenchmarkStorms(b *testing.B) {
	for _, s := range append(storms, manyLocals) {
		b.Run(strings.ReplaceAll(s.name, " ", "-"), func(b *testing.B) {
			m := loadStorm(b, &s, Config{})
			little, all := time.Duration(1<<62), time.Duration(1<<62)
			for range b.N {
				little = min(little, timed(m, abi.DefaultFuel/100))
				all = min(all, timed(m, abi.DefaultFuel))
			}
			b.ReportMetric(float64((all-little).Nanoseconds())/(abi.DefaultFuel*99/100), "ns/unit")
			b.ReportMetric(float64(all.Nanoseconds()), "ns-at-default")
		})
	}
}

func timed(m *Module, fuel uint64) time.Duration {
	start := time.Now()
	m.Call(abi.Call{Input: binary.LittleEndian.AppendUint16(nil, 0), Fuel: fuel})
	return time.Since(start)
}
