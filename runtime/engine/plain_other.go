//go:build !unix

package engine

import (
	"io/fs"
	"os"
)

func openPlain(path string) (*os.File, error) { return os.Open(path) }

func ownedByUs(fs.FileInfo) bool { return true }
