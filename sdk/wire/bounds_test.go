package wire_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// What a guest wrote need not be deterministic, but it is bounded all the same.
func TestUnmarshalLooseIsBounded(t *testing.T) {
	var v any
	if err := wire.UnmarshalLoose([]byte{0xa2, 0x61, 'b', 0x18, 0x01, 0x61, 'a', 0x01}, &v); err != nil {
		t.Errorf("unsorted keys and a long integer: %v", err)
	}
	deep := append(bytes.Repeat([]byte{0x81}, wire.MaxDepth+1), 0x01)
	for name, in := range map[string][]byte{
		"duplicate keys": {0xa2, 0x61, 'a', 0x01, 0x61, 'a', 0x02},
		"too deep":       deep,
		"trailing byte":  {0x01, 0x01},
		"tag":            {0xc1, 0x01},
		"NaN":            {0xf9, 0x7e, 0x00},
	} {
		if err := wire.UnmarshalLoose(in, &v); err == nil {
			t.Errorf("%s: read as %v", name, v)
		}
	}
}

func TestDigestForms(t *testing.T) {
	d := wire.Sum([]byte("x"))
	if back, err := wire.ParseDigest(d.String()); err != nil || back != d {
		t.Errorf("%v, %v", back, err)
	}
	for _, s := range []string{"", d.Hex(), "sha256:" + strings.ToUpper(d.Hex()), d.String()[:70], d.String() + "0", "sha512:" + d.Hex(), "sha256:" + strings.Repeat("g", 64)} {
		if _, err := wire.ParseDigest(s); err == nil {
			t.Errorf("%q was read", s)
		}
	}
	for _, n := range []int{0, 31, 33} {
		b, err := wire.Marshal(make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		if err := wire.UnmarshalLoose(b, &d); err == nil {
			t.Errorf("a digest of %d bytes was read", n)
		}
	}
}

// Neither a frame that hides its size nor one that is a byte too long passes.
func TestDecompressWithoutAStatedSize(t *testing.T) {
	frame := func(n int) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, err := w.Write([]byte{0}); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Flush(), w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, n := range []int{1001, 100_000} {
		if _, err := wire.Decompress(frame(n), 1000); !errors.Is(err, wire.ErrTooLarge) {
			t.Errorf("%d bytes under a bound of 1000: %v", n, err)
		}
	}
	if _, err := wire.Decompress(wire.Compress(make([]byte, 1001)), 1000); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("one byte more than the bound, stated: %v", err)
	}
}
