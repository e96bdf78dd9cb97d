package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func holdCommand(e *env) *cobra.Command {
	var f dataFlags
	var node, point, subject, since, until string
	c := &cobra.Command{
		Use:   "hold ID",
		Short: "Keep records: nothing under a hold is erased, or deleted because it is old",
		Long: `Hold keeps records until two persons end it with "release-hold": everything, or what all of --node, --point, --subject, --since and --until
name. A subject is in the document as a digest only. One person of role data signs.`,
		Example: `  holdfast ledger hold case-7 --subject user:ada --reason "litigation" --dir ./fleet
  holdfast ledger hold audit-2026 --since 2026-01-01 --until 2027-01-01 --reason "audit" --key data.key`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			h := bundle.Hold{ID: args[0], Reason: f.reason, Created: time.Now().UnixNano(), Scope: bundle.HoldScope{Node: node, Point: point}}
			if subject != "" {
				h.Scope.Subject = wire.Sum([]byte(subject))
			}
			now := time.Now()
			if h.Scope.From, err = instant("--since", since, now); err != nil {
				return err
			}
			if h.Scope.To, err = instant("--until", until, now); err != nil {
				return err
			}
			keys, err := f.signers("data")
			if err != nil {
				return err
			}
			return e.sendOne(c.Context(), &f, "hold", func(tenant string) ([]byte, error) {
				h.Tenant = tenant
				return bundle.SignHold(&h, keys...)
			})
		},
	}
	f.add(c, "data")
	c.Flags().StringVar(&node, "node", "", "records of this node")
	c.Flags().StringVar(&point, "point", "", "decisions at this point")
	c.Flags().StringVar(&subject, "subject", "", "decisions about this subject: ID or TYPE:ID, as it is recorded")
	c.Flags().StringVar(&since, "since", "", "records from this time on")
	c.Flags().StringVar(&until, "until", "", "records up to this time")
	return c
}

func releaseHoldCommand(e *env) *cobra.Command {
	var f dataFlags
	c := &cobra.Command{
		Use: "release-hold DIGEST...", Short: "End holds: two persons sign", Args: cobra.MinimumNArgs(1),
		Example: "  holdfast ledger release-hold 3f2a... --reason \"case closed\" --key data.key --key data-2.key --dir ./fleet",
		RunE: func(c *cobra.Command, args []string) error {
			h := bundle.HoldRelease{Reason: f.reason, Created: time.Now().UnixNano()}
			for _, d := range args {
				parsed, err := wire.ParseDigest("sha256:" + strings.TrimPrefix(d, "sha256:"))
				if err != nil {
					return err
				}
				h.Holds = append(h.Holds, parsed)
			}
			keys, err := f.signers("data", "data-2")
			if err != nil {
				return err
			}
			return e.sendOne(c.Context(), &f, "release", func(tenant string) ([]byte, error) {
				h.Tenant = tenant
				return bundle.SignHoldRelease(&h, keys...)
			})
		},
	}
	f.add(c, "data, twice: of two persons")
	return c
}

// sendOne sends one document and prints its digest.
func (e *env) sendOne(ctx context.Context, f *dataFlags, kind string, sign func(tenant string) ([]byte, error)) error {
	digests, err := e.send(ctx, f, func(tenant string) ([][]byte, error) {
		env, err := sign(tenant)
		return [][]byte{env}, err
	})
	if err != nil || f.file != "" {
		return err
	}
	if f.asJSON {
		return e.printJSON(map[string]string{"kind": kind, "digest": digests[0].String()})
	}
	fmt.Fprintf(e.stdout, "%s %s\n", kind, digests[0].Hex())
	return nil
}

func holdsCommand(e *env) *cobra.Command {
	var which fleetFlags
	var asJSON bool
	c := &cobra.Command{
		Use: "holds", Short: "The holds in force, and the erasures so far", Args: cobra.NoArgs, Example: "  holdfast ledger holds --dir ./fleet -o json",
		RunE: func(c *cobra.Command, _ []string) error { return e.holds(c.Context(), &which, asJSON) },
	}
	which.add(c)
	outputFlag(c, &asJSON)
	return c
}

type heldJSON struct {
	Digest  string    `json:"digest"`
	ID      string    `json:"id"`
	Scope   string    `json:"scope"`
	Reason  string    `json:"reason"`
	By      []string  `json:"by"`
	Created time.Time `json:"created"`
}

type erasureJSON struct {
	Digest      string    `json:"digest"`
	Records     uint64    `json:"records"`
	Reason      string    `json:"reason"`
	RequestedBy string    `json:"requested_by,omitempty"`
	By          []string  `json:"by"`
	Created     time.Time `json:"created"`
}

func (e *env) holds(ctx context.Context, which *fleetFlags, asJSON bool) error {
	admin, err := which.admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	state, err := admin.Read(ctx)
	if err != nil {
		return &exitError{code: exitCheck, err: err}
	}
	held, erasures := []heldJSON{}, []erasureJSON{}
	for _, h := range state.Fleet.Holds() {
		held = append(held, heldJSON{h.Digest.Hex(), h.ID, h.Scope.String(), h.Reason, h.Persons, time.Unix(0, h.Created).UTC()})
	}
	for _, x := range state.Fleet.Erasures() {
		erasures = append(erasures, erasureJSON{x.Digest.Hex(), x.Records, x.Reason, x.RequestedBy, x.By, time.Unix(0, x.Created).UTC()})
	}
	if asJSON {
		return e.printJSON(map[string]any{"holds": held, "erasures": erasures})
	}
	p := newPrinter(e.stdout)
	if len(held) == 0 {
		p.line("nothing is held")
	}
	for _, h := range held {
		p.line("%s  %s  %s  %s  by %s at %s", h.Digest, h.ID, h.Scope, h.Reason, strings.Join(h.By, ", "), h.Created.Format(time.RFC3339))
	}
	for _, x := range erasures {
		p.line("%s  erasure of %d records  %s %s  by %s at %s", x.Digest, x.Records, x.Reason, x.RequestedBy, strings.Join(x.By, ", "), x.Created.Format(time.RFC3339))
	}
	return p.err
}

// regionCommand is about a region as a whole.
func regionCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use: "region", Short: "Retire a region", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return errors.Join(errors.New("say which: retire"), c.Usage())
		},
	}
	var f dataFlags
	retire := &cobra.Command{
		Use: "retire NAME", Short: "Count a region no more: two persons sign", Args: cobra.ExactArgs(1),
		Long: `Retire says that a region is gone for good: nodes wait for its receipts no more, neither to answer nor to trim their journals. Every node
records it. Two persons sign, of role data or of role root. It is not taken back: a region that returns gets another name.`,
		Example: "  holdfast region retire us --reason \"site closed\" --key data.key --key data-2.key --dir ./fleet",
		RunE: func(c *cobra.Command, args []string) error {
			keys, err := f.signers("data", "data-2")
			if err == nil && f.file == "" {
				err = f.checkRegion(c.Context(), args[0])
			}
			if err != nil {
				return err
			}
			return e.sendOne(c.Context(), &f, "retirement", func(tenant string) ([]byte, error) {
				return bundle.SignRetirement(&bundle.Retirement{Tenant: tenant, Region: args[0], Reason: f.reason, Created: time.Now().UnixNano()}, keys...)
			})
		},
	}
	f.add(retire, "data, twice: of two persons")
	c.AddCommand(retire)
	return c
}

// checkRegion refuses to retire a region that the trust root does not name, or
// that is retired, or the last one: the document could not be taken back.
func (f *dataFlags) checkRegion(ctx context.Context, region string) error {
	admin, err := f.which.admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	state, err := admin.Read(ctx)
	if err != nil {
		return &exitError{code: exitCheck, err: err}
	}
	var named []string
	for _, k := range state.Fleet.Root().Keys {
		if k.Role == bundle.RoleHeartbeat {
			named = append(named, k.Person)
		}
	}
	left := 0
	for _, r := range state.Fleet.Retired() {
		if r.Region == region {
			return checkFailed("region %s is retired already, by %s", region, r.Digest.Hex())
		}
		if slices.Contains(named, r.Region) {
			left--
		}
	}
	if !slices.Contains(named, region) {
		return checkFailed("the trust root names no region %q; it names %q", region, named)
	}
	if left += len(named); left < 2 {
		return checkFailed("%s is the only region that is left; first enrol the fleet in another one", region)
	}
	return nil
}

// believe has verification believe the erasures that the trust roots in files
// open; where none is given, that of the fleet's folder, if there is one.
func believe(keys *audit.Keys, files []string, fleet string) error {
	if own := (assembly.Layout{Dir: fleet}).TrustRoot(); len(files) == 0 && fleet != "" {
		if _, err := os.Stat(own); err == nil {
			files = []string{own}
		}
	}
	var roots []*bundle.TrustRoot
	for _, path := range files {
		env, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		root, err := bundle.ReopenTrustRoot(env)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		roots = append(roots, root)
	}
	assembly.Believe(keys, roots...)
	return nil
}
