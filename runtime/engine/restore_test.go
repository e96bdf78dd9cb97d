package engine

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// TestRestoreIsComplete writes with every instruction and every kind of host
// call at edges and anywhere, and compares the whole memory after each call.
func TestRestoreIsComplete(t *testing.T) {
	ctx := context.Background()
	e, err := New(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(ctx)
	module, err := os.ReadFile("testdata/writer.wasm")
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Load(ctx, Spec{Name: "writer", Wasm: module, ABI: abi.HoldfastV1, Pool: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(ctx)
	const seed = 3
	random := rand.New(rand.NewPCG(seed, 0))
	answered := 0
	for n := range 20_000 {
		kind, at := uint32(random.IntN(16)), random.Uint32N(uint32(m.snapshot.size))
		if random.IntN(2) == 0 {
			at = at&^511 + 512 - random.Uint32N(20)
		}
		length := random.Uint32N(40)
		if random.IntN(4) == 0 {
			length = random.Uint32N(300_000)
		}
		input := binary.LittleEndian.AppendUint32(nil, kind)
		input = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(input, at), length)
		if _, trap := m.inspect(t, abi.Call{Input: input, Now: int64(n)}, func([]byte) {}); trap == nil {
			answered++
		}
		if t.Failed() {
			t.Fatalf("seed %d, call %d: kind %d at %d, length %d", seed, n, kind, at, length)
		}
	}
	if answered < 12_000 {
		t.Errorf("only %d calls were answered", answered)
	}
}

func TestMarksHoldOnEveryWay(t *testing.T) {
	ctx := context.Background()
	e, err := New(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(ctx)
	module, err := os.ReadFile("testdata/ways.wasm")
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Load(ctx, Spec{Name: "ways", Wasm: module, ABI: abi.HoldfastV1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(ctx)
	if _, trap := m.inspect(t, abi.Call{Input: []byte{0}}, func([]byte) {}); trap != nil {
		t.Error(trap)
	}
}

// Growth is answered in the guest's own pages, and -1 where there is none.
func TestGrowthIsTheGuests(t *testing.T) {
	ctx := context.Background()
	e, err := New(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(ctx)
	for pages, want := range map[string]int32{"\x00": 1, "\x01": -1} {
		m, err := e.Load(ctx, Spec{Name: "grow", Wasm: storeModule("\x41" + pages + "\x40\x00"), ABI: abi.HoldfastV1, Pool: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close(ctx)
		r, err := m.Call(abi.Call{Input: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		if got := int32(binary.LittleEndian.Uint32(r.Output)); got != want {
			t.Errorf("%q more pages: %d, want %d", pages, got, want)
		}
	}
}
