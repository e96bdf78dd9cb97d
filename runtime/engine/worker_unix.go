//go:build unix

package engine

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
)

const (
	workerNice  = 10
	workerFiles = 32
)

// confine sets the limits of this process, which is a worker. What the platform
// does not count is not limited: macOS takes no limit on address space.
func confine(limits compileLimits, fileBytes int64) error {
	debug.SetMemoryLimit(limits.Memory / 4 * 3)
	// A pool of threads for all CPUs would only take more memory.
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	spent := make(chan os.Signal, 1)
	signal.Notify(spent, syscall.SIGXCPU)
	go func() { <-spent; os.Exit(workerSpent) }()
	cpu := uint64(limits.CPU.Seconds())
	nice := func() error {
		return os.NewSyscallError("setpriority", syscall.Setpriority(syscall.PRIO_PGRP, 0, workerNice))
	}
	errs := []error{
		nice(),
		limit("core", syscall.RLIMIT_CORE, 0, 0),
		limit("CPU", syscall.RLIMIT_CPU, cpu, cpu+1), // who does not listen is killed
		limit("file size", syscall.RLIMIT_FSIZE, uint64(fileBytes), uint64(fileBytes)),
		limit("files", syscall.RLIMIT_NOFILE, workerFiles, workerFiles),
		confineMemory(uint64(limits.Memory)),
		nice(), // again: a thread that began during the first call was missed
	}
	return errors.Join(append(errs, forbid())...)
}

func limit(what string, resource int, soft, hard uint64) error {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(resource, &now); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	now.Max = min(hard, now.Max) // whoever started the parent may allow less
	now.Cur = min(soft, now.Max)
	if err := syscall.Setrlimit(resource, &now); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// kill ends a worker and what it may have started.
func kill(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
