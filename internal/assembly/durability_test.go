package assembly_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// classes publishes a release whose points demand a class each.
func classes(t *testing.T, f *assembly.Fleet) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	file := regoPackage(t, allowAda)
	content, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	d := wire.Sum(content)
	var points []bundle.Point
	for name, of := range map[string]bundle.Point{
		"custom.synced":  {Durability: policy.Synced},
		"custom.region":  {Durability: policy.Region},
		"custom.regions": {Durability: policy.Regions},
		"custom.flag":    {Durability: policy.Regions, OnLogFailure: policy.FailAllowFlagged},
		"custom.ask":     {Durability: policy.Regions, OnLogFailure: policy.FailEscalate},
	} {
		of.Name, of.Packages = name, []bundle.PackageRef{{Name: "p", Digest: d, Size: uint64(len(content))}}
		points = append(points, of)
	}
	p, err := f.Publish(ctx, points, map[wire.Digest][]byte{d: file})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.WaitInForce(ctx, f.URLs(), p.Epoch); err != nil {
		t.Fatal(err)
	}
}

// An asker asks a node and keeps what it was told.
type asker struct {
	t    *testing.T
	node *client.Client
	told []policy.Answer
}

func (k *asker) ask(point, user string) (policy.Answer, time.Duration) {
	k.t.Helper()
	began := time.Now()
	a, err := k.node.Decide(context.Background(), point, []byte(`{"document":{"user":"`+user+`"}}`))
	if err != nil {
		k.t.Fatal(err)
	}
	k.told = append(k.told, a)
	return a, time.Since(began)
}

// met asks at a point until its class is met, and returns how often it was not.
func (k *asker) met(point string, want policy.Durability) {
	k.t.Helper()
	for end := time.Now().Add(timeout); ; {
		a, _ := k.ask(point, "ada")
		if a.Durability == want && a.Verdict == policy.Allow {
			return
		}
		if time.Now().After(end) {
			k.t.Fatalf("%s: %+v, not %s", point, a, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ledgerOf returns the decisions and other records that a region's ledger holds of
// a fleet with one node and one boot, which is stopped.
func ledgerOf(t *testing.T, f *assembly.Fleet, region string) map[uint64]*audit.Record {
	t.Helper()
	dir := filepath.Join(t.TempDir(), region)
	if err := assembly.Export(f.Layout(), dir, region, ""); err != nil {
		t.Fatal(err)
	}
	out := map[uint64]*audit.Record{}
	report, err := audit.VerifyEach(os.DirFS(dir), f.Keys(), func(_, _ string, r *audit.Record, _ tlog.Hash) { out[r.Seq] = r })
	if err != nil || report.Verdict != audit.VerdictComplete {
		t.Fatalf("region %s: %v, %+v", region, err, report)
	}
	return out
}

// Every class is met while the regions are there, none is said to be met that is
// not, and what was told is what the ledgers hold, whichever region is dead or
// comes back first.
func TestDurabilityClasses(t *testing.T) {
	f := startFleet(t, assembly.FleetConfig{Dir: t.TempDir(), Regions: 2, Edges: 1})
	classes(t, f)
	c, err := client.New(client.Config{Node: f.URLs()[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k := &asker{t: t, node: c}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	all := map[string]policy.Durability{
		"custom.synced": policy.Synced, "custom.region": policy.Region, "custom.regions": policy.Regions, "custom.flag": policy.Regions, "custom.ask": policy.Regions,
	}
	for point, class := range all {
		if a, took := k.ask(point, "ada"); a.Durability != class || a.Verdict != policy.Allow {
			t.Errorf("both regions: %s after %v: %+v", point, took, a)
		}
	}
	failing := func(point string, verdict policy.Verdict) time.Duration {
		t.Helper()
		a, took := k.ask(point, "ada")
		if a.Verdict != verdict || !a.Recorded || a.Durability != policy.Synced || a.Reasons[len(a.Reasons)-1].Code != "durability_not_met" {
			t.Errorf("%s: %+v", point, a)
		}
		return took
	}
	names := f.RegionNames()
	for _, order := range [][]string{{names[0], names[1]}, {names[1], names[0]}} {
		must(f.Cut(order[0]))
		k.met("custom.region", policy.Region)
		if took := failing("custom.regions", policy.Deny); took > 5*time.Second {
			t.Errorf("an answer waited %v for a dead region", took)
		}
		for point, verdict := range map[string]policy.Verdict{"custom.regions": policy.Deny, "custom.flag": policy.Allow, "custom.ask": policy.RequireApproval} {
			failing(point, verdict)
		}
		if a, _ := k.ask("custom.ask", "bob"); a.Verdict != policy.Deny {
			t.Errorf("a denial was lifted: %+v", a)
		}
		must(f.Cut(order[1]))
		failing("custom.region", policy.Deny)
		if a, took := k.ask("custom.synced", "ada"); a.Verdict != policy.Allow || a.Durability != policy.Synced || took > time.Second {
			t.Errorf("without regions, after %v: %+v", took, a)
		}
		must(f.Heal(order[0]))
		k.met("custom.region", policy.Region)
		must(f.Heal(order[1]))
		k.met("custom.regions", policy.Regions)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	must(f.WaitCosigned(ctx))
	must(f.Close())
	for _, region := range names {
		agree(t, k.told, ledgerOf(t, f, region))
	}
}

// agree proves that what was told is what the records say.
func agree(t *testing.T, told []policy.Answer, records map[uint64]*audit.Record) {
	t.Helper()
	for _, a := range told {
		r := records[a.Seq]
		if r == nil || r.Decision == nil || r.Decision.Verdict != a.Verdict || len(r.Decision.Reasons) != len(a.Reasons) {
			t.Fatalf("told %+v, recorded %+v", a, r)
		}
		d := r.Decision
		if len(a.Reasons) == 0 || a.Reasons[len(a.Reasons)-1].Code != "durability_not_met" {
			if d.Instead != 0 {
				t.Errorf("record %d is in the place of %d", a.Seq, d.Instead)
			}
			continue
		}
		first := records[d.Instead]
		if first == nil || first.Decision == nil || first.Decision.Point != d.Point || first.Decision.Request == nil || d.Request != nil ||
			d.Failure == nil || d.Failure.Cause != "durability" || d.Durability != first.Decision.Durability {
			t.Errorf("record %d: %+v, in the place of %+v", a.Seq, d, first)
		}
	}
}

// A release that demands two regions is refused by a node that has one, and the
// refusal says what to do.
func TestTooFewRegionsForAClass(t *testing.T) {
	f := startFleet(t, assembly.FleetConfig{Dir: t.TempDir(), Regions: 1, Edges: 1})
	enforce(t, f, regoPackage(t, allowAda))
	file := regoPackage(t, allowAda)
	content, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	d := wire.Sum(content)
	_, err = f.Publish(context.Background(), []bundle.Point{{Name: "custom", Durability: policy.Regions,
		Packages: []bundle.PackageRef{{Name: "p", Digest: d, Size: uint64(len(content))}}}}, map[wire.Digest][]byte{d: file})
	if err != nil {
		t.Fatal(err)
	}
	want := "point custom wants regions, which needs 2 of them, and the node ships its records to 1"
	c, err := client.New(client.Config{Node: f.URLs()[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
		st, err := c.Status(context.Background())
		if err == nil && strings.Contains(st.Refused, want) && st.Epoch == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%v, %+v", err, st)
		}
	}
}
