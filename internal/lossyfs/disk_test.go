//go:build linux

package lossyfs_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/holdfast-policy/holdfast/internal/lossyfs"

	"github.com/holdfast-policy/holdfast/internal/needs"
)

// A bench is a disk that is mounted, on a machine where that can be.
type bench struct {
	t       *testing.T
	disk    *lossyfs.Disk
	dir     string
	unmount func() error
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if err := lossyfs.Available(); err != nil {
		needs.Mounting(t, err)
	}
	b := &bench{t: t, disk: lossyfs.NewDisk(0), dir: t.TempDir()}
	unmount, err := b.disk.Mount(b.dir)
	if errors.Is(err, syscall.EPERM) {
		needs.Mounting(t, err)
	}
	b.check(err)
	b.unmount = unmount
	t.Cleanup(func() { b.check(b.unmount()) })
	return b
}

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// put writes a file; it is synced, or not.
func (b *bench) put(name string, content []byte, sync bool) {
	b.t.Helper()
	f, err := os.Create(b.path(name))
	b.check(err)
	_, err = f.Write(content)
	b.check(err)
	if sync {
		b.check(f.Sync())
	}
	b.check(f.Close())
}

func (b *bench) syncDir(name string) {
	b.t.Helper()
	d, err := os.Open(b.path(name))
	b.check(err)
	b.check(errors.Join(d.Sync(), d.Close()))
}

// powerOff loses power and mounts what is left.
func (b *bench) powerOff(seed uint64) lossyfs.Lost {
	b.t.Helper()
	lost := b.disk.PowerOff(seed)
	if _, err := os.ReadDir(b.dir); !errors.Is(err, syscall.EIO) {
		b.t.Errorf("reading without power: %v", err)
	}
	b.check(b.unmount())
	unmount, err := b.disk.Mount(b.dir)
	b.check(err)
	b.unmount = unmount
	return lost
}

// What was synced is there after every loss of power; what was not has been seen
// whole, torn and lost, and a name that was not synced there and gone.
func TestLossOfPower(t *testing.T) {
	b := newBench(t)
	old, content := bytes.Repeat([]byte("o"), 64<<10), bytes.Repeat([]byte("n"), 64<<10)
	seen := map[string]int{}
	for seed := range uint64(60) {
		b.check(os.RemoveAll(b.path("d")))
		b.check(os.Mkdir(b.path("d"), 0o700))
		b.put("d/synced", content, true)
		b.put("d/rewritten", old, true)
		b.syncDir("d")
		b.syncDir(".")
		f, err := os.OpenFile(b.path("d/rewritten"), os.O_WRONLY, 0)
		b.check(err)
		_, err = f.WriteAt(content, 0)
		b.check(errors.Join(err, f.Close()))
		b.put("d/unnamed", content, true)
		if lost := b.powerOff(seed); lost.Writes == 0 || lost.Names != 1 {
			t.Fatalf("seed %d: %+v was in flight", seed, lost)
		}
		if got, err := os.ReadFile(b.path("d/synced")); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("seed %d: what was synced: %v, %d bytes", seed, err, len(got))
		}
		got, err := os.ReadFile(b.path("d/rewritten"))
		if err != nil || len(got) != len(old) || bytes.Count(got, []byte("n"))+bytes.Count(got, []byte("o")) != len(old) {
			t.Fatalf("seed %d: what was rewritten: %v, %d bytes", seed, err, len(got))
		}
		switch n := bytes.Count(got, []byte("n")); n {
		case 0:
			seen["lost"]++
		case len(got):
			seen["whole"]++
		default:
			seen["torn"]++
			if n%512 != 0 {
				t.Errorf("seed %d: a sector is torn", seed)
			}
		}
		if got, err := os.ReadFile(b.path("d/unnamed")); err == nil && bytes.Equal(got, content) {
			seen["named"]++
		} else if errors.Is(err, os.ErrNotExist) {
			seen["unnamed"]++
		} else {
			t.Errorf("seed %d: what has no durable name: %v, %d bytes", seed, err, len(got))
		}
	}
	for _, fate := range []string{"lost", "whole", "torn", "named", "unnamed"} {
		if seen[fate] < 5 {
			t.Errorf("%s: only %d of 60 times", fate, seen[fate])
		}
	}
}

// What is asked of a file system by the daemons is there.
func TestOperations(t *testing.T) {
	b := newBench(t)
	b.put("a", []byte("one"), false)
	b.check(os.Link(b.path("a"), b.path("b")))
	if err := os.Link(b.path("a"), b.path("b")); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second link: %v", err)
	}
	b.check(os.Rename(b.path("b"), b.path("a")))
	b.put("c", []byte("two"), false)
	b.check(os.Rename(b.path("c"), b.path("a")))
	b.check(os.Symlink("a", b.path("s")))
	if got, err := os.ReadFile(b.path("s")); err != nil || string(got) != "two" {
		t.Errorf("through a link: %q, %v", got, err)
	}
	f, err := os.OpenFile(b.path("a"), os.O_RDWR, 0)
	b.check(err)
	b.check(syscall.Fallocate(int(f.Fd()), 0, 0, 1<<20))
	info, err := f.Stat()
	b.check(err)
	b.check(f.Truncate(2))
	if got, err := os.ReadFile(b.path("a")); err != nil || string(got) != "tw" || info.Size() != 1<<20 {
		t.Errorf("after a change of size: %q, %v, %d bytes before", got, err, info.Size())
	}
	b.check(f.Close())
	b.check(os.MkdirAll(b.path("d/e"), 0o700))
	if err := os.Remove(b.path("d")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("removing a folder that is not empty: %v", err)
	}
	b.check(os.RemoveAll(b.path("d")))
}

// A fault is what the caller gets.
func TestFaults(t *testing.T) {
	b := newBench(t)
	f, err := os.Create(b.path("f"))
	b.check(err)
	defer f.Close()
	b.disk.Fault(func(op, name string) syscall.Errno {
		switch {
		case op == "write" && name == "f":
			return syscall.ENOSPC
		case op == "sync":
			return syscall.EIO
		}
		return 0
	})
	if _, err := f.WriteString("x"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	b.disk.Fault(nil)
	if _, err := f.WriteString("x"); err != nil {
		t.Error(err)
	}
}
