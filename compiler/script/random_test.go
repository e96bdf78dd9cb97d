package script_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// mirror answers the request's context as its value.
const mirror = `export const decide = (r: any) => ({ verdict: "allow", value: r.context })`

// document makes a value of at most so many levels.
func document(r *rand.Rand, levels int) any {
	kind := r.IntN(9)
	if levels == 0 {
		kind = r.IntN(7)
	}
	switch kind {
	case 0:
		return nil
	case 1:
		return r.IntN(2) == 0
	case 2:
		return int64(r.Uint64() >> r.IntN(64))
	case 3:
		return -1 - int64(r.Uint64()>>(1+r.IntN(63)))
	case 4:
		return math.Trunc((r.Float64() - 0.5) * math.Pow(10, float64(r.IntN(300)))) // often whole
	case 5:
		return r.NormFloat64()
	case 6:
		return text(r, r.IntN(40)*r.IntN(20))
	case 7:
		list := make([]any, r.IntN(6))
		for i := range list {
			list[i] = document(r, levels-1)
		}
		return list
	}
	m := map[string]any{}
	for range r.IntN(8) {
		m[text(r, r.IntN(12))] = document(r, levels-1)
	}
	return m
}

func text(r *rand.Rand, n int) string {
	var b strings.Builder
	letters := []rune("abcxyz019_. \x00\u007f\u0080\u00e9\u00ff\u0100\u07ff\u0800\u8a9e\uffff\U00010000\U0001F600\U0010FFFF")
	plain := r.IntN(3) > 0
	for range n {
		c := letters[r.IntN(len(letters))]
		if plain {
			c &= 0x7f
		}
		b.WriteRune(c)
	}
	return b.String()
}

// TestRandomDocuments: whatever comes goes out again, byte for byte.
func TestRandomDocuments(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	m := ready(t, map[string]string{"policy.ts": mirror})
	for n := range 3_000 {
		context := document(r, 5)
		if context == nil {
			continue
		}
		value := appendValue(t, nil, context)
		if len(value) > 60_000 {
			continue
		}
		want := append(append([]byte("\xa2\x65value"), value...), "\x67verdict\x65allow"...)
		got, err := m.Call(abi.Call{Input: append([]byte("\xa2\x67subject\xa0\x67context"), value...), Fuel: abi.MaxFuel})
		if err != nil || !bytes.Equal(got.Output, want) {
			t.Fatalf("seed %d, document %d: %v %s\ncame %q\nwent %q", seed, n, err, logged(got), want, got.Output)
		}
	}
}

// TestMutations: a request that was damaged anywhere is answered or refused by the
// guest itself.
func TestMutations(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	m := ready(t, map[string]string{"policy.ts": mirror})
	answered := 0
	for n := range 10_000 {
		input := appendValue(t, []byte("\xa2\x67subject\xa0\x67context"), document(r, 6))
		for range 1 + r.IntN(3) {
			at := r.IntN(len(input))
			switch r.IntN(4) {
			case 0:
				input[at] = byte(r.Uint32())
			case 1:
				input[at] ^= 1 << r.IntN(8)
			case 2:
				input = append(input[:at:at], input[min(at+1+r.IntN(8), len(input)):]...)
			default:
				input = append(input[:at:at], append([]byte{0x9b, 0xff, 0xbb, 0x7f, 0x1b, 0x80}[r.IntN(6):], input[at:]...)...)
			}
			if len(input) == 0 {
				break
			}
		}
		got, err := m.Call(abi.Call{Input: input, Fuel: abi.MaxFuel})
		trap, _ := errors.AsType[*abi.Trap](err)
		if err != nil && (trap == nil || trap.Code != abi.TrapRefused) {
			t.Fatalf("seed %d, request %d: %v %s\n%x", seed, n, err, logged(got), input)
		}
		if err == nil {
			answered++
		}
	}
	if answered < 100 {
		t.Errorf("seed %d: only %d answered", seed, answered)
	}
}

// TestHeap: blocks of all sizes, given back and taken again, never overlap. It
// runs at the start, where there is fuel for it.
func TestHeap(t *testing.T) {
	m, err := compile(t, map[string]string{"policy.ts": `let seed = 7
const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n
const held: Uint8Array[] = []
for (let i = 1; i < 12000; i++) {
  const at = random(60), old = held[at]
  if (old && (old[0] !== at || old[old.length - 1] !== at || old[old.length >> 1] !== at)) throw new Error("a block of " + old.length + " was overwritten")
  held[at] = undefined as any
  if (random(3) > 0) held[at] = new Uint8Array(1 + random(1 << (1 + random(12)))).fill(at)
}
export const decide = () => ({ verdict: "allow" })`})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, m.Wasm, nil, nil, nil); err != nil {
		t.Error(err)
	}
}
