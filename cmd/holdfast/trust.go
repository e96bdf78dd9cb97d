package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func trustCommand(e *env) *cobra.Command {
	c := group("trust", "The trust root: whose signatures a tenant's nodes believe", "init, add, remove, show, sign or publish")
	c.Long = `A trust root is a signed file that names keys, their roles and, for each role, how many different persons must sign.
Root keys sign it; they belong on machines that are off. Only publish talks to a network: the file is passed around, each
root signs in turn, and holdfast trust show says who is missing. A node gets version 1 with its configuration; every later
version must be signed by the root persons of the version before and by its own, so that keys can be rotated and revoked.

  rosa$  holdfast keys new --role root --name rosa --out rosa.key > rosa.pub
  rui$   holdfast keys new --role root --name rui --out rui.key > rui.pub
         (ann, bob and the regions do the same with their roles and send the .pub files)
  rosa$  holdfast trust init --tenant acme --key rosa.pub --key rui.pub --key ann.pub --key bob.pub --threshold root=2 -o root-1.dsse
  rosa$  holdfast trust sign root-1.dsse --key rosa.key        (sends root-1.dsse to rui)
  rui$   holdfast trust show root-1.dsse
  rui$   holdfast trust sign root-1.dsse --key rui.key         (the file is complete)

Authors and approvers must be different persons. Kills and heartbeats take one signature, lifting a kill takes two persons:
name two with the role kill. A trust root that expires opens no new release; what is in force stays in force.`
	c.AddCommand(trustInitCommand(e), trustAddCommand(e), trustRemoveCommand(e), trustShowCommand(e), trustSignCommand(e), trustPublishCommand(e))
	return c
}

// rootFlags are what the commands that make a trust root have in common.
type rootFlags struct {
	keys, thresholds, signers []string
	expires                   string
	outputs                   outputFlags
}

const rootLifetime = "365d"

func (f *rootFlags) add(c *cobra.Command, keys bool) {
	if keys {
		c.Flags().StringArrayVar(&f.keys, "key", nil, "file with public key lines; may be repeated")
	}
	c.Flags().StringArrayVar(&f.thresholds, "threshold", nil, "ROLE=N: how many persons of the role must sign; may be repeated (default 1)")
	c.Flags().StringVar(&f.expires, "expires", rootLifetime, "when it expires: a time such as 2027-12-01T08:00:00Z, or how long from now such as 365d")
	c.Flags().StringArrayVar(&f.signers, "sign", nil, "file of a private root key that signs at once; may be repeated")
	f.outputs.add(c, "the new trust root; must not exist")
}

// publicKeys reads all of --key.
func (f *rootFlags) publicKeys() (keys []bundle.Key, err error) {
	for _, path := range f.keys {
		more, err := readKeys(path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// apply sets thresholds and expiry: a new role begins with one, a role without
// keys has none.
func (f *rootFlags) apply(r *bundle.TrustRoot) error {
	have := map[bundle.Role]bool{}
	for _, k := range r.Keys {
		have[k.Role] = true
		r.Thresholds[k.Role] = max(r.Thresholds[k.Role], 1)
	}
	maps.DeleteFunc(r.Thresholds, func(role bundle.Role, _ int) bool { return !have[role] })
	for _, t := range f.thresholds {
		role, n, ok := strings.Cut(t, "=")
		count, err := strconv.Atoi(n)
		if !ok || err != nil {
			return fmt.Errorf("--threshold %s: want ROLE=N, such as root=2", t)
		}
		r.Thresholds[bundle.Role(role)] = count
	}
	at, err := parseWhen(f.expires, time.Now())
	if err != nil {
		return fmt.Errorf("--expires: %w", err)
	}
	r.Expires = at.Unix()
	return r.Validate()
}

// parseWhen reads an instant, or a time from now, of which a day is the longest unit.
func parseWhen(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, int(n)), nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return now, fmt.Errorf("%q is neither a time such as 2027-12-01T08:00:00Z nor how long from now, such as 365d or 12h", s)
	}
	return now.Add(d), nil
}

// make writes the trust root, signed by those of --sign, and says who is missing.
func (f *rootFlags) make(e *env, r, previous *bundle.TrustRoot) error {
	file, asJSON, err := f.outputs.split()
	if err != nil {
		return err
	}
	if file == "" {
		return fmt.Errorf("which file? give -o root-%d.dsse", r.Version)
	}
	keys, err := readPrivateKeys(f.signers)
	if err != nil {
		return err
	}
	env, err := bundle.SignTrustRoot(r)
	for _, k := range keys {
		if err == nil {
			env, err = signRoot(env, r, previous, k)
		}
	}
	if err != nil {
		return err
	}
	if err := writeFresh(file, env); err != nil {
		return err
	}
	return e.printRoot(file, env, previous, asJSON)
}

// writeFresh creates a file that must not be there.
func writeFresh(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if os.IsExist(err) {
		return fmt.Errorf("%s is there already; name another file, or remove it", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return firstError(err, f.Sync(), f.Close())
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func trustInitCommand(e *env) *cobra.Command {
	var f rootFlags
	var tenant string
	c := &cobra.Command{
		Use:   "init --tenant T --key FILE... -o root-1.dsse",
		Short: "Make version 1 of a trust root from public keys",
		Long: `Init makes the first trust root of a tenant. It needs at least one root, one author and one approver. As many root persons
as the threshold says must sign it, with --sign here or later with holdfast trust sign.`,
		Example: `  holdfast trust init --tenant acme --key rosa.pub --key rui.pub --key people.pub --threshold root=2 --sign rosa.key -o root-1.dsse`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if tenant == "" || len(f.keys) == 0 {
				return fmt.Errorf("give --tenant and the public keys, with one or more --key FILE")
			}
			keys, err := f.publicKeys()
			if err != nil {
				return err
			}
			r := bundle.NewTrustRoot(tenant, time.Now(), keys...)
			if err := f.apply(r); err != nil {
				return err
			}
			return f.make(e, r, nil)
		},
	}
	f.add(c, true)
	c.Flags().StringVar(&tenant, "tenant", "", "whose trust root it is")
	return c
}

func trustAddCommand(e *env) *cobra.Command {
	var f rootFlags
	c := &cobra.Command{
		Use:   "add ROOT.dsse --key FILE... -o NEXT.dsse",
		Short: "Make the next version of a trust root, with more keys",
		Long: `Add makes version n+1 of a complete trust root, with the keys of --key added. The root persons of version n and those of
version n+1 must sign it. Nodes take it when it is published; add publishes nothing.`,
		Example: "  holdfast trust add root-1.dsse --key dora.pub --sign rosa.key -o root-2.dsse",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return f.succeed(e, args[0], func(r *bundle.TrustRoot) error {
				keys, err := f.publicKeys()
				if err == nil && len(keys)+len(f.thresholds) == 0 {
					err = fmt.Errorf("what changes? give --key FILE or --threshold ROLE=N")
				}
				r.Keys = append(r.Keys, keys...)
				return err
			})
		},
	}
	f.add(c, true)
	return c
}

func trustRemoveCommand(e *env) *cobra.Command {
	var f rootFlags
	c := &cobra.Command{
		Use:   "remove ROOT.dsse KEYID|PERSON... -o NEXT.dsse",
		Short: "Make the next version of a trust root, without some keys",
		Long: `Remove makes version n+1 of a complete trust root without the keys that are named by id, or all keys of a person. What they
signed is refused from then on, unless it is in force already. The root persons of version n and those of version n+1 must
sign it: a root key that is removed still counts for version n.`,
		Example: "  holdfast trust remove root-1.dsse bob --sign rosa.key -o root-2.dsse",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return f.succeed(e, args[0], func(r *bundle.TrustRoot) error {
				for _, name := range args[1:] {
					before := len(r.Keys)
					r.Keys = slices.DeleteFunc(r.Keys, func(k bundle.Key) bool { return k.ID == name || strings.EqualFold(k.Person, name) })
					if len(r.Keys) == before {
						return fmt.Errorf("%s is neither the id nor the person of a key of version %d; holdfast trust show %s lists them", name, r.Version-1, args[0])
					}
				}
				return nil
			})
		},
	}
	f.add(c, false)
	return c
}

// succeed makes the version after the trust root of a file.
func (f *rootFlags) succeed(e *env, file string, change func(*bundle.TrustRoot) error) error {
	previous, _, err := readRoot(file)
	if err != nil {
		return err
	}
	next := *previous
	next.Version++
	next.Keys, next.Thresholds = slices.Clone(previous.Keys), maps.Clone(previous.Thresholds)
	if err := change(&next); err != nil {
		return err
	}
	if err := f.apply(&next); err != nil {
		return err
	}
	return f.make(e, &next, previous)
}

// readRoot reads a complete trust root; it may have expired.
func readRoot(path string) (*bundle.TrustRoot, []byte, error) {
	env, err := readBounded(path, bundle.MaxEnvelope)
	if err != nil {
		return nil, nil, err
	}
	r, err := bundle.ReopenTrustRoot(env)
	if err != nil {
		return nil, nil, checkFailed("%s: %w", path, err)
	}
	return r, env, nil
}

func trustSignCommand(e *env) *cobra.Command {
	var key, previous string
	var out outputFlags
	c := &cobra.Command{
		Use:   "sign ROOT.dsse --key KEY",
		Short: "Sign a trust root with a root key",
		Long: `Sign adds the signature of a root key to the file, in place or into -o, and says who is missing. The key must be one of the
trust root's or, with --previous, of the version before.`,
		Example: "  holdfast trust sign root-1.dsse --key rui.key\n  holdfast trust sign root-2.dsse --previous root-1.dsse --key rosa.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, asJSON, err := out.split()
			if err != nil {
				return err
			}
			var before *bundle.TrustRoot
			file, env, err := signFile(args[0], file, key, func(env []byte, k *bundle.PrivateKey) (_ []byte, err error) {
				var r *bundle.TrustRoot
				if r, before, err = peekRoot(args[0], env, previous); err != nil {
					return nil, err
				}
				return signRoot(env, r, before, k)
			})
			if err != nil {
				return err
			}
			return e.printRoot(file, env, before, asJSON)
		},
	}
	c.Flags().StringVar(&key, "key", "", "file of the private key")
	c.Flags().StringVar(&previous, "previous", "", "the version before, whose root persons must sign too")
	out.add(c, "where the signed file goes (default: in place)")
	return c
}

// signFile writes what sign makes of a file and a key into another file, or in
// place when out is "". It returns where, and what.
func signFile(in, out, key string, sign func(env []byte, k *bundle.PrivateKey) ([]byte, error)) (string, []byte, error) {
	env, err := readBounded(in, bundle.MaxEnvelope)
	if err != nil {
		return "", nil, err
	}
	k, err := readSigner(key)
	if err != nil {
		return "", nil, err
	}
	if env, err = sign(env, k); err != nil {
		return "", nil, err
	}
	out = cmp.Or(out, in)
	return out, env, write(out, env)
}

func readSigner(path string) (*bundle.PrivateKey, error) {
	if path == "" {
		return nil, fmt.Errorf("whose signature? give --key FILE, a private key of holdfast keys new")
	}
	return bundle.ReadPrivateKey(path)
}

// peekRoot reads a trust root that need not be complete, and the one before it.
func peekRoot(path string, env []byte, previous string) (r, before *bundle.TrustRoot, err error) {
	if r, err = bundle.PeekTrustRoot(env); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if previous == "" {
		return r, nil, nil
	}
	if before, _, err = readRoot(previous); err != nil {
		return nil, nil, err
	}
	if before.Tenant != r.Tenant || before.Version+1 != r.Version {
		return nil, nil, checkFailed("%s is version %d of %s and does not follow %s, version %d of %s", path, r.Version, r.Tenant, previous, before.Version, before.Tenant)
	}
	return r, before, nil
}

// signRoot adds a root key's signature, once.
func signRoot(env []byte, r, previous *bundle.TrustRoot, k *bundle.PrivateKey) ([]byte, error) {
	keys := rootKeys(r, previous)
	switch {
	case k.Role != bundle.RoleRoot:
		return nil, fmt.Errorf("key %s has the role %s; a trust root is signed in the role root", k.ID, k.Role)
	case !has(keys, k.ID) && previous == nil && r.Version > 1:
		return nil, checkFailed("key %s of %s is not in version %d; if it is of the version before, give that with --previous", k.ID, k.Person, r.Version)
	case !has(keys, k.ID):
		return nil, checkFailed("key %s of %s is not a root key of this trust root", k.ID, k.Person)
	}
	signers, _, err := bundle.Signers(env, bundle.TrustRootType, keys)
	if err != nil {
		return nil, checkFailed("a signature on it is wrong: %w", err)
	}
	if has(signers, k.ID) {
		return nil, checkFailed("key %s of %s has signed it already", k.ID, k.Person)
	}
	return bundle.AddSignature(env, bundle.TrustRootType, k)
}

// rootKeys are the keys whose signatures a trust root needs.
func rootKeys(r, previous *bundle.TrustRoot) (keys []bundle.Key) {
	for _, root := range []*bundle.TrustRoot{r, previous} {
		if root == nil {
			continue
		}
		for _, k := range root.Keys {
			if k.Role == bundle.RoleRoot && !has(keys, k.ID) {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

func has(keys []bundle.Key, id string) bool {
	return slices.ContainsFunc(keys, func(k bundle.Key) bool { return k.ID == id })
}

func trustShowCommand(e *env) *cobra.Command {
	var previous string
	var asJSON bool
	c := &cobra.Command{
		Use:   "show ROOT.dsse",
		Short: "Show a trust root, and who has signed it",
		Long: `Show prints keys, thresholds and expiry, who has signed and who is missing. With --previous it says whether the root persons
of the version before have signed too. Exit 1 when a signature does not verify, or when it does not follow --previous.`,
		Example: "  holdfast trust show root-2.dsse --previous root-1.dsse",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			env, err := readBounded(args[0], bundle.MaxEnvelope)
			if err != nil {
				return err
			}
			_, before, err := peekRoot(args[0], env, previous)
			if err != nil {
				return err
			}
			return e.printRoot(args[0], env, before, asJSON)
		},
	}
	c.Flags().StringVar(&previous, "previous", "", "the version before")
	outputFlag(c, &asJSON)
	return c
}

// rootJSON is a trust root as commands print it.
type rootJSON struct {
	File       string              `json:"file"`
	Tenant     string              `json:"tenant"`
	Version    uint64              `json:"version"`
	Digest     wire.Digest         `json:"digest"` // of the file
	Expires    time.Time           `json:"expires"`
	Expired    bool                `json:"expired"`
	Thresholds map[bundle.Role]int `json:"thresholds"`
	Keys       []keyJSON           `json:"keys"`
	Signatures []signatureJSON     `json:"signatures"`
	// Complete is whether a node takes it; for a version after the first it is
	// known only with the version before.
	Complete bool     `json:"complete"`
	Missing  []string `json:"missing"`
}

// signatureJSON is a signature that verified, or only its key's id when nobody
// knows the key.
type signatureJSON struct {
	ID     string      `json:"id"`
	Role   bundle.Role `json:"role,omitempty"`
	Person string      `json:"person,omitempty"`
}

func signaturesOf(signers []bundle.Key, unknown []string) []signatureJSON {
	list := []signatureJSON{}
	for _, k := range signers {
		list = append(list, signatureJSON{k.ID, k.Role, k.Person})
	}
	for _, id := range unknown {
		list = append(list, signatureJSON{ID: id})
	}
	return list
}

func (e *env) printRoot(file string, env []byte, previous *bundle.TrustRoot, asJSON bool) error {
	r, err := bundle.PeekTrustRoot(env)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	signers, unknown, err := bundle.Signers(env, bundle.TrustRootType, rootKeys(r, previous))
	if err != nil {
		return checkFailed("%s: %w", file, err)
	}
	j := rootJSON{
		File: file, Tenant: r.Tenant, Version: r.Version, Digest: wire.Sum(env), Expires: time.Unix(r.Expires, 0).UTC(),
		Expired: r.Current(time.Now()) != nil, Thresholds: r.Thresholds, Keys: []keyJSON{}, Signatures: signaturesOf(signers, unknown), Missing: []string{},
	}
	for _, k := range r.Keys {
		j.Keys = append(j.Keys, keyOf(k))
	}
	j.Missing = rootMissing(r, previous, signers)
	j.Complete = len(j.Missing) == 0
	if asJSON {
		return e.printJSON(j)
	}
	return j.print(e.stdout)
}

// rootMissing says in words who has yet to sign.
func rootMissing(r, previous *bundle.TrustRoot, signers []bundle.Key) []string {
	missing := []string{}
	add := func(root *bundle.TrustRoot) {
		var own []bundle.Key
		for _, k := range signers {
			if has(root.Keys, k.ID) {
				own = append(own, k)
			}
		}
		if n := root.Missing(own, bundle.RoleRoot)[bundle.RoleRoot]; n > 0 {
			missing = append(missing, fmt.Sprintf("%d of %d root persons of version %d", n, root.Thresholds[bundle.RoleRoot], root.Version))
		}
	}
	add(r)
	switch {
	case previous != nil:
		add(previous)
	case r.Version > 1:
		missing = append(missing, fmt.Sprintf("not looked at: the root persons of version %d (give it with --previous)", r.Version-1))
	}
	return missing
}

func (j *rootJSON) print(w io.Writer) error {
	p := newPrinter(w)
	p.line("%s: trust root of %s, version %d, expires %s", j.File, j.Tenant, j.Version, j.Expires.Format(time.RFC3339))
	for _, role := range bundle.Roles() {
		if n := j.Thresholds[role]; n > 0 {
			p.line("  %s, %d must sign:", role, n)
			for _, k := range j.Keys {
				if k.Role == role {
					p.line("    %s  %s", k.ID, k.Person)
				}
			}
		}
	}
	for _, s := range j.Signatures {
		if s.Person == "" {
			p.line("  signed by %.80q, whom it does not name", s.ID)
		} else {
			p.line("  signed by %s, %s", s.Person, s.ID)
		}
	}
	for _, m := range j.Missing {
		p.line("  missing: %s", m)
	}
	if j.Expired {
		p.line("  EXPIRED: nodes take no new release under it")
	}
	if j.Complete {
		p.line("complete")
	}
	return p.err
}
