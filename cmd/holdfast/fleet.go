package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

func fleetCommand(e *env) *cobra.Command {
	var which fleetFlags
	var watch, asJSON bool
	c := &cobra.Command{
		Use:   "fleet",
		Short: "What is in force, on which nodes, since when",
		Long: `Fleet says which release is in force on how many of the enrolled nodes, computed only from attestations that hubs have stored, that
verify against the nodes' enrolments and that are younger than six seconds. A node that is killed, or that signs with
another key, leaves the count. Exit 1 unless every enrolled node enforces the release that it should.`,
		Example: "  holdfast fleet --dir ./fleet\n  holdfast fleet --context bank --watch\n  holdfast fleet --dir ./fleet -o json | jq .in_force",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			admin, err := which.admin(c.Context())
			if err != nil {
				return err
			}
			defer admin.Close()
			if watch {
				return e.watchFleet(c.Context(), admin, asJSON)
			}
			return e.showFleet(c.Context(), admin, asJSON)
		},
	}
	which.add(c)
	c.Flags().BoolVar(&watch, "watch", false, "show it again every second, until interrupted")
	outputFlag(c, &asJSON)
	c.AddCommand(fleetNewCommand(e), fleetEnrollCommand(e), fleetRetireCommand(e), fleetWitnessCommand(e))
	return c
}

func (e *env) showFleet(ctx context.Context, admin *assembly.Admin, asJSON bool) error {
	v, s, err := admin.View(ctx)
	if err != nil {
		return &exitError{code: exitCheck, err: err}
	}
	e.warnForeign(s)
	if asJSON {
		err = e.printJSON(v)
	} else {
		err = e.printFleet(v, s)
	}
	if err != nil {
		return err
	}
	if v.InForce.Of == 0 || v.InForce.Nodes < v.InForce.Of {
		return &exitError{code: exitCheck}
	}
	return nil
}

func (e *env) watchFleet(ctx context.Context, admin *assembly.Admin, asJSON bool) error {
	for ctx.Err() == nil {
		err := e.showFleet(ctx, admin, asJSON)
		var coded *exitError
		if err != nil && (!errors.As(err, &coded) || coded.err != nil) {
			fmt.Fprintf(e.stderr, "holdfast: %v\n", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// warnForeign says that nodes or kills were left out: who begins with a trust root
// from after a rotation would else take a fleet for smaller, and for less stopped,
// than it is.
func (e *env) warnForeign(s *assembly.State) {
	if s.Foreign > 0 {
		fmt.Fprintf(e.stderr, "holdfast: LEFT OUT: %d enrolments, kills or lifts by keys that no trust root from yours on names; if a key was rotated, begin with the fleet's first trust root\n", s.Foreign)
	}
}

// printFleet writes the sentence first: it is what people come for.
func (e *env) printFleet(v registry.View, s *assembly.State) error {
	p := newPrinter(e.stdout)
	p.line("%s", v.InForce.Sentence())
	if len(v.InForce.Other) > 0 {
		p.line("  enforce something else: %s", strings.Join(v.InForce.Other, ", "))
	}
	if len(v.InForce.Away) > 0 {
		p.line("  away: %s", strings.Join(v.InForce.Away, ", "))
	}
	if len(s.Unreachable) > 0 {
		p.line("  regions that do not answer: %s", strings.Join(s.Unreachable, ", "))
	}
	if r := v.Rollout; r != nil {
		p.line("rollout of epoch %d: %s (%s)", r.Epoch, r.State, r.Reason)
		for _, g := range r.Rings {
			p.line("  ring %-16s %-8s %d of %d nodes, %d decisions, %d traps, %d differ", g.Name, g.Phase, g.Nodes, g.Of, g.Decisions, g.Traps, g.Differ)
		}
	}
	for _, k := range v.Kills {
		p.line("kill %s (%s) by %s: confirmed by %d of %d", k.Scope, k.Reason, strings.Join(k.By, ", "), k.Confirmed, k.Confirmed+len(k.NotConfirmed))
	}
	if len(v.InForce.Propagation) > 0 {
		p.line("propagation: %s", histogram(v.InForce.Propagation))
	}
	if len(v.Nodes) > 0 {
		p.line("%-20s %6s  %-14s %-9s %10s %8s  %s", "NODE", "EPOCH", "RELEASE", "STALENESS", "RECORDS", "COSIGNED", "")
	}
	for _, n := range v.Nodes {
		p.line("%-20s %6d  %-14s %-9s %10d %8d  %s", n.Name, n.Epoch, shortDigest(n.Digest), n.Staleness, n.Journal.Seq, n.Journal.Cosigned, remarks(n))
	}
	return p.err
}

// remarks are what is not as it should be with a node.
func remarks(n registry.Node) string {
	var r []string
	if n.Away {
		r = append(r, "away")
		if !n.StopsBy.IsZero() {
			r = append(r, "stops by "+n.StopsBy.Format(time.RFC3339))
		}
	}
	if n.Fallback {
		r = append(r, "stepped back to its fallback")
	}
	if n.Vectors.Failed > 0 {
		r = append(r, fmt.Sprintf("%d golden vectors failed", n.Vectors.Failed))
	}
	if n.Second.Disagreed > 0 {
		r = append(r, fmt.Sprintf("the second engine disagreed %d times", n.Second.Disagreed))
	}
	if n.Refused != "" {
		r = append(r, "refused: "+n.Refused)
	}
	if n.Distrusted != "" {
		r = append(r, n.Distrusted)
	}
	return strings.Join(r, "; ")
}

func histogram(bars []registry.Propagate) string {
	var out []string
	for _, b := range bars {
		if b.Nodes > 0 {
			out = append(out, fmt.Sprintf("%d within %s", b.Nodes, time.Duration(b.UpTo*1e6).Round(time.Millisecond)))
		}
	}
	return strings.Join(out, ", ")
}

func shortDigest(d string) string {
	d = strings.TrimPrefix(d, "sha256:")
	return d[:min(len(d), 12)]
}

func fleetNewCommand(e *env) *cobra.Command {
	f := assembly.NewFleet{Heartbeats: map[string]string{}}
	var servers []string
	var heartbeats map[string]string
	c := &cobra.Command{
		Use:   "new DIR",
		Short: "Write the folder of a new fleet: operator, certificates, and a folder for each hub server",
		Long: `New writes what a fleet needs beside people's keys: a NATS operator with the tenant's account, a certificate authority, an operator's
credentials, and under DIR/hubs a folder for each hub server, to be taken to its machine and given to
` + "`holdfastd hub --config hub.yaml`" + `. A region has one server, or three of which any two suffice; there are one or two
regions. DIR holds secrets: keep it where the trust root's keys are kept.`,
		Example: `  holdfast fleet new ./bank --tenant bank --trust-root trust-root.dsse \
    --heartbeat-key eu=heartbeat-eu.key --server eu=10.0.0.1 --server eu=10.0.0.2 --server eu=10.0.0.3`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f.Dir = args[0]
			maps.Copy(f.Heartbeats, heartbeats)
			count := map[string]int{}
			for _, s := range servers {
				region, _, _ := strings.Cut(s, "=")
				count[region]++
				p, err := assembly.ParseServer(s, count[region])
				if err != nil {
					return err
				}
				f.Servers = append(f.Servers, p)
			}
			if err := assembly.MakeFleet(f); err != nil {
				return err
			}
			fmt.Fprintf(e.stdout, "wrote the fleet of tenant %s into %s; on each server's machine:\n", f.Tenant, f.Dir)
			for _, s := range f.Servers {
				fmt.Fprintf(e.stdout, "  holdfastd hub --config %s/hub.yaml\n", assembly.Layout{Dir: f.Dir}.Hub(s.Name))
			}
			fmt.Fprintf(e.stdout, "then: holdfast fleet enroll NODE --dir %s --key enrol.key\n", f.Dir)
			return nil
		},
	}
	c.Flags().StringVar(&f.Tenant, "tenant", "", "the tenant's name")
	c.Flags().StringVar(&f.TrustRoot, "trust-root", "", "the signed trust root (holdfast trust init)")
	c.Flags().StringToStringVar(&heartbeats, "heartbeat-key", nil, "REGION=FILE, the private heartbeat key of each region")
	c.Flags().StringArrayVar(&servers, "server", nil, "REGION=HOST, or REGION=HOST:BASEPORT for four ports from there; once for each server")
	for _, required := range []string{"tenant", "trust-root", "heartbeat-key", "server"} {
		_ = c.MarkFlagRequired(required) // there is such a flag
	}
	return c
}

func fleetEnrollCommand(e *env) *cobra.Command {
	var enrol assembly.Enrol
	var dir, key string
	var offline bool
	c := &cobra.Command{
		Use:   "enroll NODE",
		Short: "Make a node one of the fleet",
		Long: `Enroll signs the enrolment of a node - its name, log key and labels - and issues its credentials, which allow exactly its own records,
attestations and live decisions out, and its tenant's policies, heartbeats and kills in. It writes DIR/nodes/NODE with the
configuration and all that the node needs, to be taken to its machine and given to ` + "`holdfastd edge --config edge.yaml`" + `,
and hands the enrolment to the hubs. Enrolling a name again replaces its labels, and its log key if --log-key or --new-log-key says so.`,
		Example: "  holdfast fleet enroll edge-7 --dir ./bank --key enrol.key --label site=lab",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			enrol.Node = args[0]
			if enrol.Key, err = bundle.ReadPrivateKey(key); err != nil {
				return err
			}
			l := assembly.Layout{Dir: dir}
			envelope, folder, err := assembly.EnrolNode(l, enrol)
			if err != nil {
				return err
			}
			fmt.Fprintf(e.stdout, "enrolled %s; on its machine: holdfastd edge --config %s/edge.yaml\n", enrol.Node, folder)
			return e.hand(c.Context(), l, offline, func(ctx context.Context, a *assembly.Admin) error { return a.Enrol(ctx, envelope) })
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "folder of the fleet (holdfast fleet new)")
	c.Flags().StringVar(&key, "key", "", "private key of role enrol")
	c.Flags().StringToStringVar(&enrol.Labels, "label", nil, "NAME=VALUE, chooses the node for rings and audiences")
	c.Flags().StringVar(&enrol.LogKey, "log-key", "", "verifier key of a log key that was made on the node's machine; none makes one here")
	c.Flags().BoolVar(&enrol.NewLogKey, "new-log-key", false, "replace the log key in the node's folder; the node signs with the new one from its next start on")
	c.Flags().Uint64Var(&enrol.OldKeyUntil, "old-key-until", 0, "the last boot for which the replaced log key counts, when it may be in wrong hands; 0 is no end")
	c.Flags().StringVar(&enrol.Home, "home", "", "region whose hubs the node prefers")
	c.Flags().StringVar(&enrol.Listen, "listen", "", "where the node answers over HTTP (default 127.0.0.1:8181)")
	c.Flags().Uint64Var(&enrol.MinEpoch, "min-epoch", 0, "lowest epoch that it may begin with")
	c.Flags().BoolVar(&offline, "offline", false, "do not hand the enrolment to the hubs")
	for _, required := range []string{"dir", "key"} {
		_ = c.MarkFlagRequired(required) // there is such a flag
	}
	return c
}

func fleetRetireCommand(e *env) *cobra.Command {
	var dir, key string
	var offline bool
	c := &cobra.Command{
		Use:     "retire NODE",
		Short:   "Take a node out of the fleet: out of every count, and off the bus",
		Long:    `Retire signs that a node is no longer of the fleet and revokes its credentials: hubs throw it out at once and let it in no more.`,
		Example: "  holdfast fleet retire edge-7 --dir ./bank --key enrol.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := bundle.ReadPrivateKey(key)
			if err != nil {
				return err
			}
			l := assembly.Layout{Dir: dir}
			envelope, account, err := assembly.RetireNode(l, args[0], k)
			if err != nil {
				return err
			}
			fmt.Fprintf(e.stdout, "retired %s\n", args[0])
			return e.hand(c.Context(), l, offline, func(ctx context.Context, a *assembly.Admin) error {
				err := a.Enrol(ctx, envelope)
				if account != "" {
					err = errors.Join(err, a.PutAccount(ctx, account))
				}
				return err
			})
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "folder of the fleet (holdfast fleet new)")
	c.Flags().StringVar(&key, "key", "", "private key of role enrol")
	c.Flags().BoolVar(&offline, "offline", false, "do not tell the hubs")
	for _, required := range []string{"dir", "key"} {
		_ = c.MarkFlagRequired(required) // there is such a flag
	}
	return c
}

// handWithin bounds how long hubs are waited for.
const handWithin = 10 * time.Second

// hand gives something that is signed and kept to the hubs.
func (e *env) hand(ctx context.Context, l assembly.Layout, offline bool, give func(context.Context, *assembly.Admin) error) error {
	if offline {
		fmt.Fprintln(e.stdout, "the hubs were not told")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, handWithin)
	defer cancel()
	cfg, err := assembly.AdminOf(l)
	if err != nil {
		return err
	}
	admin, err := assembly.OpenAdmin(ctx, cfg)
	if err == nil {
		defer admin.Close()
		err = give(ctx, admin)
	}
	if err != nil {
		return checkFailed("signed and kept, but no hub took it: %w\nrun the command again when a hub answers", err)
	}
	fmt.Fprintln(e.stdout, "the hubs have it")
	return nil
}
