package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/testdata/hostile"
)

// cli runs the program, wants an exit code and returns what it printed.
func cli(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, bytes.NewReader(nil), &out, &errs); code != want {
		t.Fatalf("holdfast %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, &out, &errs)
	}
	return out.String(), errs.String()
}

func wants(t *testing.T, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("want %q in\n%s", want, text)
	}
}

// allows is a package that a node runs: it allows.
func allows(t *testing.T, file, name string) {
	t.Helper()
	module, err := hostile.FS.ReadFile("honest.wasm")
	if err != nil {
		t.Fatal(err)
	}
	p := &bundle.Package{
		Manifest: bundle.Manifest{Name: name, ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy}, Module: module,
		Vectors: []bundle.Vector{{Name: "v", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: policy.Allow}}},
	}
	raw, _, err := p.Encode()
	if err == nil {
		err = os.WriteFile(file, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// desk is where the releases of a test are written and signed.
type desk struct {
	t             *testing.T
	dir, fleetDir string
	fleet         *assembly.Fleet
}

func newDesk(t *testing.T, regions int) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir(), fleetDir: t.TempDir()}
	var err error
	d.fleet, err = assembly.StartFleet(t.Context(), assembly.FleetConfig{
		Dir: d.fleetDir, Tenant: "demo", Regions: regions, Edges: 2, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.fleet.Close(); err != nil {
			t.Error(err)
		}
	})
	allows(t, d.file("a.hfp"), "a")
	allows(t, d.file("b.hfp"), "b")
	return d
}

func (d *desk) file(name string) string { return filepath.Join(d.dir, name) }
func (d *desk) key(name string) string  { return d.fleet.Layout().PrivateKey(name) }
func (d *desk) root() string            { return d.fleet.Layout().TrustRoot() }

// release writes and signs NAME.dsse; previous "" is a first one.
func (d *desk) release(name, previous, text string) string {
	d.t.Helper()
	if err := os.WriteFile(d.file(name+".yaml"), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	args := []string{"release", "new", d.file(name + ".yaml"), "--root", d.root()}
	if previous != "" {
		args = append(args, "--previous", d.file(previous+".dsse"))
	}
	cli(d.t, exitOK, args...)
	for _, who := range []string{"author", "approver"} {
		cli(d.t, exitOK, "release", "sign", d.file(name+".dsse"), "--key", d.key(who), "--root", d.root())
	}
	return d.file(name + ".dsse")
}

// inForce waits until every node has the epoch, and asks one.
func (d *desk) inForce(epoch uint64) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	if _, err := client.WaitInForce(ctx, d.fleet.URLs(), epoch); err != nil {
		d.t.Fatal(err)
	}
}

const firstRelease = "tenant: demo\npoints: {custom: {packages: [{file: a.hfp}]}}\n"

// A release goes to a region, is in force on every node, and back; what does not
// follow the newest one is refused.
func TestPublish(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	d := newDesk(t, 1)
	r1 := d.release("r1", "", firstRelease)

	_, errs := cli(t, exitUsage, "release", "publish", r1)
	wants(t, errs, "which fleet? give --dir")
	_, errs = cli(t, exitCheck, "release", "publish", r1, "--dir", d.fleetDir, "--wait", "1ns")
	wants(t, errs, "holdfast: published")
	out, errs := cli(t, exitOK, "release", "publish", r1, "--dir", d.fleetDir, "-o", "json")
	var published publishedJSON
	if err := json.Unmarshal([]byte(out), &published); err != nil || published.Epoch != 1 || published.Region != "eu" || published.InForce == nil ||
		published.InForce.Nodes != 2 || published.InForce.Of != 2 || published.InForce.Digest != published.Digest.String() {
		t.Fatalf("%s, %v", out, err)
	}
	wants(t, errs, "published in region eu, with 1 packages")
	d.inForce(1)
	out, _ = cli(t, exitOK, "release", "publish", r1, "--dir", d.fleetDir) // again
	wants(t, out, "in force on 2 of 2 nodes")
	out, _ = cli(t, exitOK, "release", "status", "--dir", d.fleetDir)
	wants(t, out, "epoch 1, in force on 2 of 2 nodes")
	wants(t, out, "node edge-1")

	// Through a context, whose files stay where they are.
	l := d.fleet.Layout()
	add := []string{"context", "add", "lab", "--region", "eu", "--creds", l.Creds("operator"), "--ca", l.CAFile(), "--root", d.root()}
	_, errs = cli(t, exitUsage, add...)
	wants(t, errs, "give --hub and --region")
	cli(t, exitOK, append(add, "--hub", d.fleet.RegionInfos()[0].NATS)...)
	out, _ = cli(t, exitOK, "context", "list")
	wants(t, out, "* lab")
	r2 := d.release("r2", "r1", "points: {custom: {packages: [{file: b.hfp}]}}")
	rival := d.release("rival", "r1", "note: rival\npoints: {custom: {packages: [{file: a.hfp}]}}")
	out, _ = cli(t, exitOK, "release", "publish", r2)
	wants(t, out, "epoch 2, in force on 2 of 2 nodes")

	// Somebody was faster; a fleet does not take what one person signed, nor a
	// release whose packages are nowhere.
	_, errs = cli(t, exitCheck, "release", "publish", rival, "--context", "lab")
	wants(t, errs, "but the newest is epoch 2")
	wants(t, errs, "holdfast release new --previous")
	one := d.file("one.dsse")
	if err := os.WriteFile(d.file("one.yaml"), []byte("points: {custom: {packages: [{file: a.hfp}]}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	cli(t, exitOK, "release", "new", d.file("one.yaml"), "--previous", r2, "--root", d.root())
	cli(t, exitOK, "release", "sign", one, "--key", d.key("author"))
	_, errs = cli(t, exitCheck, "release", "publish", one)
	wants(t, errs, "not enough signatures: 0 of 1 persons with role approver")
	allows(t, d.file("c.hfp"), "c")
	r3 := d.release("r3", "r2", "points: {custom: {packages: [{file: c.hfp}]}}")
	hide := d.file("packages")
	if err := os.Rename(hide, hide+"-away"); err != nil {
		t.Fatal(err)
	}
	_, errs = cli(t, exitUsage, "release", "publish", r3)
	wants(t, errs, "packages that the fleet does not have are not in "+hide)
	d.inForce(2)

	// Back to the content before, as a new epoch: here the keys are at hand.
	out, _ = cli(t, exitOK, "release", "rollback", "--dir", d.fleetDir)
	wants(t, out, "epoch 3, in force on 2 of 2 nodes")
	// The folder of a fleet whose people keep their keys elsewhere.
	author := (&assembly.Layout{Dir: d.fleetDir}).PrivateKey("author")
	if err := os.Rename(author, author+".away"); err != nil {
		t.Fatal(err)
	}
	if _, errs = cli(t, exitOK, "release", "rollback", "--dir", d.fleetDir, "--to", "2", "-o", d.file("there.dsse")); !strings.Contains(errs, "publish "+d.file("there.dsse")+" --dir "+d.fleetDir) {
		t.Error(errs)
	}
	if err := os.Rename(author+".away", author); err != nil {
		t.Fatal(err)
	}
	_, errs = cli(t, exitOK, "release", "rollback", "--to", "2", "-o", d.file("back.dsse"))
	wants(t, errs, "holdfast release sign "+d.file("back.dsse"))
	out, _ = cli(t, exitOK, "release", "diff", r2, d.file("back.dsse"), "-o", "json")
	wants(t, out, `"changes":[{"path":"note"`)
	_, errs = cli(t, exitCheck, "release", "rollback", "--to", "9", "-o", d.file("none.dsse"))
	wants(t, errs, "the fleet has the epochs 1, 2, 3")

	d.rotate()
	cli(t, exitOK, "context", "remove", "lab")
	_, errs = cli(t, exitUsage, "context", "use", "lab")
	wants(t, errs, `no context "lab"`)
}

// rotate takes the approver away: what that key signs is refused from then on.
func (d *desk) rotate() {
	t := d.t
	t.Helper()
	out, _ := cli(t, exitOK, "keys", "new", "--role", "approver", "--name", "dora", "--out", d.file("dora.key"))
	if err := os.WriteFile(d.file("dora.pub"), []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	cli(t, exitOK, "trust", "add", d.root(), "--key", d.file("dora.pub"), "--sign", d.key("root"), "-o", d.file("root-2.dsse"))
	out, _ = cli(t, exitOK, "keys", "show", d.key("approver"), "-o", "json")
	var keys struct{ Keys []keyJSON }
	if err := json.Unmarshal([]byte(out), &keys); err != nil || len(keys.Keys) != 1 {
		t.Fatalf("%s, %v", out, err)
	}
	cli(t, exitOK, "trust", "remove", d.file("root-2.dsse"), keys.Keys[0].ID, "--sign", d.key("root"), "-o", d.file("root-3.dsse"))
	_, errs := cli(t, exitCheck, "trust", "publish", d.file("root-3.dsse"))
	wants(t, errs, "version 3 of demo does not follow version 1")
	for _, v := range []int{2, 3} {
		out, _ = cli(t, exitOK, "trust", "publish", d.file(fmt.Sprintf("root-%d.dsse", v)))
		wants(t, out, fmt.Sprintf("version %d: published", v))
	}
	allows(t, d.file("packages.hfp"), "late")
	_, errs = cli(t, exitCheck, "release", "rollback", "--dir", d.fleetDir)
	wants(t, errs, "not enough signatures: 0 of 1 persons with role approver")
	d.inForce(3)
}

// A fleet without regions takes its releases from a folder.
func TestPublishIntoFolder(t *testing.T) {
	d := newDesk(t, 0)
	r1 := d.release("r1", "", firstRelease)
	out, errs := cli(t, exitOK, "release", "publish", r1, "--dir", d.fleetDir)
	wants(t, out, "epoch 1, sha256:")
	wants(t, errs, "a fleet without regions")
	d.inForce(1)
	r2 := d.release("r2", "r1", "points: {custom: {packages: [{file: b.hfp}]}}")
	rival := d.release("rival", "r1", "note: rival\npoints: {custom: {packages: [{file: a.hfp}]}}")
	cli(t, exitOK, "release", "publish", r2, "--dir", d.fleetDir)
	d.inForce(2)
	_, errs = cli(t, exitCheck, "release", "publish", rival, "--dir", d.fleetDir)
	wants(t, errs, "but the newest is epoch 2")
	cli(t, exitOK, "release", "rollback", "--dir", d.fleetDir)
	d.inForce(3)
	_, errs = cli(t, exitUsage, "release", "status", "--dir", d.fleetDir)
	wants(t, errs, "the fleet has no regions")
}
