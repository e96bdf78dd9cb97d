package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const (
	pollEvery     = 200 * time.Millisecond
	maxFolderFile = 10_000 // releases in one folder
)

// A FolderSource delivers the releases in Dir/releases/*.dsse and the packages in
// Dir/packages/<hex>.hfp. It looks for new and changed releases five times a second.
type FolderSource struct{ Dir string }

var _ Source = FolderSource{}

// Watch delivers what is in the folder in the order of the epochs that the
// envelopes claim, then what is new or has changed. A folder that is missing is
// empty; one with more than 10,000 files, or a file that cannot be read, is an
// error, after what could be read was delivered.
func (f FolderSource) Watch(ctx context.Context, release func(envelope []byte)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	seen := map[string]fileState{}
	for {
		envelopes, err := f.changed(seen)
		for _, env := range envelopes {
			if ctx.Err() != nil {
				return nil
			}
			release(env)
		}
		if err != nil {
			return fmt.Errorf("watch releases: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// fileState tells a file that has changed from one that has not.
type fileState struct {
	size     int64
	modified time.Time
}

// changed returns the envelopes that are not as seen, oldest epoch first, and
// notes them in seen.
func (f FolderSource) changed(seen map[string]fileState) ([][]byte, error) {
	dir := filepath.Join(f.Dir, releaseFolder)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(entries) > maxFolderFile {
		return nil, fmt.Errorf("%d files in %s; at most %d", len(entries), dir, maxFolderFile)
	}
	var envelopes [][]byte
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		st, err := os.Stat(path) // follows links, which is how Kubernetes mounts files
		if err != nil || !strings.HasSuffix(e.Name(), releaseSuffix) || !st.Mode().IsRegular() {
			continue
		}
		state := fileState{st.Size(), st.ModTime()}
		if seen[e.Name()] == state {
			continue
		}
		// One byte more than an envelope may have, so that it is refused as too long.
		env, err := readUpTo(path, bundle.MaxEnvelope+1)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		seen[e.Name()] = state
		envelopes = append(envelopes, env)
	}
	slices.SortStableFunc(envelopes, func(a, b []byte) int {
		return cmp.Compare(bundle.UnverifiedEpoch(a), bundle.UnverifiedEpoch(b))
	})
	return envelopes, errors.Join(errs...)
}

// Package reads the file of package d.
func (f FolderSource) Package(_ context.Context, d wire.Digest, maxSize uint64) ([]byte, error) {
	return readBounded(filepath.Join(f.Dir, packageFolder, d.Hex()+packageSuffix), maxFile(maxSize))
}
