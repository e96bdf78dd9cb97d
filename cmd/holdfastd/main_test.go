package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const timeout = 30 * time.Second

// TestMain lets the test binary be the daemon: a child of a test is run with
// the variable set.
func TestMain(m *testing.M) {
	engine.Worker()
	if os.Getenv("HOLDFASTD_CHILD") != "" {
		main()
	}
	os.Exit(m.Run())
}

// daemon is a holdfastd in a process of its own.
type daemon struct {
	t     *testing.T
	cmd   *exec.Cmd
	words string // what it says when it answers
	ended bool
}

func start(t *testing.T, role, config string) *daemon {
	t.Helper()
	d := &daemon{t: t, cmd: exec.Command(os.Args[0], role, "--config", config)}
	d.cmd.Env = append(os.Environ(), "HOLDFASTD_CHILD=1")
	var stderr bytes.Buffer
	d.cmd.Stderr = &stderr
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.end(syscall.SIGKILL) })
	if d.words, err = bufio.NewReader(stdout).ReadString('\n'); err != nil {
		d.end(syscall.SIGKILL)
		t.Fatalf("%s did not start: %v\n%s", role, err, stderr.String())
	}
	return d
}

// end sends a signal and waits; it returns the exit code.
func (d *daemon) end(signal os.Signal) int {
	if d.ended {
		return -1
	}
	d.ended = true
	_ = d.cmd.Process.Signal(signal) // it may have ended
	_ = d.cmd.Wait()                 // its exit code is what counts
	return d.cmd.ProcessState.ExitCode()
}

func (d *daemon) find(pattern string) string {
	d.t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(d.words)
	if m == nil {
		d.t.Fatalf("no %s in %q", pattern, d.words)
	}
	return m[1]
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A home of one region and one node gives keys, trust root and a release.
func newHome(t *testing.T, regions int) (*assembly.Home, []byte) {
	t.Helper()
	home, err := assembly.OpenHome(assembly.FleetConfig{Dir: t.TempDir(), Tenant: "demo", Regions: regions, Edges: 1})
	if err != nil {
		t.Fatal(err)
	}
	host, err := loader.NewHost(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close(context.Background())
	b, err := compiler.BuildFS(context.Background(), fstest.MapFS{
		"p.rego": {Data: []byte("package p\n\ndefault allow := false\n\nallow if input.user == \"ada\"\n")},
	}, compiler.Options{Loader: host})
	if err != nil {
		t.Fatal(err)
	}
	content, err := wire.Decompress(b.File, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	_, err = home.Publish([]bundle.Point{{Name: "custom", Durability: policy.Synced, Packages: []bundle.PackageRef{
		{Name: "p", Digest: b.Digest, Size: uint64(len(content))},
	}}}, map[wire.Digest][]byte{b.Digest: b.File})
	if err != nil {
		t.Fatal(err)
	}
	return home, b.File
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
	home, _ := newHome(t, 0)
	config := write(t, filepath.Join(home.Layout().Dir, "edge.yaml"),
		"tenant: demo\nnode: edge-1\ndir: nodes/edge-1\nlisten: 127.0.0.1:0\ntrust_root: trust-root.dsse\nfolder: published\n")
	first := start(t, "edge", config)
	a := decideUntil(t, first.find(`(http://\S+)`), "ada", policy.Allow)
	first.end(syscall.SIGKILL)
	second := start(t, "edge", config)
	b := decideUntil(t, second.find(`(http://\S+)`), "bob", policy.Deny)
	if a.Boot == b.Boot {
		t.Errorf("both boots are %s", a.Boot)
	}
	if code := second.end(syscall.SIGTERM); code != 0 {
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

// A hub and an edge, each a process of its own, with nothing between but TCP:
// the release goes out, the record comes in and is counter-signed.
func TestHubAndEdge(t *testing.T) {
	home, file := newHome(t, 1)
	dir := home.Layout().Dir
	write(t, filepath.Join(dir, "password"), "secret\n")
	hub := start(t, "hub", write(t, filepath.Join(dir, "hub.yaml"),
		"tenant: demo\nregion: eu\ndir: regions/eu\npublic_keys: public.keys\nnats: {user: demo, password_file: password}\n"))
	key := ""
	for _, line := range strings.Split(string(home.Keys().File()), "\n") {
		if vkey, ok := strings.CutPrefix(line, "region "); ok {
			key = vkey
		}
	}
	node := start(t, "edge", write(t, filepath.Join(dir, "edge.yaml"), fmt.Sprintf(
		"tenant: demo\nnode: edge-1\ndir: nodes/edge-1\nlisten: 127.0.0.1:0\ntrust_root: trust-root.dsse\n"+
			"regions: [{name: eu, leaf: %q, key: %q}]\nnats: {user: demo, password_file: password}\n", hub.find(`leaf nodes (\S+)`), key)))

	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := bus.Connect(ctx, bus.Config{URL: hub.find(`clients (\S+),`), User: "demo", Password: "secret", Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	envelope, err := os.ReadFile(filepath.Join(home.Layout().Published(), "releases", fmt.Sprintf("%020d.dsse", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := (jetstream.Region{Conn: conn, Tenant: "demo", Name: "eu"}).Publish(ctx, 1, envelope, file); err != nil {
		t.Fatal(err)
	}
	a := decideUntil(t, node.find(`(http://\S+)`), "ada", policy.Allow)
	for cosigned(t, home, "eu") < a.Seq {
		if ctx.Err() != nil {
			t.Fatal("the record was not counter-signed in time")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if code := node.end(syscall.SIGTERM); code != 0 {
		t.Errorf("edge: exit code %d", code)
	}
	if code := hub.end(syscall.SIGTERM); code != 0 {
		t.Errorf("hub: exit code %d", code)
	}
}

// cosigned is how much of the only boot a region has counter-signed, as an
// outsider sees it in an export.
func cosigned(t *testing.T, home *assembly.Home, region string) uint64 {
	t.Helper()
	exported := filepath.Join(t.TempDir(), "export")
	if err := assembly.Export(home.Layout(), exported, region, ""); err != nil {
		return 0 // nothing is there yet
	}
	report, err := audit.Verify(os.DirFS(exported), home.Keys())
	if err != nil || len(report.Nodes) == 0 {
		return 0
	}
	return report.Nodes[0].Boots[0].Cosigned[region]
}

func TestConfigurationErrors(t *testing.T) {
	home, _ := newHome(t, 0)
	good := "tenant: demo\nnode: edge-1\ndir: d\nlisten: 127.0.0.1:0\ntrust_root: trust-root.dsse\nfolder: published\n"
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":      {good + "durabilty: none\n", "line 7"},
		"wrong type":       {strings.Replace(good, "node: edge-1", "node: [1]", 1), "line 2"},
		"not YAML":         {"tenant: [", "yaml"},
		"empty":            {"", "empty"},
		"two documents":    {good + "---\n" + good, "more than one"},
		"no source":        {strings.Replace(good, "folder: published\n", "", 1), "either folder or regions"},
		"both sources":     {good + "regions: [{name: eu, leaf: '127.0.0.1:1', key: k}]\n", "either folder or regions"},
		"no login":         {strings.Replace(good, "folder: published", "regions: [{name: eu, leaf: '127.0.0.1:1', key: k}]", 1), "nats"},
		"bad name":         {strings.Replace(good, "edge-1", "edge.1", 1), "node"},
		"no port":          {strings.Replace(good, "127.0.0.1:0", "localhost", 1), "host:port"},
		"no trust root":    {strings.Replace(good, "trust-root.dsse", "nowhere", 1), "trust_root"},
		"not a trust root": {strings.Replace(good, "trust-root.dsse", "public.keys", 1), "trust_root"},
		"duplicate key":    {good + "node: edge-2\n", "line 7"},
		"another tenant":   {strings.Replace(good, "tenant: demo", "tenant: other", 1), "tenant"},
		"no region key": {strings.Replace(good, "folder: published",
			"nats: {user: u, password_file: good.yaml}\nregions: [{name: eu, leaf: '127.0.0.1:1', key: k}]", 1), "key of region eu"},
		"nothing but a word": {"hello\n", "line 1"},
	} {
		file := write(t, filepath.Join(home.Layout().Dir, "bad.yaml"), c.text)
		var stderr bytes.Buffer
		code := run(context.Background(), []string{"edge", "--config", file, "--check"}, nil, io.Discard, &stderr)
		if code != 2 || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: exit code %d, %q; want %q", name, code, stderr.String(), c.want)
		}
	}
	file := write(t, filepath.Join(home.Layout().Dir, "good.yaml"), good)
	if code := run(context.Background(), []string{"edge", "--config", file, "--check"}, nil, io.Discard, io.Discard); code != 0 {
		t.Errorf("a good configuration: exit code %d", code)
	}
	if _, err := os.Stat(edge.JournalDir(filepath.Join(home.Layout().Dir, "d"))); err == nil {
		t.Error("--check started something")
	}
}

func TestHubConfigurationErrors(t *testing.T) {
	home, _ := newHome(t, 1)
	dir := home.Layout().Dir
	write(t, filepath.Join(dir, "password"), "secret\n")
	write(t, filepath.Join(dir, "empty"), "\n")
	good := "tenant: demo\nregion: eu\ndir: d\npublic_keys: public.keys\nnats: {user: demo, password_file: password}\n"
	for name, c := range map[string]struct{ text, want string }{
		"good":           {good, ""},
		"unknown key":    {good + "peer: us\n", "line 6"},
		"no keys":        {strings.Replace(good, "public.keys", "nowhere", 1), "public_keys"},
		"its own peer":   {good + "peers: [us, eu]\n", "region itself"},
		"no such port":   {good + "leaf_port: 65536\n", "leaf_port"},
		"negative port":  {good + "client_port: -1\n", "client_port"},
		"bad join":       {good + "join: nowhere\n", "host:port"},
		"no password":    {strings.Replace(good, "password}", "nowhere}", 1), "password_file"},
		"empty password": {strings.Replace(good, "password}", "empty}", 1), "password_file"},
	} {
		file := write(t, filepath.Join(dir, "hub.yaml"), c.text)
		var stderr bytes.Buffer
		code := run(context.Background(), []string{"hub", "--config", file, "--check"}, nil, io.Discard, &stderr)
		if (code == 0) != (c.want == "") || code != 0 && code != 2 || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: exit code %d, %q; want %q", name, code, stderr.String(), c.want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"node"}, {"edge"}, {"edge", "--config"}, {"hub", "--config", "x", "y"}, {"edge", "--what"}} {
		var stderr bytes.Buffer
		if code := run(context.Background(), args, nil, io.Discard, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
}
