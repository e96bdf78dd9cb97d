package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/demo"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// tenant is the only tenant of a fleet on one machine.
const tenant = "demo"

// gentleRate is the demo's load without --once, in decisions a second.
const gentleRate = 10

// upFlags are the flags of `holdfast up`.
type upFlags struct {
	regions, edges int
	dir            string
	demo, once     bool
	policy         string
	json, verbose  bool
	untilEOF       bool // for the story: end when the process that started us does
}

func upCommand(e *env) *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "up",
		Short: "Run a whole fleet on this machine",
		Long: `Run a whole fleet in one process, on embedded NATS servers, and print where it answers.

With --demo it publishes two policies and sends them gentle load; with --once as
well it tells the whole story on real tool calls, proves at the end that no
record is missing, and exits 0 only if all of it held.`,
		Example: `  holdfast up --demo --once
  holdfast up --dir ./fleet --policy ./my-policy
  holdfast up --edges 1 --regions 0 --demo --once`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.once && !f.demo {
				return errors.New("--once goes with --demo")
			}
			if f.demo && f.policy != "" {
				return errors.New("--demo and --policy exclude one another")
			}
			return up(c.Context(), e, f)
		},
	}
	c.Flags().IntVar(&f.regions, "regions", 2, "number of regions, 0 to 2")
	c.Flags().IntVar(&f.edges, "edges", 3, "number of edges")
	c.Flags().StringVar(&f.dir, "dir", "", "keep the fleet in this folder (default: a fresh temporary one, removed at the end)")
	c.Flags().BoolVar(&f.demo, "demo", false, "publish the demo's policies and send load")
	c.Flags().BoolVar(&f.once, "once", false, "tell the demo's story once and exit")
	c.Flags().StringVar(&f.policy, "policy", "", "publish this policy folder at point custom")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log what happens inside")
	c.Flags().BoolVar(&f.untilEOF, "until-eof", false, "run until standard input ends")
	_ = c.Flags().MarkHidden("until-eof") // it is there
	outputFlag(c, &f.json)
	return c
}

func up(ctx context.Context, e *env, f upFlags) error {
	dir, cleanup, err := fleetDir(f.dir)
	if err != nil {
		return err
	}
	defer cleanup()
	level := slog.LevelError
	if f.verbose {
		level = slog.LevelInfo
	}
	cfg := assembly.FleetConfig{
		Dir: dir, Tenant: tenant, Regions: f.regions, Edges: f.edges, Worker: engine.Self(),
		Log: slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level})),
	}
	assembly.ReserveForDisk()
	if f.once {
		return once(ctx, e, f, cfg)
	}
	policies, err := policiesFor(ctx, f)
	if err != nil {
		return err
	}
	if f.untilEOF {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		go func() {
			_, _ = io.Copy(io.Discard, e.stdin) // whatever ends it ends us
			cancel()
		}()
	}
	fleet, err := assembly.StartFleet(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(serve(ctx, e, f, fleet, policies), fleet.Close())
}

// fleetDir returns the folder, and what removes it if it is a temporary one.
func fleetDir(dir string) (string, func(), error) {
	if dir != "" {
		return dir, func() {}, os.MkdirAll(dir, 0o700)
	}
	dir, err := os.MkdirTemp("", "holdfast-up-")
	return dir, func() { _ = os.RemoveAll(dir) }, err
}

// serve publishes what the flags ask for, says where the fleet answers, and
// runs until it is interrupted.
func serve(ctx context.Context, e *env, f upFlags, fleet *assembly.Fleet, policies *policySet) error {
	if policies != nil {
		published, err := fleet.Publish(ctx, policies.points, policies.files)
		if err != nil {
			return err
		}
		if _, err := waitInForce(ctx, fleet.URLs(), published.Epoch); err != nil {
			return err
		}
	}
	if err := announce(ctx, e, f, fleet); err != nil {
		return err
	}
	if f.demo {
		return gentleLoad(ctx, e, fleet)
	}
	<-ctx.Done()
	return nil
}

// ready is the line that `up -o json` prints as soon as everything answers.
type ready struct {
	Ready   bool                  `json:"ready"`
	Dir     string                `json:"dir"`
	Regions []assembly.RegionInfo `json:"regions"`
	Nodes   []assembly.NodeInfo   `json:"nodes"`
	Points  []string              `json:"points"`
}

func announce(ctx context.Context, e *env, f upFlags, fleet *assembly.Fleet) error {
	r := ready{Ready: true, Dir: fleet.Layout().Dir, Regions: fleet.RegionInfos(), Nodes: fleet.NodeInfos(), Points: []string{}}
	node, err := client.New(client.Config{Node: r.Nodes[0].HTTP})
	if err != nil {
		return err
	}
	defer node.Close()
	status, err := node.Status(ctx)
	if err != nil {
		return err
	}
	r.Points = append(r.Points, status.Points...)
	if f.json {
		return json.NewEncoder(e.stdout).Encode(r)
	}
	p := newPrinter(e.stdout)
	p.line("%s  in %s", p.bold("Holdfast is up"), r.Dir)
	for _, region := range r.Regions {
		p.line("  region %-8s nats %s  websocket %s", region.Name, region.NATS, region.Websocket)
	}
	for _, n := range r.Nodes {
		p.line("  node   %-8s http %s  %s", n.Name, n.HTTP, p.faint(n.Region))
	}
	switch {
	case len(r.Points) == 0:
		p.line("No release is in force: every answer is a denial. Publish one with --demo or --policy DIR.")
	default:
		p.line("Ask:  holdfast decide --node %s --point %s -i request.json", r.Nodes[0].HTTP, r.Points[0])
	}
	p.line("Stop with Ctrl-C.")
	return p.err
}

// gentleLoad sends the demo's calls until ctx ends, then says what came of it.
func gentleLoad(ctx context.Context, e *env, fleet *assembly.Fleet) error {
	calls, err := demo.Calls(demoSeed)
	if err != nil {
		return err
	}
	t := newTally()
	t.countOnly = true
	a, err := newAsker(fleet.URLs(), t)
	if err != nil {
		return err
	}
	defer a.close()
	stop := make(chan struct{})
	go func() { <-ctx.Done(); close(stop) }()
	a.during(context.WithoutCancel(ctx), calls, gentleRate, stop)
	decisions, failed := t.counts()
	p := newPrinter(e.stderr)
	p.line("%d decisions, %d denied, %d failed", decisions, t.verdicts[policy.Deny], failed)
	for _, text := range t.failures {
		p.line("  %s", text)
	}
	if failed > 0 {
		return checkFailed("%d decisions failed", failed)
	}
	return p.err
}

// policiesFor builds what the flags say is to be published; nil for nothing.
func policiesFor(ctx context.Context, f upFlags) (*policySet, error) {
	switch {
	case f.demo:
		return demoPolicies(ctx)
	case f.policy != "":
		if _, err := os.Stat(f.policy); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("--policy: there is no folder %s", f.policy)
		}
		return folderPolicy(ctx, f.policy)
	}
	return nil, nil
}
