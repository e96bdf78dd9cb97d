package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

func verifyCommand(e *env) *cobra.Command {
	var keysFile string
	var roots []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify DIR --keys FILE",
		Short: "Prove offline that an export is complete and unaltered",
		Long: `Prove offline, with public keys only, that an export is complete and unaltered.

It checks every file of the export: each record's place in its Merkle tree, the
node's signature, the regions' counter-signatures and the link from each boot to
the one before. Exit code 0 only when everything is complete and unaltered.

"Complete" is up to the newest signed checkpoint in the export; its time is
printed. If the end of a node's last boot was taken away together with every
checkpoint over it, no file in the export can tell: compare with the other
region, or with an answer's (node, boot, seq, leaf).

Parts that are not there are damage, unless they were erased: by a document in the
export whose signer a --root names. Deleted because they were old are those that a
statement signed by the region says.`,
		Example: "  holdfast ledger verify ./evidence --keys ./fleet/public.keys --root ./fleet/trust-root.dsse",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			keys, err := publicKeys(keysFile, "")
			if err != nil {
				return err
			}
			if err := errors.Join(exportFolder(args[0]), believe(keys, roots, "")); err != nil {
				return err
			}
			report, err := verifyFolder(c.Context(), e, args[0], keys, audit.Options{})
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(e.stdout).Encode(report)
			} else {
				err = printReport(e, report)
			}
			if err == nil && report.Verdict != audit.VerdictComplete {
				return &exitError{code: exitCheck}
			}
			return err
		},
	}
	c.Flags().StringArrayVar(&roots, "root", nil, "trust root that vouches for erasures; several when it has changed since")
	c.Flags().StringVar(&keysFile, "keys", "", "file with the public keys of nodes and regions")
	outputFlag(c, &asJSON)
	return c
}

// verifyFolder verifies an export and shows how far it is.
func verifyFolder(ctx context.Context, e *env, dir string, keys *audit.Keys, options audit.Options) (*audit.Report, error) {
	p := newSoFar(e.stderr)
	defer p.end()
	options.Progress = func(records uint64, bytes, of int64) {
		p.say("%d records checked, %d %% of the files", records, 100*bytes/max(of, 1))
	}
	report, err := audit.VerifyWith(ctx, os.DirFS(dir), keys, options)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", dir, err)
	}
	return report, nil
}

func printReport(e *env, r *audit.Report) error {
	p := newPrinter(e.stdout)
	for _, n := range r.Nodes {
		for _, b := range n.Boots {
			state := p.green("complete")
			var faults []string
			for _, f := range []struct {
				what   string
				ranges []audit.Range
			}{{"gap", b.Gaps}, {"fork", b.Forks}, {"altered", b.Altered}, {"doubled", b.Doubled}, {"parts missing", b.Missing}, {"parts erased", b.Erased},
				{"named by an erasure, but not erased", b.NotErased}, {"parts expired", b.PartsExpired}, {"expired", b.Expired}} {
				for _, at := range f.ranges {
					faults = append(faults, fmt.Sprintf("%s %v", f.what, at))
				}
			}
			if !b.Complete {
				state = p.red("not complete")
			}
			line := fmt.Sprintf("%s  boot %s  records %d to %d  %s  as of %s  %s", n.Name, b.Boot, b.From, b.To, state, b.AsOf, strings.Join(faults, " "))
			p.line("%s", strings.TrimRight(line, " "))
			for _, region := range slices.Sorted(maps.Keys(b.Cosigned)) {
				p.line("%s", p.faint(fmt.Sprintf("    counter-signed by region %s up to %d", region, b.Cosigned[region])))
			}
			for _, witness := range slices.Sorted(maps.Keys(b.Witnessed)) {
				p.line("%s", p.faint(fmt.Sprintf("    counter-signed by witness %s up to %d", witness, b.Witnessed[witness])))
			}
		}
	}
	for _, node := range r.Absent {
		p.line("%s  nothing of it is in this export, although its key is known", node)
	}
	for _, x := range r.Explained {
		if x.Kind == "erasure" { // the others are no reason why something is not there
			p.line("%s", p.faint(fmt.Sprintf("erased by order %s, in %s", x.By, x.Name)))
		}
	}
	for _, problem := range r.Problems {
		p.line("%s %s: %s", p.red("!"), problem.Where, problem.Reason)
	}
	p.line("%d files checked, %d damaged", r.Files.Checked, r.Files.Damaged)
	word := p.green(r.Verdict)
	if r.Verdict != audit.VerdictComplete {
		word = p.red(r.Verdict)
	}
	p.line("verdict: %s", word)
	return p.err
}
