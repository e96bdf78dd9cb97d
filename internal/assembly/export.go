package assembly

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/holdfast-policy/holdfast/control/ledger"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// Export writes a fleet's evidence into dir, which must be empty or not exist:
// the ledger of a region, or the journal of a node. With neither it takes the
// first region, or every node's journal in a fleet without regions. The fleet
// may be running; nothing of it is changed.
func Export(l Layout, dir, region, node string) error {
	d, err := readDescription(l)
	if err != nil {
		return fmt.Errorf("%s is not the folder of a fleet: %w", l.Dir, err)
	}
	switch {
	case node != "":
		if !slices.Contains(d.Nodes, node) {
			return fmt.Errorf("no node %q; the fleet has %v", node, d.Nodes)
		}
		return exportJournals(l, d.Tenant, dir, node)
	case region != "":
		if !slices.Contains(d.Regions, region) {
			return fmt.Errorf("no region %q; the fleet has %v", region, d.Regions)
		}
		return exportLedger(l, dir, region)
	case len(d.Regions) > 0:
		return exportLedger(l, dir, d.Regions[0])
	}
	return exportJournals(l, d.Tenant, dir, d.Nodes...)
}

// ExportJournals writes the journals of all nodes into dir.
func ExportJournals(l Layout, dir string) error {
	d, err := readDescription(l)
	if err != nil {
		return err
	}
	return exportJournals(l, d.Tenant, dir, d.Nodes...)
}

func exportLedger(l Layout, dir, region string) error {
	return export(dir, func(w *audit.ExportWriter) error { return ledger.Export(LedgerDir(l.Region(region)), w) })
}

func exportJournals(l Layout, tenant, dir string, nodes ...string) error {
	return export(dir, func(w *audit.ExportWriter) error {
		for _, node := range nodes {
			if err := exportJournal(w, l.Node(node), tenant, node); err != nil {
				return fmt.Errorf("node %s: %w", node, err)
			}
		}
		return nil
	})
}

// ExportNode writes the journal of the edge that a configuration file describes
// into dir.
func ExportNode(config, dir string) error {
	cfg, err := ReadEdgeConfig(config)
	if err != nil {
		return err
	}
	return export(dir, func(w *audit.ExportWriter) error { return exportJournal(w, cfg.Dir, cfg.Tenant, cfg.Node) })
}

// ExportHub writes a tenant's ledger into dir, as the hub server that a
// configuration file describes keeps it; "" is the file's only tenant. What the
// witnesses with those configuration files counter-signed is added.
func ExportHub(config, tenant, dir string, witnesses ...string) error {
	cfg, err := ReadHubConfig(config)
	if err != nil {
		return err
	}
	if tenant == "" && len(cfg.Tenants) == 1 {
		tenant = cfg.Tenants[0].Name
	}
	if !slices.ContainsFunc(cfg.Tenants, func(t TenantConfig) bool { return t.Name == tenant }) {
		return fmt.Errorf("%s: no tenant %q; name one of its %d", config, tenant, len(cfg.Tenants))
	}
	return export(dir, func(w *audit.ExportWriter) error {
		if err := ledger.Export(LedgerDir(cfg.tenantDir(tenant)), w); err != nil {
			return err
		}
		for _, witness := range witnesses {
			if err := addWitness(witness, w); err != nil {
				return err
			}
		}
		return nil
	})
}

// exportJournal reads the journal of the node whose folder is home. It signs for
// what the node had not signed yet, with the key that is there; it makes none.
func exportJournal(w *audit.ExportWriter, home, tenant, node string) error {
	cfg := journal.Config{Dir: edge.JournalDir(home), Tenant: tenant, Node: node}
	if _, err := os.Stat(cfg.Dir); errors.Is(err, os.ErrNotExist) {
		return nil // it has never started
	}
	if _, err := os.Stat(edge.KeyFile(home)); err != nil {
		return fmt.Errorf("log key: %w", err)
	}
	var err error
	var vkey string
	if cfg.Key, vkey, err = journal.LoadKey(edge.KeyFile(home), audit.NodeKeyName(tenant, node)); err != nil {
		return err
	}
	if cfg.Signed, err = journal.NodeKey(edge.FormerKeysFile(home), vkey); err != nil {
		return err
	}
	return journal.Export(cfg, w)
}

func export(dir string, write func(*audit.ExportWriter) error) error {
	w, err := audit.NewExportWriter(dir)
	if err != nil {
		return err
	}
	return errors.Join(write(w), w.Close())
}

// A RegionLedger is where a region of a fleet on one machine keeps its ledger.
type RegionLedger struct{ Region, Dir string }

// Ledgers are those of a fleet's regions; an error when they are not on this
// machine.
func Ledgers(l Layout) (out []RegionLedger, err error) {
	d, err := readDescription(l)
	if err != nil {
		return nil, fmt.Errorf("%s is not the folder of a fleet: %w", l.Dir, err)
	}
	for _, region := range d.Regions {
		dir := LedgerDir(l.Region(region))
		if _, err := os.Stat(dir); err != nil {
			return nil, err
		}
		out = append(out, RegionLedger{region, dir})
	}
	return out, nil
}

// Ledger is the folder of a region's ledger in a fleet that is kept in one folder;
// "" is the first region, and the answer for a fleet without regions.
func Ledger(l Layout, region string) (string, error) {
	d, err := readDescription(l)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s is not the folder of a fleet: %w", l.Dir, err)
	case region == "" && len(d.Regions) == 0:
		return "", nil
	case region == "":
		region = d.Regions[0]
	case !slices.Contains(d.Regions, region):
		return "", fmt.Errorf("no region %q; the fleet has %v", region, d.Regions)
	}
	return LedgerDir(l.Region(region)), nil
}
