package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// keysOf are the keys of a JSON object, sorted.
func keysOf(t *testing.T, raw json.RawMessage) []string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return slices.Sorted(maps.Keys(m))
}

// fleetDoc is what scripts read of `holdfast fleet -o json`.
type fleetDoc struct {
	InForce json.RawMessage   `json:"in_force"`
	Nodes   []json.RawMessage `json:"nodes"`
	Kills   []json.RawMessage `json:"kills"`
}

func parse[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// hasKeys wants every key of a list in an object.
func hasKeys(t *testing.T, raw json.RawMessage, want ...string) {
	t.Helper()
	have := keysOf(t, raw)
	for _, key := range want {
		if !slices.Contains(have, key) {
			t.Errorf("no %q in %s", key, raw)
		}
	}
}

// TestFleetAndKill runs the operator's commands against a fleet of two regions:
// exit codes, what is printed, and the keys that scripts rely on.
func TestFleetAndKill(t *testing.T) {
	d := newDesk(t, 2)
	out, _ := cli(t, exitCheck, "fleet", "--dir", d.fleetDir) // nothing is in force
	wants(t, out, "no release is in force; 2 nodes are enrolled")
	r1 := d.release("r1", "", firstRelease)
	cli(t, exitOK, "release", "publish", r1, "--dir", d.fleetDir)
	d.inForce(1)
	fleetShows(t, d)
	killAndLift(t, d)
	cli(t, exitUsage, "fleet", "--dir", t.TempDir())
	cli(t, exitUsage, "fleet", "--dir", d.fleetDir, "--context", "x")
	cli(t, exitUsage, "fleet", "--dir", d.fleetDir, "-o", "yaml")
	cli(t, exitUsage, "kill", "everything", "--reason", "x", "--dir", d.fleetDir)
	cli(t, exitUsage, "kill", "all", "--dir", d.fleetDir) // no reason
	cli(t, exitUsage, "kill", "all", "--reason", "x", "--key", d.key("author"), "--dir", d.fleetDir)
	cli(t, exitUsage, "kill", "lift", "zz", "--reason", "x", "--dir", d.fleetDir)
	cli(t, exitUsage, "kill", "lift", strings.Repeat("0", 64), "--reason", "x", "--key", d.key("kill"), "--dir", d.fleetDir) // one person
	cli(t, exitUsage, "kill", "all", "--reason", "x", "--key", d.key("kill"), "--file", d.file("k.dsse"))                    // of which tenant
}

// fleetShows waits until the view counts both nodes, and looks at it.
func fleetShows(t *testing.T, d *desk) {
	t.Helper()
	var out string
	for end := time.Now().Add(30 * time.Second); ; {
		admin, err := (&fleetFlags{dir: d.fleetDir}).admin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		v, _, err := admin.View(t.Context())
		admin.Close()
		if err == nil && v.InForce.Nodes == 2 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v, %+v", err, v.InForce)
		}
	}
	out, _ = cli(t, exitOK, "fleet", "--dir", d.fleetDir)
	wants(t, out, "epoch 1, in force on 2 of 2 nodes since ")
	out, _ = cli(t, exitOK, "fleet", "--dir", d.fleetDir, "-o", "json")
	doc := parse[fleetDoc](t, out)
	hasKeys(t, doc.InForce, "epoch", "digest", "nodes", "of", "since", "worst_propagation_ms", "away", "other")
	if len(doc.Nodes) != 2 {
		t.Fatalf("%d nodes", len(doc.Nodes))
	}
	for _, n := range doc.Nodes {
		hasKeys(t, n, "name", "region", "labels", "epoch", "digest", "heartbeat_age_ms", "staleness", "journal", "vectors")
		hasKeys(t, parse[map[string]json.RawMessage](t, string(n))["journal"], "boot", "seq", "shipped", "cosigned")
	}
}

func killAndLift(t *testing.T, d *desk) {
	t.Helper()
	out, _ := cli(t, exitOK, "kill", "list", "--dir", d.fleetDir)
	wants(t, out, "nothing is stopped")
	out, _ = cli(t, exitOK, "kill", "subject:mallory", "--reason", "drill", "--dir", d.fleetDir, "--wait", "30s", "-o", "json")
	hasKeys(t, json.RawMessage(out), "digest", "kills", "nodes", "not_confirmed", "ms")
	digest := parse[struct{ Digest string }](t, out).Digest
	out, _ = cli(t, exitOK, "kill", "list", "--dir", d.fleetDir, "-o", "json")
	kills := parse[fleetDoc](t, out).Kills
	if len(kills) != 1 {
		t.Fatalf("%s", out)
	}
	hasKeys(t, kills[0], "digest", "scope", "reason", "by", "created", "confirmed", "not_confirmed")
	if keys := keysOf(t, json.RawMessage(out)); !slices.Equal(keys, []string{"kills"}) {
		t.Errorf("kill list has %q", keys)
	}
	out, _ = cli(t, exitOK, "kill", "list", "--dir", d.fleetDir)
	wants(t, out, "subject:mallory")
	wants(t, out, "confirmed by 2 of 2")
	out, _ = cli(t, exitOK, "fleet", "--dir", d.fleetDir)
	wants(t, out, "kill subject:mallory (drill)")
	out, _ = cli(t, exitOK, "kill", "lift", digest, "--reason", "over", "--dir", d.fleetDir, "--wait", "30s")
	wants(t, out, "confirmed by 2 of 2 nodes")
	out, _ = cli(t, exitOK, "kill", "list", "--dir", d.fleetDir)
	wants(t, out, "nothing is stopped")
	out, _ = cli(t, exitOK, "kill", "all", "--reason", "drill", "--key", d.key("kill"), "--file", d.file("kill.dsse"), "--tenant", "demo")
	wants(t, out, "put it into the folder kills")
}
