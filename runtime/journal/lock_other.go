//go:build !unix

package journal

import "errors"

func lock(string) (unlock func() error, err error) {
	return nil, errors.New("a journal needs a Unix system")
}
