package engine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes give a worker a process group of its own and the parent's death.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// withholdFiles keeps from workers the descriptors that whoever started this
// program left open. Those that Go opens are not inherited anyway.
func withholdFiles() {
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // before Linux 5.11 they stay open
}

// confineMemory allows bytes of memory beyond what the program has mapped
// already. The data limit is what counts; the Go runtime reserves address space
// that it does not use, so that there is twice as much of that.
func confineMemory(bytes uint64) error {
	// The kernel should take the worker before its parent. A container may forbid it.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	var pages [6]uint64 // size, resident, shared, text, lib, data
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(statm), &pages[0], &pages[1], &pages[2], &pages[3], &pages[4], &pages[5]); err != nil {
		return fmt.Errorf("/proc/self/statm: %w", err)
	}
	page := uint64(os.Getpagesize())
	data, space := pages[5]*page+bytes, pages[0]*page+2*bytes
	return errors.Join(limit("data", syscall.RLIMIT_DATA, data, data), limit("address space", syscall.RLIMIT_AS, space, space))
}

// privateFile makes a file in memory, which a full disk does not stop, and the
// path under which this process can open it.
func privateFile(string) (*os.File, string, error) {
	fd, err := unix.MemfdCreate("holdfast-code", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, "", os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), "holdfast-code"), fmt.Sprintf("/proc/self/fd/%d", fd), nil
}
