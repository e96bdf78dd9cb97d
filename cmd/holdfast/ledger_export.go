package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/control/ledger/formats"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// exportFlags are what is to be exported, and as what.
type exportFlags struct {
	dir, config, hub, from     string
	region, node, tenant, keys string
	format                     string
	witnesses, roots           []string
	asJSON                     bool
}

func exportCommand(e *env) *cobra.Command {
	var f exportFlags
	c := &cobra.Command{
		Use:   "export DIR | --format FORMAT FILE",
		Short: "Copy records, checkpoints and counter-signatures into DIR, or records into a file for other tools",
		Long: `Copy records, checkpoints and counter-signatures into DIR, which must not exist or be empty.

By default the first region's ledger is exported; a fleet without regions has
only the nodes' own journals. It reads the fleet's folder, whether the fleet
runs or not, and changes nothing there. What runs is exported up to its last
signed checkpoint, which under load is at most a second old.

With --format the records go into a new FILE for other tools instead, once they
are proven with the public keys. Such a file is a copy for reading, no evidence:

  parquet      one row a record, with typed columns, for DuckDB, Spark or Athena
  jsonl-opa    OPA's decision-log events, one a line; only decisions
  jsonl-otel   OpenTelemetry's log records as OTLP/JSON, without requests and values

Then --from names an export that is there already, and exit code 1 says that the
export is not complete: the file has what is proven of it.`,
		Example: "  holdfast ledger export --dir ./fleet ./evidence\n  holdfast ledger export --dir ./fleet --node edge-1 ./evidence\n  holdfast ledger export --config edge.yaml ./evidence\n  holdfast ledger export --hub hub.yaml ./evidence\n  holdfast ledger export --format parquet --from ./evidence --keys public.keys ./records.parquet",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.validate(); err != nil {
				return err
			}
			if f.format != "" {
				return e.exportFile(c.Context(), args[0], &f)
			}
			if err := f.export(args[0]); err != nil {
				return err
			}
			if f.asJSON {
				return json.NewEncoder(e.stdout).Encode(map[string]string{"exported": args[0]})
			}
			keys := "FILE"
			if l := (assembly.Layout{Dir: f.dir}); f.dir != "" {
				keys = l.PublicKeys() + " --root " + l.TrustRoot()
			}
			fmt.Fprintf(e.stdout, "exported to %s\nverify it with: holdfast ledger verify %s --keys %s\n", args[0], args[0], keys)
			return nil
		},
	}
	c.Flags().StringVar(&f.dir, "dir", "", "folder of the fleet")
	c.Flags().StringVar(&f.config, "config", "", "configuration file of a holdfastd edge")
	c.Flags().StringVar(&f.hub, "hub", "", "configuration file of a holdfastd hub, on its machine")
	c.Flags().StringArrayVar(&f.witnesses, "witness", nil, "with --hub: configuration file of a holdfastd witness, whose counter-signatures are added; repeatable")
	c.Flags().StringVar(&f.tenant, "tenant", "", "with --hub: whose ledger, when it has several tenants")
	c.Flags().StringVar(&f.region, "region", "", "export this region's ledger")
	c.Flags().StringVar(&f.node, "node", "", "export this node's own journal")
	c.Flags().StringVar(&f.format, "format", "", "write a file for other tools: "+formats.Names)
	c.Flags().StringVar(&f.from, "from", "", "with --format: folder of an export")
	c.Flags().StringVar(&f.keys, "keys", "", "with --format: file with the public keys (default: those of --dir)")
	c.Flags().StringArrayVar(&f.roots, "root", nil, "with --format: trust root that vouches for erasures (default: that of --dir)")
	outputFlag(c, &f.asJSON)
	return c
}

func (f *exportFlags) validate() error {
	switch {
	case len(given(f.dir, f.config, f.hub, f.from)) != 1:
		return errors.New("which fleet? give --dir, the folder of a `holdfast up`, --config, the file of a `holdfastd edge`, or --hub, that of a `holdfastd hub`; with --format also --from, that of an export")
	case f.region != "" && f.node != "" || f.dir == "" && f.region+f.node != "":
		return errors.New("--region and --node exclude one another, and go with --dir")
	case (f.tenant != "" || len(f.witnesses) > 0) && f.hub == "":
		return errors.New("--tenant and --witness go with --hub")
	case f.format == "" && (f.from+f.keys != "" || len(f.roots) > 0):
		return errors.New("--from, --keys and --root go with --format")
	}
	return nil
}

// export writes the evidence into a folder.
func (f *exportFlags) export(dir string) error {
	switch {
	case f.config != "":
		return assembly.ExportNode(f.config, dir)
	case f.hub != "":
		return assembly.ExportHub(f.hub, f.tenant, dir, f.witnesses...)
	}
	return assembly.Export(assembly.Layout{Dir: f.dir}, dir, f.region, f.node)
}

// exportFile writes what is proven of the evidence into a file for other tools.
func (e *env) exportFile(ctx context.Context, path string, f *exportFlags) (err error) {
	keys, err := publicKeys(f.keys, f.dir)
	if err != nil {
		return err
	}
	if err := believe(keys, f.roots, f.dir); err != nil {
		return err
	}
	folder := f.from
	if folder == "" {
		// Beside the file, where there is room for it.
		tmp, err := os.MkdirTemp(filepath.Dir(path), ".holdfast-export-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		folder = filepath.Join(tmp, "export")
		if err := f.export(folder); err != nil {
			return err
		}
	}
	if err := exportFolder(folder); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	report, err := e.writeFile(ctx, out, folder, keys, f.format)
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	records := uint64(0)
	for _, n := range report.Nodes {
		for _, b := range n.Boots {
			for _, n := range b.Records {
				records += n
			}
		}
	}
	if f.asJSON {
		err = json.NewEncoder(e.stdout).Encode(map[string]any{"exported": path, "records": records, "verdict": report.Verdict})
	} else {
		_, err = fmt.Fprintf(e.stdout, "%d proven records to %s\nthe export is %s\n", records, path, report.Verdict)
	}
	if err == nil && report.Verdict != audit.VerdictComplete {
		return &exitError{code: exitCheck}
	}
	return err
}

func (e *env) writeFile(ctx context.Context, out *os.File, folder string, keys *audit.Keys, format string) (*audit.Report, error) {
	w, err := formats.New(format, out)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	report, err := verifyFolder(ctx, e, folder, keys, audit.Options{Records: func(p audit.Proven) {
		if w.Records(p); w.Err() != nil {
			stop() // nothing more can be written
		}
	}})
	if w.Err() != nil {
		err = nil // it says no more than that it was stopped
	}
	return report, errors.Join(err, w.Close())
}
