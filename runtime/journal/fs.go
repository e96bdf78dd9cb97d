package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// An FS is all that the journal reads and writes through, but for its lock.
// Tests give one that fails, or that forgets what was not synced.
type FS interface {
	// OpenFile is os.OpenFile.
	OpenFile(name string, flag int, perm os.FileMode) (File, error)
	// ReadDir returns the names in dir, in no order.
	ReadDir(dir string) ([]string, error)
	// Mkdir, Remove and Rename are those of package os.
	Mkdir(dir string, perm os.FileMode) error
	Remove(name string) error
	Rename(from, to string) error
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
	// Free returns how many bytes can still be written below dir, or
	// errors.ErrUnsupported.
	Free(dir string) (int64, error)
}

// A File is an open file of an FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	// Preallocate makes the file size bytes long, the new ones zero, so that
	// Sync need not write metadata for every group, and a full disk is met here
	// and not in the middle of a group.
	Preallocate(size int64) error
	Truncate(size int64) error
	// Sync returns nil when the content written before, and the file's size,
	// survive power loss.
	Sync() error
}

// osFS is the operating system's file system.
type osFS struct{}

type osFile struct{ *os.File }

func (osFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) ReadDir(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

func (osFS) Mkdir(dir string, perm os.FileMode) error { return os.Mkdir(dir, perm) }

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// replaceFile makes content the durable content of the file path, or leaves
// the old one.
func replaceFile(fs FS, path string, content []byte) error {
	temporary := path + ".new"
	f, err := fs.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = writeAll(f, content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temporary, err)
	}
	if err := fs.Rename(temporary, path); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(path))
}

// maxSmallFile bounds what readFile reads: checkpoints, marks and trim states.
const maxSmallFile = 1 << 20

// readFile returns the content of a small file.
func readFile(fs FS, path string) ([]byte, error) {
	f, err := fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err == nil && size > maxSmallFile {
		err = fmt.Errorf("%s has %d bytes; at most %d", path, size, maxSmallFile)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	content := make([]byte, size)
	n, err := f.ReadAt(content, 0)
	if errors.Is(err, io.EOF) && n == len(content) {
		err = nil
	}
	return content, errors.Join(err, f.Close())
}

// removeTree removes the files of a folder that has no folders, and the folder.
func removeTree(fs FS, dir string) error {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := fs.Remove(filepath.Join(dir, n)); err != nil {
			return err
		}
	}
	return fs.Remove(dir)
}

// OS is the operating system's file system, for those who wrap it.
func OS() FS { return osFS{} }
