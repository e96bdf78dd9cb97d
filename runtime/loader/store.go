package loader

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// store is the loader's folder: packages/<hex>.hfp and releases/<hex>.dsse by
// digest, roots/<version>.dsse, orders/<epoch>.dsse, and ratchet, which names the
// release in force. Replacing ratchet is the one step that changes what a restart
// puts in force.
type store struct {
	dir  string
	step func(string) // is told of each step before it is taken
}

const (
	packageFolder = "packages"
	releaseFolder = "releases"
	rootFolder    = "roots"
	orderFolder   = "orders"
	packageSuffix = ".hfp"
	releaseSuffix = ".dsse"
	ratchetFile   = "ratchet"
	maxRatchet    = 4 << 10
	tempPrefix    = ".tmp-"
)

func openStore(dir string, step func(string)) (store, error) {
	s := store{dir, step}
	folders := []string{packageFolder, releaseFolder, rootFolder, orderFolder}
	for _, sub := range folders {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return s, fmt.Errorf("open release store: %w", err)
		}
	}
	for _, sub := range append(folders, ".") {
		left, err := filepath.Glob(filepath.Join(dir, sub, tempPrefix+"*"))
		if err != nil {
			return s, fmt.Errorf("open release store: %w", err)
		}
		for _, path := range left { // of a process that was killed
			if err := os.Remove(path); err != nil {
				return s, fmt.Errorf("open release store: %w", err)
			}
		}
	}
	return s, syncFolder(dir)
}

func (s store) ratchet() (bundle.Ratchet, error) {
	b, err := readUpTo(filepath.Join(s.dir, ratchetFile), maxRatchet)
	if err != nil {
		return bundle.Ratchet{}, err
	}
	return bundle.DecodeRatchet(b)
}

func (s store) putRatchet(r bundle.Ratchet) error {
	b, err := r.Encode()
	if err != nil {
		return err
	}
	return s.replace(filepath.Join(s.dir, ratchetFile), b)
}

func (s store) release(d wire.Digest) ([]byte, error) {
	return readBounded(filepath.Join(s.dir, releaseFolder, d.Hex()+releaseSuffix), bundle.MaxEnvelope)
}

// releases returns every stored envelope of a release.
func (s store) releases() ([][]byte, error) { return s.all(releaseFolder) }

// orders returns every stored rollout order.
func (s store) orders() ([][]byte, error) { return s.all(orderFolder) }

func (s store) all(folder string) (envelopes [][]byte, err error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, folder))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", folder, err)
	}
	for _, e := range entries {
		env, err := readUpTo(filepath.Join(s.dir, folder, e.Name()), bundle.MaxEnvelope)
		if err != nil {
			return nil, err
		}
		envelopes = append(envelopes, env)
	}
	return envelopes, nil
}

func (s store) putRelease(d wire.Digest, env []byte) error {
	return s.replace(filepath.Join(s.dir, releaseFolder, d.Hex()+releaseSuffix), env)
}

func (s store) root(version uint64) ([]byte, error) {
	return readBounded(s.numbered(rootFolder, version), bundle.MaxEnvelope)
}

func (s store) putRoot(version uint64, env []byte) error {
	return s.replace(s.numbered(rootFolder, version), env)
}

// putOrder keeps the newest order of an epoch.
func (s store) putOrder(epoch uint64, env []byte) error {
	return s.replace(s.numbered(orderFolder, epoch), env)
}

func (s store) numbered(folder string, n uint64) string {
	return filepath.Join(s.dir, folder, fmt.Sprintf("%020d%s", n, releaseSuffix))
}

// remove deletes releases, every package that is not needed, and orders of
// epochs long before the one in force.
func (s store) remove(releases []wire.Digest, needed map[wire.Digest]bool, epoch uint64) error {
	var errs []error
	for _, d := range releases {
		errs = append(errs, os.Remove(filepath.Join(s.dir, releaseFolder, d.Hex()+releaseSuffix)))
	}
	names, err := os.ReadDir(filepath.Join(s.dir, packageFolder))
	errs = append(errs, err)
	for _, e := range names {
		d, err := wire.ParseDigest("sha256:" + strings.TrimSuffix(e.Name(), packageSuffix))
		if err == nil && !needed[d] {
			errs = append(errs, os.Remove(filepath.Join(s.dir, packageFolder, e.Name())))
		}
	}
	names, err = os.ReadDir(filepath.Join(s.dir, orderFolder))
	errs = append(errs, err)
	for _, e := range names {
		n, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), releaseSuffix), 10, 64)
		if err == nil && n+maxOrders < epoch {
			errs = append(errs, os.Remove(filepath.Join(s.dir, orderFolder, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func (s store) pkg(d wire.Digest, size uint64) ([]byte, error) {
	return readBounded(filepath.Join(s.dir, packageFolder, d.Hex()+packageSuffix), maxFile(size))
}

func (s store) putPackage(d wire.Digest, file []byte) error {
	return s.replace(filepath.Join(s.dir, packageFolder, d.Hex()+packageSuffix), file)
}

// maxFile bounds the file of a package of size uncompressed bytes: a frame that
// does not compress is a little longer than its content.
func maxFile(size uint64) int64 { return int64(size + size/128 + 1<<10) }

// readBounded reads a file of at most max bytes.
func readBounded(path string, max int64) ([]byte, error) {
	b, err := readUpTo(path, max+1)
	if err == nil && int64(len(b)) > max {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, max)
	}
	return b, err
}

// readUpTo reads at most the first n bytes of a file.
func readUpTo(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}

// Replace makes path hold data, durably and whole: after a crash it holds what it
// held before or data, nothing else.
func Replace(path string, data []byte) error {
	return store{step: func(string) {}}.replace(path, data)
}

func (s store) replace(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	s.step("write " + path)
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	_, err = f.Write(data)
	s.step("sync " + path)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		s.step("rename " + path)
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", path, errors.Join(err, ignoreMissing(os.Remove(f.Name()))))
	}
	s.step("sync folder of " + path)
	return syncFolder(dir)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}
