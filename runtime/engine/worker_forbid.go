//go:build linux && (amd64 || arm64)

package engine

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbidden are the system calls that a compiler has no business with: network,
// other programs, other processes, tracing, mounting. They fail with EPERM.
var forbidden = [...]uint32{
	unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_SENDTO, unix.SYS_SENDMSG,
	unix.SYS_EXECVE, unix.SYS_EXECVEAT,
	unix.SYS_KILL, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_OPEN,
	unix.SYS_PIDFD_GETFD, unix.SYS_SETSID, unix.SYS_SETPGID, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_KEYCTL, unix.SYS_IO_URING_SETUP,
}

// forbid closes the forbidden calls to all threads of this process, for ever.
// A kernel without seccomp leaves them open.
func forbid() error {
	runtime.LockOSThread() // the first call is of this thread, and the second takes it to the others
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	filter := forbidFilter()
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno == 0 || errno == syscall.ENOSYS || errno == syscall.EINVAL {
		return nil
	}
	return os.NewSyscallError("seccomp", errno)
}

// Offsets in struct seccomp_data.
const (
	dataNumber = 0
	dataArch   = 4
	dataFlags  = 16 // of clone: the lower half of its first argument, little endian
)

// forbidFilter is a program for the kernel: calls of another architecture,
// forbidden ones and new processes fail; all others, and new threads, pass.
func forbidFilter() []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	answer := func(with uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: with}
	}
	refuse := answer(unix.SECCOMP_RET_ERRNO | uint32(syscall.EPERM))
	compare := func(how uint16, with uint32, skipIf, skipElse uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | how, K: with, Jt: skipIf, Jf: skipElse}
	}
	arch, numbers := uint32(unix.AUDIT_ARCH_AARCH64), forbidden[:]
	if runtime.GOARCH == "amd64" {
		const fork, vfork = 57, 58
		arch, numbers = unix.AUDIT_ARCH_X86_64, append([]uint32{fork, vfork}, numbers...)
	}
	const x32 = 1 << 30 // amd64's other numbers for the same calls begin here
	filter := []unix.SockFilter{
		load(dataArch), compare(unix.BPF_JEQ, arch, 1, 0), refuse,
		load(dataNumber), compare(unix.BPF_JGE, x32, 0, 1), refuse,
		// clone3 hides its flags from us; programs go back to clone without it
		compare(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1), answer(unix.SECCOMP_RET_ERRNO | uint32(syscall.ENOSYS)),
	}
	for _, number := range numbers {
		filter = append(filter, compare(unix.BPF_JEQ, number, 0, 1), refuse)
	}
	return append(filter,
		compare(unix.BPF_JEQ, unix.SYS_CLONE, 0, 3),
		load(dataFlags), compare(unix.BPF_JSET, unix.CLONE_THREAD, 1, 0), refuse,
		answer(unix.SECCOMP_RET_ALLOW))
}
