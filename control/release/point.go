package release

import (
	"slices"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/schema"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func (r *reader) points(n *yamlfile.Node) error {
	return r.file.Members(n, func(key, n *yamlfile.Node) error {
		if err := bundle.CheckPoint(key.Value); err != nil {
			return r.file.Fail(key, "%v", err)
		}
		p := bundle.Point{Name: key.Value, Durability: policy.Synced}
		if err := r.file.Members(n, func(key, n *yamlfile.Node) error { return r.pointMember(key, n, &p) }); err != nil {
			return err
		}
		if len(p.Packages) == 0 {
			return r.file.Fail(key, "point %s has no packages", p.Name)
		}
		r.draft.Release.Points = append(r.draft.Release.Points, p)
		return nil
	})
}

func (r *reader) pointMember(key, n *yamlfile.Node, p *bundle.Point) error {
	modes := map[string]*policy.FailMode{
		"on_error": &p.OnError, "on_fuel": &p.OnFuel, "on_overload": &p.OnOverload, "on_log_failure": &p.OnLogFailure, "on_stale": &p.OnStale,
	}
	if mode := modes[key.Value]; mode != nil {
		return r.unmarshal(n, mode, "deny, allow_flagged or escalate")
	}
	switch key.Value {
	case "packages":
		return r.file.Items(n, func(n *yamlfile.Node) error { return r.pkg(n, p) })
	case "durability":
		return r.durability(n, &p.Durability)
	case "lease":
		return r.seconds(n, &p.LeaseSeconds, 1)
	case "limits":
		return r.limits(n, &p.Limits)
	case "masks":
		return r.file.Items(n, func(n *yamlfile.Node) error { return r.mask(n, p) })
	case "retention":
		return r.retention(n, &p.Retention)
	}
	return r.file.Fail(key, "unknown key %q: want packages, durability, on_error, on_fuel, on_overload, on_log_failure, on_stale, lease, limits, masks or retention", key.Value)
}

func (r *reader) retention(n *yamlfile.Node, into *bundle.Retention) error {
	err := r.file.Members(n, func(key, n *yamlfile.Node) error {
		switch key.Value {
		case "class":
			return r.checked(n, &into.Class, bundle.CheckNode)
		case "records_days":
			if n.Value == "0" {
				return nil // for ever
			}
			return r.file.Uint(n, &into.RecordsDays, bundle.MinRecordsDays, bundle.MaxRetentionDays)
		case "parts_days":
			return r.file.Uint(n, &into.PartsDays, 1, bundle.MaxRetentionDays)
		}
		return r.file.Fail(key, "unknown key %q: retention has class, records_days and parts_days", key.Value)
	})
	if err == nil && into.Class == "" {
		return r.file.Fail(n, "retention has a class, such as standard")
	}
	return err
}

func (r *reader) mask(n *yamlfile.Node, p *bundle.Point) error {
	var m bundle.Mask
	err := r.file.Members(n, func(key, n *yamlfile.Node) error {
		switch key.Value {
		case "path":
			return r.file.Filled(n, &m.Path)
		case "action":
			return r.word(n, &m.Action, bundle.MaskDrop, bundle.MaskHash, bundle.MaskTokenise)
		}
		return r.file.Fail(key, "unknown key %q: a mask has path and action", key.Value)
	})
	switch {
	case err != nil:
		return err
	case m.Path == "" || m.Action == "":
		return r.file.Fail(n, "a mask has a path and an action")
	case m.Check() != nil:
		return r.file.Fail(n, "%v", m.Check())
	case slices.ContainsFunc(p.Masks, func(other bundle.Mask) bool { return other.Path == m.Path }):
		return r.file.Fail(n, "mask %s twice", m.Path)
	}
	p.Masks = append(p.Masks, m)
	return nil
}

// pkg reads one package of a point: by path, from which digest and size come, or
// by digest.
func (r *reader) pkg(n *yamlfile.Node, p *bundle.Point) error {
	var ref bundle.PackageRef
	var path string
	err := r.file.Members(n, func(key, n *yamlfile.Node) (err error) {
		switch key.Value {
		case "file":
			return r.file.Filled(n, &path)
		case "digest":
			return r.digest(n, &ref.Digest)
		case "size":
			return r.file.Uint(n, &ref.Size, 1, bundle.MaxPackage)
		case "name":
			return r.file.Filled(n, &ref.Name)
		case "entrypoint":
			return r.file.Filled(n, &ref.Entrypoint)
		case "params":
			ref.Params, err = r.file.Mapping(n)
			return err
		case "fuel":
			return r.file.Uint(n, &ref.Fuel, 1, abi.MaxFuel)
		}
		return r.file.Fail(key, "unknown key %q: want file, digest, size, name, entrypoint, params or fuel", key.Value)
	})
	if err != nil {
		return err
	}
	if path != "" {
		err = r.open(n, path, &ref)
	} else {
		err = r.known(n, &ref)
	}
	p.Packages = append(p.Packages, ref)
	return err
}

// open fills in the reference to a package from its file.
func (r *reader) open(n *yamlfile.Node, path string, ref *bundle.PackageRef) error {
	if r.options.Package == nil {
		return r.file.Fail(n, "package %s is given by its file, and no files are there", path)
	}
	file, err := r.options.Package(path)
	if err != nil {
		return r.file.Fail(n, "package %s: %v", path, err)
	}
	pkg, digest, err := bundle.OpenPackage(file, bundle.MaxPackage)
	if err != nil {
		return r.file.Fail(n, "package %s: %v", path, err)
	}
	raw, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		return r.file.Fail(n, "package %s: %v", path, err)
	}
	if err := schema.CheckParams(pkg, pkg.Merged(ref.Params)); err != nil {
		return r.file.Fail(n, "package %s: %v", path, err)
	}
	size := uint64(len(raw))
	switch {
	case !ref.Digest.IsZero() && ref.Digest != digest:
		return r.file.Fail(n, "package %s is %s, not %s", path, digest, ref.Digest)
	case ref.Size != 0 && ref.Size != size:
		return r.file.Fail(n, "package %s is of %d bytes, not %d", path, size, ref.Size)
	}
	ref.Digest, ref.Size, ref.Name = digest, size, either(ref.Name, pkg.Name)
	r.draft.Packages[digest] = file
	return nil
}

// known fills in the reference to a package that is named by digest from the
// previous release.
func (r *reader) known(n *yamlfile.Node, ref *bundle.PackageRef) error {
	if ref.Digest.IsZero() {
		return r.file.Fail(n, "a package is named by its file or by its digest")
	}
	if r.options.Previous != nil {
		for _, p := range r.options.Previous.Points {
			for _, old := range p.Packages {
				if old.Digest == ref.Digest {
					if ref.Size != 0 && ref.Size != old.Size {
						return r.file.Fail(n, "size %d, but the previous release says %d for this package", ref.Size, old.Size)
					}
					ref.Size, ref.Name = old.Size, either(ref.Name, old.Name)
				}
			}
		}
	}
	if ref.Size == 0 || ref.Name == "" {
		return r.file.Fail(n, "package %s is not in the previous release: name its file, or its name and size", ref.Digest)
	}
	return nil
}
