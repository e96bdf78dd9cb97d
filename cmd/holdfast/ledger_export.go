package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
)

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
