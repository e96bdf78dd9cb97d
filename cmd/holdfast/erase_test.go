package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// said runs the program and returns what it said.
func said(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(t.Context(), args, bytes.NewReader(nil), &out, &errs); got != code {
		t.Fatalf("holdfast %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func saidJSON(t *testing.T, code int, into any, args ...string) {
	t.Helper()
	out, _ := said(t, code, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("holdfast %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// A subject's records are erased in a running fleet of two regions: refused while
// a hold keeps them, complete afterwards in both, explained by a document that
// only the trust root's people can sign; the nodes have it in their trees.
func TestEraseInAFleet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fleet, err := assembly.StartFleet(ctx, assembly.FleetConfig{Dir: t.TempDir(), Tenant: "demo", Regions: 2, Edges: 2, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	policies, err := demoPolicies(ctx)
	if err != nil {
		t.Fatal(err)
	}
	published, err := fleet.Publish(ctx, policies.points, policies.files)
	if err == nil {
		_, err = waitInForce(ctx, fleet.URLs(), published.Epoch)
	}
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]int{}
	for i := range 40 {
		c, err := client.New(client.Config{Node: fleet.URLs()[i%2]})
		if err != nil {
			t.Fatal(err)
		}
		who := []string{"ada", "bob"}[i/2%2]
		body := fmt.Appendf(nil, `{"subject":{"type":"user","id":%q},"action":{"name":"call"},"resource":{"type":"tool","id":"mail"},"context":{"text":"canary-of-%s %d %s"}}`,
			who, who, i, strings.Repeat("long ", 2000*(i%2)))
		_, err = c.Decide(ctx, policy.PointPreCall, body)
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		asked[who]++
	}
	dir, l := fleet.Layout().Dir, fleet.Layout()
	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if ctx.Err() != nil {
				t.Fatalf("%s: not in time", what)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	verify := func(region string) (r audit.Report, count func(pick func(audit.BootReport) []audit.Range) uint64) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "export")
		said(t, 0, "ledger", "export", "--dir", dir, "--region", region, out)
		saidJSON(t, 0, &r, "ledger", "verify", out, "--keys", l.PublicKeys(), "--root", l.TrustRoot())
		return r, func(pick func(audit.BootReport) []audit.Range) (n uint64) {
			for _, node := range r.Nodes {
				for _, b := range node.Boots {
					for _, x := range pick(b) {
						n += x.To - x.From + 1
					}
				}
			}
			return n
		}
	}
	for _, region := range []string{"eu", "us"} {
		until("shipped to "+region, func() bool {
			r, _ := verify(region)
			var n uint64
			for _, node := range r.Nodes {
				for _, b := range node.Boots {
					n += b.Records["decision"]
				}
			}
			return n == 40
		})
	}

	var held struct{ Digest string }
	saidJSON(t, 0, &held, "ledger", "hold", "case-7", "--subject", "user:ada", "--reason", "litigation", "--dir", dir)
	_, why := said(t, 1, "ledger", "erase", "--dir", dir, "--subject", "user:ada", "--reason", "Art. 17", "--yes")
	if !strings.Contains(why, "under hold case-7") {
		t.Errorf("refused with: %s", why)
	}
	if out, _ := said(t, 0, "ledger", "holds", "--dir", dir); !strings.Contains(out, "case-7") || strings.Contains(out, "ada ") {
		t.Errorf("holds: %s", out)
	}
	said(t, 1, "ledger", "release-hold", held.Digest, "--reason", "over", "--dir", dir, "--key", l.PrivateKey("data"))
	said(t, 1, "ledger", "release-hold", strings.Repeat("ab", 32), "--reason", "over", "--dir", dir)
	said(t, 0, "ledger", "release-hold", held.Digest, "--reason", "over", "--dir", dir)
	said(t, 1, "ledger", "erase", "--dir", dir, "--subject", "user:nobody", "--reason", "x", "--yes")
	said(t, 1, "ledger", "erase", "--dir", dir, "--subject", "user:ada", "--reason", "x", "--yes", "--key", l.PrivateKey("kill"))
	r, _ := verify("eu")
	ahead := fmt.Sprintf("%s/%s/1-999", r.Nodes[0].Name, r.Nodes[0].Boots[0].Boot)
	if _, why := said(t, 1, "ledger", "erase", "--dir", dir, "--record", ahead, "--reason", "x", "--yes"); !strings.Contains(why, "nothing is erased") {
		t.Errorf("records that are to come: %s", why)
	}

	if out, _ := said(t, 0, "ledger", "erase", "--dir", dir, "--subject", "user:ada", "--reason", "Art. 17"); !strings.Contains(out, "20 records would be erased") {
		t.Errorf("shown: %s", out)
	}
	var erased erasedJSON
	saidJSON(t, 0, &erased, "ledger", "erase", "--dir", dir, "--subject", "user:ada", "--reason", "Art. 17", "--requested-by", "DSR-7", "--yes", "--wait", "20s")
	if erased.Count != 20 || len(erased.Documents) != 1 || len(erased.Regions) != 2 {
		t.Errorf("%+v", erased)
	}
	for _, region := range []string{"eu", "us"} {
		r, count := verify(region)
		if n := count(func(b audit.BootReport) []audit.Range { return b.Erased }); n != 20 {
			t.Errorf("%s: %d records are erased, %+v", region, n, r.Problems)
		}
		var admins uint64
		for _, node := range r.Nodes {
			admins += node.Boots[0].Records["admin"]
		}
		if admins < 2 || len(r.Explained) != 3 {
			t.Errorf("%s: %d administrative records, explained by %+v", region, admins, r.Explained)
		}
		if files := holding(t, l.Region(region), "canary-of-ada"); len(files) > 0 {
			t.Errorf("%s: still in %v", region, files)
		}
		if files := holding(t, l.Region(region), "canary-of-bob"); len(files) == 0 {
			t.Errorf("%s: what is not erased is nowhere; this test looks at nothing", region)
		}
	}
	out := filepath.Join(t.TempDir(), "export")
	said(t, 0, "ledger", "export", "--dir", dir, out)
	if text, _ := said(t, 1, "ledger", "verify", out, "--keys", l.PublicKeys()); !strings.Contains(text, "parts missing") {
		t.Errorf("without the trust root: %s", text)
	}
	if text, _ := said(t, 0, "ledger", "verify", out, "--keys", l.PublicKeys(), "--root", l.TrustRoot()); !strings.Contains(text, "parts erased") || !strings.Contains(text, "erased by order "+erased.Documents[0]) {
		t.Errorf("with the trust root: %s", text)
	}
	if text, _ := said(t, 0, "ledger", "replay", out, "--dir", dir); !strings.Contains(text, "replay: equal, but for 20 of 40 decisions") {
		t.Errorf("replayed: %s", text)
	}
	said(t, 1, "ledger", "replay", out, "--keys", l.PublicKeys(), "--packages", l.Published())
	file := filepath.Join(t.TempDir(), "records")
	said(t, 1, "ledger", "export", "--format", "jsonl-opa", "--from", out, "--keys", l.PublicKeys(), file+".1")
	said(t, 0, "ledger", "export", "--format", "jsonl-opa", "--from", out, "--keys", l.PublicKeys(), "--root", l.TrustRoot(), file+".2")
	said(t, 0, "ledger", "export", "--format", "jsonl-opa", "--dir", dir, file+".3")

	said(t, 1, "region", "retire", "mars", "--reason", "far", "--dir", dir)
	said(t, 0, "region", "retire", "us", "--reason", "closed", "--dir", dir)
	until("us retired", func() bool {
		text, _ := said(t, 0, "ledger", "query", "--dir", dir, "--kind", "admin")
		return strings.Contains(text, "region_retired us: closed")
	})
	said(t, 1, "region", "retire", "us", "--reason", "closed", "--dir", dir)
	said(t, 1, "region", "retire", "eu", "--reason", "the last", "--dir", dir)
}

// holding lists the files of a folder that hold the text, as they are or
// decompressed.
func holding(t *testing.T, dir, text string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // gone meanwhile
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		plain, err := wire.Decompress(raw, audit.MaxBatchBytes)
		if bytes.Contains(raw, []byte(text)) || err == nil && bytes.Contains(plain, []byte(text)) {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
