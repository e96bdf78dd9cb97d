package engine

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// Error numbers of WASI preview 1.
const (
	wasiOK            = 0
	wasiBadDescriptor = 8
	wasiInvalid       = 28
	wasiNotCapable    = 76
)

// Limits of one WASI call, so that its work stays in proportion to its fuel.
const (
	maxVectors       = 64
	maxSubscriptions = 64
)

// wasiFunctions returns WASI preview 1 without a world behind it: no arguments,
// no environment, no files, a clock that stands still.
func wasiFunctions() map[string]hostFunction {
	all := map[string]hostFunction{
		"args_get": answer(wasiOK), "environ_get": answer(wasiOK), "sched_yield": answer(wasiOK),
		"args_sizes_get": wasiSizes, "environ_sizes_get": wasiSizes,
		"clock_res_get": wasiClockResolution, "clock_time_get": wasiClock,
		"random_get": wasiRandom, "poll_oneoff": wasiPoll, "proc_exit": wasiExit,
		"fd_write": wasiWrite, "fd_fdstat_get": wasiDescriptor,
	}
	for _, name := range []string{"fd_read", "fd_close", "fd_seek", "fd_fdstat_set_flags", "fd_filestat_get", "fd_filestat_set_size",
		"fd_prestat_get", "fd_prestat_dir_name", "fd_pread", "fd_pwrite", "fd_readdir", "fd_sync", "fd_tell"} {
		all[name] = answer(wasiBadDescriptor)
	}
	for _, name := range []string{"path_create_directory", "path_filestat_get", "path_filestat_set_times", "path_link", "path_open",
		"path_readlink", "path_remove_directory", "path_rename", "path_symlink", "path_unlink_file"} {
		all[name] = answer(wasiNotCapable)
	}
	return all
}

func answer(errno uint64) hostFunction {
	return func(_ *instance, stack []uint64) { stack[0] = errno }
}

// putU32 and putU64 write into the guest's memory or end the call.
func (i *instance) putU32(at uint64, v uint32) { binary.LittleEndian.PutUint32(i.buffer(at, 4), v) }
func (i *instance) putU64(at uint64, v uint64) { binary.LittleEndian.PutUint64(i.buffer(at, 8), v) }

func (i *instance) getU32(at uint64) uint64 { return uint64(binary.LittleEndian.Uint32(i.read(at, 4))) }

func wasiSizes(i *instance, stack []uint64) {
	i.putU32(stack[0], 0)
	i.putU32(stack[1], 0)
	stack[0] = wasiOK
}

func wasiClockResolution(i *instance, stack []uint64) {
	i.putU64(stack[1], 1)
	stack[0] = wasiOK
}

func wasiClock(i *instance, stack []uint64) {
	i.putU64(stack[2], uint64(i.now))
	stack[0] = wasiOK
}

func wasiRandom(i *instance, stack []uint64) {
	i.charge(randomFuel * uint64(uint32(stack[1])))
	i.randomSource().Read(i.buffer(stack[0], stack[1]))
	stack[0] = wasiOK
}

func wasiExit(_ *instance, stack []uint64) {
	panic(&abi.Trap{Code: abi.TrapAbort, Detail: fmt.Sprintf("proc_exit(%d)", uint32(stack[0]))})
}

// wasiWrite turns what is written to standard output or error into log messages.
func wasiWrite(i *instance, stack []uint64) {
	descriptor, vectors, count := uint32(stack[0]), uint64(uint32(stack[1])), uint64(uint32(stack[2]))
	if descriptor != 1 && descriptor != 2 {
		stack[0] = wasiBadDescriptor
		return
	}
	if count > maxVectors {
		stack[0] = wasiInvalid
		return
	}
	var written uint64
	for n := range count {
		at, length := i.getU32(vectors+8*n), i.getU32(vectors+8*n+4)
		i.charge(length >> hostByteShift)
		if text := i.read(at, length); len(text) > 0 {
			i.log(abi.LogInfo, text)
		}
		written += length
	}
	i.putU32(stack[3], uint32(written))
	stack[0] = wasiOK
}

// wasiDescriptor says that the standard descriptors are character devices.
func wasiDescriptor(i *instance, stack []uint64) {
	if uint32(stack[0]) > 2 {
		stack[0] = wasiBadDescriptor
		return
	}
	stat := i.buffer(stack[1], 24)
	clear(stat)
	stat[0] = 2
	stack[0] = wasiOK
}

// wasiPoll says that everything waited for has come: time stands still, so
// there is nothing to wait for.
func wasiPoll(i *instance, stack []uint64) {
	in, out, count := uint64(uint32(stack[0])), uint64(uint32(stack[1])), uint64(uint32(stack[2]))
	if count == 0 || count > maxSubscriptions {
		stack[0] = wasiInvalid
		return
	}
	const subscriptionSize, eventSize = 48, 32
	for n := range count {
		subscription := i.read(in+n*subscriptionSize, subscriptionSize)
		event := i.buffer(out+n*eventSize, eventSize)
		userdata, kind := binary.LittleEndian.Uint64(subscription), subscription[8]
		clear(event)
		binary.LittleEndian.PutUint64(event, userdata)
		event[10] = kind
	}
	i.putU32(stack[3], uint32(count))
	stack[0] = wasiOK
}
