package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
)

func fleetWitnessCommand(e *env) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "witness NAME",
		Short: "Make the folder of an independent witness",
		Long: `Witness writes DIR/witnesses/NAME with the configuration and credentials of a witness, to be taken to a machine in no region and
given to ` + "`holdfastd witness --config witness.yaml`" + `. It counter-signs what the regions counter-sign, once it has computed
that this continues what it signed before; it sees hashes, never records. Its key is made there; the line that it prints goes into
the public.keys of auditors. Run again after nodes are enrolled, to tell it their keys.`,
		Example: "  holdfast fleet witness notary --dir ./bank",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			folder, err := assembly.MakeWitness(assembly.Layout{Dir: dir}, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(e.stdout, "made %s; on its machine: holdfastd witness --config %s/witness.yaml\n", folder, folder)
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "folder of the fleet (holdfast fleet new)")
	_ = c.MarkFlagRequired("dir") // there is such a flag
	return c
}
