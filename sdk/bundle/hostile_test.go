package bundle_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

var magic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// header is a frame's header (RFC 8878, 3.1.1.1): descriptor and what follows it.
func header(descriptor byte, rest ...byte) []byte {
	return append(append(bytes.Clone(magic), descriptor), rest...)
}

// zeros are n blocks that stand for 128 KiB of zeros each, in four bytes.
func zeros(n int) []byte {
	var out []byte
	for i := range n {
		block := uint32(128<<10)<<3 | 1<<1
		if i == n-1 {
			block |= 1
		}
		out = append(out, byte(block), byte(block>>8), byte(block>>16), 0)
	}
	return out
}

func skippable(n int) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(n)), make([]byte, n)...)
}

// hostileFiles are package files whose compression lies.
func hostileFiles(file []byte) map[string][]byte {
	const window = 7 << 3 // 128 KiB
	empty := append(header(0, window), 1, 0, 0)
	return map[string][]byte{
		"a bomb of unknown size":            append(header(0, window), zeros(10_000)...),
		"a bomb that says it is small":      append(header(0x40, window, 44, 0), zeros(10_000)...), // 300 bytes
		"a bomb in one segment":             append(header(0x20, 100), zeros(10_000)...),
		"a bomb that says it is huge":       append(header(0xe0, 0, 0, 0, 0, 0, 0, 0, 16), zeros(1)...),
		"a huge window":                     append(header(0, 21<<3), zeros(1)...), // 2 GiB
		"a bomb behind the package":         append(bytes.Clone(file), append(header(0, window), zeros(10_000)...)...),
		"the package behind an empty frame": append(empty, file...),
		"the package behind a skippable":    append(skippable(10), file...),
		"a skippable behind the package":    append(bytes.Clone(file), skippable(10)...),
		"a skippable that is cut":           append(bytes.Clone(file), skippable(10)[:12]...),
		"skippables alone":                  bytes.Repeat(skippable(0), 100_000),
		"a dictionary":                      append(header(0x01, window, 7), file[5:]...),
		"a byte behind the package":         append(bytes.Clone(file), 0),
		"the package twice":                 append(bytes.Clone(file), file...),
		"no compression":                    []byte("manifest"),
		"nothing":                           nil,
	}
}

// Whatever the compression says, a package is refused with words and without
// taking memory for what it says or hides: 1.2 GiB of zeros stay below 256 MiB in
// all that is allocated on the way.
func TestHostileCompression(t *testing.T) {
	file, _ := encode(t, pkg())
	for name, c := range hostileFiles(file) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := bundle.OpenPackage(c, bundle.MaxPackage)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, bundle.ErrPackage) || len(err.Error()) < len("package is not valid: ")+5 {
			t.Errorf("%s: %v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 8*bundle.MaxPackage {
			t.Errorf("%s: %d bytes (%d MiB) of file took %d MiB", name, len(c), len(c)>>20, took>>20)
		}
	}
}

// Another encoding of the same package, and a package with something twice, are
// refused: a digest names one sequence of bytes.
func TestOtherEncodings(t *testing.T) {
	file, _ := encode(t, pkg())
	raw, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2]string{
		"a longer length":        {"\x67version\x611", "\x67version\x78\x011"},
		"a longer integer":       {"\x65limit\x0a", "\x65limit\x18\x0a"},
		"a float as wide as any": {"\x65limit\x0a", "\x65limit\xfb\x40\x24\x00\x00\x00\x00\x00\x00"},
		"a tag":                  {"\x65limit\x0a", "\x65limit\xc1\x0a"},
		"no definite length":     {"\x65roles\x83\x61a\xf6\xf5", "\x65roles\x9f\x61a\xf6\xf5\xff"},
		"a parameter twice":      {"\x65roles", "\x65limit"},
		"parameters out of order": {"\x65limit\x0a\x65roles\x83\x61a\xf6\xf5",
			"\x65roles\x83\x61a\xf6\xf5\x65limit\x0a"},
	} {
		changed := bytes.Replace(raw, []byte(c[0]), []byte(c[1]), 1)
		if bytes.Equal(changed, raw) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, _, err := bundle.OpenPackage(wire.Compress(changed), bundle.MaxPackage); !errors.Is(err, bundle.ErrPackage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every bit of the content counts: flipped, it is refused or another package.
func TestFlippedContent(t *testing.T) {
	for _, p := range []*bundle.Package{pkg(), exact()} {
		file, digest := encode(t, p)
		raw, err := wire.Decompress(file, bundle.MaxPackage)
		if err != nil {
			t.Fatal(err)
		}
		for i := range raw {
			for bit := range 8 {
				c := bytes.Clone(raw)
				c[i] ^= 1 << bit
				_, d, err := bundle.OpenPackage(wire.Compress(c), bundle.MaxPackage)
				if err == nil && d == digest || err != nil && !errors.Is(err, bundle.ErrPackage) {
					t.Errorf("bit %d of byte %d: %s, %v", bit, i, d, err)
				}
			}
		}
	}
}

func TestWordsOfHostileCompression(t *testing.T) {
	file, _ := encode(t, pkg())
	hostile := hostileFiles(file)
	for name, want := range map[string]string{
		"a bomb of unknown size":         "decompresses beyond the stated size",
		"a byte behind the package":      "not one Zstandard frame: 1 bytes behind its end",
		"the package behind a skippable": "not one Zstandard frame: a skippable frame",
		"a dictionary":                   "not one Zstandard frame: it wants dictionary 7",
	} {
		if _, _, err := bundle.OpenPackage(hostile[name], bundle.MaxPackage); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if _, _, err := bundle.OpenPackage(file[:len(file)-1], bundle.MaxPackage); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("cut: %v", err)
	}
}
