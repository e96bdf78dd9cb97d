package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/compiler"
)

// watchInterval is how often a watched folder is looked at. A change is acted on
// when the next look finds nothing new: an editor that writes several files, or
// one in pieces, causes one run.
const watchInterval = 300 * time.Millisecond

// maxWatched bounds the files of a watched folder.
const maxWatched = 10_000

// maxChanges is how many changed files are named.
const maxChanges = 5

// watch runs task, and again after every change below path, until ctx ends. What
// task finds wrong is printed; what keeps it from being watched is returned.
func (e *env) watch(ctx context.Context, path string, task func() error) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	now, err := look(path)
	for {
		if err != nil {
			return err
		}
		tested := now
		if err := task(); err != nil && ctx.Err() == nil {
			fmt.Fprintf(e.stderr, "holdfast: %v\n", err)
		}
		fmt.Fprintf(e.stderr, "watching %s\n", path)
		if now, err = nextChange(ctx, tick.C, path, tested); now == nil && err == nil {
			return nil
		}
		if err == nil {
			fmt.Fprintf(e.stderr, "\n%s: %s\n", time.Now().Format(time.TimeOnly), changes(path, tested, now))
		}
	}
}

// nextChange looks at every tick until the files are others than before and stay
// so for one tick; nil when ctx ended.
func nextChange(ctx context.Context, tick <-chan time.Time, path string, before files) (files, error) {
	for last := before; ; {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-tick:
		}
		now, err := look(path)
		if err != nil {
			return nil, err
		}
		if !maps.Equal(now, before) && maps.Equal(now, last) {
			return now, nil
		}
		last = now
	}
}

// files are names with what changes when a file does.
type files map[string]string

// look reads the names, sizes and times of every file below path that a build
// reads. A file that is being replaced is seen the next time.
func look(path string) (files, error) {
	seen := files{}
	modules := isModule(path)
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name != path {
			return nil
		}
		if err != nil {
			return err
		}
		if name != path && isOutput(d, modules) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if len(seen) == maxWatched {
			return fmt.Errorf("%s: more than %d files to watch", path, maxWatched)
		}
		if info, err := d.Info(); err == nil && !d.IsDir() {
			seen[name] = fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
		}
		return nil
	})
	return seen, err
}

// isModule reports whether the policy is a ready module, so that a .wasm file is
// its source and no output.
func isModule(path string) bool {
	info, err := os.Stat(path)
	return err == nil && (!info.IsDir() || compiler.IsModule(os.DirFS(path)))
}

// outputFolders are what compilers and package managers write.
var outputFolders = []string{"target", "zig-out", "zig-cache", "node_modules", "build", "dist", "bin", "obj"}

// isOutput reports whether a file or folder is written by builds or editors.
func isOutput(d fs.DirEntry, modules bool) bool {
	name := d.Name()
	if d.IsDir() {
		return strings.HasPrefix(name, ".") || slices.Contains(outputFolders, name)
	}
	switch filepath.Ext(name) {
	case ".hfp", ".o", ".a", ".tmp", ".swp", ".swx":
		return true
	case ".wasm", ".wat":
		return !modules
	}
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~")
}

// changes names what is different, by paths below root.
func changes(root string, before, after files) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(after)) {
		switch old, known := before[name]; {
		case !known:
			list = append(list, "new "+below(root, name))
		case old != after[name]:
			list = append(list, "changed "+below(root, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, still := after[name]; !still {
			list = append(list, "gone "+below(root, name))
		}
	}
	if more := len(list) - maxChanges; more > 0 {
		list = append(list[:maxChanges], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, ", ")
}

func below(root, name string) string {
	if rel, err := filepath.Rel(root, name); err == nil && rel != "." {
		return rel
	}
	return name
}
