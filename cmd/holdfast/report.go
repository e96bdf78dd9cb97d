package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func resultCommand(e *env) *cobra.Command {
	var node, input string
	var timeout time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use:   "result --node URL -i result.json",
		Short: "Report to a node what became of a decision",
		Long: `Result reports what became of a decision: what a model used, how it finished, what became of obligations. The report names the decision by
boot and seq, as the answer had them, and becomes a record of its own, whose name is printed. Texts of an error are cut to 256 bytes, and not
recorded of a decision point that masks requests. Exit code 0 when it was recorded, 1 when the node does not know the decision or cannot record.`,
		Example: `  echo '{"boot": "00000001-0123456789abcdef", "seq": 7, "finish_reason": "stop", "usage": {"input_tokens": 1200, "output_tokens": 80}}' |
    holdfast result --node http://127.0.0.1:8181 -i -`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if node == "" || input == "" {
				return errors.New("give --node and -i (a file, or - for standard input)")
			}
			body, err := readInput(e, input)
			if err != nil {
				return err
			}
			r, err := policy.ParseResult(body)
			if err != nil {
				return err
			}
			cl, err := client.New(client.Config{Node: node, Timeout: timeout})
			if err != nil {
				return err
			}
			defer cl.Close()
			reported, err := cl.Report(c.Context(), r)
			switch {
			case err != nil:
				return &exitError{code: exitCheck, err: err}
			case asJSON:
				return json.NewEncoder(e.stdout).Encode(reported)
			}
			fmt.Fprintf(e.stdout, "record %s/%s/%d, leaf %s, %s\n", reported.Node, reported.Boot, reported.Seq, reported.Leaf, reported.Durability)
			return nil
		},
	}
	c.Flags().StringVar(&node, "node", "", "base URL of the node")
	c.Flags().StringVarP(&input, "input", "i", "", "file with the result as JSON, - for standard input")
	c.Flags().DurationVar(&timeout, "timeout", client.DefaultTimeout, "how long to wait for the answer")
	outputFlag(c, &asJSON)
	return c
}
