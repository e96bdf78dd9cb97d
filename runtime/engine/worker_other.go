//go:build !unix

package engine

import (
	"errors"
	"os"
	"syscall"
)

// Workers would have no limits here: Self returns no program and nothing below runs.

func attributes() *syscall.SysProcAttr { return nil }

func withholdFiles() {}

func confine(compileLimits, int64) error { return errors.ErrUnsupported }

func kill(p *os.Process) error { return p.Kill() }

func privateFile(string) (*os.File, string, error) { return nil, "", errors.ErrUnsupported }
