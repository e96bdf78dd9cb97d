package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// An FS is what the journal writes through. Tests give one that fails.
type FS interface {
	// OpenFile is os.OpenFile.
	OpenFile(name string, flag int, perm os.FileMode) (File, error)
	// Rename is os.Rename.
	Rename(from, to string) error
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
}

// A File is an open file of an FS.
type File interface {
	io.WriterAt
	io.Closer
	// Preallocate makes the file size bytes long, the new ones zero, so that
	// Sync need not write metadata for every group.
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

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// replaceFile makes content the durable content of the file path, or leaves
// the old one.
func replaceFile(fs FS, path string, content []byte) error {
	temporary := path + ".new"
	f, err := fs.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
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

// OS is the operating system's file system, for those who wrap it.
func OS() FS { return osFS{} }
