package wasm

import (
	"bytes"
	"testing"
)

func TestCustom(t *testing.T) {
	empty := []byte{0, 'a', 's', 'm', 1, 0, 0, 0}
	other := append(bytes.Clone(empty), 0, 3, 1, 'x', 9)
	both := append(bytes.Clone(other), 0, 4, 1, 'y', 7, 8)
	for _, tc := range []struct {
		name   string
		module []byte
		want   []byte
	}{
		{"none", empty, nil},
		{"other", other, nil},
		{"second", both, []byte{7, 8}},
		{"cut", both[:len(both)-1], nil},
		{"no module", []byte("y"), nil},
		{"name longer than the section", append(bytes.Clone(empty), 0, 2, 9, 'y'), nil},
	} {
		if got := Custom(tc.module, "y"); !bytes.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func FuzzCustom(f *testing.F) {
	f.Add([]byte{0, 'a', 's', 'm', 1, 0, 0, 0, 0, 4, 1, 'y', 7, 8})
	f.Add([]byte{0, 'a', 's', 'm', 1, 0, 0, 0, 0, 0x80})
	f.Fuzz(func(t *testing.T, module []byte) {
		if got := Custom(module, "y"); !bytes.Contains(module, got) {
			t.Errorf("%x is not in the module", got)
		}
	})
}
