//go:build !linux && !darwin

package journal

import "errors"

// Free is not known.
func (osFS) Free(string) (int64, error) { return 0, errors.ErrUnsupported }
