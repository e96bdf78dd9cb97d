//go:build unix

package engine

import (
	"os"
	"syscall"
)

// openTurn opens a file that takeTurn locks.
func openTurn(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
}

// takeTurn locks the file unless somebody else holds it, here or in another
// process. Closing it gives the turn away; so does the process's end.
func takeTurn(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
