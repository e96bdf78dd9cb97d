package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/control/registry"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/fleetkit"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const timeout = 60 * time.Second

// TestMain lets the test binary be the daemon: a child of a test is run with
// the variable set.
func TestMain(m *testing.M) {
	engine.Worker()
	if os.Getenv("HOLDFASTD_CHILD") != "" {
		main()
	}
	os.Exit(m.Run())
}

// newFleet makes a fleet whose daemons are this test binary.
func newFleet(t *testing.T, servers int, regions ...string) *fleetkit.Fleet {
	t.Helper()
	f, err := fleetkit.New(fleetkit.Config{
		Dir: t.TempDir(), Tenant: "bank", Regions: regions, Servers: servers, Daemon: []string{os.Args[0]}, Env: []string{"HOLDFASTD_CHILD=1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		if t.Failed() {
			for _, s := range f.Servers {
				if p := f.Process(s.Name); p != nil {
					t.Logf("%s:\n%s", s.Name, p.Log())
				}
			}
		}
	})
	return f
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// allow is a policy that allows one user and denies the rest.
func allow(t *testing.T, user string) fleetkit.Policy {
	t.Helper()
	host, err := loader.NewHost(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close(context.Background())
	b, err := compiler.BuildFS(context.Background(), fstest.MapFS{
		"p.rego": {Data: []byte("package p\n\ndefault allow := false\n\nallow if input.user == \"" + user + "\"\n")},
	}, compiler.Options{Loader: host})
	if err != nil {
		t.Fatal(err)
	}
	return fleetkit.Policy{Point: "custom", Name: "p", File: b.File}
}

// newHome is a laptop's home with one node and a release that allows ada.
func newHome(t *testing.T) *assembly.Home {
	t.Helper()
	home, err := assembly.OpenHome(assembly.FleetConfig{Dir: t.TempDir(), Tenant: "demo", Edges: 1})
	if err != nil {
		t.Fatal(err)
	}
	p := allow(t, "ada")
	content, err := wire.Decompress(p.File, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	_, err = home.Publish([]bundle.Point{{Name: "custom", Durability: policy.Synced, Packages: []bundle.PackageRef{
		{Name: "p", Digest: wire.Sum(content), Size: uint64(len(content))},
	}}}, map[wire.Digest][]byte{wire.Sum(content): p.File})
	if err != nil {
		t.Fatal(err)
	}
	return home
}

// decideUntil asks until the answer has the verdict: a release may be on its way.
func decideUntil(t *testing.T, url, user string, want policy.Verdict) policy.Answer {
	t.Helper()
	c, err := client.New(client.Config{Node: url})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for deadline := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
		a, err := c.Decide(context.Background(), "custom", []byte(`{"document":{"user":"`+user+`"}}`))
		if err == nil && a.Verdict == want && a.Epoch > 0 {
			return a
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s: %+v, %v", want, a, err)
		}
	}
}

// An edge from a configuration file and a folder, killed and started again.
func TestEdgeFromAFolder(t *testing.T) {
	home := newHome(t)
	f := newFleet(t, 1, "eu") // its daemons only
	dir := f.Node("edge-1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	config := write(t, filepath.Join(dir, "edge.yaml"), "tenant: demo\nnode: edge-1\nlisten: 127.0.0.1:0\n"+
		"dir: "+home.Layout().Node("edge-1")+"\ntrust_root: "+home.Layout().TrustRoot()+"\nfolder: "+home.Layout().Published()+"\n")
	first, err := f.StartEdge("edge-1")
	if err != nil {
		t.Fatal(err)
	}
	a := decideUntil(t, first, "ada", policy.Allow)
	f.Process("edge-1").End(syscall.SIGKILL)
	second, err := f.StartEdge("edge-1")
	if err != nil {
		t.Fatal(err)
	}
	b := decideUntil(t, second, "bob", policy.Deny)
	if a.Boot == b.Boot {
		t.Errorf("both boots are %s", a.Boot)
	}
	reload(t, f.Process("edge-1"), config)
	if code := f.Process("edge-1").End(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	exported := filepath.Join(t.TempDir(), "export")
	if err := assembly.Export(home.Layout(), exported, "", ""); err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(os.DirFS(exported), home.Keys())
	if err != nil || report.Verdict != audit.VerdictComplete || len(report.Nodes) != 1 || len(report.Nodes[0].Boots) != 2 {
		t.Errorf("%v, %+v", err, report)
	}
}

// reload has a process take another log level on SIGHUP, and refuse what needs a
// restart and what is wrong.
func reload(t *testing.T, p *fleetkit.Process, config string) {
	t.Helper()
	good, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{"", "needs a restart"}, // another address
		{"nonsense: 1\n", "unknown key"},
		{"log: debug\n", "configuration reloaded"},
	} {
		text := string(good) + c.text
		if c.text == "" {
			text = strings.Replace(text, "listen: 127.0.0.1:0", "listen: 127.0.0.1:1", 1)
		}
		write(t, config, text)
		if err := p.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(timeout); !strings.Contains(p.Log(), c.want); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after SIGHUP no %q in\n%s", c.want, p.Log())
			}
		}
	}
}

// Two regions of three hub servers and two edges, each a process of its own, with
// nothing between but TLS: a release goes out, everybody is counted, a server
// that leads is killed, a node that is killed leaves the count.
func TestRegionsOfThree(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*timeout)
	defer cancel()
	f := newFleet(t, 3, "eu", "us")
	if err := f.StartHubs(ctx); err != nil {
		t.Fatal(err)
	}
	var urls []string
	for i, home := range []string{"eu", "us"} {
		node := fmt.Sprintf("edge-%d", i+1)
		if err := f.Enrol(ctx, node, home, map[string]string{"region": home}); err != nil {
			t.Fatal(err)
		}
		url, err := f.StartEdge(node)
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, url)
	}
	if _, err := f.Publish(ctx, []fleetkit.Policy{allow(t, "ada")}, nil); err != nil {
		t.Fatal(err)
	}
	for _, url := range urls {
		decideUntil(t, url, "ada", policy.Allow)
	}
	counted(t, ctx, f, 2, 2)
	if resp, err := http.Get(urls[0] + "/metrics"); err != nil || resp.StatusCode != 200 {
		t.Errorf("metrics: %v %v", resp, err)
	} else if text, _ := io.ReadAll(resp.Body); !strings.Contains(string(text), "holdfast_epoch 1\n") || !strings.Contains(string(text), `holdfast_decisions_total{verdict="allow"}`) {
		t.Errorf("metrics:\n%s", text)
	}

	leader := leading(t, ctx, f, "eu")
	f.Process(leader).End(syscall.SIGKILL)
	if _, err := f.Publish(ctx, []fleetkit.Policy{allow(t, "bob")}, nil); err != nil {
		t.Fatalf("publish without %s: %v", leader, err)
	}
	for _, url := range urls {
		decideUntil(t, url, "bob", policy.Allow)
	}
	counted(t, ctx, f, 2, 2)
	f.Process("edge-2").End(syscall.SIGKILL)
	counted(t, ctx, f, 1, 2)
	if code := f.Process("edge-1").End(syscall.SIGTERM); code != 0 {
		t.Errorf("edge-1: exit code %d", code)
	}
}

// counted waits until so many nodes of so many are counted.
func counted(t *testing.T, ctx context.Context, f *fleetkit.Fleet, nodes, of int) {
	t.Helper()
	var last registry.InForce
	err := f.WaitView(ctx, func(s *assembly.State) bool {
		last = s.View().InForce
		return last.Nodes == nodes && last.Of == of
	})
	if err != nil {
		t.Fatalf("%v; want %d of %d", err, nodes, of)
	}
}

// leading is the hub server that leads a region.
func leading(t *testing.T, ctx context.Context, f *fleetkit.Fleet, region string) string {
	t.Helper()
	for {
		for _, s := range f.Servers {
			resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", s.Listen))
			if s.Region != region || err != nil {
				continue
			}
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil && strings.Contains(string(text), fmt.Sprintf("holdfast_hub_leading{region=%q,tenant=\"bank\"} 1", region)) {
				return s.Name
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("nobody leads %s", region)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestEdgeConfigurationErrors(t *testing.T) {
	home := newHome(t)
	f := newFleet(t, 1, "eu")
	if _, _, err := assembly.EnrolNode(f.Layout, assembly.Enrol{Node: "n", Key: f.Keys[fleetkit.Enroller]}); err != nil {
		t.Fatal(err)
	}
	enrolled, err := os.ReadFile(filepath.Join(f.Node("n"), "edge.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	dir := home.Layout().Dir
	folder := "tenant: demo\nnode: edge-1\ndir: d\nlisten: 127.0.0.1:0\ntrust_root: trust-root.dsse\nfolder: published\n"
	leaf := string(enrolled)
	for name, c := range map[string]struct{ dir, text, want string }{
		"unknown key":          {dir, folder + "durabilty: none\n", "bad.yaml:7:1: unknown key \"durabilty\""},
		"wrong type":           {dir, strings.Replace(folder, "node: edge-1", "node: [1]", 1), "bad.yaml:2:7: node: must be text"},
		"not YAML":             {dir, "tenant: [", "bad.yaml:1"},
		"empty":                {dir, "", "empty"},
		"two documents":        {dir, folder + "---\n" + folder, "document"},
		"no source":            {dir, strings.Replace(folder, "folder: published\n", "", 1), "either folder or regions"},
		"both sources":         {dir, folder + "regions: []\nnats: {creds: trust-root.dsse}\n", "no use for nats"},
		"bad name":             {dir, strings.Replace(folder, "edge-1", "edge.1", 1), "bad.yaml:2:7: node: \"edge.1\""},
		"no port":              {dir, strings.Replace(folder, "127.0.0.1:0", "localhost", 1), "listen: \"localhost\" is not host:port"},
		"no trust root":        {dir, strings.Replace(folder, "trust-root.dsse", "nowhere", 1), "bad.yaml:5:13: trust_root"},
		"not a trust root":     {dir, strings.Replace(folder, "trust-root.dsse", "public.keys", 1), "trust_root: open trust root"},
		"duplicate key":        {dir, folder + "node: edge-2\n", "bad.yaml:7:1: \"node\" twice"},
		"another tenant":       {dir, strings.Replace(folder, "tenant: demo", "tenant: other", 1), "the trust root is of tenant \"demo\""},
		"missing":              {dir, strings.Replace(folder, "listen: 127.0.0.1:0\n", "", 1), "listen is missing"},
		"nothing but a word":   {dir, "hello\n", "bad.yaml:1:1"},
		"a folder is no file":  {dir, strings.Replace(folder, "trust-root.dsse", "published", 1), "not a regular file"},
		"no nats":              {f.Node("n"), leaf[:strings.Index(leaf, "nats:")], "nats is missing"},
		"no creds":             {f.Node("n"), strings.Replace(leaf, "creds: node.creds", "creds: nowhere.creds", 1), "nats: creds:"},
		"region twice":         {f.Node("n"), strings.Replace(leaf, "nats:", "", 1) + leaf[strings.Index(leaf, "nats:"):], "bad.yaml"},
		"not a ledger's key":   {f.Node("n"), strings.Replace(leaf, "key: holdfast/", "key: nonsense/", 1), "not the verifier key of a ledger"},
		"leaf and client":      {f.Node("n"), leaf + "  urls: [nats://127.0.0.1:4222]\n", "either a leaf node or a client"},
		"a password in a URL":  {f.Node("n"), leaf + "  urls: ['nats://u:canary@127.0.0.1:4222']\n", "credentials go into creds"},
		"not a NATS URL":       {f.Node("n"), leaf + "  urls: ['http://127.0.0.1']\n", "not a nats://"},
		"unknown key of nats":  {f.Node("n"), leaf + "  user: u\n", "unknown key \"user\""},
		"listen as a client":   {f.Node("n"), withoutLeafs(leaf) + "  urls: [nats://127.0.0.1:4222]\n  listen: 127.0.0.1:4333\n", "has no server of its own"},
		"cannot be reached":    {f.Node("n"), withoutLeafs(leaf), "it cannot be reached"},
		"no unit of a quota":   {dir, folder + "journal: {quota: 20}\n", "bad.yaml:7:18: journal: quota: must be text, not a number"},
		"a quota of nothing":   {dir, folder + "journal: {quota: 1MB}\n", "bad.yaml:7:18: journal: quota"},
		"a quota of NaN":       {dir, folder + "journal: {quota: NaNGB}\n", "bad.yaml:7:18: journal: quota"},
		"retention of nothing": {f.Node("n"), leaf + "journal: {retention: 0s}\n", "journal: retention: must be a time"},
		"more receipts":        {f.Node("n"), leaf + "journal: {min_receipts: 2}\n", "2 receipts of 1 regions"},
		"no receipts":          {f.Node("n"), leaf + "journal: {min_receipts: 0}\n", "journal: min_receipts"},
		"retention alone":      {dir, folder + "journal: {retention: 1h}\n", "bad.yaml:7:11: an edge without regions gives up nothing"},
		"unknown journal key":  {dir, folder + "journal: {size: 1GB}\n", "unknown key \"size\""},
		"workload without one": {f.Node("n"), leaf + "  workloads: [{user: app}]\n", "password_file is missing"},
	} {
		file := write(t, filepath.Join(c.dir, "bad.yaml"), c.text)
		var stderr bytes.Buffer
		code := run(context.Background(), []string{"edge", "--config", file, "--check"}, nil, io.Discard, &stderr)
		if code != 2 || !strings.Contains(stderr.String(), c.want) || strings.Contains(stderr.String(), "canary") {
			t.Errorf("%s: exit code %d, %q; want %q", name, code, stderr.String(), c.want)
		}
	}
	for _, file := range []string{write(t, filepath.Join(dir, "good.yaml"), folder), filepath.Join(f.Node("n"), "edge.yaml")} {
		var stderr bytes.Buffer
		if code := run(context.Background(), []string{"edge", "--config", file, "--check"}, nil, io.Discard, &stderr); code != 0 {
			t.Errorf("a good configuration: exit code %d, %s", code, stderr.String())
		}
	}
	if _, err := os.Stat(edge.JournalDir(filepath.Join(dir, "d"))); err == nil {
		t.Error("--check started something")
	}
}

// withoutLeafs takes the leafs of the only region out of an edge's configuration.
func withoutLeafs(text string) string {
	begin, end := strings.Index(text, "    leafs:"), strings.Index(text, "nats:")
	return text[:begin] + text[end:]
}

func TestHubConfigurationErrors(t *testing.T) {
	f := newFleet(t, 3, "eu", "us")
	dir := f.Hub("us-2")
	raw, err := os.ReadFile(filepath.Join(dir, "hub.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	good := string(raw)
	write(t, filepath.Join(dir, "empty"), "\n")
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in\n%s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"good":                     {good, ""},
		"unknown key":              {good + "peer: us\n", "unknown key \"peer\""},
		"its own peer":             {replace("peers:\n  - eu\n", "peers: [eu, us]\n"), "us is this region itself"},
		"no such port":             {replace("client_port: ", "client_port: 9"), "client_port"},
		"open without TLS":         {withoutTLS(replace("host: 127.0.0.1", "host: 0.0.0.0")), "is not loopback, and there is no tls"},
		"another region's key":     {replace("region: us", "region: eu"), "heartbeat key is that of region us"},
		"no heartbeat key":         {replace("    heartbeat_key: heartbeat.key\n", ""), "heartbeat_key is missing"},
		"no cluster secret":        {replace("  cluster_secret: cluster.secret\n", ""), "cluster_secret is missing"},
		"an empty secret":          {replace("cluster_secret: cluster.secret", "cluster_secret: empty"), "the file is empty"},
		"urls and trust":           {good + "  urls: [nats://127.0.0.1:4222]\n", "is for an embedded server"},
		"no_domain without urls":   {good + "  no_domain: true\n", "goes with urls"},
		"replicas without servers": {good + "  replicas: 5\n", "5 replicas on 3 servers"},
		"a webhook that is none":   {good + "alarms: {webhook: mailto:x}\n", "not an http or https URL"},
		"too fast a heartbeat":     {good + "heartbeat: 1ms\n", "heartbeat"},
		"a key others may read":    {replace("heartbeat_key: heartbeat.key", "heartbeat_key: ../us-2/open.key"), "open to others"},
		"not the trust of NATS":    {replace("trust: nats-trust.json", "trust: ca.pem"), "not the trust of a NATS operator"},
		"another tenant":           {replace("- name: bank", "- name: other"), "the trust root is of tenant \"bank\""},
	} {
		if name == "a key others may read" {
			key, err := os.ReadFile(filepath.Join(dir, "heartbeat.key"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "open.key"), key, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		file := write(t, filepath.Join(dir, "bad.yaml"), c.text)
		var stderr bytes.Buffer
		code := run(context.Background(), []string{"hub", "--config", file, "--check"}, nil, io.Discard, &stderr)
		if (code == 0) != (c.want == "") || code != 0 && code != 2 || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: exit code %d, %q; want %q", name, code, stderr.String(), c.want)
		}
	}
}

// withoutTLS takes tls out of a hub's configuration.
func withoutTLS(text string) string {
	begin := strings.Index(text, "  tls:")
	end := strings.Index(text, "  host:")
	return text[:begin] + text[end:]
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"node"}, {"edge"}, {"edge", "--config"}, {"hub", "--config", "x", "y"}, {"edge", "--what"}} {
		var stderr bytes.Buffer
		if code := run(context.Background(), args, nil, io.Discard, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
}
