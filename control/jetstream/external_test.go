package jetstream_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/regiontest"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// natsServer builds the module's own nats-server, once per version.
func natsServer(t *testing.T) string {
	t.Helper()
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/nats-io/nats-server/v2" {
				version = d.Version
			}
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	path := filepath.Join(cache, "holdfast-test", "nats-server-"+version)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", path+".new", "github.com/nats-io/nats-server/v2")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// A region on a server that the user runs: no domain, no embedded anything. The
// edge is a client. The server is killed while records are shipped.
func TestServersThatTheUserRuns(t *testing.T) {
	program, dir := natsServer(t), t.TempDir()
	a, err := auth.Create(filepath.Join(dir, "auth"), "bank")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.AddTenant("acme", auth.Limits{}); err != nil {
		t.Fatal(err)
	}
	ca, err := auth.LoadOrCreateCA(filepath.Join(dir, "ca"), "bank")
	if err != nil {
		t.Fatal(err)
	}
	tls, err := ca.Server(filepath.Join(dir, "tls"), "nats", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	trust, err := a.Trust()
	if err != nil {
		t.Fatal(err)
	}
	trusting, err := trust.ServerConfig(filepath.Join(dir, "accounts"))
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(regiontest.Ports(t, 1)[0]))
	conf := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("listen: %q\njetstream { store_dir: %q, sync_interval: always }\nmax_payload: %d\ntls { cert_file: %q, key_file: %q, min_version: \"1.3\" }\n%s",
		addr, filepath.Join(dir, "js"), auth.MaxPayload, tls.Cert, tls.Key, trusting)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() *exec.Cmd {
		t.Helper()
		cmd := exec.Command(program, "-c", conf)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
			if t.Failed() {
				t.Logf("nats-server: %s", out.String())
			}
		})
		return cmd
	}
	cmd := start()
	connect := func(name string, p auth.Permissions) *bus.Conn {
		t.Helper()
		c, err := a.Issue("acme", name, p, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name+".creds")
		if err := c.WriteFile(path); err != nil {
			t.Fatal(err)
		}
		var conn *bus.Conn
		regiontest.Until(t, "the server takes "+name, 20*time.Second, func() bool {
			conn, err = bus.Connect(t.Context(), bus.Config{URLs: []string{"nats://" + addr}, CA: ca.CAFile(), Creds: path, Name: name})
			return err == nil
		})
		t.Cleanup(conn.Close)
		return conn
	}
	region := jetstream.Region{Conn: connect("hub-1", auth.Hub("acme", "hub-1")), Tenant: "acme", Name: "ra", NoDomain: true}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := region.Create(ctx); err != nil {
		t.Fatal(err)
	}
	regiontest.Background(t, func(ctx context.Context) { jetstream.NewGate(region, regiontest.Log(t)).Run(ctx) })
	w := &regiontest.World{Fleet: &regiontest.Fleet{}}
	e1 := w.Watch(t, &regiontest.Node{Name: "e1", Source: &jetstream.Source{Conn: connect("e1", auth.Edge("acme", "e1")), Tenant: "acme", Node: "e1", Regions: []string{"ra"}}})

	content := blob(3, 600<<10)
	if err := region.PublishRelease(ctx, 1, []byte("release 1"), wire.Compress(content)); err != nil {
		t.Fatal(err)
	}
	e1.Expect(t, 10*time.Second, "release 1")
	if _, err := e1.Package(ctx, wire.Sum(content), uint64(len(content))); err != nil {
		t.Fatal(err)
	}
	if held, err := region.NewLease().Hold(ctx, "hub-1", time.Second); err != nil || !held {
		t.Fatalf("%v, %v", held, err)
	}
	sink := jetstream.Sink{Region: jetstream.Region{Conn: e1.Conn, Tenant: "acme", Name: "ra"}}
	shipping, stop := context.WithCancel(ctx)
	var shipped atomic.Int64
	var shipper sync.WaitGroup
	shipper.Go(func() { ship(shipping, sink, "e1", "b1", &shipped) })
	for range 2 {
		more := shipped.Load() + 20
		regiontest.Until(t, "records are stored", 20*time.Second, func() bool { return shipped.Load() >= more })
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		cmd = start()
		regiontest.Until(t, "attesting goes on", 20*time.Second, func() bool { return e1.Attest(ctx, true, 1, []byte("here")) == nil })
	}
	stop()
	shipper.Wait()
	n := int(shipped.Load())
	var all []string
	for seq := uint64(1); ; {
		group, err := region.Conn.Stream("", "REC_acme").Batch(ctx, seq, ">", 1000, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(group) == 0 {
			break
		}
		for _, m := range group {
			all, seq = append(all, string(m.Data)), m.Seq+1
		}
	}
	if len(all) < n || len(all) > n+1 {
		t.Errorf("%d batches acknowledged, %d stored", n, len(all))
	}
	for i, b := range all {
		if b != fmt.Sprint(i+1) {
			t.Fatalf("batch %d is %s", i+1, b)
		}
	}
	if err := region.PutKill(ctx, wire.Sum([]byte("k")), []byte("kill")); err != nil {
		t.Fatal(err)
	}
	e1.Expect(t, 10*time.Second, "kill")
	t.Logf("%d batches over two kills of the server", n)
}
