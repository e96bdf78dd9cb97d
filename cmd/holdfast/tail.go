package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func tailCommand(e *env) *cobra.Command {
	var which fleetFlags
	var filter assembly.LiveFilter
	var verdict string
	var asJSON bool
	c := &cobra.Command{
		Use:   "tail",
		Short: "Watch decisions as they are made",
		Long: `Watch decisions as they are made, over core NATS, until interrupted.

It is a window, not evidence: what nobody watches is not sent, and a slow
watcher loses lines. The records are in the ledger.`,
		Example: "  holdfast tail --dir ./fleet --verdict deny",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := which.config()
			if err != nil {
				return err
			}
			if verdict != "" {
				if _, err := policy.ParseVerdict(verdict); err != nil {
					return err
				}
			}
			filter.Verdict = verdict
			show := printLive
			if asJSON {
				show = func(e *env, d assembly.LiveDecision) error { return json.NewEncoder(e.stdout).Encode(d) }
			}
			err = assembly.Tail(c.Context(), cfg, filter, func(d assembly.LiveDecision) error { return show(e, d) })
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	which.add(c)
	c.Flags().StringVar(&filter.Point, "point", "", "only this decision point")
	c.Flags().StringVar(&verdict, "verdict", "", "only this verdict")
	c.Flags().StringVar(&filter.Node, "node", "", "only this node")
	outputFlag(c, &asJSON)
	return c
}

func printLive(e *env, d assembly.LiveDecision) error {
	p := newPrinter(e.stdout)
	word := p.red(fmt.Sprintf("%-16s", d.Verdict))
	if d.Verdict.Permits() {
		word = p.green(fmt.Sprintf("%-16s", d.Verdict))
	}
	reasons := ""
	for _, r := range d.Reasons {
		reasons += " " + r.Code
	}
	p.line("%s %s %-14s %s %s %s%s", d.Time, word, d.Point, d.Subject, d.Resource, p.faint(fmt.Sprintf("%s/%s/%d", d.Node, d.Boot, d.Seq)), reasons)
	return p.err
}
