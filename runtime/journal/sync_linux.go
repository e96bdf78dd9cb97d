package journal

import (
	"errors"
	"syscall"
)

// Preallocate reserves the blocks, so that a later fdatasync writes data only;
// where the file system cannot, the file is sparse.
func (f osFile) Preallocate(size int64) error {
	err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}

// Sync is fdatasync: data, and the metadata needed to read it again.
func (f osFile) Sync() error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
