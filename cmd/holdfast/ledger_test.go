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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/holdfast-policy/holdfast/control/ledger/formats"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/demo"
	"github.com/holdfast-policy/holdfast/runtime/replay"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// evidence is a stopped fleet of two nodes that decided real tool calls, and an
// export of it. Tests must not change it.
type evidence struct {
	fleet, export, keys string
	answers             []policy.Answer
}

const evidenceCalls = 120

var gathered struct {
	once sync.Once
	evidence
	err error
}

// gather returns the evidence, made once for all tests.
func gather(t *testing.T) *evidence {
	t.Helper()
	gathered.once.Do(func() {
		dir, err := os.MkdirTemp(os.Getenv("XDG_CACHE_HOME"), "evidence-") // taken away after the run
		if err == nil {
			err = gathered.make(context.Background(), dir)
		}
		gathered.err = err
	})
	if gathered.err != nil {
		t.Fatal(gathered.err)
	}
	return &gathered.evidence
}

func (v *evidence) make(ctx context.Context, dir string) error {
	v.fleet, v.export = filepath.Join(dir, "fleet"), filepath.Join(dir, "export")
	fleet, err := assembly.StartFleet(ctx, assembly.FleetConfig{Dir: v.fleet, Tenant: "demo", Edges: 2, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer fleet.Close()
	policies, err := demoPolicies(ctx)
	if err != nil {
		return err
	}
	published, err := fleet.Publish(ctx, policies.points, policies.files)
	if err != nil {
		return err
	}
	if _, err := waitInForce(ctx, fleet.URLs(), published.Epoch); err != nil {
		return err
	}
	calls, err := demo.Calls(1)
	if err != nil {
		return err
	}
	for i, call := range calls[:evidenceCalls] {
		c, err := client.New(client.Config{Node: fleet.URLs()[i%2]})
		if err != nil {
			return err
		}
		a, err := c.Decide(ctx, call.Point, call.Body)
		c.Close()
		if err != nil {
			return err
		}
		v.answers = append(v.answers, a)
	}
	if err := fleet.Close(); err != nil {
		return err
	}
	v.keys = fleet.Layout().PublicKeys()
	return assembly.ExportJournals(fleet.Layout(), v.export)
}

func (v *evidence) answer(t *testing.T, i int, change func(map[string]any)) (path string) {
	t.Helper()
	text, err := json.Marshal(v.answers[i])
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(doc)
	}
	if text, err = json.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "answer.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// An answer's record is proven, from the fleet and from an export, and the proof
// is checked by somebody with the public keys alone.
func TestLedgerProve(t *testing.T) {
	v := gather(t)
	proof := filepath.Join(t.TempDir(), "a.proof")
	out, _ := cli(t, exitOK, "ledger", "prove", "--dir", v.fleet, "--answer", v.answer(t, 5, nil), "--out", proof)
	wants(t, out, "proven:")
	out, _ = cli(t, exitOK, "ledger", "prove", "--check", proof, "--keys", v.keys, "--answer", v.answer(t, 5, nil), "-o", "json")
	var p struct {
		Node, Leaf string
		Seq        uint64
		Record     struct {
			Verdict string
			Request struct{ Subject policy.Entity }
		}
	}
	if err := json.Unmarshal([]byte(out), &p); err != nil || p.Leaf != v.answers[5].Leaf || p.Record.Verdict != v.answers[5].Verdict.String() || p.Record.Request.Subject.Type != "agent" {
		t.Errorf("%v: %s", err, out)
	}
	for i := range v.answers[:10] {
		cli(t, exitOK, "ledger", "prove", "--from", v.export, "--keys", v.keys, "--answer", v.answer(t, i, nil))
	}
	for name, change := range map[string]func(map[string]any){
		"leaf":    func(a map[string]any) { a["leaf"] = strings.Repeat("0", 64) },
		"verdict": func(a map[string]any) { a["verdict"], a["decision"] = "throttle", false },
		"reasons": func(a map[string]any) { a["reasons"] = []any{map[string]any{"code": "x", "text": "y"}} },
		"epoch":   func(a map[string]any) { a["epoch"] = 7 },
		"value":   func(a map[string]any) { a["value"] = "other" },
	} {
		out, errs := cli(t, exitCheck, "ledger", "prove", "--from", v.export, "--keys", v.keys, "--answer", v.answer(t, 5, change))
		wants(t, out, name+": the answer says ")
		wants(t, errs, "the record is not what the answer says")
	}
	for name, c := range map[string]struct {
		code   int
		change func(map[string]any)
		want   string
	}{
		"a record that never was": {exitCheck, func(a map[string]any) { a["seq"] = 99999 }, "the record is not there"},
		"a boot that never was":   {exitCheck, func(a map[string]any) { a["boot"] = audit.BootID(9, 9) }, "the record is not there"},
		"a path for a node":       {exitUsage, func(a map[string]any) { a["node"] = "../edge-1" }, "no record has the name"},
		"an unrecorded answer":    {exitCheck, func(a map[string]any) { a["recorded"] = false }, "was not recorded"},
	} {
		_, errs := cli(t, c.code, "ledger", "prove", "--from", v.export, "--keys", v.keys, "--answer", v.answer(t, 5, c.change))
		if !strings.Contains(errs, c.want) {
			t.Errorf("%s: %s", name, errs)
		}
	}
	raw, err := os.ReadFile(proof)
	if err != nil {
		t.Fatal(err)
	}
	for at := 3; at < len(raw); at += 97 {
		changed := bytes.Clone(raw)
		changed[at] ^= 0x10
		if err := os.WriteFile(proof, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"ledger", "prove", "--check", proof, "--keys", v.keys}, bytes.NewReader(nil), &out, &errs)
		if code != exitCheck && !(code == exitOK && strings.Contains(out.String(), "what was asked is not there")) {
			t.Errorf("byte %d of %d: exit code %d\n%s%s", at, len(raw), code, &out, &errs)
		}
	}
}

func (v *evidence) query(t *testing.T, code int, args ...string) (found []shown) {
	t.Helper()
	out, _ := cli(t, code, append([]string{"ledger", "query", "-o", "json"}, args...)...)
	for line := range strings.Lines(out) {
		var s shown
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		found = append(found, s)
	}
	return found
}

// What is asked for is found, by every criterion, in a fleet and in an export.
func TestLedgerQuery(t *testing.T) {
	v := gather(t)
	denied := 0
	for _, a := range v.answers {
		if a.Verdict == policy.Deny {
			denied++
		}
	}
	idx := filepath.Join(t.TempDir(), "idx")
	from := []string{"--from", v.export, "--index", idx}
	if got := v.query(t, exitOK, append(from, "--verdict", "deny")...); len(got) != denied || denied == 0 {
		t.Errorf("%d found, %d denied", len(got), denied)
	}
	if got := v.query(t, exitOK, "--dir", v.fleet, "--verdict", "deny"); len(got) != denied {
		t.Errorf("%d found in the fleet, %d denied", len(got), denied)
	}
	a := v.answers[7]
	got := v.query(t, exitOK, append(from, "--record", fmt.Sprintf("%s/%s/%d", a.Node, a.Boot, a.Seq))...)
	if len(got) != 1 || got[0].Leaf != a.Leaf || got[0].Verdict != a.Verdict.String() {
		t.Fatalf("%+v", got)
	}
	for _, c := range []struct {
		n    int
		args []string
	}{
		{evidenceCalls, []string{"--kind", "decision"}},
		{evidenceCalls, []string{"--policy", "tool-authz", "--keys", v.keys}},
		{evidenceCalls, []string{"--point", "tool.pre_call", "--since", "24h"}},
		{evidenceCalls / 2, []string{"--node", "edge-2", "--kind", "decision"}},
		{0, []string{"--policy", "tool-auth"}},
		{0, []string{"--until", "24h"}},
		{0, []string{"--subject", "nobody"}},
		{3, []string{"--limit", "3"}},
		{2, []string{"--kind", "boot", "--rebuild"}},
	} {
		if got := v.query(t, exitOK, append(from, c.args...)...); len(got) != c.n {
			t.Errorf("%v: %d, want %d", c.args, len(got), c.n)
		}
	}
	text, _ := cli(t, exitOK, append(append([]string{"ledger", "query"}, from...), "--limit", "4")...)
	if strings.Count(text, "\n") != 4 {
		t.Errorf("%s", text)
	}
	for _, args := range [][]string{{}, {"--from", v.export, "--dir", v.fleet}, {"--from", v.export, "--record", "x"}, {"--from", v.export, "--verdict", "maybe"},
		{"--from", v.export, "--since", "yesterday"}, {"--from", v.export, "--kind", "x"}, {"--from", v.export, "--trace", "12"}, {"--from", filepath.Join(v.export, "manifest")}} {
		cli(t, exitUsage, append([]string{"ledger", "query"}, args...)...)
	}
}

// copyExport copies the export, for tests that change it.
func (v *evidence) copyExport(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "export")
	if err := os.CopyFS(dir, os.DirFS(v.export)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func batches(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "nodes", "*", "*", "*.batch"))
	if err != nil || len(files) == 0 {
		t.Fatal(err, len(files))
	}
	return files
}

// Links, pipes, junk and huge files in an export end no command and hide nothing.
func TestHostileExports(t *testing.T) {
	v := gather(t)
	for name, change := range map[string]func(path string) error{
		"a pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a link":      func(path string) error { return os.Symlink("/dev/zero", path) },
		"a huge file": func(path string) error { return sparse(path, 1<<40) },
		"junk":        func(path string) error { return os.WriteFile(path, []byte("junk"), 0o600) },
		"a folder":    func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := v.copyExport(t)
			file := batches(t, dir)[0]
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := change(file); err != nil {
				t.Fatal(err)
			}
			cli(t, exitCheck, "ledger", "verify", dir, "--keys", v.keys)
			cli(t, exitCheck, "ledger", "replay", dir, "--keys", v.keys, "--dir", v.fleet)
			code := exitCheck // a file that is there, and is no batch
			if name != "a huge file" && name != "junk" {
				code = exitOK // nothing is there; what is missing, verify says
			}
			if got := v.query(t, code, "--from", dir, "--kind", "decision"); len(got) >= evidenceCalls || len(got) == 0 {
				t.Errorf("%d found", len(got))
			}
		})
	}
}

func sparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

func (v *evidence) replay(t *testing.T, code int, dir string, args ...string) *replay.Report {
	t.Helper()
	out, errs := cli(t, code, append([]string{"ledger", "replay", dir, "-o", "json"}, args...)...)
	var r replayed
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	return r.Replay
}

// A month of traffic gives the same bytes again, and a candidate shows its changes.
func TestLedgerReplay(t *testing.T) {
	v := gather(t)
	if r := v.replay(t, exitOK, v.export, "--dir", v.fleet); r.Exact != evidenceCalls || !r.Equal() {
		t.Fatalf("%+v", r)
	}
	published := assembly.Layout{Dir: v.fleet}.Published()
	out, _ := cli(t, exitOK, "ledger", "replay", v.export, "--keys", v.keys, "--packages", published)
	wants(t, out, fmt.Sprintf("%d gave the same bytes, 0 differ", evidenceCalls))

	// The candidate asks argument-guard alone.
	pkgs, err := filepath.Glob(filepath.Join(published, "packages", "*.hfp"))
	if err != nil || len(pkgs) != 2 {
		t.Fatal(err, pkgs)
	}
	work := t.TempDir()
	guard := pkgs[0]
	if text, _ := cli(t, exitOK, "inspect", guard); !strings.Contains(text, "argument-guard") {
		guard = pkgs[1]
	}
	yaml := filepath.Join(work, "next.yaml")
	text := fmt.Sprintf("tenant: demo\npoints: {tool.pre_call: {packages: [{file: %s}]}}\n", guard)
	if err := os.WriteFile(yaml, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	releases, err := filepath.Glob(filepath.Join(published, "releases", "*.dsse"))
	if err != nil || len(releases) != 1 {
		t.Fatal(err, releases)
	}
	draft := filepath.Join(work, "next.dsse")
	cli(t, exitOK, "release", "new", yaml, "--previous", releases[0], "--root", assembly.Layout{Dir: v.fleet}.TrustRoot(), "-o", draft)
	list := filepath.Join(work, "changes.jsonl")
	r := v.replay(t, exitCheck, v.export, "--keys", v.keys, "--packages", published, "--candidate", draft, "--list", list)
	if r.Different == 0 || r.Exact == 0 || r.Exact+r.Different != evidenceCalls || r.Verdicts["deny -> allow"] == 0 {
		t.Fatalf("%+v", r)
	}
	listed, err := os.ReadFile(list)
	if err != nil || bytes.Count(listed, []byte("\n")) != int(r.Different) {
		t.Fatalf("%v: %d of %d lines", err, bytes.Count(listed, []byte("\n")), r.Different)
	}
	var d replay.Difference
	if err := json.Unmarshal(listed[:bytes.IndexByte(listed, '\n')], &d); err != nil || d.Point != policy.PointPreCall || len(d.What) == 0 {
		t.Fatalf("%v %+v", err, d)
	}
	// Without its packages nothing is decided, and that is no success.
	if r := v.replay(t, exitCheck, v.export, "--keys", v.keys, "--packages", work); r.Unknown != evidenceCalls {
		t.Fatalf("%+v", r)
	}
	for _, args := range [][]string{
		{v.export, "--keys", v.keys}, {v.export, "--packages", published}, {filepath.Join(work, "none"), "--dir", v.fleet},
		{v.export, "--dir", v.fleet, "--candidate", yaml}, {v.export, "--dir", v.fleet, "--packages", filepath.Join(work, "none")},
	} {
		cli(t, exitUsage, append([]string{"ledger", "replay"}, args...)...)
	}
}

// What is proven goes into files for other tools, from an export and from a fleet.
func TestLedgerExportFormats(t *testing.T) {
	v := gather(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	out, _ := cli(t, exitOK, "ledger", "export", "--format", "parquet", "--dir", v.fleet, file("a.parquet"))
	wants(t, out, "the export is complete")
	rows, err := parquet.ReadFile[formats.Row](file("a.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]int{}
	for _, r := range rows {
		if r.Kind == "decision" {
			verdicts[*r.Verdict]++
			if r.Request == nil || !json.Valid([]byte(*r.Request)) || len(r.Policies) != 2 || *r.Fuel == 0 {
				t.Fatalf("%+v", r)
			}
		}
	}
	for _, a := range v.answers {
		verdicts[a.Verdict.String()]--
	}
	for verdict, n := range verdicts {
		if n != 0 {
			t.Errorf("%d of %s too many", n, verdict)
		}
	}
	cli(t, exitOK, "ledger", "export", "--format", "jsonl-opa", "--from", v.export, "--keys", v.keys, file("a.opa"))
	events, err := os.ReadFile(file("a.opa"))
	if err != nil || bytes.Count(events, []byte("\n")) != evidenceCalls {
		t.Errorf("%v: %d events", err, bytes.Count(events, []byte("\n")))
	}
	cli(t, exitOK, "ledger", "export", "--format", "jsonl-otel", "--from", v.export, "--keys", v.keys, "-o", "json", file("a.otel"))

	damaged := v.copyExport(t)
	if err := os.Remove(batches(t, damaged)[0]); err != nil {
		t.Fatal(err)
	}
	cli(t, exitCheck, "ledger", "export", "--format", "parquet", "--from", damaged, "--keys", v.keys, file("b.parquet"))
	if rows, err := parquet.ReadFile[formats.Row](file("b.parquet")); err != nil || len(rows) == 0 {
		t.Errorf("%v: %d rows", err, len(rows))
	}
	for _, args := range [][]string{
		{"--format", "csv", "--from", v.export, "--keys", v.keys, file("x")}, {"--format", "parquet", "--from", v.export, file("x")},
		{"--format", "parquet", "--from", v.export, "--keys", v.keys, file("a.opa")}, {"--from", v.export, file("x")},
	} {
		cli(t, exitUsage, append([]string{"ledger", "export"}, args...)...)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 4 {
		t.Errorf("%v: %v", err, left)
	}
}

// In a fleet with regions the ledger of a region is searched and proven from, while
// it runs, and proofs are counter-signed.
func TestLedgerOfARegion(t *testing.T) {
	d := newDesk(t, 1)
	release := d.release("r1", "", firstRelease)
	cli(t, exitOK, "release", "publish", release, "--dir", d.fleetDir)
	d.inForce(1)
	v := &evidence{}
	for _, url := range d.fleet.URLs() {
		c, err := client.New(client.Config{Node: url})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		a, err := c.Decide(t.Context(), policy.PointCustom, []byte(`{"id":"r-1","subject":{"type":"user","id":"alice"},"action":{"name":"x"},"resource":{"type":"t","id":"r"}}`))
		if err != nil {
			t.Fatal(err)
		}
		v.answers = append(v.answers, a)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := d.fleet.WaitCosigned(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range v.answers {
		out, _ := cli(t, exitOK, "ledger", "prove", "--dir", d.fleetDir, "--answer", v.answer(t, i, nil))
		wants(t, out, "counter-signed by eu")
	}
	if got := v.query(t, exitOK, "--dir", d.fleetDir, "--region", "eu", "--subject", "user:alice", "--request", "r-1"); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	cli(t, exitUsage, "ledger", "query", "--dir", d.fleetDir, "--region", "us")
}
