package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/compiler/rego"
)

// maxKeyFile bounds a key in PEM.
const maxKeyFile = 64 << 10

// sourceFlags say how a policy's source is read, with the names of OPA's flags.
type sourceFlags struct {
	key, keyID, algorithm, scope string
	noIndex                      bool
}

func (f *sourceFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.key, "verification-key", "", "what must have signed the OPA bundle: a file with a public key (PEM), or the secret of an HMAC")
	c.Flags().StringVar(&f.keyID, "verification-key-id", "default", "name of that key")
	c.Flags().StringVar(&f.algorithm, "signing-alg", "RS256", "algorithm of the signature")
	c.Flags().StringVar(&f.scope, "scope", "", "scope of the signature")
	c.Flags().BoolVar(&f.noIndex, "no-index", false, "compile Rego as OPA does, without a rule index: every definition of a document is tried")
}

// options are those of a build. Without --verification-key no signature is
// checked.
func (f *sourceFlags) options(h *host) (compiler.Options, error) {
	opts := compiler.Options{Loader: h}
	if f == nil {
		return opts, nil
	}
	opts.NoIndex = f.noIndex
	if f.key == "" {
		return opts, nil
	}
	key := f.key
	if !strings.HasPrefix(cmp.Or(f.algorithm, "RS256"), "HS") {
		raw, err := readBounded(key, maxKeyFile)
		if err != nil {
			return opts, fmt.Errorf("--verification-key: %w", err)
		}
		key = string(raw)
	}
	opts.Verification = &rego.Verification{Key: key, KeyID: f.keyID, Algorithm: f.algorithm, Scope: f.scope}
	return opts, nil
}
