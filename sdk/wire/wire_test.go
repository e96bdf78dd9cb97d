package wire_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

type doc struct {
	Name   string            `cbor:"name"`
	Digest wire.Digest       `cbor:"digest"`
	Extra  map[string]any    `cbor:"extra,omitempty"`
	Parts  map[string][]byte `cbor:"parts,omitempty"`
}

func TestRoundTripIsDeterministic(t *testing.T) {
	in := doc{Name: "n", Digest: wire.Sum([]byte("x")), Extra: map[string]any{"b": int64(1), "a": 1.5, "l": []any{"s", nil, true}}}
	a, err := wire.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out doc
	if err := wire.Unmarshal(a, &out); err != nil {
		t.Fatal(err)
	}
	b, _ := wire.Marshal(out)
	if !bytes.Equal(a, b) {
		t.Fatalf("not equal:\n%x\n%x", a, b)
	}
	if out.Extra["b"] != int64(1) || out.Digest != in.Digest {
		t.Fatalf("values changed: %+v", out)
	}
}

func TestUnmarshalRefusesWhatMarshalWouldNotWrite(t *testing.T) {
	for name, in := range map[string][]byte{
		"long integer":      {0xa1, 0x61, 'a', 0x18, 0x01},
		"unsorted keys":     {0xa2, 0x61, 'b', 0x01, 0x61, 'a', 0x01},
		"duplicate keys":    {0xa2, 0x61, 'a', 0x01, 0x61, 'a', 0x01},
		"trailing byte":     {0xa1, 0x61, 'a', 0x01, 0x00},
		"tag":               {0xa1, 0x61, 'a', 0xc1, 0x01},
		"indefinite length": {0xbf, 0x61, 'a', 0x01, 0xff},
		"long float":        {0xa1, 0x61, 'a', 0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0},
		"NaN":               {0xa1, 0x61, 'a', 0xf9, 0x7e, 0x00},
		"cut":               {0xa1, 0x61},
		"empty":             {},
	} {
		var v map[string]any
		if err := wire.Unmarshal(in, &v); err == nil {
			t.Errorf("%s: accepted as %v", name, v)
		}
	}
}

func TestDecompressIsBounded(t *testing.T) {
	bomb := wire.Compress(make([]byte, 64<<20))
	if _, err := wire.Decompress(bomb, 1<<20); !errors.Is(err, wire.ErrTooLarge) {
		t.Fatalf("a frame of 64 MiB under a bound of 1 MiB: %v", err)
	}
	small := []byte("hello")
	got, err := wire.Decompress(wire.Compress(small), len(small))
	if err != nil || !bytes.Equal(got, small) {
		t.Fatalf("%q, %v", got, err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	seed, _ := wire.Marshal(doc{Name: "n"})
	f.Add(seed)
	f.Add([]byte{0xbf, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var v any
		if wire.Unmarshal(b, &v) != nil {
			return
		}
		again, err := wire.Marshal(v)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted %x, which encodes as %x (%v)", b, again, err)
		}
	})
}
