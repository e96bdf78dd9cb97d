package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func testCommand(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "test [DIR|FILE.hfp]",
		Short:   "Run a policy's golden vectors",
		Long:    "Test builds the folder in memory, or opens the package, and runs its golden vectors. Exit 1 when one fails or there is none.",
		Example: "  holdfast test modules/tool-authz\n  holdfast test tool-authz.hfp -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.test(c, argument(args), asJSON)
		},
	}
	outputFlag(c, &asJSON)
	return c
}

func (e *env) test(c *cobra.Command, path string, asJSON bool) error {
	h, err := newHost(c.Context())
	if err != nil {
		return err
	}
	defer h.Close(c.Context())
	pkg, digest, err := h.openPackage(c.Context(), path, nil)
	if err != nil {
		return err
	}
	results, err := compiler.RunVectors(c.Context(), pkg, h)
	if err != nil {
		return authorError(err)
	}
	failed := 0
	for _, r := range results {
		if !r.Passed() {
			failed++
		}
	}
	if asJSON {
		err = e.printJSON(testReport(digest, results, failed))
	} else {
		e.printResults(results)
	}
	switch {
	case err != nil:
		return err
	case len(results) == 0:
		return checkFailed("%s has no golden vectors; write vectors.yaml beside the source", pkg.Name)
	case failed > 0:
		return checkFailed("%d of %d vectors failed", failed, len(results))
	}
	return nil
}

func testReport(digest wire.Digest, results []vectors.VectorResult, failed int) map[string]any {
	list := make([]map[string]any, 0, len(results))
	for _, r := range results {
		list = append(list, map[string]any{"name": r.Name, "passed": r.Passed(), "diff": r.Diff, "fuel": r.Fuel})
	}
	return map[string]any{"digest": digest, "passed": len(results) - failed, "failed": failed, "vectors": list}
}

func (e *env) printResults(results []vectors.VectorResult) {
	for _, r := range results {
		if r.Passed() {
			fmt.Fprintf(e.stdout, "ok    %-60s %8d fuel\n", r.Name, r.Fuel)
		} else {
			fmt.Fprintf(e.stdout, "FAIL  %s\n%s\n", r.Name, r.Diff)
		}
	}
}
