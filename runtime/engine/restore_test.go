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
	want := bytes.Clone(m.snapshot.image.bytes)
	const seed = 3
	random := rand.New(rand.NewPCG(seed, 0))
	answered := 0
	for n := range 20_000 {
		before := m.slots[0].instance
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
		_, err := m.Call(abi.Call{Input: input, Now: int64(n)})
		s, err2 := m.acquire() // a replaced instance is ready some time later
		if err2 != nil {
			t.Fatal(err2)
		}
		if err == nil {
			answered++
			if s.instance != before {
				t.Fatal("another instance answered")
			}
		}
		if !bytes.Equal(s.instance.memory.all(), want) {
			t.Fatalf("seed %d, call %d: kind %d at %d, length %d left a trace", seed, n, kind, at, length)
		}
		m.giveBack(s)
	}
	if answered < 12_000 {
		t.Errorf("only %d calls were answered", answered)
	}
}
