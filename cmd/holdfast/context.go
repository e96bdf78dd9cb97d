package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// contexts is the file of the contexts that a user has.
type contexts struct {
	Default  string                  `json:"default"`
	Contexts map[string]contextEntry `json:"contexts"`
}

// A contextEntry says how to reach a fleet. Credentials and trust root stay where
// they are: it has their paths.
type contextEntry struct {
	Hubs     []string `json:"hubs"`
	Regions  []string `json:"regions"`
	Creds    string   `json:"creds"`
	CA       string   `json:"ca,omitempty"`
	Root     string   `json:"root"`
	NoDomain bool     `json:"no_domain,omitempty"`
}

// maxContexts bounds the file, in bytes.
const maxContexts = 1 << 20

func contextsFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("contexts: %w", err)
	}
	return filepath.Join(dir, "holdfast", "contexts.json"), nil
}

func readContexts() (*contexts, error) {
	all := &contexts{Contexts: map[string]contextEntry{}}
	file, err := contextsFile()
	if err != nil {
		return nil, err
	}
	text, err := readBounded(file, maxContexts)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, all); err != nil {
		return nil, fmt.Errorf("%s: %w; repair it, or remove it and add the contexts again", file, err)
	}
	if all.Contexts == nil {
		all.Contexts = map[string]contextEntry{}
	}
	return all, nil
}

func (c *contexts) write() error {
	file, err := contextsFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return write(file, append(text, '\n'))
}

// find returns the entry of a name, of the default when it is empty.
func (c *contexts) find(name string) (contextEntry, error) {
	if name == "" {
		name = c.Default
	}
	if name == "" {
		return contextEntry{}, errors.New("which fleet? give --dir, the folder of a running `holdfast up` or of `holdfast fleet new`, or --context NAME, or make a default with holdfast context use NAME")
	}
	entry, ok := c.Contexts[name]
	if !ok {
		return entry, fmt.Errorf("no context %q; there are %v (holdfast context add makes one)", name, c.names())
	}
	return entry, nil
}

func (c *contexts) names() []string { return slices.Sorted(maps.Keys(c.Contexts)) }

func contextCommand(e *env) *cobra.Command {
	c := group("context", "Say how to reach a fleet, once", "add, use, list or remove")
	c.Long = `A context is a name for a fleet: the addresses of its hubs, an operator's credentials, and the trust root by which
everything that comes from there is verified. Files are kept by their path and never copied. The first context is the
default one. --dir DIR takes the place of a context for a fleet of holdfast up.`
	c.AddCommand(contextAddCommand(e), contextUseCommand(e), contextListCommand(e), contextRemoveCommand(e))
	return c
}

func contextAddCommand(e *env) *cobra.Command {
	var entry contextEntry
	c := &cobra.Command{
		Use:     "add NAME --hub URL... --region NAME... --creds FILE --root ROOT.dsse",
		Short:   "Add a context, or replace one",
		Example: "  holdfast context add prod --hub tls://hub-eu.example:4222 --hub tls://hub-us.example:4222 --region eu --region us --creds ops.creds --ca ca.pem --root root-1.dsse",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(entry.Hubs) == 0 || len(entry.Regions) == 0 || entry.Creds == "" || entry.Root == "" {
				return errors.New("give --hub and --region, of one region or more, --creds and --root")
			}
			if err := bundle.CheckNode(args[0]); err != nil {
				return err
			}
			for _, path := range []*string{&entry.Creds, &entry.CA, &entry.Root} {
				if *path == "" {
					continue
				}
				abs, err := filepath.Abs(*path)
				if err != nil {
					return err
				}
				if _, err := os.Stat(abs); err != nil {
					return err
				}
				*path = abs
			}
			if _, _, err := readRoot(entry.Root); err != nil {
				return err
			}
			all, err := readContexts()
			if err != nil {
				return err
			}
			all.Contexts[args[0]] = entry
			if all.Default == "" {
				all.Default = args[0]
			}
			return all.write()
		},
	}
	c.Flags().StringArrayVar(&entry.Hubs, "hub", nil, "address of a hub's NATS server; may be repeated, the preferred one first")
	c.Flags().StringArrayVar(&entry.Regions, "region", nil, "name of a region; may be repeated, the preferred one first")
	c.Flags().StringVar(&entry.Creds, "creds", "", "file with an operator's credentials")
	c.Flags().StringVar(&entry.CA, "ca", "", "certificate that verifies the servers (default: the system's)")
	c.Flags().StringVar(&entry.Root, "root", "", "first trust root of the tenant; newer versions are taken from the hubs, and what keys signed that were rotated out is verified by the older ones")
	c.Flags().BoolVar(&entry.NoDomain, "no-domain", false, "the servers have no JetStream domain")
	return c
}

func contextUseCommand(*env) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the default", Example: "  holdfast context use prod", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := readContexts()
			if err != nil {
				return err
			}
			if _, err := all.find(args[0]); err != nil {
				return err
			}
			all.Default = args[0]
			return all.write()
		},
	}
}

func contextListCommand(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List the contexts; * is the default", Example: "  holdfast context list", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := readContexts()
			if err != nil {
				return err
			}
			if asJSON {
				return e.printJSON(all)
			}
			p := newPrinter(e.stdout)
			for _, name := range all.names() {
				mark, entry := " ", all.Contexts[name]
				if name == all.Default {
					mark = "*"
				}
				p.line("%s %s  %v  regions %v  creds %s", mark, name, entry.Hubs, entry.Regions, entry.Creds)
			}
			return p.err
		},
	}
	outputFlag(c, &asJSON)
	return c
}

func contextRemoveCommand(*env) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Forget a context; no other file is touched", Example: "  holdfast context remove prod", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := readContexts()
			if err != nil {
				return err
			}
			if _, err := all.find(args[0]); err != nil {
				return err
			}
			delete(all.Contexts, args[0])
			if all.Default == args[0] {
				all.Default = ""
			}
			return all.write()
		},
	}
}

// config is how the context's fleet is reached.
func (c contextEntry) config() (cfg assembly.AdminConfig, err error) {
	cfg = assembly.AdminConfig{URLs: c.Hubs, Regions: c.Regions, Creds: c.Creds, CA: c.CA, NoDomain: c.NoDomain}
	if cfg.Root, _, err = readRoot(c.Root); err == nil {
		cfg.Tenant = cfg.Root.Tenant
	}
	return cfg, err
}
