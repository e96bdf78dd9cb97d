//go:build !linux

package journal

// Preallocate makes a sparse file.
func (f osFile) Preallocate(size int64) error { return f.Truncate(size) }
