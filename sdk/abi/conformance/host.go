package conformance

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

//go:embed reference.wasm
var referenceModule []byte

// reference is the guest that every host must run.
func reference() Guest {
	return Guest{Name: "reference", Wasm: referenceModule, ABI: abi.HoldfastV1, Patterns: []string{`^a+$`, `secret`}, Init: []byte("\xa1\x66params\xa1\x61k\x05")}
}

// CheckHost checks a host with the kit's own guests.
func CheckHost(ctx context.Context, h Host) Report {
	c := hostCheck{}
	c.refusals(ctx, h)
	m, err := h.Load(ctx, reference())
	c.report.add("load", "the reference guest, with its parameters", reason(err))
	if err != nil {
		return c.report
	}
	c.module = m
	c.behaviours()
	c.fuel()
	c.logs()
	c.clock()
	c.restored()
	return c.report
}

type hostCheck struct {
	report Report
	module abi.Module
}

// refusals are guests that no host may admit.
func (c *hostCheck) refusals(ctx context.Context, h Host) {
	for _, r := range []struct{ name, old, new string }{
		{"no decide", abi.ExportDecide, "holdfast_decidX"},
		{"no alloc", abi.ExportAlloc, "holdfast_allXX"},
		{"a later version only", abi.ExportVersion, "holdfast_abi_v9"},
		{"a name of the meter's", "a_name_of__19_bytes", abi.ExportFuel},
		{"an import of nobody's", "\x03now", "\x03nop"},
		{"WASI that is not inert", "proc_exit", "proc_rais"},
		{"no module", "\x00asm", "\x00ASM"},
	} {
		g := reference()
		g.Name, g.Wasm = r.name, bytes.ReplaceAll(g.Wasm, []byte(r.old), []byte(r.new))
		_, err := h.Load(ctx, g)
		missing := ""
		if _, refused := errors.AsType[*wasm.Refusal](err); !refused {
			missing = fmt.Sprintf("the host said %v", err)
		}
		c.report.add("refuse/"+r.name, "a refusal before anything runs", missing)
	}
}

// number is how the reference guest answers one.
func number(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }

// behaviour is one call of the reference guest.
type behaviour struct {
	name, input string
	output      string
	trap        abi.TrapCode
}

var behaviours = []behaviour{
	{"echo", "abc", "abc", ""},
	{"parameters", "0", number(12), ""},
	{"match", "w0aaaa", number(1), ""},
	{"match/no", "w0aaab", number(0), ""},
	{"match/second pattern", "w1a secret", number(1), ""},
	{"match/no such pattern", "w2aaaa", number(^uint64(0)), ""},
	{"output/64 KiB", "n", "", ""},
	{"output/64 KiB and a byte", "m", "", abi.TrapOutput},
	{"output/ends behind the memory", "k", "", abi.TrapOutput},
	{"output/far outside", "l", "", abi.TrapOutput},
	{"output/refused", "o", "", abi.TrapRefused},
	{"input/alloc lies", strings.Repeat("a", 13), "", abi.TrapInput},
	{"input/alloc refuses", strings.Repeat("a", 14), "", abi.TrapInput},
	{"input/longer than the memory", strings.Repeat("a", 200_000), "", abi.TrapInput},
	{"input/longer than allowed", strings.Repeat("a", abi.MaxInput+1), "", abi.TrapInput},
	{"trap/loop", "c", "", abi.TrapFuel},
	{"trap/recursion", "d", "", abi.TrapDepth},
	{"trap/calls without end", "e", "", abi.TrapFuel},
	{"trap/fill", "f", "", abi.TrapFuel},
	{"trap/copy", "g", "", abi.TrapFuel},
	{"trap/grow", "h", "", abi.TrapFuel},
	{"trap/host calls", "i", "", abi.TrapFuel},
	{"trap/divide by zero", "p", "", abi.TrapArithmetic},
	{"trap/read outside", "q", "", abi.TrapMemory},
	{"trap/no such entry", "r", "", abi.TrapCall},
	{"trap/wrong type", "s", "", abi.TrapCall},
	{"trap/unreachable", "t", "", abi.TrapUnreachable},
	{"trap/proc_exit", "u", "", abi.TrapAbort},
}

func (c *hostCheck) behaviours() {
	for _, b := range behaviours {
		expected := fmt.Sprintf("%d bytes", len(b.output))
		if b.trap != "" {
			expected = "the trap " + string(b.trap)
		}
		if b.name == "output/64 KiB" {
			expected = "64 KiB"
		}
		result, err := c.module.Call(abi.Call{Input: []byte(b.input), Now: frozen})
		code, isTrap := trapOf(err)
		missing := ""
		switch {
		case !isTrap || code != b.trap:
			missing = fmt.Sprintf("%d bytes, error %v", len(result.Output), err)
		case err == nil && b.name == "output/64 KiB" && len(result.Output) != abi.MaxOutput:
			missing = fmt.Sprintf("%d bytes", len(result.Output))
		case b.output != "" && string(result.Output) != b.output:
			missing = fmt.Sprintf("%x", result.Output)
		}
		c.report.add(b.name, expected, missing)
	}
}

// fuel wants that a call traps exactly where its fuel ends.
func (c *hostCheck) fuel() {
	needed, err := c.module.Call(abi.Call{Input: []byte("b")})
	missing := reason(err)
	for _, limit := range []uint64{1, needed.Fuel / 2, needed.Fuel - 1, needed.Fuel, needed.Fuel + 1, abi.MaxFuel} {
		if missing != "" {
			break
		}
		result, err := c.module.Call(abi.Call{Input: []byte("b"), Fuel: limit})
		code, _ := trapOf(err)
		if short := limit < needed.Fuel; short != (code == abi.TrapFuel) || !short && result.Fuel != needed.Fuel || short && result.Fuel != limit {
			missing = fmt.Sprintf("with %d units of %d: %d used, error %v", limit, needed.Fuel, result.Fuel, err)
		}
	}
	c.report.add("fuel/exact", "an answer with just enough fuel, fuel_exhausted with one unit less", missing)
	result, err := c.module.Call(abi.Call{Input: []byte("c"), Fuel: 1 << 62})
	missing = ""
	if code, _ := trapOf(err); code != abi.TrapFuel || result.Fuel != abi.MaxFuel {
		missing = fmt.Sprintf("%d units used, error %v", result.Fuel, err)
	}
	c.report.add("fuel/maximum", fmt.Sprintf("at most %d units, whatever is asked", uint64(abi.MaxFuel)), missing)
}

func (c *hostCheck) logs() {
	result, err := c.module.Call(abi.Call{Input: []byte("j")})
	missing := ""
	if code, _ := trapOf(err); code != abi.TrapFuel || len(result.Logs) != abi.MaxLogMessages {
		missing = fmt.Sprintf("%d messages, error %v", len(result.Logs), err)
	} else if result.Logs[0] != (abi.Log{Level: abi.LogInfo, Text: "a message of the guest"}) {
		missing = fmt.Sprintf("the first is %+v", result.Logs[0])
	}
	c.report.add("log/limit", fmt.Sprintf("the first %d messages, kept with the trap", abi.MaxLogMessages), missing)
	result, err = c.module.Call(abi.Call{Input: []byte("y")})
	missing = reason(err)
	if err == nil && len(result.Logs) != 1 {
		missing = fmt.Sprintf("%d messages", len(result.Logs))
	}
	c.report.add("log/standard output", "what WASI's fd_write writes, and nothing of the call before", missing)
}

// clock wants the call's instant, and nothing else, as the time.
func (c *hostCheck) clock() {
	missing := ""
	for _, now := range []int64{0, 1, frozen, -1} {
		result, err := c.module.Call(abi.Call{Input: []byte("v"), Now: now})
		if err != nil || string(result.Output) != number(uint64(now)) {
			missing = fmt.Sprintf("at %d: %x, error %v", now, result.Output, err)
		}
	}
	c.report.add("clock", "the call's own instant", missing)
}

// restored wants that a guest which counts, draws random numbers or grows its
// memory begins every call alike, traps in between or not.
func (c *hostCheck) restored() {
	for _, input := range []string{"b", "x", "z"} {
		first, err := c.module.Call(abi.Call{Input: []byte(input)})
		missing := reason(err)
		for _, between := range slices.Repeat([]string{"b", "d", "t", "z", "x", "u", "h", "j"}, 4) {
			if missing != "" {
				break
			}
			c.module.Call(abi.Call{Input: []byte(between), Fuel: 50_000})
			again, err := c.module.Call(abi.Call{Input: []byte(input), Now: 7})
			if err != nil || !bytes.Equal(again.Output, first.Output) || again.Fuel != first.Fuel {
				missing = fmt.Sprintf("behind %q: %x with %d units, before %x with %d, error %v", between, again.Output, again.Fuel, first.Output, first.Fuel, err)
			}
		}
		name := map[string]string{"b": "counter", "x": "random", "z": "memory"}[input]
		c.report.add("restore/"+name, "the same bytes and the same fuel in every call", missing)
	}
}
