//go:build !linux

package engine

import (
	"bytes"
	"context"
)

// reservation is nothing here: wazero keeps the memories on Go's heap.
type reservation struct{}

func withReservation(ctx context.Context, _ *reservation) context.Context { return ctx }

func (*reservation) Free() {}

// image is the memory that every call begins with. Every instance has its own
// copy of it.
type image struct{ bytes []byte }

func newImage(memory []byte) (*image, error) { return &image{bytes.Clone(memory)}, nil }

func (m *image) cover(memory []byte) error {
	copy(memory, m.bytes)
	return nil
}

func (*image) close() {}

func privateBytes(memory []byte) (uint64, error) { return uint64(len(memory)), nil }
