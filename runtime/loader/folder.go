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
	maxFolderFile = 10_000 // documents in one folder
)

// A FolderSource delivers the signed documents *.dsse in Dir/roots, releases,
// orders, kills, enrolments and heartbeats, and the packages in
// Dir/packages/<hex>.hfp. It looks for new and changed documents five times a
// second, and Only in those folders when that is set.
type FolderSource struct {
	Dir  string
	Only []string
}

var _ Source = FolderSource{}

// documentFolders are in the order in which a folder's documents are delivered.
var documentFolders = []string{"kills", rootFolder, "enrolments", releaseFolder, orderFolder, "heartbeats"}

// Watch delivers what is in the folders, releases in the order of the epochs that
// they claim, then what is new or has changed. A folder that is missing is
// empty; one with more than 10,000 files, or a file that cannot be read, is an
// error, after what could be read was delivered.
func (f FolderSource) Watch(ctx context.Context, deliver func(envelope []byte)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	folders := f.Only
	if folders == nil {
		folders = documentFolders
	}
	seen := map[string]fileState{}
	for {
		var errs []error
		for _, folder := range folders {
			envelopes, err := f.changed(folder, seen)
			for _, env := range envelopes {
				if ctx.Err() != nil {
					return nil
				}
				deliver(env)
			}
			errs = append(errs, err)
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("watch %s: %w", f.Dir, err)
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

// changed returns the envelopes that are not as seen, of releases the oldest
// epoch first, and notes them in seen.
func (f FolderSource) changed(folder string, seen map[string]fileState) ([][]byte, error) {
	dir := filepath.Join(f.Dir, folder)
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
		if seen[path] == state {
			continue
		}
		// One byte more than an envelope may have, so that it is refused as too long.
		env, err := readUpTo(path, bundle.MaxEnvelope+1)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		seen[path] = state
		envelopes = append(envelopes, env)
	}
	if folder == releaseFolder {
		slices.SortStableFunc(envelopes, func(a, b []byte) int {
			return cmp.Compare(bundle.UnverifiedEpoch(a), bundle.UnverifiedEpoch(b))
		})
	}
	return envelopes, errors.Join(errs...)
}

// Package reads the file of package d.
func (f FolderSource) Package(_ context.Context, d wire.Digest, maxSize uint64) ([]byte, error) {
	return readBounded(filepath.Join(f.Dir, packageFolder, d.Hex()+packageSuffix), maxFile(maxSize))
}
