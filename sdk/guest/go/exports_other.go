//go:build !wasip1

package guest

// Log does nothing outside a module.
func Log(level int32, text string) {}

// Now returns 0 outside a module.
func Now() int64 { return 0 }

// Match returns false outside a module.
func Match(pattern int, text string) bool { return false }
