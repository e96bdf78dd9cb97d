package compiler

import (
	"context"
	"io/fs"

	"github.com/holdfast-policy/holdfast/compiler/rego"
)

// TestRego runs the Rego tests of a policy's folder in OPA's own runner, with the
// parameters of holdfast.yaml as data.params. A policy in another language has
// none. Errors are those of Build.
func TestRego(ctx context.Context, fsys fs.FS, opts Options, run string, coverage bool) (*rego.Tests, error) {
	cfg, err := readConfig(fsys)
	if err == nil && cfg.language == "" {
		cfg.language, err = detect(fsys)
	}
	if err != nil || cfg.language != Rego {
		return &rego.Tests{}, err
	}
	return rego.Test(ctx, fsys, rego.TestOptions{Options: cfg.rego(opts), Run: run, Coverage: coverage, Params: cfg.params})
}
