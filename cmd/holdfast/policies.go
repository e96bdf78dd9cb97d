package main

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/modules"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A policySet is what a release needs: its points and the packages they name.
type policySet struct {
	points []bundle.Point
	files  map[wire.Digest][]byte
	built  []*compiler.Built
}

// demoModules are the demo's policies, in the order in which they are asked.
var demoModules = [...]string{"tool-authz", "argument-guard"}

// demoPolicies builds the demo's policies from what the binary carries: the
// Rego from its source, the Go guest from the module beside its source.
func demoPolicies(ctx context.Context) (*policySet, error) {
	s := &policySet{}
	for _, name := range demoModules {
		fsys, err := fs.Sub(modules.FS, name)
		if err != nil {
			return nil, err
		}
		err = s.build(ctx, func(opts compiler.Options) (*compiler.Built, error) {
			opts.Prebuilt = true
			return compiler.BuildFS(ctx, fsys, opts)
		})
		if err != nil {
			return nil, fmt.Errorf("module %s: %w", name, err)
		}
	}
	return s, s.point(policy.PointPreCall)
}

// folderPolicy builds a folder of the user's for the point custom.
func folderPolicy(ctx context.Context, dir string) (*policySet, error) {
	s := &policySet{}
	err := s.build(ctx, func(opts compiler.Options) (*compiler.Built, error) { return compiler.Build(ctx, dir, opts) })
	if err != nil {
		return nil, authorError(err)
	}
	if err := oneEntrypoint(ctx, dir, s.built[0].Package); err != nil {
		return nil, err
	}
	return s, s.point(policy.PointCustom)
}

// oneEntrypoint refuses to guess: a folder without holdfast.yaml has an entry
// point for every package, and only one can decide. What lies below another is
// part of it.
func oneEntrypoint(ctx context.Context, dir string, pkg *bundle.Package) error {
	if _, err := os.Stat(filepath.Join(dir, "holdfast.yaml")); err == nil || pkg.ABI != string(abi.OPA1) {
		return nil
	}
	host, err := newHost(ctx)
	if err != nil {
		return err
	}
	defer host.Close(ctx)
	m, err := host.Open(ctx, pkg)
	if err != nil {
		return err
	}
	all := slices.Sorted(maps.Keys(m.Entrypoints()))
	names := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return liesBelow(name, all) })
	if len(names) > 1 {
		return fmt.Errorf("%s has the packages %s, and only one can decide: name it in holdfast.yaml, such as entrypoint: %s", dir, strings.Join(names, ", "), names[0])
	}
	return nil
}

func liesBelow(name string, names []string) bool {
	return slices.ContainsFunc(names, func(above string) bool { return strings.HasPrefix(name, above+"/") })
}

func (s *policySet) build(ctx context.Context, build func(compiler.Options) (*compiler.Built, error)) error {
	host, err := newHost(ctx)
	if err != nil {
		return err
	}
	defer host.Close(ctx)
	b, err := build(compiler.Options{Loader: host})
	if err != nil {
		return err
	}
	s.built = append(s.built, b)
	return nil
}

// point makes one decision point of everything that was built.
func (s *policySet) point(name string) error {
	p := bundle.Point{Name: name, Durability: policy.Synced}
	s.files = map[wire.Digest][]byte{}
	for _, b := range s.built {
		content, err := wire.Decompress(b.File, bundle.MaxPackage)
		if err != nil {
			return err
		}
		s.files[b.Digest] = b.File
		p.Packages = append(p.Packages, bundle.PackageRef{Name: b.Package.Name, Digest: b.Digest, Size: uint64(len(content))})
	}
	s.points = []bundle.Point{p}
	return nil
}

// denying returns the same set with one more tool denied to a role of
// tool-authz: the change that the demo publishes.
func (s *policySet) denying(role, tool string) (*policySet, error) {
	out := &policySet{files: s.files, built: s.built, points: slices.Clone(s.points)}
	i := slices.IndexFunc(s.built, func(b *compiler.Built) bool { return b.Package.Name == "tool-authz" })
	if i < 0 {
		return nil, fmt.Errorf("no tool-authz among the policies")
	}
	roles, _ := s.built[i].Package.Params["roles"].(map[string]any)
	grants, ok := roles[role].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("tool-authz has no role %q", role)
	}
	deny, _ := grants["deny"].([]any)
	grants = with(grants, "deny", append(slices.Clone(deny), tool))
	p := &out.points[0]
	p.Packages = slices.Clone(p.Packages)
	p.Packages[i].Params = map[string]any{"roles": with(roles, role, grants)}
	return out, nil
}

// with returns a copy of m in which key is v.
func with(m map[string]any, key string, v any) map[string]any {
	out := make(map[string]any, len(m)+1)
	for k, old := range m {
		out[k] = old
	}
	out[key] = v
	return out
}
