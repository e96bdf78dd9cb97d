package wasm

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

func repeat(n int, code ...byte) []byte { return bytes.Repeat(code, n) }

// hostile modules, and what each refusal must say.
var hostile = []struct {
	name  string
	bytes func() []byte
	item  string
	says  string
}{
	{"empty", func() []byte { return nil }, "header", "not a core"},
	{"text", func() []byte { return []byte("(module)") }, "header", "not a core"},
	{"component", func() []byte { return []byte("\x00asm\x0d\x00\x01\x00") }, "header", "not a core"},
	{"no contract", func() []byte { return header }, "exports", "no known contract"},
	{"too many bytes", func() []byte {
		g := newGuest()
		size := 5 << 20
		g.tail = append(append([]byte{sectionCustom}, appendU32(nil, uint32(size))...), make([]byte, size)...)
		return g.bytes()
	}, "module", "too many bytes"},
	// the next two are the shortest known ways to ask a compiler for gigabytes
	{"locals bomb", func() []byte {
		return append(append([]byte{}, header...),
			sectionType, 4, 1, 0x60, 0, 0, sectionFunction, 2, 1, 0,
			sectionCode, 13, 1, 11, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, byte(I64), opI32Const, 0, 0x1a, opEnd)
	}, "locals of function 0", "too many (4294967295, limit 1000)"},
	{"locals bomb in groups", func() []byte {
		return append(append([]byte{}, header...),
			sectionType, 4, 1, 0x60, 0, 0, sectionFunction, 2, 1, 0,
			sectionCode, 12, 1, 10, 2, 0xe7, 0x07, byte(I64), 0xe7, 0x07, byte(I64), opI32Const, 0, opEnd)
	}, "locals of function 0", "too many (1998, limit 1000)"},
	{"parameters count as locals", func() []byte {
		g := newGuest()
		g.types = append(g.types, typeOf(strings.Repeat("i", 127), ""))
		g.functions = append(g.functions, []byte{4})
		g.bodies = append(g.bodies, bodyWith([]byte{1, 0xe0, 0x07, byte(I32)}))
		return g.bytes()
	}, "locals of function 3", "too many (1119, limit 1000)"},
	{"deep nesting", func() []byte {
		return newGuest().addFunction(body(append(repeat(257, opBlock, blockEmpty), repeat(257, opEnd)...)...)).bytes()
	}, "nesting in function 3", "too many (257, limit 256)"},
	{"block bomb", func() []byte {
		return newGuest().addFunction(body(repeat(8_001, opBlock, blockEmpty, opEnd)...)).bytes()
	}, "blocks in function 3", "too many (8001, limit 8000)"},
	{"br_if bomb", func() []byte {
		return newGuest().addFunction(body(repeat(8_001, opI32Const, 0, opBrIf, 0)...)).bytes()
	}, "blocks in function 3", "too many (8001, limit 8000)"},
	{"loop bomb", func() []byte {
		return newGuest().addFunction(body(repeat(1_001, opLoop, blockEmpty, opEnd)...)).bytes()
	}, "loops in function 3", "too many (1001, limit 1000)"},
	// 45 KB that take half a minute and half a GiB to compile
	{"quadratic control flow", func() []byte {
		return newGuest().addFunction(bodyWith([]byte{1, 0x84, 0x07, byte(I64)}, repeat(556, opBlock, blockEmpty, opEnd)...)).bytes()
	}, "blocks times locals in function 3", "too many (500400, limit 500000)"},
	{"br_table bomb", func() []byte {
		targets := append(appendU32([]byte{opI32Const, 0, opBrTable}, 10_001), make([]byte, 10_002)...)
		return newGuest().addFunction(body(targets...)).bytes()
	}, "br_table targets in function 3", "too many (10002, limit 10000)"},
	{"br_table targets over all functions", func() []byte {
		g := newGuest()
		targets := append(appendU32([]byte{opI32Const, 0, opBrTable}, 5_000), make([]byte, 5_001)...)
		return g.addFunction(body(targets...)).addFunction(body(targets...)).bytes()
	}, "br_table targets in function 4", "too many (10002, limit 10000)"},
	{"br_table longer than the module", func() []byte {
		return newGuest().addFunction(body(opI32Const, 0, opBrTable, 0xff, 0xff, 0xff, 0xff, 0x0f)).bytes()
	}, "br_table targets in function 3", "too many"},
	{"label outside", func() []byte { return newGuest().addFunction(body(opBr, 1)).bytes() }, "label in function 3", "too many (1, limit 0)"},
	{"long body", func() []byte { return newGuest().addFunction(body(repeat(513<<10, 0x01)...)).bytes() }, "bytes of function 3", "too many"},
	{"many functions", func() []byte {
		g := newGuest()
		g.functions = append(g.functions, slices.Repeat([][]byte{{3}}, 20_000)...)
		return g.bytes()
	}, "functions", "too many (20003, limit 20000)"},
	{"many types", func() []byte {
		g := newGuest()
		g.types = append(g.types, slices.Repeat(g.types[:1], 2_000)...)
		return g.bytes()
	}, "types", "too many (2004, limit 2000)"},
	{"start with a parameter", func() []byte {
		g := newGuest()
		g.start = []byte{1}
		return g.bytes()
	}, "start function 1", "its type is i:i, want :"},
	{"start that is not there", func() []byte {
		g := newGuest()
		g.start = []byte{9}
		return g.bytes()
	}, "start function 9", "want :"},
	{"segment without a count", func() []byte {
		return newGuest().addFunction(body(opI32Const, 0, opI32Const, 0, opI32Const, 0, prefixMisc, 8, 0, 0)).bytes()
	}, "data segment in function 3", "data count section"},
	{"memory beyond 32 bits", func() []byte { g := newGuest(); g.memories = [][]byte{{1, 1, 0x81, 0x80, 4}}; return g.bytes() }, "memory maximum", "too many (65537, limit 65536)"},
	{"custom section without a name", func() []byte { g := newGuest(); g.tail = []byte{sectionCustom, 2, 1, 0xff}; return g.bytes() }, "custom section", "UTF-8"},
	{"vector type", func() []byte { g := newGuest(); g.types = append(g.types, typeOf("v", "")); return g.bytes() }, "value type 0x7b", "SIMD"},
	{"wide type", func() []byte {
		g := newGuest()
		g.types = append(g.types, append(append(appendU32([]byte{0x60}, 257), repeat(257, byte(I32))...), 0))
		return g.bytes()
	}, "parameters or results", "too many (257, limit 256)"},
	{"missing bodies", func() []byte { g := newGuest(); g.bodies = g.bodies[1:]; return g.bytes() }, "code section", "as many bodies"},
	{"no code section", func() []byte { g := newGuest(); g.bodies = nil; return g.bytes() }, "code section", "as many bodies"},
	{"count without elements", func() []byte {
		return append(append([]byte{}, header...), sectionType, 2, 0xd0, 0x0f)
	}, "types", "more elements than bytes"},
	{"two memories", func() []byte { g := newGuest(); g.memories = [][]byte{{0, 1}, {0, 1}}; return g.bytes() }, "memories", "too many (2, limit 1)"},
	{"no memory", func() []byte { g := newGuest(); g.memories = nil; g.exports = g.exports[1:]; return g.bytes() }, "export memory", "missing"},
	{"large memory", func() []byte { g := newGuest(); g.memories = [][]byte{{0, 0x81, 2}}; return g.bytes() }, "memory pages", "too many (257, limit 256)"},
	{"shared memory", func() []byte { g := newGuest(); g.memories = [][]byte{{3, 1, 1}}; return g.bytes() }, "memory", "shared"},
	{"two tables", func() []byte { g := newGuest(); g.tables = [][]byte{{0x70, 0, 1}, {0x70, 0, 1}}; return g.bytes() }, "tables", "too many (2, limit 1)"},
	{"large table", func() []byte {
		g := newGuest()
		g.tables = [][]byte{{0x70, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}}
		return g.bytes()
	}, "table elements", "too many (4294967295, limit 20000)"},
	{"element bomb", func() []byte {
		g := newGuest()
		g.tables = [][]byte{{0x70, 0, 1}}
		g.elements = [][]byte{{0, opI32Const, 0, opEnd, 0xff, 0xff, 0xff, 0xff, 0x0f}}
		return g.bytes()
	}, "element entries", "too many"},
	{"data longer than the module", func() []byte {
		g := newGuest()
		g.data = [][]byte{{0, opI32Const, 0, opEnd, 0xff, 0xff, 0xff, 0xff, 0x0f}}
		return g.bytes()
	}, "data segment", "truncated"},
	{"table.grow", func() []byte {
		return newGuest().addFunction(body(opRefNull, 0x70, opI32Const, 1, prefixMisc, 15, 0, 0x1a)).bytes()
	}, "table.grow in function 3", "survive"},
	{"table.set", func() []byte { return newGuest().addFunction(body(opTableSet, 0)).bytes() }, "table.set in function 3", "survive"},
	{"table.fill", func() []byte { return newGuest().addFunction(body(prefixMisc, 17, 0)).bytes() }, "table.fill in function 3", "survive"},
	{"table.copy", func() []byte { return newGuest().addFunction(body(prefixMisc, 14, 0, 0)).bytes() }, "table.copy in function 3", "survive"},
	{"table.init", func() []byte { return newGuest().addFunction(body(prefixMisc, 12, 0, 0)).bytes() }, "table.init in function 3", "survive"},
	{"data.drop", func() []byte { return newGuest().addFunction(body(prefixMisc, 9, 0)).bytes() }, "data.drop in function 3", "survive"},
	{"elem.drop", func() []byte { return newGuest().addFunction(body(prefixMisc, 13, 0)).bytes() }, "elem.drop in function 3", "survive"},
	{"mutable reference", func() []byte {
		g := newGuest()
		g.globals = [][]byte{{0x70, 1, opRefNull, 0x70, opEnd}}
		return g.bytes()
	}, "global 0", "could not be restored"},
	{"SIMD", func() []byte {
		return newGuest().addFunction(body(append([]byte{0xfd, 12}, make([]byte, 16)...)...)).bytes()
	}, "instruction 0xfd 0x0c in function 3", "SIMD"},
	{"threads", func() []byte { return newGuest().addFunction(body(0xfe, 0)).bytes() }, "instruction 0xfe in function 3", "threads"},
	{"tail call", func() []byte { return newGuest().addFunction(body(0x12, 0)).bytes() }, "instruction 0x12 in function 3", "not allowed"},
	{"exceptions", func() []byte { return newGuest().addFunction(body(0x06, 0x40)).bytes() }, "instruction 0x06 in function 3", "not allowed"},
	{"unknown miscellaneous instruction", func() []byte { return newGuest().addFunction(body(prefixMisc, 0x94, 0x08)).bytes() }, "instruction 0xfc 0x414 in function 3", "not allowed"},
	{"second memory in an instruction", func() []byte { return newGuest().addFunction(body(opMemorySize, 1, 0x1a)).bytes() }, "memory index in function 3", "one memory"},
	{"overlong integer", func() []byte {
		return newGuest().addFunction(body(opI32Const, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00)).bytes()
	}, "constant in function 3", "integer too long"},
	{"integer with bits beyond its size", func() []byte {
		return newGuest().addFunction(body(opBr, 0x80, 0x80, 0x80, 0x80, 0x70)).bytes()
	}, "index in function 3", "integer too long"},
	{"body without end", func() []byte {
		g := newGuest()
		g.bodies[2] = []byte{3, 0, opI64Const, 0}
		return g.bytes()
	}, "instruction in function 2", "truncated"},
	{"code behind the end", func() []byte { return newGuest().addFunction(body(opEnd, 0x01)).bytes() }, "body in function 3", "after its end"},
	{"else outside of an if", func() []byte { return newGuest().addFunction(body(opElse)).bytes() }, "else in function 3", "outside"},
	{"else in a block", func() []byte { return newGuest().addFunction(body(opBlock, blockEmpty, opElse, opEnd)).bytes() }, "else in function 3", "outside"},
	{"section twice", func() []byte {
		g := newGuest()
		g.tail = []byte{sectionType, 1, 0}
		return g.bytes()
	}, "section 1", "repeated"},
	{"unknown section", func() []byte { g := newGuest(); g.tail = []byte{13, 1, 0}; return g.bytes() }, "section 13", "unknown"},
	{"export twice", func() []byte { g := newGuest(); g.exports = append(g.exports, g.exports[1]); return g.bytes() }, `export "holdfast_abi_v1"`, "twice"},
	{"a meter of its own", func() []byte {
		g := newGuest()
		g.exports = append(g.exports, exportOf("holdfast_meter_fuel", kindFunc, 0))
		return g.bytes()
	}, `export "holdfast_meter_fuel"`, "reserved"},
	{"any name of the meter", func() []byte {
		g := newGuest()
		g.exports = append(g.exports, exportOf("holdfast_meter_", kindFunc, 0))
		return g.bytes()
	}, `export "holdfast_meter_"`, "reserved"},
	{"foreign import", func() []byte {
		g := newGuest()
		g.imports = [][]byte{importOf("env", "system", kindFunc, 3)}
		return g.bytes()
	}, "import env.system", "does not offer"},
	{"sockets", func() []byte {
		g := newGuest()
		g.imports = [][]byte{importOf("wasi_snapshot_preview1", "sock_accept", kindFunc, 3)}
		return g.bytes()
	}, "import wasi_snapshot_preview1.sock_accept", "does not offer"},
	{"OPA's import in our contract", func() []byte {
		g := newGuest()
		g.imports = [][]byte{importOf("env", "memory", kindMemory, 0, 1)}
		g.memories = nil
		return g.bytes()
	}, "import env.memory", "does not offer"},
	{"import of another type", func() []byte {
		g := newGuest()
		g.imports = [][]byte{importOf("holdfast_v1", "now", kindFunc, 0)}
		return g.bytes()
	}, "import holdfast_v1.now", "its type is :i, want :I"},
	{"imported global", func() []byte {
		g := newGuest()
		g.imports = [][]byte{importOf("env", "g", kindGlobal, byte(I32), 1)}
		return g.bytes()
	}, "import env.g", "does not offer it"},
	{"export missing", func() []byte { g := newGuest(); g.exports = g.exports[:3]; return g.bytes() }, "export holdfast_decide", "missing"},
	{"export of another type", func() []byte {
		g := newGuest()
		g.exports[3] = exportOf("holdfast_decide", kindFunc, 1)
		return g.bytes()
	}, "export holdfast_decide", "its type is i:i, want ii:I"},
	{"export of another kind", func() []byte {
		g := newGuest()
		g.exports[3] = exportOf("holdfast_decide", kindMemory, 0)
		return g.bytes()
	}, "export holdfast_decide", "another kind"},
	{"optional export of another type", func() []byte {
		g := newGuest()
		g.exports = append(g.exports, exportOf("holdfast_init", kindFunc, 1))
		return g.bytes()
	}, "export holdfast_init", "its type is i:i, want ii:i"},
	{"name that is no text", func() []byte {
		g := newGuest()
		g.exports = append(g.exports, exportOf("\xff", kindFunc, 0))
		return g.bytes()
	}, "export", "UTF-8"},
	{"long name", func() []byte {
		g := newGuest()
		g.exports = append(g.exports, exportOf(strings.Repeat("n", 513), kindFunc, 0))
		return g.bytes()
	}, "export", "too many (513, limit 512)"},
	{"section longer than the module", func() []byte { g := newGuest(); g.tail = []byte{sectionCustom, 5, 0}; return g.bytes() }, "section", "truncated"},
	{"instruction in a constant", func() []byte {
		g := newGuest()
		g.globals = [][]byte{{byte(I32), 0, opCall, 0, opEnd}}
		return g.bytes()
	}, "constant expression", "not allowed"},
}

func TestHostileModules(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			module := c.bytes()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Scan(module, Policy)
			runtime.ReadMemStats(&after)
			refusal, ok := errors.AsType[*Refusal](err)
			if !ok {
				t.Fatalf("not refused: %v", err)
			}
			if refusal.Item != c.item || !strings.Contains(refusal.Error(), c.says) {
				t.Errorf("got %v\nwant item %q, saying %q", refusal, c.item, c.says)
			}
			if refusal.Offset < 0 || refusal.Offset > len(module) {
				t.Errorf("offset %d of %d bytes", refusal.Offset, len(module))
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
				t.Errorf("%d bytes were allocated", took)
			}
			if _, err := Instrument(module, Policy, abi.HoldfastV1); err == nil {
				t.Error("it was instrumented")
			}
		})
	}
}

func TestSmallestGuest(t *testing.T) {
	report, err := Scan(newGuest().bytes(), Policy)
	if err != nil {
		t.Fatal(err)
	}
	if report.ABI != abi.HoldfastV1 || report.Functions != 3 || report.MemoryMin != 1 || report.HasMax || len(report.Exports) != 4 {
		t.Errorf("got %+v", report)
	}
}

func TestClassesDiffer(t *testing.T) {
	g := newGuest().addFunction(body(append(repeat(300, opBlock, blockEmpty), repeat(300, opEnd)...)...))
	if _, err := Scan(g.bytes(), Policy); err == nil {
		t.Error("a policy may not nest 300 deep")
	}
	if _, err := Scan(g.bytes(), LanguageRuntime); err != nil {
		t.Error(err)
	}
	g = newGuest()
	g.memories = [][]byte{{0, 0x81, 2}}
	if _, err := Scan(g.bytes(), Data); err != nil {
		t.Error(err)
	}
}

func TestParseClass(t *testing.T) {
	for _, class := range []Class{Policy, Data, LanguageRuntime} {
		if got, err := ParseClass(class.String()); got != class || err != nil {
			t.Errorf("%v: got %v, %v", class, got, err)
		}
	}
	if _, err := ParseClass("root"); err == nil {
		t.Error("an unknown class was accepted")
	}
}

// full returns a module with every section.
func full() []byte {
	g := newGuest().addFunction(bodyWith([]byte{1, 2, byte(I32)},
		opLoop, blockEmpty, opLocalGet, 0, opBrIf, 0, opEnd,
		opI32Const, 0, opI32Const, 0, opI32Const, 9, prefixMisc, 11, 0,
		opI32Const, 1, opMemoryGrow, 0, 0x1a,
		opCall, 5, opI32Const, 0, opCallIndirect, 3, 0))
	g.imports = [][]byte{importOf("holdfast_v1", "now", kindFunc, 4), importOf("wasi_snapshot_preview1", "proc_exit", kindFunc, 5)}
	g.types = append(g.types, typeOf("", "I"), typeOf("i", ""), typeOf("", "iI"))
	g.addFunction(body(opReturn))
	g.functions = append(g.functions, []byte{6})
	g.bodies = append(g.bodies, body(opCall, 5, opI32Const, 1, opI64Const, 2, opReturn))
	for i := range g.exports[1:] {
		g.exports[i+1][len(g.exports[i+1])-1] += 2
	}
	g.tables = [][]byte{{0x70, 0, 1}}
	g.globals = [][]byte{{byte(I32), 1, opI32Const, 7, opEnd}, {byte(I64), 0, opI64Const, 7, opEnd}, {byte(F64), 1, opF64Const, 0, 0, 0, 0, 0, 0, 0, 0, opEnd}}
	g.start = []byte{6}
	g.elements = [][]byte{{0, opI32Const, 0, opEnd, 1, 5}}
	g.data = [][]byte{append([]byte{0, opI32Const, 16, opEnd, 3}, "abc"...)}
	g.dataCount = []byte{1}
	g.tail = append([]byte{sectionCustom, 5, 4}, "name"...)
	return g.bytes()
}

func TestTruncatedAtEveryByte(t *testing.T) {
	module := full()
	if _, err := Scan(module, Policy); err != nil {
		t.Fatal(err)
	}
	whole := len(module) - 7 // without the custom section
	for n := range whole {
		if _, err := Scan(module[:n], Policy); err == nil {
			t.Fatalf("the first %d bytes of %d were admitted", n, whole)
		}
	}
}

func TestEveryByteFlipped(t *testing.T) {
	module := full()
	for n := range module {
		for bit := range 8 {
			broken := bytes.Clone(module)
			broken[n] ^= 1 << bit
			Instrument(broken, Policy, abi.HoldfastV1)
		}
	}
}

func FuzzInstrument(f *testing.F) {
	f.Add(newGuest().bytes())
	f.Add(full())
	for _, c := range hostile {
		if module := c.bytes(); len(module) < 4096 {
			f.Add(module)
		}
	}
	f.Fuzz(func(t *testing.T, module []byte) {
		report, err := Scan(module, Policy)
		if err != nil {
			if _, ok := err.(*Refusal); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		metered, err := Instrument(module, Policy, report.ABI)
		if err != nil {
			if _, ok := err.(*Refusal); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if _, err := Scan(metered, Policy); err == nil || !strings.Contains(err.Error(), "reserved") {
			t.Fatalf("a metered module was admitted again: %v", err)
		}
		if again, _ := Instrument(module, Policy, report.ABI); !bytes.Equal(again, metered) {
			t.Fatal("the second copy differs")
		}
	})
}

// TestRefusalsNameTheOffset finds what is refused at the offset that is named.
func TestRefusalsNameTheOffset(t *testing.T) {
	at := map[string][]byte{
		"locals bomb": {0xff, 0xff, 0xff, 0xff, 0x0f, byte(I64)}, "SIMD": {0xfd, 12}, "threads": {0xfe, 0}, "tail call": {0x12, 0},
		"table.grow": {prefixMisc, 15}, "data.drop": {prefixMisc, 9}, "overlong integer": {0x80, 0x80, 0x80, 0x80, 0x80, 0x00},
		"large memory": {0x81, 2}, "large table": {0xff, 0xff, 0xff, 0xff, 0x0f}, "mutable reference": {0x70, 1, opRefNull},
		"foreign import": {3, 'e', 'n', 'v', 6, 's'}, "any name of the meter": append([]byte{15}, "holdfast_meter_"...), "unknown section": {13, 1, 0},
		"code behind the end": {0x01, opEnd}, "quadratic control flow": {opBlock, blockEmpty, opEnd, opEnd}, "vector type": {byte(V128), 0},
	}
	found := 0
	for _, c := range hostile {
		want, ok := at[c.name]
		if !ok {
			continue
		}
		found++
		module := c.bytes()
		_, err := Scan(module, Policy)
		refusal, _ := errors.AsType[*Refusal](err)
		if refusal == nil || !bytes.HasPrefix(module[refusal.Offset:], want) {
			t.Errorf("%s: %v, where % x is", c.name, err, module[refusal.Offset:min(refusal.Offset+8, len(module))])
		}
	}
	if found != len(at) {
		t.Errorf("found %d of %d modules", found, len(at))
	}
}
