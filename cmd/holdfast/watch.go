package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// watchInterval is how often a watched folder is looked at.
const watchInterval = 300 * time.Millisecond

// maxWatched bounds the files of a watched folder.
const maxWatched = 10_000

// watch runs task, and again after every change below path, until ctx ends. What
// task finds wrong is printed; what keeps it from being watched is returned.
func (e *env) watch(ctx context.Context, path string, task func() error) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for last := ""; ; {
		now, err := look(path)
		if err != nil {
			return err
		}
		if now != last {
			last = now
			if err := task(); err != nil && ctx.Err() == nil {
				fmt.Fprintf(e.stderr, "holdfast: %v\n", err)
			}
			fmt.Fprintf(e.stderr, "watching %s\n", path)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look names every file below path with its size and time of change. A file that
// is being replaced is seen the next time.
func look(path string) (string, error) {
	var seen strings.Builder
	n := 0
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name != path {
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() && name != path && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if n++; n > maxWatched {
			return fmt.Errorf("%s: more than %d files to watch", path, maxWatched)
		}
		if info, err := d.Info(); err == nil && !d.IsDir() {
			fmt.Fprintf(&seen, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
		}
		return nil
	})
	return seen.String(), err
}
