package assembly_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/ledger"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/regiontest"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// A witness with a reader's credentials follows a region under load.
func TestWitness(t *testing.T) {
	p := newPair(t)
	authority, err := auth.Open(p.home.Layout().Authority())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	creds, err := authority.Issue("demo", "witness-w", auth.Reader("demo", "witness-w"), 0)
	if err == nil {
		err = creds.WriteFile(filepath.Join(dir, "reader.creds"))
	}
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "witness.yaml")
	text := fmt.Sprintf("tenant: demo\nwitness: w\ndir: data\nregions: [eu, us]\npublic_keys: %s\ncreds: reader.creds\nca: %s\nurls: ['%s']\n",
		p.home.Layout().PublicKeys(), p.home.Layout().CAFile(), p.hubs["eu"].Server().ClientURL())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := assembly.ReadWitnessConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	w, err := assembly.StartWitness(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	closed := sync.OnceFunc(func() { w.Close() })
	defer closed()
	p.whole("before it is witnessed")
	for _, b := range p.edge.Node().Journal().Boots() {
		regiontest.Until(t, "witnessed", 15*time.Second, func() bool { return w.Size("edge-1", b.ID) >= b.Size })
	}
	if err := w.Reload(config); err != nil {
		t.Error(err)
	}
	closed()
	p.whole("after it was witnessed")
	// What it signed is in the export and the auditor's report.
	keys, err := audit.ParseKeys(append(p.home.Keys().File(), "witness "+w.VerifierKey()+"\n"...))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "export")
	e, err := audit.NewExportWriter(out)
	if err == nil {
		err = errors.Join(ledger.Export(assembly.LedgerDir(p.home.Layout().Region("us")), e), ledger.ExportWitness(cfg.Dir, e), e.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(os.DirFS(out), keys)
	if err != nil || report.Verdict != audit.VerdictComplete || report.Nodes[0].Boots[0].Witnessed["w"] == 0 {
		t.Fatalf("%v, %+v", err, report)
	}
	hub := cfg
	hub.Creds = p.home.Layout().Creds("hub-eu")
	if other, err := assembly.StartWitness(t.Context(), hub); err == nil {
		other.Close()
		t.Error("a hub's credentials are a reader's")
	}
}
