package replay

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// maxFiles bounds the releases and packages that are looked at.
const maxFiles = 100_000

// Packages finds releases and packages by digest in folders: a fleet's
// "published", a node's "store", or any folder of *.dsse and *.hfp files. Nothing
// is believed because of where it lies: what is found is what its digest says.
type Packages struct {
	releases map[wire.Digest]string // path by digest of the signed payload
	files    map[string]string      // path of *.hfp by name
}

// FindPackages looks through folders, and through the folders releases and
// packages in each. What is no regular file, or no release, is passed over.
func FindPackages(dirs ...string) (*Packages, error) {
	p := &Packages{releases: map[wire.Digest]string{}, files: map[string]string{}}
	for _, dir := range dirs {
		found := false
		for _, sub := range []string{"", "releases", "packages"} {
			entries, err := os.ReadDir(filepath.Join(dir, sub))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("packages: %w", err)
			}
			found = true
			if err := p.take(filepath.Join(dir, sub), entries); err != nil {
				return nil, err
			}
		}
		if !found {
			return nil, fmt.Errorf("packages: no folder %s", dir)
		}
	}
	return p, nil
}

func (p *Packages) take(dir string, entries []fs.DirEntry) error {
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		// Links are followed, which is how Kubernetes mounts files.
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if len(p.files)+len(p.releases) >= maxFiles {
			return fmt.Errorf("packages: more than %d files", maxFiles)
		}
		switch filepath.Ext(e.Name()) {
		case ".hfp":
			p.files[e.Name()] = path
		case ".dsse":
			if rel, err := ReadRelease(path); err == nil {
				p.releases[rel.Digest] = path
			}
		}
	}
	return nil
}

// ReadRelease reads a release or a draft of one, without asking who signed it.
func ReadRelease(path string) (*bundle.SignedRelease, error) {
	env, err := read(path, bundle.MaxEnvelope)
	if err != nil {
		return nil, err
	}
	rel, err := bundle.PeekRelease(env)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return rel, nil
}

// Release returns the release with a digest.
func (p *Packages) Release(d wire.Digest) (*bundle.SignedRelease, error) {
	path, ok := p.releases[d]
	if !ok {
		return nil, fmt.Errorf("release %s is not at hand", d)
	}
	rel, err := ReadRelease(path)
	if err == nil && rel.Digest != d {
		err = fmt.Errorf("%s was changed while it was used", path)
	}
	return rel, err
}

// File returns the package file that a release names. One that is not named by
// its digest is searched for by what it holds.
func (p *Packages) File(ref *bundle.PackageRef) ([]byte, error) {
	if path, ok := p.files[ref.Digest.Hex()+".hfp"]; ok {
		return read(path, bundle.MaxPackageFile)
	}
	for name, path := range p.files {
		if len(strings.TrimSuffix(name, ".hfp")) == 2*len(ref.Digest) {
			continue // named by another digest
		}
		if file, err := read(path, bundle.MaxPackageFile); err == nil {
			if content, err := wire.Decompress(file, bundle.MaxPackage); err == nil && wire.Sum(content) == ref.Digest {
				return file, nil
			}
		}
	}
	return nil, errors.New("the package is not at hand")
}

func read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return b, err
}
