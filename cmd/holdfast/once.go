package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/demo"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// What the story does, and how long it may take.
const (
	demoSeed       = 1
	clientsPerNode = 4
	cutSeconds     = 5
	cutRate        = 200.0 // decisions a second over all nodes, while a region is cut off
	inForceTimeout = 60 * time.Second
	agreeTimeout   = 60 * time.Second
	fsyncProbes    = 200
)

// A story is one run of `up --demo --once`: what is told as it goes, and the
// result that it builds.
type story struct {
	env      *env
	flags    upFlags
	cfg      assembly.FleetConfig
	out      *printer // progress; to stderr when the result goes to stdout as JSON
	policies *policySet
	calls    []demo.Call
	tally    *tally
	result   result
	// planted is called before the proof; tests damage the stopped fleet's folder
	// there and expect the story to fail.
	planted func(assembly.Layout) error
}

// once tells the story and fails unless all of it held.
func once(ctx context.Context, e *env, f upFlags, cfg assembly.FleetConfig) error {
	s := &story{env: e, flags: f, cfg: cfg, out: newPrinter(e.stdout), tally: newTally()}
	if f.json {
		s.out = newPrinter(e.stderr)
	}
	return s.tell(ctx)
}

func (s *story) tell(ctx context.Context) error {
	began := time.Now()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	chapters := s.fleetOfRegions
	if s.cfg.Regions == 0 {
		chapters = s.nodeAlone
	}
	if err := chapters(ctx); ctx.Err() != nil {
		return checkFailed("interrupted")
	} else if err != nil {
		return &exitError{code: exitCheck, err: err}
	}
	s.sum()
	if s.flags.json {
		if err := json.NewEncoder(s.env.stdout).Encode(s.result); err != nil {
			return err
		}
	} else {
		s.printSummary(time.Since(began))
	}
	if faults := s.result.faults(); len(faults) > 0 {
		return checkFailed("the story did not hold: %s", faults)
	}
	return s.out.err
}

// prepare builds the policies and reads the calls.
func (s *story) prepare(ctx context.Context) (err error) {
	s.chapter("From source to package")
	if s.policies, err = demoPolicies(ctx); err != nil {
		return err
	}
	for _, b := range s.policies.built {
		s.say("%-15s %-5s module %d KiB, %d golden vectors passed, package %s",
			b.Package.Name, b.Package.Language, len(b.Package.Module)>>10, len(b.Vectors), b.Digest.Short())
	}
	if s.calls, err = demo.Calls(demoSeed); err != nil {
		return err
	}
	tampered := 0
	for _, c := range s.calls {
		if c.Tampering != "" {
			tampered++
		}
	}
	s.say("%d real tool calls of AI agents (Berkeley Function-Calling Leaderboard), and %d tampered copies", len(s.calls)-tampered, tampered)
	return nil
}

// fleetOfRegions is the story of edges in regions: publish, decide, change,
// cut, heal, prove.
func (s *story) fleetOfRegions(ctx context.Context) error {
	s.chapter("%d regions and %d edges, linked by nothing but TCP", s.cfg.Regions, s.cfg.Edges)
	fleet, err := assembly.StartFleet(ctx, s.cfg)
	if err != nil {
		return err
	}
	err = s.onFleet(ctx, fleet)
	// The ledgers agree by now; they can be read from the stopped fleet's folder.
	if err = errors.Join(err, fleet.Close()); err != nil {
		return err
	}
	return s.prove(ctx, fleet.RegionNames())
}

func (s *story) onFleet(ctx context.Context, fleet *assembly.Fleet) error {
	asker, err := newAsker(fleet.URLs(), s.tally)
	if err != nil {
		return err
	}
	defer asker.close()
	publish := func(p *policySet) (assembly.Published, error) { return fleet.Publish(ctx, p.points, p.files) }
	if err := s.enforce(ctx, fleet.URLs(), publish, s.policies, "signed by an author and an approver"); err != nil {
		return err
	}
	if err := s.decideAll(ctx, asker); err != nil {
		return err
	}
	if err := s.change(ctx, asker, fleet.URLs(), publish); err != nil {
		return err
	}
	if err := s.cut(ctx, asker, fleet); err != nil {
		return err
	}
	return s.agree(ctx, fleet)
}

// enforce publishes and waits until every node says that it enforces.
func (s *story) enforce(ctx context.Context, urls []string, publish func(*policySet) (assembly.Published, error), p *policySet, how string) error {
	published, err := publish(p)
	if err != nil {
		return err
	}
	since, err := waitInForce(ctx, urls, published.Epoch)
	if err != nil {
		return err
	}
	took := make([]time.Duration, len(since))
	for i, at := range since {
		took[i] = max(at.Sub(published.At), 0)
	}
	s.result.Release = releaseResult{Epoch: published.Epoch, Digest: published.Digest.String()}
	s.result.Enforced = enforcedResult{Nodes: len(since), Of: len(urls)}
	s.result.Enforced.Propagation.P50 = millis(quantile(took, 0.5))
	s.result.Enforced.Propagation.Max = millis(quantile(took, 1))
	s.say("release %s, epoch %d, %s: in force on %d of %d nodes; p50 %.1f ms, max %.1f ms from publishing",
		published.Digest.Short(), published.Epoch, how, len(since), len(urls),
		s.result.Enforced.Propagation.P50, s.result.Enforced.Propagation.Max)
	return nil
}

func (s *story) decideAll(ctx context.Context, a *asker) error {
	s.chapter("Real tool calls, each with its record on disk before its answer")
	step := max(len(s.calls)/10, 1)
	before := s.tally.sums()
	a.all(ctx, s.calls, clientsPerNode, func(n int) {
		if n%step == 0 {
			s.progress("%d of %d", n, len(s.calls))
		}
	})
	sums := s.tally.sums()
	s.say("%d decisions by %d concurrent clients over HTTP: %d allowed, %d denied, %d failed", sums.decisions-before.decisions,
		clientsPerNode*len(a.nodes), sums.allowed-before.allowed, sums.denied-before.denied, sums.failed-before.failed)
	return ctx.Err()
}

// change publishes a release that denies one tool, and asks every node for it.
func (s *story) change(ctx context.Context, a *asker, urls []string, publish func(*policySet) (assembly.Published, error)) error {
	s.chapter("A changed release")
	i := slices.IndexFunc(s.calls, func(c demo.Call) bool { return c.Tampering == "" && c.Want == policy.Allow })
	if i < 0 {
		return errors.New("no honest call to change the rules for")
	}
	probe := s.calls[i]
	req, err := policy.ParseRequest(probe.Point, probe.Body)
	if err != nil {
		return err
	}
	role, _ := req.Subject.Properties["role"].(string)
	changed, err := s.policies.denying(role, req.Resource.ID)
	if err != nil {
		return err
	}
	if err := s.enforce(ctx, urls, publish, changed, fmt.Sprintf("denies %s to role %s", req.Resource.ID, role)); err != nil {
		return err
	}
	probe.Want, probe.Code = policy.Deny, "tool_denied"
	for node := range a.nodes {
		a.ask(ctx, node, probe)
	}
	s.calls = slices.DeleteFunc(s.calls, func(c demo.Call) bool {
		r, err := policy.ParseRequest(c.Point, c.Body)
		return err != nil || r.Resource.ID == req.Resource.ID
	})
	s.say("the call that was allowed before is now denied on every node")
	return nil
}

// cut takes one region's hub away for some seconds, under load.
func (s *story) cut(ctx context.Context, a *asker, fleet *assembly.Fleet) error {
	names := fleet.RegionNames()
	region := names[len(names)-1]
	s.chapter("Region %s is cut away for %d seconds", region, cutSeconds)
	before, failedBefore := s.tally.counts()
	if err := fleet.Cut(region); err != nil {
		return err
	}
	stop := make(chan struct{})
	time.AfterFunc(cutSeconds*time.Second, func() { close(stop) })
	a.during(ctx, s.calls, cutRate, stop)
	if err := fleet.Heal(region); err != nil {
		return err
	}
	after, failedAfter := s.tally.counts()
	s.result.Cut = cutResult{Region: region, Seconds: cutSeconds, Decisions: after - before, Failed: failedAfter - failedBefore}
	s.say("%d decisions while it was away, %d failed", s.result.Cut.Decisions, s.result.Cut.Failed)
	return ctx.Err()
}

// agree waits until every region has counter-signed what every node has.
func (s *story) agree(ctx context.Context, fleet *assembly.Fleet) error {
	ctx, cancel := context.WithTimeout(ctx, agreeTimeout)
	defer cancel()
	began := time.Now()
	if err := fleet.WaitCosigned(ctx); err != nil {
		return fmt.Errorf("ledgers do not agree: %w", err)
	}
	s.say("healed: %.1f s later the ledgers of all regions hold and counter-signed every record", time.Since(began).Seconds())
	return nil
}

// waitInForce is client.WaitInForce within a bounded time.
func waitInForce(ctx context.Context, urls []string, epoch uint64) ([]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, inForceTimeout)
	defer cancel()
	return client.WaitInForce(ctx, urls, epoch)
}

func (s *story) chapter(format string, args ...any) {
	s.out.line("\n%s", s.out.bold(fmt.Sprintf(format, args...)))
}

func (s *story) say(format string, args ...any) { s.out.line("  "+format, args...) }

// progress overwrites one line of a terminal; elsewhere it says nothing.
func (s *story) progress(format string, args ...any) {
	if isTerminal(s.env.stderr) {
		fmt.Fprintf(s.env.stderr, "\r  "+format+"\x1b[K\r", args...)
	}
}
