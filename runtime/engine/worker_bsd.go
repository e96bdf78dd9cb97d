//go:build unix && !linux

package engine

import (
	"os"
	"syscall"
)

// attributes give a worker a process group of its own. When the parent dies, a
// worker ends at its limits or when it answers.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// withholdFiles does nothing: what this program inherited, workers inherit.
func withholdFiles() {}

// confineMemory limits nothing: this platform counts no memory that Go uses. The
// collector's own limit and the CPU limit remain.
func confineMemory(uint64) error { return nil }

// privateFile makes a file in the private folder dir.
func privateFile(dir string) (*os.File, string, error) {
	f, err := os.CreateTemp(dir, "code-")
	if err != nil {
		return nil, "", err
	}
	return f, f.Name(), nil
}
