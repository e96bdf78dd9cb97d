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

	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func killCommand(e *env) *cobra.Command {
	var which fleetFlags
	var f killFlags
	c := &cobra.Command{
		Use:   "kill SCOPE",
		Short: "Stop: deny everything in a scope, on every node",
		Long: `Kill denies everything in a scope - all, point:P, subject:S, resource:R or policy:DIGEST - on every node, until two persons lift it. One
person of role kill suffices. It goes to every region that answers, and waits until the nodes confirm; those that do not
are listed with the time by which they have stopped by themselves. For a site without network, --file writes it: put the
file into the node's folder DIR/kills. The point agent.stop is exempt.`,
		Example: `  holdfast kill subject:agent-7 --reason "runs wild" --key kill.key --dir ./fleet
  holdfast kill all --reason drill --key kill.key --file kill.dsse --tenant bank
  holdfast kill list --dir ./fleet
  holdfast kill lift DIGEST --reason "fixed" --key kill.key --key kill-2.key --dir ./fleet`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return e.kill(c.Context(), args[0], &which, &f) },
	}
	which.add(c)
	f.add(c)
	list := &cobra.Command{
		Use: "list", Short: "What is stopped, and who has confirmed it", Args: cobra.NoArgs, Example: "  holdfast kill list --dir ./fleet -o json",
		RunE: func(c *cobra.Command, _ []string) error { return e.killList(c.Context(), &which, f.asJSON) },
	}
	which.add(list)
	outputFlag(list, &f.asJSON)
	lift := &cobra.Command{
		Use: "lift DIGEST...", Short: "End kills: two persons sign", Args: cobra.MinimumNArgs(1),
		Example: "  holdfast kill lift 3f2a... --reason fixed --key kill.key --key kill-2.key --dir ./fleet",
		RunE:    func(c *cobra.Command, args []string) error { return e.lift(c.Context(), args, &which, &f) },
	}
	which.add(lift)
	f.add(lift)
	c.AddCommand(list, lift)
	return c
}

// killFlags are those of kill and lift.
type killFlags struct {
	reason, file, tenant string
	keys                 []string
	wait                 time.Duration
	asJSON               bool
}

func (f *killFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.reason, "reason", "", "why, for people and the record")
	c.Flags().StringArrayVar(&f.keys, "key", nil, "private key of role kill; twice for lift. A laptop's fleet (--dir) has its own")
	c.Flags().StringVar(&f.file, "file", "", "write the signed document into a file instead of sending it")
	c.Flags().StringVar(&f.tenant, "tenant", "", "with --file: the tenant")
	c.Flags().DurationVar(&f.wait, "wait", 10*time.Second, "how long to wait until nodes confirm")
	outputFlag(c, &f.asJSON)
	_ = c.MarkFlagRequired("reason") // there is such a flag
}

// signers reads the keys, or takes those of a laptop's fleet.
func (f *killFlags) signers(which *fleetFlags, names ...string) ([]*bundle.PrivateKey, error) {
	paths := f.keys
	if len(paths) == 0 && which.dir != "" {
		for _, n := range names {
			if path := (assembly.Layout{Dir: which.dir}).PrivateKey(n); exists(path) {
				paths = append(paths, path)
			}
		}
	}
	if len(paths) == 0 {
		return nil, errors.New("give --key, a private key of role kill")
	}
	return readPrivateKeys(paths)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (e *env) kill(ctx context.Context, scope string, which *fleetFlags, f *killFlags) error {
	if _, _, err := bundle.Scope(scope).Split(); err != nil {
		return err
	}
	keys, err := f.signers(which, "kill")
	if err != nil {
		return err
	}
	return e.stop(ctx, which, f, func(tenant string) ([]byte, error) {
		return bundle.SignKill(&bundle.Kill{Tenant: tenant, Scope: bundle.Scope(scope), Reason: f.reason, Created: time.Now().UnixNano()}, keys...)
	})
}

func (e *env) lift(ctx context.Context, digests []string, which *fleetFlags, f *killFlags) error {
	l := bundle.Lift{Reason: f.reason, Created: time.Now().UnixNano()}
	for _, d := range digests {
		parsed, err := wire.ParseDigest("sha256:" + strings.TrimPrefix(d, "sha256:"))
		if err != nil {
			return err
		}
		l.Kills = append(l.Kills, parsed)
	}
	keys, err := f.signers(which, "kill", "kill-2")
	if err != nil {
		return err
	}
	return e.stop(ctx, which, f, func(tenant string) ([]byte, error) {
		l.Tenant = tenant
		return bundle.SignLift(&l, keys...)
	})
}

// stop signs a kill or lift and writes it into a file, or hands it to the hubs
// and waits until the nodes confirm.
func (e *env) stop(ctx context.Context, which *fleetFlags, f *killFlags, sign func(tenant string) ([]byte, error)) error {
	if f.file != "" {
		if f.tenant == "" {
			return errors.New("with --file, give --tenant")
		}
		envelope, err := sign(f.tenant)
		if err == nil {
			err = writeFresh(f.file, envelope)
		}
		if err == nil {
			fmt.Fprintf(e.stdout, "wrote %s; put it into the folder kills of each node's folder\n", f.file)
		}
		return err
	}
	admin, err := which.admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	envelope, err := sign(admin.Tenant())
	if err != nil {
		return err
	}
	began := time.Now()
	digest, err := admin.Kill(ctx, envelope)
	if errors.Is(err, assembly.ErrNoRegion) || errors.Is(err, bus.ErrUnreachable) {
		return &exitError{code: exitCheck, err: err}
	}
	if err != nil {
		return err
	}
	there := func(v registry.View) bool { return true }
	if bundle.Type(envelope) == bundle.KillType {
		there = func(v registry.View) bool {
			return slices.ContainsFunc(v.Kills, func(k registry.Kill) bool { return k.Digest == digest.String() })
		}
	}
	v, err := e.confirmed(ctx, admin, f.wait, there)
	if err == nil && !there(v) {
		return checkFailed("%s: nobody obeys it: the fleet's trust root does not believe who signed it, or it is lifted already", digest)
	}
	if err != nil {
		return checkFailed("%s: the hubs have it; whether nodes obey was not seen (holdfast kill list): %w", digest, err)
	}
	if f.asJSON {
		err = e.printJSON(map[string]any{"digest": digest.String(), "kills": v.Kills, "nodes": len(v.Nodes), "not_confirmed": v.NotConfirmed, "ms": time.Since(began).Milliseconds()})
	} else {
		fmt.Fprintf(e.stdout, "%s\n", digest)
		err = e.printConfirmed(v, time.Since(began))
	}
	if err == nil && len(v.NotConfirmed) > 0 {
		return &exitError{code: exitCheck}
	}
	return err
}

// confirmed waits until the kill or lift is there and every node attests the
// kills that the regions hold.
func (e *env) confirmed(ctx context.Context, admin *assembly.Admin, wait time.Duration, there func(registry.View) bool) (v registry.View, err error) {
	until := time.Now().Add(wait)
	for {
		if v, _, err = admin.View(ctx); err != nil {
			return v, err
		}
		if len(v.NotConfirmed) == 0 && there(v) || time.Now().After(until) {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (e *env) printConfirmed(v registry.View, took time.Duration) error {
	p := newPrinter(e.stdout)
	missing := v.NotConfirmed
	p.line("confirmed by %d of %d nodes after %s", len(v.Nodes)-len(missing), len(v.Nodes), took.Round(time.Millisecond))
	for _, n := range missing {
		if n.StopsBy.IsZero() {
			p.line("  NOT CONFIRMED %s; nothing says that it stops: it was never heard, or is heard and holds other kills; its log says why", n.Node)
			continue
		}
		p.line("  NOT CONFIRMED %s; it has stopped by itself by %s", n.Node, n.StopsBy.Format(time.RFC3339))
	}
	return p.err
}

func (e *env) killList(ctx context.Context, which *fleetFlags, asJSON bool) error {
	admin, err := which.admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	v, state, err := admin.View(ctx)
	if err != nil {
		return &exitError{code: exitCheck, err: err}
	}
	e.warnForeign(state)
	if asJSON {
		return e.printJSON(map[string]any{"kills": v.Kills})
	}
	p := newPrinter(e.stdout)
	if len(v.Kills) == 0 {
		p.line("nothing is stopped")
	}
	for _, k := range v.Kills {
		p.line("%s  %-24s %s  by %s at %s; confirmed by %d of %d", strings.TrimPrefix(k.Digest, "sha256:"), k.Scope, k.Reason, strings.Join(k.By, ", "),
			k.Created.Format(time.RFC3339), k.Confirmed, k.Confirmed+len(k.NotConfirmed))
		for _, n := range k.NotConfirmed {
			p.line("    NOT CONFIRMED %s", n.Node)
		}
	}
	return p.err
}
