package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/control/release"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func releaseCommand(e *env) *cobra.Command {
	c := group("release", "Make, compare, sign and publish releases", "new, diff, sign, show, publish, status or rollback")
	c.Long = `A release says what is in force: at each point which packages decide, with which parameters, and what happens when they
cannot. It is written as a YAML file (holdfast release new --example prints one with every key), turned into a file to be
signed, and signed by an author and an approver, who are different persons. Two people on two machines need nothing but files:

  ann$  holdfast release new release.yaml --previous r7.dsse --root root-1.dsse -o r8.dsse    (packages go beside it)
  ann$  holdfast release diff r7.dsse r8.dsse
  ann$  holdfast release sign r8.dsse --key ann.key --root root-1.dsse                        (sends r8.dsse to bob)
  bob$  holdfast release diff r7.dsse r8.dsse
  bob$  holdfast release show r8.dsse --root root-1.dsse
  bob$  holdfast release sign r8.dsse --key bob.key --root root-1.dsse                        (the file is complete)
  bob$  holdfast release publish r8.dsse --context prod

Both sign the same bytes; a byte that changes in between breaks the first signature.`
	c.AddCommand(releaseNewCommand(e), releaseDiffCommand(e), releaseSignCommand(e), releaseShowCommand(e), releasePublishCommand(e), releaseStatusCommand(e), releaseRollbackCommand(e))
	return c
}

func releaseNewCommand(e *env) *cobra.Command {
	var previous, root, packages string
	var example bool
	var out outputFlags
	c := &cobra.Command{
		Use:   "new FILE.yaml [--previous R.dsse] [-o NEXT.dsse]",
		Short: "Make the release of a YAML file, to be signed",
		Long: `New reads FILE.yaml, and the packages that it names from where it lies, and writes a release that nobody has signed yet. What
the file leaves out, such as the epoch, comes from the release before (--previous; none for the first one). With --root the
previous release's signatures are verified. The packages are copied into the folder packages beside the release, from where
they are published. Unknown keys and wrong types are errors with their line. --example prints a file with every key.`,
		Example: "  holdfast release new --example > release.yaml\n  holdfast release new release.yaml --previous r7.dsse --root root-1.dsse -o r8.dsse",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if example {
				_, err := fmt.Fprint(e.stdout, release.Example)
				return err
			}
			if len(args) == 0 {
				return errors.New("which file? name a release file; holdfast release new --example prints one")
			}
			file, asJSON, err := out.split()
			if err != nil {
				return err
			}
			if file == "" {
				file = strings.TrimSuffix(args[0], filepath.Ext(args[0])) + ".dsse"
			}
			if packages == "" {
				packages = filepath.Join(filepath.Dir(file), "packages")
			}
			return e.newRelease(args[0], previous, root, file, packages, asJSON)
		},
	}
	c.Flags().StringVar(&previous, "previous", "", "the release that this one replaces")
	c.Flags().StringVar(&root, "root", "", "trust root, by which the previous release is verified")
	c.Flags().StringVar(&packages, "packages", "", "folder for the packages (default: packages, beside the release)")
	c.Flags().BoolVar(&example, "example", false, "print a release file with every key")
	out.add(c, "the release (default: FILE.dsse)")
	return c
}

func (e *env) newRelease(file, previous, root, out, packages string, asJSON bool) error {
	text, err := readBounded(file, 4<<20)
	if err != nil {
		return err
	}
	o := release.Options{Created: time.Now(), Package: func(path string) ([]byte, error) {
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(file), path)
		}
		raw, err := readBounded(path, bundle.MaxPackageFile)
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("no such file beside the release file; holdfast build makes it")
		}
		return raw, err
	}}
	if previous != "" {
		if o.Previous, err = e.readRelease(previous, root); err != nil {
			return err
		}
	}
	draft, err := release.Parse(file, text, o)
	if err != nil {
		return err
	}
	env, err := bundle.SignRelease(draft.Release)
	if err != nil {
		return err
	}
	if err := unsigned(out); err != nil {
		return err
	}
	if err := writePackages(packages, draft.Packages); err != nil {
		return err
	}
	if err := write(out, env); err != nil {
		return err
	}
	var trust *bundle.TrustRoot
	if root != "" {
		if trust, _, err = readRoot(root); err != nil {
			return err
		}
	}
	return e.printRelease(out, env, trust, asJSON)
}

// unsigned returns an error when a file holds a release that somebody has signed.
func unsigned(path string) error {
	env, err := readBounded(path, bundle.MaxEnvelope)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, ids, err := bundle.Signers(env, bundle.ReleaseType, nil); err == nil && len(ids) == 0 {
		return nil
	}
	return fmt.Errorf("%s is there already, and no release that nobody has signed; name another file with -o, or remove it", path)
}

// writePackages writes each package as HEX.hfp.
func writePackages(dir string, files map[wire.Digest][]byte) error {
	if len(files) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for d, file := range files {
		if err := write(filepath.Join(dir, d.Hex()+".hfp"), file); err != nil {
			return err
		}
	}
	return nil
}

// readRelease reads a release; with a trust root it must be complete.
func (e *env) readRelease(path, root string) (*bundle.SignedRelease, error) {
	env, err := readBounded(path, bundle.MaxEnvelope)
	if err != nil {
		return nil, err
	}
	if root == "" {
		s, err := bundle.PeekRelease(env)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		fmt.Fprintf(e.stderr, "%s: its signatures were not verified; --root ROOT.dsse does\n", path)
		return s, nil
	}
	r, _, err := readRoot(root)
	if err != nil {
		return nil, err
	}
	s, err := r.ReopenRelease(env)
	if err != nil {
		return nil, checkFailed("%s: %w", path, err)
	}
	return s, nil
}

func releaseDiffCommand(e *env) *cobra.Command {
	var asJSON, strict bool
	c := &cobra.Command{
		Use:   "diff OLD.dsse NEW.dsse",
		Short: "Say what changes from one release to another",
		Long: `Diff compares by names, not by bytes: packages, parameters, fail modes, durability, lease, masks, limits, rings and the rest.
What can only allow more is marked LOOSER, what can only allow less STRICTER; what a replaced package decides the release
does not say. It verifies no signature: holdfast release show does. With --no-looser it exits 1 when anything is LOOSER.`,
		Example: "  holdfast release diff r7.dsse r8.dsse\n  holdfast release diff r7.dsse r8.dsse --no-looser -o json",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			var sides [2]*bundle.SignedRelease
			for i, path := range args {
				env, err := readBounded(path, bundle.MaxEnvelope)
				if err != nil {
					return err
				}
				if sides[i], err = bundle.PeekRelease(env); err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
			d := release.Diff(sides[0], sides[1])
			err := error(nil)
			if asJSON {
				err = e.printJSON(d)
			} else {
				err = d.Write(e.stdout)
			}
			if err == nil && strict && d.Looser > 0 {
				err = checkFailed("%d changes are looser", d.Looser)
			}
			return err
		},
	}
	c.Flags().BoolVar(&strict, "no-looser", false, "exit 1 when a change is looser")
	outputFlag(c, &asJSON)
	return c
}

func releaseSignCommand(e *env) *cobra.Command {
	var key, root string
	var out outputFlags
	c := &cobra.Command{
		Use:   "sign R.dsse --key KEY [--root ROOT.dsse]",
		Short: "Sign a release as author or approver",
		Long: `Sign adds a signature to the release, in place or into -o. With --root the key must be in the trust root, the signatures that
are there must verify, and it says who is missing. Look at holdfast release diff and show before you sign.`,
		Example: "  holdfast release sign r8.dsse --key bob.key --root root-1.dsse",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, asJSON, err := out.split()
			if err != nil {
				return err
			}
			trust, err := optionalRoot(root)
			if err != nil {
				return err
			}
			file, env, err := signFile(args[0], file, key, func(env []byte, k *bundle.PrivateKey) ([]byte, error) {
				if _, err := bundle.PeekRelease(env); err != nil {
					return nil, fmt.Errorf("%s: %w", args[0], err)
				}
				return signRelease(env, trust, k)
			})
			if err != nil {
				return err
			}
			return e.printRelease(file, env, trust, asJSON)
		},
	}
	c.Flags().StringVar(&key, "key", "", "file of the private key")
	c.Flags().StringVar(&root, "root", "", "trust root that names the keys")
	out.add(c, "where the signed file goes (default: in place)")
	return c
}

func optionalRoot(path string) (*bundle.TrustRoot, error) {
	if path == "" {
		return nil, nil
	}
	r, _, err := readRoot(path)
	return r, err
}

// signRelease adds the signature of an author or approver, once.
func signRelease(env []byte, root *bundle.TrustRoot, k *bundle.PrivateKey) ([]byte, error) {
	if k.Role != bundle.RoleAuthor && k.Role != bundle.RoleApprover {
		return nil, fmt.Errorf("key %s has the role %s; a release is signed by an author and an approver", k.ID, k.Role)
	}
	keys := []bundle.Key{k.Key}
	if root != nil {
		if keys = root.Keys; !has(keys, k.ID) {
			return nil, checkFailed("key %s of %s is not in version %d of the trust root: nodes would not believe it", k.ID, k.Person, root.Version)
		}
	}
	signers, _, err := bundle.Signers(env, bundle.ReleaseType, keys)
	if err != nil {
		return nil, checkFailed("a signature on it is wrong: %w", err)
	}
	if has(signers, k.ID) {
		return nil, checkFailed("key %s of %s has signed it already; an author and an approver must, and they are different persons", k.ID, k.Person)
	}
	return bundle.AddSignature(env, bundle.ReleaseType, k)
}

func releaseShowCommand(e *env) *cobra.Command {
	var root string
	var asJSON bool
	c := &cobra.Command{
		Use:   "show R.dsse [--root ROOT.dsse]",
		Short: "Show a release, and who has signed it",
		Long: `Show prints the release as the file that would make it. With --root it says who has signed and who is missing. Exit 1 when a
signature does not verify, or when the release is of another tenant.`,
		Example: "  holdfast release show r8.dsse --root root-1.dsse",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			env, err := readBounded(args[0], bundle.MaxEnvelope)
			if err != nil {
				return err
			}
			trust, err := optionalRoot(root)
			if err != nil {
				return err
			}
			return e.printReleaseFile(args[0], env, trust, asJSON)
		},
	}
	c.Flags().StringVar(&root, "root", "", "trust root that names the keys")
	outputFlag(c, &asJSON)
	return c
}

// releaseJSON is a release as commands print it.
type releaseJSON struct {
	File       string          `json:"file"`
	Tenant     string          `json:"tenant"`
	Epoch      uint64          `json:"epoch"`
	Digest     wire.Digest     `json:"digest"`
	Signatures []signatureJSON `json:"signatures"`
	// Complete is whether nodes take it; known only with a trust root.
	Complete bool          `json:"complete"`
	Missing  []string      `json:"missing"`
	Release  *release.File `json:"release,omitempty"`
}

// describeRelease says who has signed a release; root may be nil.
func describeRelease(file string, env []byte, root *bundle.TrustRoot) (*releaseJSON, *bundle.SignedRelease, error) {
	s, err := bundle.PeekRelease(env)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	var keys []bundle.Key
	if root != nil {
		keys = root.Keys
		if root.Tenant != s.Tenant {
			return nil, nil, checkFailed("%s: %w: %q, not %q", file, bundle.ErrTenant, s.Tenant, root.Tenant)
		}
	}
	signers, unknown, err := bundle.Signers(env, bundle.ReleaseType, keys)
	if err != nil {
		return nil, nil, checkFailed("%s: %w", file, err)
	}
	j := &releaseJSON{File: file, Tenant: s.Tenant, Epoch: s.Epoch, Digest: s.Digest, Signatures: signaturesOf(signers, unknown), Missing: []string{}}
	if root == nil {
		j.Missing = append(j.Missing, "not looked at: who must sign (give the trust root with --root)")
		return j, s, nil
	}
	missing := root.Missing(signers, bundle.RoleAuthor, bundle.RoleApprover)
	for _, role := range []bundle.Role{bundle.RoleAuthor, bundle.RoleApprover} {
		if n := missing[role]; n > 0 {
			j.Missing = append(j.Missing, fmt.Sprintf("%d with role %s", n, role))
		}
	}
	if j.Complete = len(j.Missing) == 0; j.Complete {
		if _, err := root.ReopenRelease(env); err != nil {
			return nil, nil, checkFailed("%s: %w", file, err)
		}
	}
	return j, s, nil
}

func (j *releaseJSON) lines() (lines []string) {
	lines = append(lines, fmt.Sprintf("%s: release of %s, epoch %d, %s", j.File, j.Tenant, j.Epoch, j.Digest))
	for _, s := range j.Signatures {
		if s.Person == "" {
			lines = append(lines, fmt.Sprintf("  signed by key %.80q", s.ID))
		} else {
			lines = append(lines, fmt.Sprintf("  signed by %s, %s", s.Person, s.Role))
		}
	}
	for _, m := range j.Missing {
		lines = append(lines, "  missing: "+m)
	}
	if j.Complete {
		lines = append(lines, "complete")
	}
	return lines
}

func (e *env) printRelease(file string, env []byte, root *bundle.TrustRoot, asJSON bool) error {
	j, _, err := describeRelease(file, env, root)
	if err != nil {
		return err
	}
	if asJSON {
		return e.printJSON(j)
	}
	_, err = fmt.Fprintln(e.stdout, strings.Join(j.lines(), "\n"))
	return err
}

// printReleaseFile prints the release as a file, what is known of it as comments.
func (e *env) printReleaseFile(file string, env []byte, root *bundle.TrustRoot, asJSON bool) error {
	j, s, err := describeRelease(file, env, root)
	if err != nil {
		return err
	}
	j.Release = release.Show(&s.Release)
	if asJSON {
		return e.printJSON(j)
	}
	text, err := j.Release.YAML()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "# %s\n%s", strings.Join(j.lines(), "\n# "), text)
	return err
}
