package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/demo"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A whole fleet - hubs, edges, NATS servers - is killed with SIGKILL under load,
// twice, and started again on its folder: whatever was answered is in both
// regions' ledgers, once and unaltered.
func TestKillTheWholeFleet(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	source := t.TempDir()
	err := os.WriteFile(filepath.Join(source, "p.rego"), []byte("package p\n\ndefault allow := false\n\nallow if input.user == \"ada\"\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cfg := assembly.FleetConfig{Dir: t.TempDir(), Tenant: tenant, Regions: 2, Edges: 2}
	seen := newTally()
	calls := []demo.Call{
		{ID: "ada", Point: policy.PointCustom, Body: []byte(`{"document":{"user":"ada"}}`), Want: policy.Allow},
		{ID: "bob", Point: policy.PointCustom, Body: []byte(`{"document":{"user":"bob"}}`), Want: policy.Deny},
	}
	for kills := range 3 {
		p, err := startProcess(ctx, cfg, "--policy", source)
		if err != nil {
			t.Fatalf("start %d: %v", kills, err)
		}
		t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // when the test fails in between
		asker, err := newAsker(p.urls, seen)
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		time.AfterFunc(700*time.Millisecond, func() {
			if kills < 2 {
				seen.mu.Lock()
				seen.tolerant = true
				seen.mu.Unlock()
				_ = p.cmd.Process.Kill()
			}
			close(stop)
		})
		asker.during(ctx, calls, cutRate, stop)
		asker.close()
		seen.tolerant = false
		if kills < 2 {
			<-p.done
			continue
		}
		waitForRecords(ctx, t, cfg, seen)
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	}
	if decisions, failed := seen.counts(); failed > 0 || decisions < 200 || seen.twice > 0 {
		t.Errorf("%d decisions, %d failed: %v, %d names given twice", decisions, failed, seen.failures, seen.twice)
	}
}

// waitForRecords exports both regions, as an outsider would, until each holds
// every answer.
func waitForRecords(ctx context.Context, t *testing.T, cfg assembly.FleetConfig, seen *tally) {
	t.Helper()
	layout := assembly.Layout{Dir: cfg.Dir}
	for _, region := range []string{"eu", "us"} {
		for {
			s := &story{tally: seen, env: &env{}, out: newPrinter(os.Stderr)}
			dir := filepath.Join(t.TempDir(), region)
			if err := assembly.Export(layout, dir, region, ""); err != nil {
				t.Fatal(err)
			}
			report, err := verifyElsewhere(ctx, dir, layout.PublicKeys())
			if err != nil {
				t.Fatal(err)
			}
			f, err := find(dir, layout.PublicKeys())
			if err != nil {
				t.Fatal(err)
			}
			s.compare(f)
			if r := s.result.Records; r.Lost == 0 && r.Altered == 0 && report.Verdict == audit.VerdictComplete {
				break
			} else if ctx.Err() != nil || r.Altered > 0 {
				t.Fatalf("region %s: %+v, %s, %+v", region, r, report.Verdict, report.Problems)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}
