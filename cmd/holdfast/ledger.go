package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

func ledgerCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use: "ledger", Short: "Export and verify the records of decisions",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return errors.Join(errors.New("say which: export or verify"), c.Usage())
		},
	}
	c.AddCommand(exportCommand(e), verifyCommand(e))
	return c
}

func exportCommand(e *env) *cobra.Command {
	var dir, config, region, node, hub, tenant string
	var asJSON bool
	c := &cobra.Command{
		Use:   "export DIR",
		Short: "Copy records, checkpoints and counter-signatures into DIR for `ledger verify`",
		Long: `Copy records, checkpoints and counter-signatures into DIR, which must not exist or be empty.

By default the first region's ledger is exported; a fleet without regions has
only the nodes' own journals. It reads the fleet's folder, whether the fleet
runs or not, and changes nothing there. What runs is exported up to its last
signed checkpoint, which under load is at most a second old.`,
		Example: "  holdfast ledger export --dir ./fleet ./evidence\n  holdfast ledger export --dir ./fleet --node edge-1 ./evidence\n  holdfast ledger export --config edge.yaml ./evidence\n  holdfast ledger export --hub hub.yaml ./evidence",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(given(dir, config, hub)) != 1 {
				return errors.New("which fleet? give --dir, the folder of a `holdfast up`, --config, the file of a `holdfastd edge`, or --hub, that of a `holdfastd hub`")
			}
			if region != "" && node != "" || dir == "" && region+node != "" {
				return errors.New("--region and --node exclude one another, and go with --dir")
			}
			if tenant != "" && hub == "" {
				return errors.New("--tenant goes with --hub")
			}
			var err error
			switch {
			case config != "":
				err = assembly.ExportNode(config, args[0])
			case hub != "":
				err = assembly.ExportHub(hub, tenant, args[0])
			default:
				err = assembly.Export(assembly.Layout{Dir: dir}, args[0], region, node)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(e.stdout).Encode(map[string]string{"exported": args[0]})
			}
			keys := "FILE"
			if dir != "" {
				keys = assembly.Layout{Dir: dir}.PublicKeys()
			}
			fmt.Fprintf(e.stdout, "exported to %s\nverify it with: holdfast ledger verify %s --keys %s\n", args[0], args[0], keys)
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "folder of the fleet")
	c.Flags().StringVar(&config, "config", "", "configuration file of a holdfastd edge")
	c.Flags().StringVar(&hub, "hub", "", "configuration file of a holdfastd hub, on its machine")
	c.Flags().StringVar(&tenant, "tenant", "", "with --hub: whose ledger, when it has several tenants")
	c.Flags().StringVar(&region, "region", "", "export this region's ledger")
	c.Flags().StringVar(&node, "node", "", "export this node's own journal")
	outputFlag(c, &asJSON)
	return c
}

// given are those that are not empty.
func given(names ...string) []string {
	return slices.DeleteFunc(names, func(s string) bool { return s == "" })
}

func verifyCommand(e *env) *cobra.Command {
	var keysFile string
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
region, or with an answer's (node, boot, seq, leaf).`,
		Example: "  holdfast ledger verify ./evidence --keys ./fleet/public.keys",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if keysFile == "" {
				return errors.New("whose keys? give --keys, such as the public.keys of a fleet's folder")
			}
			file, err := os.ReadFile(keysFile)
			if err != nil {
				return err
			}
			keys, err := audit.ParseKeys(file)
			if err != nil {
				return fmt.Errorf("%s: %w", keysFile, err)
			}
			if info, err := os.Stat(args[0]); err != nil || !info.IsDir() {
				return fmt.Errorf("%s is not the folder of an export", args[0])
			}
			report, err := audit.Verify(os.DirFS(args[0]), keys)
			if err != nil {
				return fmt.Errorf("verify %s: %w", args[0], err)
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
	c.Flags().StringVar(&keysFile, "keys", "", "file with the public keys of nodes and regions")
	outputFlag(c, &asJSON)
	return c
}

func printReport(e *env, r *audit.Report) error {
	p := newPrinter(e.stdout)
	for _, n := range r.Nodes {
		for _, b := range n.Boots {
			state := p.green("complete")
			var faults []string
			for what, ranges := range map[string][]audit.Range{"gap": b.Gaps, "fork": b.Forks, "altered": b.Altered, "doubled": b.Doubled} {
				for _, at := range ranges {
					faults = append(faults, fmt.Sprintf("%s %v", what, at))
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
		}
	}
	for _, node := range r.Absent {
		p.line("%s  nothing of it is in this export, although its key is known", node)
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
