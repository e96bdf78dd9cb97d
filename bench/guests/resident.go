package guests

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// Resident returns the bytes of memory that the process occupies after it has
// given back what it does not need; 0 where the system does not say (only Linux does).
func Resident() int64 {
	debug.FreeOSMemory()
	return status("VmRSS:")
}

// Peak returns the most bytes that the process occupied since ResetPeak.
func Peak() int64 { return status("VmHWM:") }

// ResetPeak makes Peak begin anew. It returns an error where the system cannot.
func ResetPeak() error { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

func status(key string) (bytes int64) {
	text, _ := os.ReadFile("/proc/self/status") // not there: 0
	_, line, _ := strings.Cut(string(text), key)
	fmt.Sscanf(line, "%d kB", &bytes)
	return bytes << 10
}
