package hostile

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
)

// resident collects garbage, gives memory back to the system, forgets the highest mark and returns
// the resident bytes of this process.
func resident() int64 {
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return peak()
	}
	return status("VmRSS:")
}

// peak returns the most bytes that were resident since resident was called.
func peak() int64 { return status("VmHWM:") }

func status(field string) int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(text, []byte(field))
	kib, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
	n, err := strconv.ParseInt(string(kib), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}
