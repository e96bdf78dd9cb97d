//go:build unix

package engine

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestKeyOfOthers puts keys and folders in place that somebody else could know
// or write to.
func TestKeyOfOthers(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"readable": func(path string) error { return os.Chmod(path, 0o644) },
		"a link":   func(path string) error { return os.Symlink(path+".other", path+".new") },
		"a pipe":   func(path string) error { return syscall.Mkfifo(path+".new", 0o600) },
		"short":    func(path string) error { return os.Truncate(path, 31) },
		"another's": func(path string) error {
			if os.Geteuid() != 0 {
				return os.Chmod(path, 0o666) // who is not root cannot give it away
			}
			return os.Chown(path, 65534, 65534)
		},
	} {
		path := filepath.Join(t.TempDir(), "code.key")
		before, err := openKey(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path, path+".other"); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(path+".other", path); err != nil {
			t.Fatal(err)
		}
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path + ".new"); err == nil {
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		if after, err := openKey(path); err != nil || after == before {
			t.Errorf("%s: the key is taken (%v)", name, err)
		}
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := openCache(open, 0, nil); err == nil {
		t.Error("a folder that everybody writes to is taken")
	}
}

// TestEntryIsAPipe wants an entry that is none to be refused and not waited for.
func TestEntryIsAPipe(t *testing.T) {
	c, err := openCache(t.TempDir()+"/code", 0, func(identity) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(c.path(identity{}), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	go func() { _, err := c.load(identity{}, t.TempDir()); refused <- err }()
	select {
	case err := <-refused:
		if err == nil {
			t.Error("a pipe is an entry")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a pipe is waited for")
	}
}
