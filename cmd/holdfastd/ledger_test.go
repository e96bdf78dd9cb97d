package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/fleetkit"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/client"
)

// Of a region's three servers the one that leads is killed, and comes back with
// an empty disk and the stream swept: every server holds every record again.
func TestReplacedServerHoldsEverything(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*timeout)
	defer cancel()
	f := newFleet(t, 3, "eu")
	configure(t, f, "sweep: 300ms\n")
	if err := f.StartHubs(ctx); err != nil {
		t.Fatal(err)
	}
	url := startEdge(t, ctx, f, "edge-1", "eu", nil)
	publish(t, ctx, f, nil, allow(t, "ada"))
	until(t, ctx, f, "in force", func(s *assembly.State) bool { return s.View().InForce.Nodes == 1 })
	c, err := client.New(client.Config{Node: url})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(n int) {
		t.Helper()
		for range n {
			if a, err := c.Decide(ctx, "custom", []byte(`{"document":{"user":"ada"}}`)); err != nil || !a.Recorded {
				t.Fatalf("%+v, %v", a, err)
			}
		}
	}
	for range 20 {
		ask(10)
		shipped(t, ctx, f)
	}
	whole(t, f, 200)
	leader := leading(t, ctx, f, "eu")
	f.Process(leader).End(syscall.SIGKILL)
	ask(50)
	shipped(t, ctx, f)
	swept(t, ctx, f)
	data := filepath.Join(f.Hub(leader), "data")
	for _, lost := range []string{"nats", "ledger"} {
		if err := os.RemoveAll(filepath.Join(data, lost)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.StartHub(leader); err != nil {
		t.Fatal(err)
	}
	ask(50)
	shipped(t, ctx, f)
	whole(t, f, 300)

	// Without the region's key a server does not make one of its own.
	f.Process(leader).End(syscall.SIGKILL)
	if err := os.Remove(filepath.Join(data, "region.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.StartHub(leader); err == nil || !strings.Contains(err.Error(), "the servers of a region share it") {
		t.Fatalf("a server without the region's key: %v", err)
	}
}

// swept waits until the stream of records holds no more than the fences.
func swept(t *testing.T, ctx context.Context, f *fleetkit.Fleet) {
	t.Helper()
	admin, err := f.Admin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	for end := time.Now().Add(timeout); ; time.Sleep(50 * time.Millisecond) {
		first, err := admin.Conn().Stream("eu", "REC_bank").Next(ctx, 1, "hf.bank.eu.rec.edge-1.*")
		var last bus.Msg
		if err == nil {
			last, err = admin.Conn().Stream("eu", "REC_bank").Last(ctx, first.Subject)
		}
		if err == nil && first.Seq == last.Seq && first.Seq > 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the stream is not swept: %d to %d, %v", first.Seq, last.Seq, err)
		}
	}
}

// whole waits until every server of the region holds so many decisions, complete.
func whole(t *testing.T, f *fleetkit.Fleet, decisions uint64) {
	t.Helper()
	public, err := os.ReadFile(f.PublicKeys())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := audit.ParseKeys(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(f.Node("edge-1"), "data", "log.key"))
	if err == nil {
		err = keys.SetNode(strings.Split(string(key), "\n")[1])
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range f.Servers {
		for end, n := time.Now().Add(timeout), 0; ; time.Sleep(100 * time.Millisecond) {
			n++
			dir := filepath.Join(t.TempDir(), fmt.Sprint("export-", i, "-", n))
			if err := assembly.ExportHub(filepath.Join(f.Hub(s.Name), "hub.yaml"), "bank", dir); err != nil {
				t.Fatal(err)
			}
			report, err := audit.Verify(os.DirFS(dir), keys)
			if err != nil {
				t.Fatal(err)
			}
			if report.Verdict == audit.VerdictComplete && len(report.Nodes) == 1 && report.Nodes[0].Boots[0].Records["decision"] == decisions {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("server %s: %+v", s.Name, report)
			}
		}
	}
}
