package loader

import (
	"context"
	"fmt"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// packages returns the release's packages, each from the own folder or else from
// the source, and then stored.
func (l *Loader) packages(ctx context.Context, s *bundle.SignedRelease, source Source) (map[wire.Digest]*bundle.Package, error) {
	refs := distinct(s)
	out := make(map[wire.Digest]*bundle.Package, len(refs))
	stored := make([]*bundle.Package, len(refs))
	missing := make([]error, len(refs))
	_ = each(len(refs), func(i int) error { // what is missing stops nothing
		stored[i], missing[i] = l.stored(refs[i])
		return nil
	})
	for i, ref := range refs {
		if missing[i] != nil {
			var err error
			if stored[i], err = l.fetch(ctx, ref, source, missing[i]); err != nil {
				return nil, temporary{fmt.Errorf("package %s %s: %w", ref.Name, ref.Digest, err)}
			}
		}
		out[ref.Digest] = stored[i]
	}
	return out, nil
}

// distinct returns the first reference to each package of the release.
func distinct(s *bundle.SignedRelease) (refs []*bundle.PackageRef) {
	seen := map[wire.Digest]bool{}
	for _, p := range s.Points {
		for i := range p.Packages {
			if ref := &p.Packages[i]; !seen[ref.Digest] {
				seen[ref.Digest] = true
				refs = append(refs, ref)
			}
		}
	}
	return refs
}

// stored returns a package from the own folder.
func (l *Loader) stored(ref *bundle.PackageRef) (*bundle.Package, error) {
	file, err := l.store.pkg(ref.Digest, ref.Size)
	if err != nil {
		return nil, err
	}
	pkg, err := openPackage(file, ref)
	if err != nil {
		l.config.Log.Error("stored package is damaged", "package", ref.Digest.String(), "error", err)
	}
	return pkg, err
}

// fetch returns a package from the source; without one there is only the reason
// why it is not in the own folder.
func (l *Loader) fetch(ctx context.Context, ref *bundle.PackageRef, source Source, missing error) (*bundle.Package, error) {
	if source == nil {
		return nil, missing
	}
	file, err := source.Package(ctx, ref.Digest, ref.Size)
	if err != nil {
		return nil, err
	}
	pkg, err := openPackage(file, ref)
	if err != nil {
		return nil, err
	}
	return pkg, l.store.putPackage(ref.Digest, file)
}

func openPackage(file []byte, ref *bundle.PackageRef) (*bundle.Package, error) {
	pkg, digest, err := bundle.OpenPackage(file, int(ref.Size))
	if err != nil {
		return nil, err
	}
	if digest != ref.Digest {
		return nil, fmt.Errorf("%w: the file holds %s", ErrDigest, digest)
	}
	return pkg, nil
}
