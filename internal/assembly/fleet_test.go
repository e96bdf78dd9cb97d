package assembly_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func startFleet(t *testing.T, cfg assembly.FleetConfig) *assembly.Fleet {
	t.Helper()
	cfg.Tenant, cfg.Log = "demo", slog.New(slog.DiscardHandler)
	f, err := assembly.StartFleet(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// enforce publishes a package at the point custom and waits until every node
// has it in force.
func enforce(t *testing.T, f *assembly.Fleet, file []byte) assembly.Published {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	content, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	d := wire.Sum(content)
	p, err := f.Publish(ctx, []bundle.Point{{Name: "custom", Durability: policy.Synced,
		Packages: []bundle.PackageRef{{Name: "p", Digest: d, Size: uint64(len(content))}}}}, map[wire.Digest][]byte{d: file})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.WaitInForce(ctx, f.URLs(), p.Epoch); err != nil {
		t.Fatal(err)
	}
	return p
}

// A watcher in front of a region sees the decisions of an edge, and only those
// that it asked for.
func TestTail(t *testing.T) {
	f := startFleet(t, assembly.FleetConfig{Dir: t.TempDir(), Regions: 1, Edges: 1})
	enforce(t, f, regoPackage(t, allowAda))
	c, err := client.New(client.Config{Node: f.URLs()[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	seen := make(chan assembly.LiveDecision)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	done := make(chan error, 1)
	cfg, err := assembly.AdminOf(f.Layout())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		done <- assembly.Tail(ctx, cfg, assembly.LiveFilter{Verdict: "deny"}, func(d assembly.LiveDecision) error {
			select {
			case seen <- d:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	var answered []policy.Answer
	for {
		for _, user := range []string{"ada", "bob"} {
			a, err := c.Decide(ctx, "custom", []byte(`{"document":{"user":"`+user+`"}}`))
			if err != nil {
				t.Fatal(err)
			}
			answered = append(answered, a)
		}
		select {
		case d := <-seen:
			if !slices.ContainsFunc(answered, func(a policy.Answer) bool {
				return a.Verdict == policy.Deny && a.Node == d.Node && a.Boot == d.Boot && a.Seq == d.Seq && a.Leaf == d.Leaf && d.Point == "custom"
			}) || d.Verdict != policy.Deny {
				t.Errorf("seen %+v, which is no denial that was answered", d)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			return
		default:
		}
	}
}

// The same folder starts the same fleet again, publishes nothing new for the
// same points, and refuses another shape.
func TestFleetStartsAgain(t *testing.T) {
	dir := t.TempDir()
	file := regoPackage(t, allowAda)
	f := startFleet(t, assembly.FleetConfig{Dir: dir, Regions: 1, Edges: 2})
	first := enforce(t, f, file)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := assembly.ReadWhere(f.Layout()); err == nil {
		t.Error("a stopped fleet says where it answers")
	}
	if _, err := assembly.StartFleet(context.Background(), assembly.FleetConfig{Dir: dir, Tenant: "demo", Regions: 2, Edges: 2}); !errors.Is(err, assembly.ErrOtherFleet) {
		t.Errorf("a fleet of another shape: %v", err)
	}
	f = startFleet(t, assembly.FleetConfig{Dir: dir, Regions: 1, Edges: 2})
	if again := enforce(t, f, file); again.Epoch != first.Epoch || again.Digest != first.Digest {
		t.Errorf("published %+v, then %+v", first, again)
	}
}

// Nobody but the owner reads a fleet's secrets.
func TestSecretsAreTheOwners(t *testing.T) {
	f := startFleet(t, assembly.FleetConfig{Dir: t.TempDir(), Regions: 1, Edges: 1})
	l := f.Layout()
	secrets := []string{l.Creds("operator"), l.Creds("edge-1"), l.Creds("hub-eu"), l.Authority(), l.PrivateKey("heartbeat-eu"), l.PrivateKey("kill"), l.PrivateKey("root"), l.PrivateKey("author"), l.PrivateKey("approver"),
		assembly.RegionKeyFile(l.Region("eu")), l.Node("edge-1"), l.Region("eu")}
	for _, path := range secrets {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
	if _, err := os.Stat(l.PublicKeys()); errors.Is(err, fs.ErrNotExist) {
		t.Error("no public keys")
	}
}

// A clean stop leaves no answered record behind: both regions hold what was
// answered a moment before.
func TestCleanStopShipsEverything(t *testing.T) {
	f := startFleet(t, assembly.FleetConfig{Dir: t.TempDir(), Regions: 2, Edges: 2})
	enforce(t, f, regoPackage(t, allowAda))
	var last policy.Answer
	c, err := client.New(client.Config{Node: f.URLs()[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 20 {
		if last, err = c.Decide(context.Background(), "custom", []byte(`{"document":{"user":"ada"}}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, region := range f.RegionNames() {
		dir := filepath.Join(t.TempDir(), region)
		if err := assembly.Export(f.Layout(), dir, region, ""); err != nil {
			t.Fatal(err)
		}
		report, err := audit.Verify(os.DirFS(dir), f.Keys())
		if err != nil || report.Verdict != audit.VerdictComplete || report.Nodes[0].Boots[0].To < last.Seq || report.Nodes[0].Boots[0].Cosigned[region] < last.Seq {
			t.Errorf("region %s after the stop: %v, %+v; the last answer is record %d", region, err, report, last.Seq)
		}
	}
}
