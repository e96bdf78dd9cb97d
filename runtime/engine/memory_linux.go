package engine

import (
	"context"
	"fmt"
	"os"
	"unsafe"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// reservation is the address space of a memory, as long as it may ever become,
// so that the memory never moves. What was not written yet occupies nothing.
type reservation struct{ bytes []byte }

// withReservation returns a context under which an instance's memory is the
// reservation that it fills in.
func withReservation(ctx context.Context, r *reservation) context.Context {
	return experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(func(_, most uint64) experimental.LinearMemory {
		r.reserve(most)
		return r
	}))
}

func (r *reservation) reserve(size uint64) {
	at, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return // Reallocate refuses
	}
	r.bytes = unsafe.Slice((*byte)(at), size)
	unix.Madvise(r.bytes, unix.MADV_NOHUGEPAGE) // one byte must not occupy 2 MiB
}

// Reallocate implements experimental.LinearMemory.
func (r *reservation) Reallocate(size uint64) []byte {
	if size > uint64(len(r.bytes)) {
		return nil
	}
	return r.bytes[:size:size]
}

// Free implements experimental.LinearMemory. wazero calls it when the instance is
// closed, but not when it could not be made.
func (r *reservation) Free() {
	if len(r.bytes) > 0 {
		unix.MunmapPtr(unsafe.Pointer(&r.bytes[0]), uintptr(len(r.bytes)))
		r.bytes = nil
	}
}

// image is the memory that every call begins with. All instances map it, each
// with its own copies of the pages that it wrote.
type image struct {
	file  int
	bytes []byte
}

// newImage keeps a copy of a memory.
func newImage(memory []byte) (*image, error) {
	file, err := unix.MemfdCreate("holdfast", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	m := &image{file: file}
	if err := m.fill(memory); err != nil {
		m.close()
		return nil, fmt.Errorf("image: %w", err)
	}
	return m, nil
}

func (m *image) fill(memory []byte) error {
	if err := unix.Ftruncate(m.file, int64(len(memory))); err != nil {
		return err
	}
	page := os.Getpagesize()
	for at := 0; at < len(memory); at += page {
		if one := memory[at:min(at+page, len(memory))]; !allZero(one) {
			if n, err := unix.Pwrite(m.file, one, int64(at)); n < len(one) {
				return fmt.Errorf("wrote %d of %d bytes: %w", n, len(one), err)
			}
		}
	}
	if _, err := unix.FcntlInt(uintptr(m.file), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		return err
	}
	at, err := unix.MmapPtr(m.file, 0, nil, uintptr(len(memory)), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	m.bytes = unsafe.Slice((*byte)(at), len(memory))
	return nil
}

// cover puts the image in the place of an instance's memory of the same size,
// whose own pages are given back.
func (m *image) cover(memory []byte) error {
	_, err := unix.MmapPtr(m.file, 0, unsafe.Pointer(&memory[0]), uintptr(len(memory)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return err
}

func (m *image) close() {
	if len(m.bytes) > 0 {
		unix.MunmapPtr(unsafe.Pointer(&m.bytes[0]), uintptr(len(m.bytes)))
	}
	unix.Close(m.file)
}

// privateBytes returns how much of an instance's memory is its own: the pages
// that it wrote since it covered it with the image.
func privateBytes(memory []byte) (uint64, error) {
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return 0, err
	}
	defer pagemap.Close()
	page := os.Getpagesize()
	const entryBytes, present, ofFile = 8, 1 << 63, 1 << 61
	entries := make([]uint64, len(memory)/page)
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&entries[0])), entryBytes*len(entries))
	if _, err := pagemap.ReadAt(raw, int64(uintptr(unsafe.Pointer(&memory[0])))/int64(page)*entryBytes); err != nil {
		return 0, err
	}
	var own uint64
	for _, entry := range entries {
		if entry&present != 0 && entry&ofFile == 0 {
			own += uint64(page)
		}
	}
	return own, nil
}
