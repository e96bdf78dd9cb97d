//go:build !linux

package hostile

import "runtime"

// resident returns what Go holds of the system.
func resident() int64 { return peak() }

func peak() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}
