package engine

import (
	"bytes"
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
	want := make([]byte, m.snapshot.size)
	copy(want, m.snapshot.memory)
	const seed = 3
	random := rand.New(rand.NewPCG(seed, 0))
	answered := 0
	for n := range 20_000 {
		i := m.idle[0]
		kind, at := uint32(random.IntN(16)), random.Uint32N(uint32(len(want)))
		if random.IntN(2) == 0 {
			at = at&^4095 + 4096 - random.Uint32N(20)
		}
		length := random.Uint32N(40)
		if random.IntN(4) == 0 {
			length = random.Uint32N(300_000)
		}
		input := binary.LittleEndian.AppendUint32(nil, kind)
		input = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(input, at), length)
		if _, err := m.Call(abi.Call{Input: input, Now: int64(n)}); err == nil {
			answered++
			if m.idle[0] != i {
				t.Fatal("another instance answered")
			}
		}
		memory, _ := m.idle[0].memory.Read(0, m.idle[0].memory.Size())
		if !bytes.Equal(memory, want) {
			t.Fatalf("seed %d, call %d: kind %d at %d, length %d left a trace", seed, n, kind, at, length)
		}
	}
	if answered < 12_000 {
		t.Errorf("only %d calls were answered", answered)
	}
}
