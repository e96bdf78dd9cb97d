package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/control/release"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// defaultWait is how long publish waits for a release to be in force.
const defaultWait = 30 * time.Second

func releasePublishCommand(e *env) *cobra.Command {
	var to fleetFlags
	var packages []string
	var wait time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use:   "publish R.dsse",
		Short: "Hand a complete release to a fleet",
		Long: `Publish verifies the release by the fleet's trust root, hands the packages to a region and then the release, and waits until
every node that is enrolled attests that it is in force. The release must replace the newest one of the fleet: when somebody
published in between, it is refused and says what to do. What was interrupted may be repeated. Exit 1 when it is refused, or
not in force everywhere after --wait; then holdfast release status goes on watching.`,
		Example: "  holdfast release publish r8.dsse --context prod\n  holdfast release publish r8.dsse --dir ./fleet --wait 5m",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := readBounded(args[0], bundle.MaxEnvelope)
			if err != nil {
				return err
			}
			p := publication{e: e, to: &to, env: env, dirs: append(packages, filepath.Join(filepath.Dir(args[0]), "packages")), wait: wait, asJSON: asJSON}
			return p.run(c.Context())
		},
	}
	to.add(c)
	c.Flags().StringArrayVar(&packages, "packages", nil, "folder with package files (default: packages, beside the release)")
	c.Flags().DurationVar(&wait, "wait", defaultWait, "how long to wait until it is in force; 0 does not wait")
	outputFlag(c, &asJSON)
	return c
}

// A publication is one release on its way to a fleet.
type publication struct {
	e      *env
	to     *fleetFlags
	env    []byte
	dirs   []string // where package files are looked for
	wait   time.Duration
	asJSON bool
}

// publishedJSON is what publish prints as JSON.
type publishedJSON struct {
	Epoch   uint64            `json:"epoch"`
	Digest  wire.Digest       `json:"digest"`
	Region  string            `json:"region,omitempty"`
	InForce *registry.InForce `json:"in_force,omitempty"`
}

func (p *publication) run(ctx context.Context) error {
	a, err := p.to.admin(ctx)
	if errors.Is(err, assembly.ErrNoRegions) {
		return p.intoFolder(assembly.Layout{Dir: p.to.dir})
	}
	if err != nil {
		return err
	}
	defer a.Close()
	state, err := a.Read(ctx)
	if err != nil {
		return checkFailed("%w", err)
	}
	s, err := state.Fleet.Root().OpenRelease(p.env, time.Now())
	if err != nil {
		return checkFailed("%w; holdfast release show --root ROOT.dsse says who has signed", err)
	}
	files, err := p.packages(s, known(state.Fleet))
	if err != nil {
		return err
	}
	out := publishedJSON{Epoch: s.Epoch, Digest: s.Digest}
	if out.Region, _, err = a.Publish(ctx, p.env, files...); err != nil {
		return checkFailed("%w", err)
	}
	if p.to.dir != "" {
		if err := p.keep(assembly.Layout{Dir: p.to.dir}, s, files); err != nil {
			return err
		}
	}
	fmt.Fprintf(p.e.stderr, "epoch %d, %s: published in region %s, with %d packages\n", s.Epoch, s.Digest, out.Region, len(files))
	if p.wait > 0 {
		var v *registry.View
		if v, err = p.await(ctx, a, s); v != nil {
			out.InForce = &v.InForce
		}
	}
	return p.print(&out, err)
}

func (p *publication) print(out *publishedJSON, err error) error {
	if p.asJSON {
		return errors.Join(p.e.printJSON(out), err)
	}
	line := fmt.Sprintf("epoch %d, %s: published", out.Epoch, out.Digest)
	if out.InForce != nil {
		line = out.InForce.Sentence()
	}
	if _, e := fmt.Fprintln(p.e.stdout, line); e != nil {
		return e
	}
	return err
}

// known are the packages of releases that the fleet has already.
func known(f *registry.Fleet) map[wire.Digest]bool {
	has := map[wire.Digest]bool{}
	for _, r := range f.Releases() {
		for _, d := range release.Blobs(&r.Release) {
			has[d] = true
		}
	}
	return has
}

// packages reads the files of a release's packages; those that the fleet has may
// be missing here.
func (p *publication) packages(s *bundle.SignedRelease, there map[wire.Digest]bool) (files [][]byte, err error) {
	var missing []string
	for _, d := range release.Blobs(&s.Release) {
		file, err := findPackage(p.dirs, d)
		switch {
		case errors.Is(err, fs.ErrNotExist) && there[d]:
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, d.String())
		case err != nil:
			return nil, err
		default:
			files = append(files, file)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("packages that the fleet does not have are not in %s: %s; holdfast release new writes them there, or give --packages DIR",
			strings.Join(p.dirs, ", "), strings.Join(missing, ", "))
	}
	return files, nil
}

// findPackage reads a package's file from the first folder that has it.
func findPackage(dirs []string, d wire.Digest) ([]byte, error) {
	for _, dir := range dirs {
		path := filepath.Join(dir, d.Hex()+".hfp")
		file, err := readBounded(path, bundle.MaxPackageFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, got, err := bundle.OpenPackage(file, bundle.MaxPackage); err != nil || got != d {
			return nil, fmt.Errorf("%s does not hold the package of that digest; build it again", path)
		}
		return file, nil
	}
	return nil, fs.ErrNotExist
}

// await returns when every enrolled node attests that the release is in force; the
// error says what is missing when that does not happen in time.
func (p *publication) await(ctx context.Context, a *assembly.Admin, s *bundle.SignedRelease) (*registry.View, error) {
	ctx, cancel := context.WithTimeout(ctx, p.wait)
	defer cancel()
	told := ""
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		v, _, err := a.View(ctx)
		if err == nil {
			if line := progress(&v); line != told {
				told = line
				fmt.Fprintln(p.e.stderr, line)
			}
			switch {
			case v.InForce.Digest == s.Digest.String() && v.InForce.Nodes == v.InForce.Of:
				tick.Stop()
				return &v, nil
			case v.Rollout != nil && v.Rollout.Digest == s.Digest.String() && v.Rollout.State == bundle.RolloutHalted:
				tick.Stop()
				return &v, checkFailed("the rollout of epoch %d was halted: %s; the nodes that had it are on their way back", s.Epoch, v.Rollout.Reason)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			if err != nil {
				return nil, checkFailed("published; the fleet did not answer: %w", err)
			}
			return &v, checkFailed("published, and not in force everywhere after %v: %s; holdfast release status goes on", p.wait, waitingFor(&v))
		}
	}
}

// progress is one line on where the fleet stands.
func progress(v *registry.View) string {
	if r := v.Rollout; r != nil && r.State == bundle.RolloutRunning {
		var rings []string
		for _, g := range r.Rings {
			rings = append(rings, fmt.Sprintf("%s %s %d/%d", g.Name, g.Phase, g.Nodes, g.Of))
		}
		return fmt.Sprintf("rollout of epoch %d: %s", r.Epoch, strings.Join(rings, ", "))
	}
	return fmt.Sprintf("epoch %d in force on %d of %d nodes", v.InForce.Epoch, v.InForce.Nodes, v.InForce.Of)
}

// waitingFor names the nodes that do not have the release, and why as far as they
// said it.
func waitingFor(v *registry.View) string {
	var lines []string
	for _, n := range v.Nodes {
		switch {
		case n.Away:
			lines = append(lines, n.Name+" is away")
		case n.Digest != v.InForce.Digest && n.Refused != "":
			lines = append(lines, fmt.Sprintf("%s has epoch %d: %s", n.Name, n.Epoch, n.Refused))
		case n.Digest != v.InForce.Digest:
			lines = append(lines, fmt.Sprintf("%s has epoch %d", n.Name, n.Epoch))
		}
	}
	if len(lines) == 0 {
		return progress(v)
	}
	return strings.Join(lines, "; ")
}

// intoFolder publishes into the folder of a fleet without regions.
func (p *publication) intoFolder(l assembly.Layout) error {
	root, _, err := readRoot(l.TrustRoot())
	if err != nil {
		return err
	}
	s, err := root.OpenRelease(p.env, time.Now())
	if err != nil {
		return checkFailed("%w; holdfast release show --root %s says who has signed", err, l.TrustRoot())
	}
	newest, err := newestIn(l, root)
	if err != nil {
		return err
	}
	if err := release.Follows(s, newest); err != nil {
		return checkFailed("%w", err)
	}
	p.dirs = append(p.dirs, filepath.Join(l.Published(), "packages"))
	files, err := p.packages(s, nil)
	if err != nil {
		return err
	}
	if err := p.keep(l, s, files); err != nil {
		return err
	}
	fmt.Fprintln(p.e.stderr, "a fleet without regions: its nodes take the release from the folder, and nobody collects what they attest")
	return p.print(&publishedJSON{Epoch: s.Epoch, Digest: s.Digest}, nil)
}

// keep writes what was published into the folder of a holdfast up, packages first:
// the source of a fleet without regions, and where up looks for its newest release.
func (p *publication) keep(l assembly.Layout, s *bundle.SignedRelease, files [][]byte) error {
	for _, sub := range []string{"packages", "releases"} {
		if err := os.MkdirAll(filepath.Join(l.Published(), sub), 0o755); err != nil {
			return err
		}
	}
	for _, file := range files {
		_, d, err := bundle.OpenPackage(file, bundle.MaxPackage)
		if err != nil {
			return err
		}
		if err := write(filepath.Join(l.Published(), "packages", d.Hex()+".hfp"), file); err != nil {
			return err
		}
	}
	return write(filepath.Join(l.Published(), "releases", fmt.Sprintf("%020d.dsse", s.Epoch)), p.env)
}

// newestIn returns the newest release of a fleet's folder, nil for none.
func newestIn(l assembly.Layout, root *bundle.TrustRoot) (*bundle.SignedRelease, error) {
	list, err := releasesIn(l, root)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[len(list)-1], nil
}

// releasesIn returns the releases of a fleet's folder, oldest first.
func releasesIn(l assembly.Layout, root *bundle.TrustRoot) (list []*bundle.SignedRelease, err error) {
	files, err := filepath.Glob(filepath.Join(l.Published(), "releases", "*.dsse")) // sorted, as their names are
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		env, err := readBounded(file, bundle.MaxEnvelope)
		if err != nil {
			return nil, err
		}
		if s, err := root.ReopenRelease(env); err == nil {
			list = append(list, s)
		}
	}
	return list, nil
}

func releaseStatusCommand(e *env) *cobra.Command {
	var to fleetFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what is in force where, and how the rollout goes",
		Long: `Status prints the release that everybody should have, the rollout of a newer one ring by ring, and each node, from what the
nodes attest and their enrolment keys verify. Exit 1 when the release is not in force on every enrolled node.`,
		Example: "  holdfast release status --context prod\n  holdfast release status --dir ./fleet -o json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := to.admin(c.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			v, state, err := a.View(c.Context())
			if err != nil {
				return checkFailed("%w", err)
			}
			if asJSON {
				err = e.printJSON(v)
			} else {
				err = e.printStatus(&v, state.Unreachable)
			}
			if err == nil && v.InForce.Nodes != v.InForce.Of {
				err = checkFailed("in force on %d of %d nodes: %s", v.InForce.Nodes, v.InForce.Of, waitingFor(&v))
			}
			return err
		},
	}
	to.add(c)
	outputFlag(c, &asJSON)
	return c
}

func (e *env) printStatus(v *registry.View, unreachable []string) error {
	p := newPrinter(e.stdout)
	p.line("%s", v.InForce.Sentence())
	if r := v.Rollout; r != nil {
		p.line("rollout of epoch %d, %s, step %d, led by %s: %s", r.Epoch, r.State, r.Serial, r.Leader, r.Reason)
		for _, g := range r.Rings {
			p.line("  ring %-16s %-8s %d of %d nodes, %d decisions, %d traps, %d differ", g.Name, g.Phase, g.Nodes, g.Of, g.Decisions, g.Traps, g.Differ)
		}
	}
	for _, n := range v.Nodes {
		state := fmt.Sprintf("epoch %d", n.Epoch)
		if n.Fallback {
			state += ", stepped back"
		}
		if n.Away {
			state += ", away"
		}
		if n.Ring != "" {
			state += ", ring " + n.Ring
		}
		if n.Refused != "" {
			state += ", refused: " + n.Refused
		}
		p.line("  node %-16s %s", n.Name, state)
	}
	for _, r := range unreachable {
		p.line("  region %s did not answer", r)
	}
	return p.err
}

func releaseRollbackCommand(e *env) *cobra.Command {
	var to fleetFlags
	var epoch, note string
	var wait time.Duration
	var out outputFlags
	c := &cobra.Command{
		Use:   "rollback [--to EPOCH]",
		Short: "Make a new release with the content of an old one",
		Long: `Rollback writes a release, with a new epoch, that has the content of the release before the newest, or of --to. It has no
rings: every node takes it at once. It is signed and published like every other release, and prints the commands. For a
fleet of holdfast up, whose author's and approver's keys are in its folder, it signs and publishes as well.`,
		Example: "  holdfast release rollback --context prod --note INC-7 -o r9.dsse\n  holdfast release rollback --dir ./fleet",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			file, asJSON, err := out.split()
			if err != nil {
				return err
			}
			list, err := e.releasesOf(c.Context(), &to)
			if err != nil {
				return err
			}
			next, err := rollback(list, epoch, note)
			if err != nil {
				return err
			}
			env, err := bundle.SignRelease(next)
			if err != nil {
				return err
			}
			if to.dir != "" && exists((assembly.Layout{Dir: to.dir}).PrivateKey("author")) {
				return e.rollbackHere(c.Context(), &to, env, file, wait, asJSON)
			}
			if file == "" {
				file = fmt.Sprintf("r%d.dsse", next.Epoch)
			}
			if err := writeFresh(file, env); err != nil {
				return err
			}
			where := ""
			if to.dir != "" {
				where = " --dir " + to.dir
			}
			fmt.Fprintf(e.stderr, "now: holdfast release sign %s --key AUTHOR.key\n     holdfast release sign %s --key APPROVER.key\n     holdfast release publish %s%s\n", file, file, file, where)
			return e.printRelease(file, env, nil, asJSON)
		},
	}
	to.add(c)
	c.Flags().StringVar(&epoch, "to", "", "epoch of the release whose content comes back (default: the one before the newest)")
	c.Flags().StringVar(&note, "note", "", "why, for the release's note")
	c.Flags().DurationVar(&wait, "wait", defaultWait, "with --dir: how long to wait until it is in force")
	out.add(c, "the release (default: rEPOCH.dsse)")
	return c
}

// releasesOf returns the releases of a fleet, oldest first.
func (e *env) releasesOf(ctx context.Context, to *fleetFlags) (list []*bundle.SignedRelease, err error) {
	a, err := to.admin(ctx)
	if errors.Is(err, assembly.ErrNoRegions) {
		l := assembly.Layout{Dir: to.dir}
		root, _, err := readRoot(l.TrustRoot())
		if err != nil {
			return nil, err
		}
		return releasesIn(l, root)
	}
	if err != nil {
		return nil, err
	}
	defer a.Close()
	state, err := a.Read(ctx)
	if err != nil {
		return nil, checkFailed("%w", err)
	}
	for _, r := range state.Fleet.Releases() {
		list = append(list, r.SignedRelease)
	}
	return list, nil
}

// rollback makes the release that brings back an epoch, "" for the one that the
// newest replaced.
func rollback(list []*bundle.SignedRelease, epoch, note string) (*bundle.Release, error) {
	if len(list) == 0 {
		return nil, checkFailed("the fleet has no release yet")
	}
	newest := list[len(list)-1]
	var have []string
	for _, s := range list {
		have = append(have, strconv.FormatUint(s.Epoch, 10))
		if epoch == "" && s.Digest == newest.Previous || epoch != "" && have[len(have)-1] == epoch {
			if note == "" {
				note = fmt.Sprintf("Back to the content of epoch %d.", s.Epoch)
			}
			return release.Rollback(&s.Release, newest, note, time.Now())
		}
	}
	return nil, checkFailed("no release to go back to: the fleet has the epochs %s; say which with --to EPOCH", strings.Join(have, ", "))
}

// rollbackHere signs with the keys that holdfast up made, and publishes.
func (e *env) rollbackHere(ctx context.Context, to *fleetFlags, env []byte, file string, wait time.Duration, asJSON bool) error {
	l := assembly.Layout{Dir: to.dir}
	root, _, err := readRoot(l.TrustRoot())
	if err != nil {
		return err
	}
	for _, name := range []string{"author", "approver"} {
		k, err := bundle.ReadPrivateKey(l.PrivateKey(name))
		if err != nil {
			return fmt.Errorf("%w; --dir is for a fleet of holdfast up: elsewhere two persons sign, see --help", err)
		}
		if env, err = signRelease(env, root, k); err != nil {
			return err
		}
	}
	if err := write(file, env); err != nil {
		return err
	}
	p := publication{e: e, to: to, env: env, dirs: []string{filepath.Join(l.Published(), "packages")}, wait: wait, asJSON: asJSON}
	return p.run(ctx)
}

func trustPublishCommand(e *env) *cobra.Command {
	var to fleetFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "publish NEXT.dsse",
		Short: "Hand the next version of the trust root to a fleet",
		Long: `Publish hands a complete trust root, the successor of the fleet's newest one, to a region. Nodes take it within a second or
when they are back. What revoked keys signed is refused from then on, unless it is in force already.`,
		Example: "  holdfast trust publish root-2.dsse --context prod",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := readBounded(args[0], bundle.MaxEnvelope)
			if err != nil {
				return err
			}
			next, err := to.publishRoot(c.Context(), env)
			if err != nil {
				return err
			}
			if asJSON {
				return e.printJSON(map[string]any{"tenant": next.Tenant, "version": next.Version, "digest": wire.Sum(env)})
			}
			_, err = fmt.Fprintf(e.stdout, "trust root of %s, version %d: published\n", next.Tenant, next.Version)
			return err
		},
	}
	to.add(c)
	outputFlag(c, &asJSON)
	return c
}

func (f *fleetFlags) publishRoot(ctx context.Context, env []byte) (*bundle.TrustRoot, error) {
	a, err := f.admin(ctx)
	if errors.Is(err, assembly.ErrNoRegions) {
		return f.rootIntoFolder(env)
	}
	if err != nil {
		return nil, err
	}
	defer a.Close()
	next, err := a.PutRoot(ctx, env)
	if err != nil {
		return nil, checkFailed("%w; holdfast trust show NEXT.dsse --previous ROOT.dsse says who is missing", err)
	}
	return next, nil
}

// rootIntoFolder publishes into the folder of a fleet without regions.
func (f *fleetFlags) rootIntoFolder(env []byte) (*bundle.TrustRoot, error) {
	l := assembly.Layout{Dir: f.dir}
	root, _, err := readRoot(l.TrustRoot())
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.Published(), "roots")
	files, err := filepath.Glob(filepath.Join(dir, "*.dsse"))
	if err != nil {
		return nil, err
	}
	var there [][]byte
	for _, file := range files {
		old, err := readBounded(file, bundle.MaxEnvelope)
		if err != nil {
			return nil, err
		}
		there = append(there, old)
	}
	chain, err := root.OpenChain(there)
	if err != nil {
		return nil, checkFailed("%s: %w", dir, err)
	}
	if len(chain) > 0 {
		root = chain[len(chain)-1]
	}
	next, err := root.OpenNext(env)
	if err != nil {
		return nil, checkFailed("%w; holdfast trust show NEXT.dsse --previous ROOT.dsse says who is missing", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return next, write(filepath.Join(dir, fmt.Sprintf("%020d.dsse", next.Version)), env)
}
