package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func decideCommand(e *env) *cobra.Command {
	var node, point, input string
	var timeout time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use:     "decide --node URL --point P -i request.json",
		Short:   "Ask a node for one decision",
		Long:    "Ask a node for one decision. Exit code 0 when the node decided, whatever the verdict.",
		Example: `  echo '{"document": {"user": "ada"}}' | holdfast decide --node http://127.0.0.1:8181 --point custom -i -`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if node == "" || point == "" || input == "" {
				return errors.New("give --node, --point and -i (a file, or - for standard input)")
			}
			body, err := readInput(e, input)
			if err != nil {
				return err
			}
			cl, err := client.New(client.Config{Node: node, Timeout: timeout})
			if err != nil {
				return err
			}
			defer cl.Close()
			answer, err := cl.Decide(c.Context(), point, body)
			var status *client.StatusError
			switch {
			case errors.As(err, &status):
				return err
			case err != nil:
				return &exitError{code: exitCheck, err: err}
			case asJSON:
				return json.NewEncoder(e.stdout).Encode(answer)
			}
			return printAnswer(e, answer)
		},
	}
	c.Flags().StringVar(&node, "node", "", "base URL of the node")
	c.Flags().StringVar(&point, "point", "", "decision point")
	c.Flags().StringVarP(&input, "input", "i", "", "file with the request as JSON, - for standard input")
	c.Flags().DurationVar(&timeout, "timeout", client.DefaultTimeout, "how long to wait for the answer")
	outputFlag(c, &asJSON)
	return c
}

// readInput reads a file, or standard input for "-".
func readInput(e *env, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(e.stdin)
	}
	return os.ReadFile(name)
}

func printAnswer(e *env, a policy.Answer) error {
	p := newPrinter(e.stdout)
	word := p.red(a.Verdict.String())
	if a.Verdict.Permits() {
		word = p.green(a.Verdict.String())
	}
	p.line("%s", p.bold(word))
	for _, r := range a.Reasons {
		p.line("  %s: %s", r.Code, r.Text)
	}
	for _, o := range a.Obligations {
		p.line("  obligation %s %v", o.Type, o.Properties)
	}
	if a.Value != nil {
		value, err := json.Marshal(a.Value)
		if err != nil {
			return err
		}
		p.line("  value %s", value)
	}
	record := fmt.Sprintf("record %s/%s/%d, leaf %s, %s", a.Node, a.Boot, a.Seq, a.Leaf, a.Durability)
	if !a.Recorded {
		record = p.red("not recorded")
	}
	p.line("%s", p.faint(fmt.Sprintf("epoch %d, %s", a.Epoch, record)))
	return p.err
}
