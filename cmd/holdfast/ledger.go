package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

func ledgerCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use: "ledger", Short: "Export, verify, replay, search and erase the records of decisions",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return errors.Join(errors.New("say which: export, verify, prove, query, replay, erase, hold, release-hold or holds"), c.Usage())
		},
	}
	c.AddCommand(exportCommand(e), verifyCommand(e), replayCommand(e), proveCommand(e), queryCommand(e),
		eraseCommand(e), holdCommand(e), releaseHoldCommand(e), holdsCommand(e))
	return c
}

// given are those that are not empty.
func given(names ...string) []string {
	return slices.DeleteFunc(names, func(s string) bool { return s == "" })
}

// maxKeysFile bounds a public.keys file.
const maxKeysFile = 16 << 20

// publicKeys reads a public.keys file, or that of the fleet in dir.
func publicKeys(file, dir string) (*audit.Keys, error) {
	if file == "" && dir != "" {
		file = assembly.Layout{Dir: dir}.PublicKeys()
	}
	if file == "" {
		return nil, errors.New("whose keys? give --keys, such as the public.keys of a fleet's folder")
	}
	raw, err := readBounded(file, maxKeysFile)
	if err != nil {
		return nil, err
	}
	keys, err := audit.ParseKeys(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return keys, nil
}

// exportFolder refuses what is not a folder.
func exportFolder(dir string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not the folder of an export", dir)
	}
	return nil
}
