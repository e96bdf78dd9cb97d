//go:build unix

package engine

import (
	"io/fs"
	"os"
	"syscall"
)

// openPlain opens a file for reading. It follows no link at its name and does not
// wait for whoever writes into a pipe.
func openPlain(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

func ownedByUs(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int64(stat.Uid) == int64(os.Geteuid())
}
