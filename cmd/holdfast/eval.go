package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// clockNow is what a guest's clock shows during eval and bench.
func clockNow() int64 { return time.Now().UnixNano() }

// evalFlags are what eval is asked.
type evalFlags struct {
	point, input, entrypoint string
	raw, asJSON              bool
	source                   sourceFlags
}

func evalCommand(e *env) *cobra.Command {
	var f evalFlags
	c := &cobra.Command{
		Use:   "eval FILE.hfp [data.PATH] -i request.json",
		Short: "Decide once without a node",
		Long: `Eval asks a package's module once and prints the decision. FILE may be anything that build takes. With --raw the input
is the bare document, as for OPA, and the answer the bare value of the entry point; "undefined" when there is none (null
with -o json). A second argument such as data.rbac.allow is the same for any document at or below an entry point; the
input may then be left out. Exit 1 when the policy does not answer.`,
		Example: "  holdfast eval tool-authz.hfp --point tool.pre_call -i request.json\n  echo '{\"user\": \"alice\"}' | holdfast eval rbac --raw --entrypoint rbac/allow -i -\n  holdfast eval rbac data.rbac.allow -i input.json",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.query(args[1:]); err != nil {
				return err
			}
			return e.eval(c, args[0], &f)
		},
	}
	c.Flags().StringVar(&f.point, "point", "", "decision point (default: the package's first)")
	c.Flags().StringVarP(&f.input, "input", "i", "", "the request, - for standard input")
	c.Flags().BoolVar(&f.raw, "raw", false, "bare input document in, bare value out (Rego)")
	c.Flags().StringVar(&f.entrypoint, "entrypoint", "", "entry point of a Rego package, such as rbac/allow")
	f.source.add(c)
	outputFlag(c, &f.asJSON)
	return c
}

// query takes the reference to a document, if there is one, into the flags.
func (f *evalFlags) query(args []string) (err error) {
	switch {
	case len(args) == 0 && f.input == "":
		return errors.New(`required flag "input" not set`)
	case len(args) == 0:
		return nil
	case f.entrypoint != "":
		return errors.New("either --entrypoint or a reference such as data.rbac.allow")
	}
	f.raw = true
	f.entrypoint, err = rego.DataPath(args[0])
	return err
}

func (e *env) eval(c *cobra.Command, path string, f *evalFlags) error {
	body, err := e.request(f)
	if err != nil {
		return err
	}
	h, err := newHost(c.Context())
	if err != nil {
		return err
	}
	defer h.Close(c.Context())
	pkg, _, err := h.openPackage(c.Context(), path, &f.source)
	if err != nil {
		return err
	}
	q, err := h.questionFor(c.Context(), pkg, f.point, f.entrypoint, f.raw)
	if err != nil {
		return err
	}
	q.body = body
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

// request reads what is asked: a request, or the bare document of one.
func (e *env) request(f *evalFlags) ([]byte, error) {
	if f.input == "" {
		return []byte(`{"bare":true}`), nil
	}
	body, err := e.readInput(f.input, policy.MaxRequestBytes)
	if err != nil || !f.raw {
		return body, err
	}
	if _, err := policy.ParseValue(body); err != nil {
		return nil, fmt.Errorf("%s: %w", f.input, err)
	}
	return wrapDocument(body), nil
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
