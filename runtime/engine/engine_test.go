package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// The .wasm files beside the .wat files are made by wat2wasm 1.0.39 of wabt:
// wat2wasm testdata/probe.wat -o testdata/probe.wasm

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func probe(tb testing.TB) engine.Spec {
	return engine.Spec{Name: "probe", Wasm: readFile(tb, "testdata/probe.wasm"), ABI: abi.HoldfastV1, Patterns: []string{`^a+$`, `secret`}}
}

// number makes the output of a probe that answers a number.
func number(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }

// probes is what each behaviour of the probe must come to.
var probes = []struct {
	name, input string
	output      string
	trap        abi.TrapCode
	allFuel     bool // the trap comes when, and only when, the fuel is used up
}{
	{name: "echo", input: "abc", output: "abc"},
	{name: "count", input: "b", output: number(12)},
	{name: "infinite loop", input: "c", trap: abi.TrapFuel, allFuel: true},
	{name: "mutual recursion", input: "d", trap: abi.TrapDepth},
	{name: "exponential recursion", input: "e", trap: abi.TrapFuel, allFuel: true},
	{name: "memory.fill storm", input: "f", trap: abi.TrapFuel, allFuel: true},
	{name: "memory.copy storm", input: "g", trap: abi.TrapFuel, allFuel: true},
	{name: "memory.grow storm", input: "h", trap: abi.TrapFuel, allFuel: true},
	{name: "host call flood", input: "i", trap: abi.TrapFuel, allFuel: true},
	{name: "log flood", input: "j", trap: abi.TrapFuel, allFuel: true},
	{name: "output ends behind the memory", input: "k", trap: abi.TrapOutput},
	{name: "output far outside", input: "l", trap: abi.TrapOutput},
	{name: "output one byte too long", input: "m", trap: abi.TrapOutput},
	{name: "guest error", input: "o", trap: abi.TrapRefused},
	{name: "divide by zero", input: "p", trap: abi.TrapArithmetic},
	{name: "read behind the memory", input: "q", trap: abi.TrapMemory},
	{name: "no such table entry", input: "r", trap: abi.TrapCall},
	{name: "wrong type in the table", input: "s", trap: abi.TrapCall},
	{name: "unreachable", input: "t", trap: abi.TrapUnreachable},
	{name: "proc_exit", input: "u", trap: abi.TrapAbort},
	{name: "now", input: "v", output: number(1_700_000_000_000_000_000)},
	{name: "match", input: "w0aaaa", output: number(1)},
	{name: "no match", input: "w0aaab", output: number(0)},
	{name: "match of another pattern", input: "w1a secret", output: number(1)},
	{name: "no such pattern", input: "w2aaaa", output: number(^uint64(0))},
	{name: "standard output", input: "y", output: number(22)},
	{name: "memory.grow", input: "z", output: number(3)},
	{name: "alloc that lies", input: "a-------------"[:13], trap: abi.TrapInput},
	{name: "alloc that refuses", input: "a-------------", trap: abi.TrapInput},
	{name: "input too long", input: strings.Repeat("a", abi.MaxInput+1), trap: abi.TrapInput},
	{name: "input longer than the memory", input: strings.Repeat("a", 200_000), trap: abi.TrapInput},
}

const frozen = 1_700_000_000_000_000_000

func TestProbes(t *testing.T) {
	compiled := load(t, newEngine(t, engine.Config{}), probe(t))
	interpreted := load(t, newEngine(t, engine.Config{Interpreter: true}), probe(t))
	for _, c := range probes {
		t.Run(c.name, func(t *testing.T) {
			call := abi.Call{Input: []byte(c.input), Now: frozen}
			result, err := compiled.Call(call)
			if code := trapCode(t, err); code != c.trap || string(result.Output) != c.output {
				t.Fatalf("got %q, trap %q (%v); want %q, trap %q", result.Output, code, err, c.output, c.trap)
			}
			if (result.Fuel == abi.DefaultFuel) != c.allFuel {
				t.Errorf("used %d units", result.Fuel)
			}
			second, err2 := interpreted.Call(call)
			if string(second.Output) != string(result.Output) || trapCode(t, err2) != c.trap || second.Fuel != result.Fuel {
				t.Errorf("the interpreter differs: %q, %v, %d units; the compiler used %d", second.Output, err2, second.Fuel, result.Fuel)
			}
		})
	}
}

// trapCode returns the code of a trap and checks that every error is one.
func trapCode(tb testing.TB, err error) abi.TrapCode {
	tb.Helper()
	if err == nil {
		return ""
	}
	trap, ok := err.(*abi.Trap)
	if !ok {
		tb.Fatalf("the error is no trap: %v", err)
	}
	return trap.Code
}

func TestLogsAreBounded(t *testing.T) {
	m := load(t, newEngine(t, engine.Config{}), probe(t))
	result, err := m.Call(abi.Call{Input: []byte("j")})
	if trapCode(t, err) != abi.TrapFuel || len(result.Logs) != abi.MaxLogMessages {
		t.Fatalf("%d messages, %v", len(result.Logs), err)
	}
	if result.Logs[0] != (abi.Log{Level: abi.LogInfo, Text: "a message of the guest"}) {
		t.Errorf("got %+v", result.Logs[0])
	}
	if result, err = m.Call(abi.Call{Input: []byte("y")}); err != nil || len(result.Logs) != 1 {
		t.Fatalf("logs of the call before are still there: %v, %v", result.Logs, err)
	}
}

// TestBulkInstructionsCostTheirLength counts the turns of loops that fill or
// copy 64 KiB, or grow a memory of two pages by one, by the messages they leave.
func TestBulkInstructionsCostTheirLength(t *testing.T) {
	m := load(t, newEngine(t, engine.Config{}), probe(t))
	for input, turns := range map[string]int{"f": 3, "g": 3, "h": 2} {
		result, err := m.Call(abi.Call{Input: []byte(input), Fuel: 20_000})
		if trapCode(t, err) != abi.TrapFuel || len(result.Logs) != turns {
			t.Errorf("%s: %d turns, %v", input, len(result.Logs), err)
		}
	}
}

func TestRandomIsSeededByTheModule(t *testing.T) {
	e := newEngine(t, engine.Config{})
	m := load(t, e, probe(t))
	first, err := m.Call(abi.Call{Input: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		again, err := m.Call(abi.Call{Input: []byte("x"), Now: 5})
		if err != nil || string(again.Output) != string(first.Output) {
			t.Fatalf("%x, then %x, %v", first.Output, again.Output, err)
		}
	}
	if string(first.Output) == number(0) {
		t.Error("random bytes are zeros")
	}
}

// TestNothingSurvivesACall lets a guest count in memory, in memory that begins as
// zeros, and in globals of three types, with other behaviours in between.
func TestNothingSurvivesACall(t *testing.T) {
	m := load(t, newEngine(t, engine.Config{}), probe(t))
	first, err := m.Call(abi.Call{Input: []byte("b")})
	if err != nil {
		t.Fatal(err)
	}
	const seed = 7
	random := rand.New(rand.NewPCG(seed, seed))
	for n := range 100_000 {
		result, err := m.Call(abi.Call{Input: []byte("b")})
		if err != nil || string(result.Output) != string(first.Output) || result.Fuel != first.Fuel {
			t.Fatalf("call %d (seed %d): %x, %d units, %v; the first was %x, %d units", n, seed, result.Output, result.Fuel, err, first.Output, first.Fuel)
		}
		if n%1000 == 0 {
			m.Call(abi.Call{Input: []byte{"dkopqtz"[random.IntN(7)]}})
		}
	}
}

// TestFuelTrapsAtTheSameUnit runs a call with every limit around what it needs.
func TestFuelTrapsAtTheSameUnit(t *testing.T) {
	e := newEngine(t, engine.Config{})
	shapes := engine.Spec{Name: "shapes", Wasm: readFile(t, "testdata/shapes.wasm"), ABI: abi.HoldfastV1}
	for _, c := range []struct {
		spec  engine.Spec
		input string
	}{{probe(t), "b"}, {shapes, "\x07\x00\x00\x00"}} {
		m := load(t, e, c.spec)
		needed, err := m.Call(abi.Call{Input: []byte(c.input)})
		if err != nil {
			t.Fatal(err)
		}
		for limit := uint64(1); limit < 2*needed.Fuel; limit++ {
			result, err := m.Call(abi.Call{Input: []byte(c.input), Fuel: limit})
			if limit < needed.Fuel && (trapCode(t, err) != abi.TrapFuel || result.Fuel != limit) {
				t.Fatalf("%s: limit %d of %d: %v, %d units", c.spec.Name, limit, needed.Fuel, err, result.Fuel)
			}
			if limit >= needed.Fuel && (err != nil || result.Fuel != needed.Fuel) {
				t.Fatalf("%s: limit %d of %d: %v, %d units", c.spec.Name, limit, needed.Fuel, err, result.Fuel)
			}
		}
	}
}

func TestHostCallsCostFuel(t *testing.T) {
	m := load(t, newEngine(t, engine.Config{}), probe(t))
	used := func(input string) uint64 {
		result, err := m.Call(abi.Call{Input: []byte(input)})
		if err != nil {
			t.Fatal(err)
		}
		return result.Fuel
	}
	if now := used("v"); now < 50 {
		t.Errorf("asking for the time costs %d units", now)
	}
	if short, long := used("w0a"), used("w0"+strings.Repeat("a", 1000)); long-short != 16*999 {
		t.Errorf("matching 999 more bytes costs %d units more", long-short)
	}
}

func TestFuelAboveTheMaximumIsTheMaximum(t *testing.T) {
	m := load(t, newEngine(t, engine.Config{}), probe(t))
	start := time.Now()
	result, err := m.Call(abi.Call{Input: []byte("c"), Fuel: 1 << 62})
	if trapCode(t, err) != abi.TrapFuel || result.Fuel != abi.MaxFuel {
		t.Fatalf("%v, %d units", err, result.Fuel)
	}
	t.Logf("%d units in %v", result.Fuel, time.Since(start))
}

// TestHammer calls one module from many goroutines with few instances.
func TestHammer(t *testing.T) {
	spec := probe(t)
	spec.Pool = 3
	m := load(t, newEngine(t, engine.Config{}), spec)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for n := range 200 {
				c := probes[(g*31+n)%len(probes)]
				result, err := m.Call(abi.Call{Input: []byte(c.input), Now: frozen, Fuel: 20_000})
				if c.allFuel || c.name == "mutual recursion" {
					continue
				}
				if code := trapCode(t, err); code != c.trap || string(result.Output) != c.output {
					t.Errorf("%s: %q, %v", c.name, result.Output, err)
				}
			}
		})
	}
	wg.Wait()
	if alive := m.Stats().Instances; alive < 1 || alive > 3 {
		t.Errorf("%d instances alive, want 1 to 3", alive)
	}
}

func TestCloseDuringCalls(t *testing.T) {
	e := newEngine(t, engine.Config{})
	m, err := e.Load(context.Background(), probe(t))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				if _, err := m.Call(abi.Call{Input: []byte("abc")}); err != nil {
					if trapCode(t, err) != abi.TrapHost {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	if err := m.Close(context.Background()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if m.Stats().Instances != 0 {
		t.Error("instances are alive after Close")
	}
	if err := m.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestLoadAgainCompilesNothing(t *testing.T) {
	e := newEngine(t, engine.Config{})
	spec := engine.Spec{Name: "rbac", Wasm: compileRego(t, rbacPolicy, "rbac/allow"), ABI: abi.OPA1}
	start := time.Now()
	load(t, e, spec)
	first := time.Since(start)
	spec.Init = marshal(t, rbacData())
	start = time.Now()
	load(t, e, spec)
	if again := time.Since(start); again > first/2 {
		t.Errorf("the first load took %v, the second %v", first, again)
	}
}

func TestLoadRefuses(t *testing.T) {
	e := newEngine(t, engine.Config{})
	_, err := e.Load(context.Background(), engine.Spec{Name: "junk", Wasm: []byte("\x00asm\x01\x00\x00\x00")})
	if refusal, ok := errors.AsType[*wasm.Refusal](err); !ok {
		t.Errorf("got %v, %v", refusal, err)
	}
	spec := probe(t)
	spec.ABI = abi.OPA1
	if _, err := e.Load(context.Background(), spec); err == nil {
		t.Error("a module of another contract was loaded")
	}
	spec = probe(t)
	spec.Init = []byte("\xa1\x66params\xa1\x61a\x01")
	if _, err := e.Load(context.Background(), spec); err == nil {
		t.Error("parameters for a module without holdfast_init were accepted")
	}
	spec = probe(t)
	spec.Patterns = []string{"("}
	if _, err := e.Load(context.Background(), spec); err == nil {
		t.Error("a broken pattern was accepted")
	}
}
