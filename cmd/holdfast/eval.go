package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// clockNow is what a guest's clock shows during eval and bench.
func clockNow() int64 { return time.Now().UnixNano() }

// evalFlags are what eval is asked.
type evalFlags struct {
	point, input, entrypoint string
	raw, asJSON              bool
}

func evalCommand(e *env) *cobra.Command {
	var f evalFlags
	c := &cobra.Command{
		Use:   "eval FILE.hfp -i request.json",
		Short: "Decide once without a node",
		Long: `Eval asks a package's module once and prints the decision. FILE may be anything that build takes. With --raw the input
is the bare document, as for OPA, and the answer the bare value of the entry point; "undefined" when there is none (null
with -o json). Exit 1 when the policy does not answer.`,
		Example: "  holdfast eval tool-authz.hfp --point tool.pre_call -i request.json\n  echo '{\"user\": \"alice\"}' | holdfast eval rbac --raw --entrypoint rbac/allow -i -",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return e.eval(c, args[0], &f) },
	}
	c.Flags().StringVar(&f.point, "point", "", "decision point (default: the package's first)")
	c.Flags().StringVarP(&f.input, "input", "i", "", "the request, - for standard input")
	c.Flags().BoolVar(&f.raw, "raw", false, "bare input document in, bare value out (Rego)")
	c.Flags().StringVar(&f.entrypoint, "entrypoint", "", "entry point of a Rego package, such as rbac/allow")
	outputFlag(c, &f.asJSON)
	c.MarkFlagRequired("input")
	return c
}

func (e *env) eval(c *cobra.Command, path string, f *evalFlags) error {
	body, err := e.readInput(f.input, policy.MaxRequestBytes)
	if err != nil {
		return err
	}
	h, err := newHost(c.Context())
	if err != nil {
		return err
	}
	defer h.Close(c.Context())
	pkg, _, err := h.openPackage(c.Context(), path)
	if err != nil {
		return err
	}
	q, err := h.questionFor(c.Context(), pkg, f.point, f.entrypoint, f.raw)
	if err != nil {
		return err
	}
	if q.body = body; f.raw {
		if _, err := policy.ParseValue(body); err != nil {
			return fmt.Errorf("%s: %w", f.input, err)
		}
		q.body = wrapDocument(body)
	}
	answer, _, err := q.ask()
	var syntax *policy.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%s: %w", f.input, err)
	}
	if err != nil {
		return err
	}
	return e.printAnswer(answer, f)
}

func (e *env) printAnswer(answer []byte, f *evalFlags) error {
	switch {
	case answer == nil && f.asJSON:
		fmt.Fprintln(e.stderr, "holdfast: undefined")
		answer = []byte("null")
	case answer == nil:
		answer = []byte("undefined")
	case !f.raw && !f.asJSON:
		return e.printDecision(answer)
	}
	_, err := fmt.Fprintf(e.stdout, "%s\n", answer)
	return err
}

func (e *env) printDecision(answer []byte) error {
	var d decisionJSON
	if err := json.Unmarshal(answer, &d); err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, d.Verdict)
	for _, r := range d.Reasons {
		fmt.Fprintf(e.stdout, "  %s: %s\n", r.Code, r.Text)
	}
	for _, o := range d.Obligations {
		properties, err := json.Marshal(o.Properties)
		if err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "  must %s %s\n", o.Type, properties)
	}
	if d.Value != nil {
		value, err := json.Marshal(d.Value)
		if err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "  value %s\n", value)
	}
	return nil
}
