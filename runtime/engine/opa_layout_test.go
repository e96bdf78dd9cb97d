package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/compile"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// echo answers its input, and nothing for none.
const echo = `package p

x := input
`

// newEcho loads echo and takes its one instance.
func newEcho(tb testing.TB) (*instance, *opaGuest) {
	tb.Helper()
	return newLibrary(tb, func(module []byte) []byte { return module }, true)
}

// newLibrary is newEcho with a module that was changed.
func newLibrary(tb testing.TB, change func([]byte) []byte, known bool) (*instance, *opaGuest) {
	tb.Helper()
	ctx := context.Background()
	c := compile.New().WithTarget(compile.TargetWasm).WithEntrypoints("p/x").WithFS(singleFile("p.rego", echo)).WithPaths("p.rego")
	if err := c.Build(ctx); err != nil {
		tb.Fatal(err)
	}
	e, err := New(ctx, Config{})
	if err != nil {
		tb.Fatal(err)
	}
	m, err := e.Load(ctx, Spec{Name: "echo", Wasm: change(c.Bundle().WasmModules[0].Raw), ABI: abi.OPA1, Pool: 1})
	if err != nil {
		tb.Fatal(err)
	}
	taken, err := m.acquire()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		m.giveBack(taken)
		m.Close(ctx)
		e.Close(ctx)
	})
	if m.opa.known != known {
		tb.Fatalf("the values of the library are known %v", !known)
	}
	return taken.instance, taken.instance.guest.(*opaGuest)
}

// compareForms makes a document in both ways and compares them, and both ways
// of writing it.
func compareForms(tb testing.TB, i *instance, g *opaGuest, input []byte) (built bool) {
	tb.Helper()
	i.begin(abi.MaxFuel, 1)
	heap := i.module.opa.heap
	ours, ok := g.layout.build(uint32(heap), 256<<10, input)
	if !ok {
		return false
	}
	if !i.write(uint32(heap), g.layout.out) {
		tb.Fatal("no room")
	}
	theirs, trap := g.parse(i, align(heap+uint64(len(g.layout.out))), input)
	if trap != nil {
		tb.Fatalf("the guest does not parse %q: %v", input, trap)
	}
	text, trap := g.written(i, uint64(ours))
	if trap != nil {
		tb.Fatalf("the guest does not write the layout of %q: %v", input, trap)
	}
	text = bytes.Clone(text)
	memory, _ := i.memory.Read(0, i.memory.Size())
	same := &twins{dump{memory: memory, steps: 1 << 20}}
	if !same.same(ours, uint32(theirs)) {
		tb.Errorf("another form than the guest's for %q", input)
	}
	if mine, ok := g.dump.json(memory, ours); ok && !bytes.Equal(mine, text) {
		tb.Errorf("the host writes %q, the guest %q", mine, text)
	}
	if !i.restore() {
		tb.Fatal("the memory grew")
	}
	return true
}

// A library that hashes otherwise keeps its own parser and writer.
func TestProbeFindsAnotherHash(t *testing.T) {
	i, _ := newLibrary(t, func(module []byte) []byte {
		prime, other := []byte{0x41, 0x93, 0x83, 0x80, 0x08}, []byte{0x41, 0x95, 0x83, 0x80, 0x08}
		if !bytes.Contains(module, prime) {
			t.Fatal("the library's hash is not there")
		}
		return bytes.ReplaceAll(module, prime, other)
	}, false)
	input := []byte(`{"a":1,"b":[2],"c":{"d":3}}`)
	r, trap := i.answer(abi.Call{Input: input, Now: 1})
	var got []struct{ Result json.RawMessage }
	if trap != nil || json.Unmarshal(r.Output, &got) != nil || len(got) != 1 || len(got[0].Result) != len(input) {
		t.Errorf("%s, %v", r.Output, trap)
	}
	if !i.restore() {
		t.Error("the memory grew")
	}
}

// A set of strings is written in their order, and nothing deeper than the bound.
func TestDumpOfMadeMemory(t *testing.T) {
	var d dump
	written := func(m *layout, at uint32) (string, bool) {
		text, ok := d.json(append(make([]byte, m.base), m.out...), at)
		return string(text), ok
	}
	m := &layout{base: 16, out: []byte("bca\x00")}
	table := m.alloc(12)
	for n := range 3 {
		element := m.alloc(8)
		m.put(element, m.string(n, 1))
		m.put(table+4*n, m.address(element))
	}
	if text, ok := written(m, m.collection(opaSet, table, 3, 3)); !ok || text != `["a","b","c"]` {
		t.Errorf("%s, %v", text, ok)
	}
	for depth, want := range map[int]bool{maxLayoutDepth: true, maxLayoutDepth + 1: false} {
		m := &layout{base: 16}
		value := m.node(4, opaNull, 0)
		for range depth {
			m.items = append(m.items, value)
			value = m.closeArray(0)
		}
		if _, ok := written(m, value); ok != want {
			t.Errorf("%d deep: %v", depth, ok)
		}
	}
}

func TestLayout(t *testing.T) {
	i, g := newEcho(t)
	var wide, many strings.Builder
	for n := range 100 {
		fmt.Fprintf(&wide, `,"name%d":%d`, n, n)
		fmt.Fprintf(&many, `,%d`, n)
	}
	for _, document := range []string{
		probeDocument, `0`, `-0`, `12345`, `123456789012345`, `1234567890123456`, `1e400`, `"x"`, `null`, `true`, ` [ ] `, `{}`, `[[],[[]],{}]`,
		`{"a":{"a":{"a":1}},"b":[{"c":null}]}`, `{"":""}`, `"\u0000\u001f\u00e9\ud83d\ude00é😀"`, `{"` + strings.Repeat("k", 300) + `":"` + strings.Repeat("v", 300) + `"}`,
		"{" + wide.String()[1:] + "}", "[" + many.String()[1:] + "]", `{"b":1,"a":2,"é":3,"z":4,"ê":5}`,
		strings.Repeat("[", 150) + strings.Repeat("]", 150),
	} {
		if !json.Valid([]byte(document)) {
			t.Errorf("%.50q is not JSON", document)
		}
		if !compareForms(t, i, g, []byte(document)) {
			t.Errorf("%.50q is left to the guest", document)
		}
	}
}

// TestLayoutLeavesToTheGuest lists what the guest's own parser must judge.
func TestLayoutLeavesToTheGuest(t *testing.T) {
	var m layout
	for _, document := range []string{
		``, ` `, `{`, `[1,`, `[1 2]`, `{"a"}`, `{"a":1,}`, `{"a":1,"a":2}`, `{1:2}`, `01`, `1.`, `-`, `1e`, `+1`, `.5`, `tru`, `nul`, `"`, `"\x"`, `"\u12"`, `"\ud800"`, `"\ud83dx"`,
		"\"\x01\"", "\"\xff\"", "\"\\n\xff\"", `1 2`, `{} x`, "\x00", `[1]]`, strings.Repeat("[", 300) + strings.Repeat("]", 300),
	} {
		if _, ok := m.build(16, 1<<20, []byte(document)); ok {
			t.Errorf("%.50q has a layout", document)
		}
	}
	if _, ok := m.build(16, 100, []byte(`[1,2,3,4,5,6]`)); ok {
		t.Error("the bound of the size is not kept")
	}
}

func FuzzLayout(f *testing.F) {
	for _, seed := range []string{probeDocument, `{"a":[1,"x\u00e9",{"b":null}]}`, `[1e5,-0,{"é":{}}]`, `{"a":1,"a":2}`} {
		f.Add([]byte(seed))
	}
	i, g := newEcho(f)
	f.Fuzz(func(t *testing.T, document []byte) {
		if len(document) > 2048 || !compareForms(t, i, g, document) {
			return
		}
		if !json.Valid(document) {
			t.Errorf("%q has a layout and is not JSON", document)
		}
	})
}

// FuzzDump lets the writer loose on memory that means nothing.
func FuzzDump(f *testing.F) {
	var m layout
	m.build(0, 1<<20, []byte(probeDocument))
	f.Add(m.out, uint32(len(m.out)-16))
	f.Add([]byte{6, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0}, uint32(0))
	f.Fuzz(func(t *testing.T, memory []byte, at uint32) {
		var d dump
		if text, ok := d.json(memory, at); ok && len(text) == 0 {
			t.Error("a value without a text")
		}
		same := &twins{dump{memory: memory, steps: maxProbeSteps}}
		same.same(at, at/2)
	})
}

func singleFile(name, text string) fstest.MapFS {
	return fstest.MapFS{name: &fstest.MapFile{Data: []byte(text)}}
}

// TestNamesOfOneBucket sends names whose hashes are equal: the host leaves such
// a document to the guest, whose fuel pays.
func TestNamesOfOneBucket(t *testing.T) {
	var names []string
	for n := 0; len(names) < 2000; n++ {
		if name := fmt.Sprintf("n%x", n); hashText([]byte(name))&0x3ff == 0 {
			names = append(names, fmt.Sprintf("%q:0", name))
		}
	}
	var m layout
	if _, ok := m.build(16, 16<<20, []byte("{"+strings.Join(names, ",")+"}")); ok {
		t.Error("two thousand names are linked into few buckets")
	}
	if _, ok := m.build(16, 16<<20, []byte("{"+strings.Join(names[:20], ",")+"}")); !ok {
		t.Error("twenty such names are left to the guest")
	}
}
