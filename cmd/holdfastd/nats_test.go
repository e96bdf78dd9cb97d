package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/fleetkit"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// natsServer builds the nats-server of this module's version, once per version.
func natsServer(t *testing.T) string {
	t.Helper()
	version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/nats-io/nats-server/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	program := filepath.Join(cache, "holdfast-test", "nats-server-"+strings.TrimSpace(string(version)))
	if _, err := os.Stat(program); err == nil {
		return program
	}
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	mine := fmt.Sprintf("%s.%d", program, os.Getpid())
	if out, err := exec.Command("go", "build", "-o", mine, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Rename(mine, program); err != nil {
		t.Fatal(err)
	}
	return program
}

// userServer runs a nats-server that trusts the fleet's NATS operator, on the
// address that the fleet's hub server would have had. Its start may be repeated.
func userServer(t *testing.T, f *fleetkit.Fleet) (start func() *exec.Cmd) {
	t.Helper()
	program, dir, hubDir := natsServer(t), t.TempDir(), f.Hub(f.Servers[0].Name)
	raw, err := os.ReadFile(filepath.Join(hubDir, "nats-trust.json"))
	if err != nil {
		t.Fatal(err)
	}
	var trust auth.Trust
	if err := json.Unmarshal(raw, &trust); err != nil {
		t.Fatal(err)
	}
	trusting, err := trust.ServerConfig(filepath.Join(dir, "accounts"))
	if err != nil {
		t.Fatal(err)
	}
	conf := write(t, filepath.Join(dir, "nats.conf"), fmt.Sprintf(
		"listen: %q\njetstream { store_dir: %q, sync_interval: always }\nmax_payload: %d\ntls { cert_file: %q, key_file: %q, min_version: \"1.3\" }\n%s",
		address(f), filepath.Join(dir, "js"), auth.MaxPayload, filepath.Join(hubDir, "server.pem"), filepath.Join(hubDir, "server.key"), trusting))
	return func() *exec.Cmd {
		t.Helper()
		cmd, out := exec.Command(program, "-c", conf), &bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		t.Cleanup(func() {
			end()
			if t.Failed() {
				t.Logf("nats-server: %s", out)
			}
		})
		return cmd
	}
}

func address(f *fleetkit.Fleet) string {
	return net.JoinHostPort(f.Servers[0].Host, strconv.Itoa(f.Servers[0].Client))
}

// asClient takes the embedded server out of a configuration: what begins with
// "nats:" is replaced.
func asClient(t *testing.T, file, nats string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	have := string(text)
	if strings.Contains(have, "    leafs:") {
		have = withoutLeafs(have)
	}
	write(t, file, have[:strings.Index(have, "nats:")]+nats)
}

// TestServersOfTheUsers has hub and edge, configured by their files alone, use a
// nats-server that somebody else runs, also after it was killed.
func TestServersOfTheUsers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*timeout)
	defer cancel()
	f := newFleet(t, 1, "eu")
	f.NoDomain = true
	start, server := userServer(t, f), f.Servers[0].Name
	running := start()
	asClient(t, filepath.Join(f.Hub(server), "hub.yaml"), "nats: {urls: ['nats://"+address(f)+"'], ca: ca.pem, no_domain: true}\nheartbeat: 200ms\n")
	wait(t, "the server listens", func() bool {
		c, err := net.Dial("tcp", address(f))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	if err := f.StartHubs(ctx); err != nil {
		t.Fatal(err)
	}
	if err := f.Enrol(ctx, "one", "eu", nil); err != nil {
		t.Fatal(err)
	}
	asClient(t, filepath.Join(f.Node("one"), "edge.yaml"), "nats: {urls: ['nats://"+address(f)+"'], ca: ca.pem, creds: node.creds}\n")
	url := restartEdge(t, f, "one")
	publish(t, ctx, f, nil, allow(t, "ada"))
	decideUntil(t, url, "ada", policy.Allow)
	counted(t, ctx, f, 1, 1)
	shipped(t, ctx, f)

	l := startLoad(t, url, `{"document":{"user":"ada"}}`)
	_ = running.Process.Kill()
	_ = running.Wait()
	wait(t, "decisions without a server", func() bool { all, _ := l.answers(); return len(all) > 20 })
	start()
	again := time.Now()
	publishUntil(t, ctx, f, allow(t, "bob"))
	decideUntil(t, url, "bob", policy.Allow)
	t.Logf("figure: the users' server is back to a new release in force: %v", time.Since(again).Round(time.Millisecond))
	l.end()
	l.answeredAll(t, "one")
	counted(t, ctx, f, 1, 1)
	shipped(t, ctx, f)
	if code := f.Process("one").End(syscall.SIGTERM); code != 0 {
		t.Errorf("the edge: exit code %d", code)
	}
	ledgerComplete(t, f, "bank", "one")
}

// publishUntil publishes the next release as often as it takes.
func publishUntil(t *testing.T, ctx context.Context, f *fleetkit.Fleet, p fleetkit.Policy) {
	t.Helper()
	var err error
	wait(t, "published", func() bool {
		_, err = f.Publish(ctx, []fleetkit.Policy{p}, nil)
		return err == nil || ctx.Err() != nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// shipped waits until the region has counter-signed all that the only node had
// recorded when this began.
func shipped(t *testing.T, ctx context.Context, f *fleetkit.Fleet) {
	t.Helper()
	want := uint64(0)
	until(t, ctx, f, "records in the region", func(s *assembly.State) bool {
		j := s.View().Nodes[0].Journal
		if want == 0 {
			want = j.Seq
		}
		return want > 0 && j.Cosigned >= want
	})
}

// ledgerComplete verifies the evidence that a region's server holds.
func ledgerComplete(t *testing.T, f *fleetkit.Fleet, tenant string, nodes ...string) {
	t.Helper()
	exported := filepath.Join(t.TempDir(), "export")
	if err := assembly.ExportHub(filepath.Join(f.Hub(f.Servers[0].Name), "hub.yaml"), tenant, exported); err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(f.PublicKeys())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := audit.ParseKeys(public)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes {
		key, err := os.ReadFile(filepath.Join(f.Node(node), "data", "log.key"))
		if err == nil {
			err = keys.SetNode(strings.Split(string(key), "\n")[1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	report, err := audit.Verify(os.DirFS(exported), keys)
	if err != nil || report.Verdict != audit.VerdictComplete || len(report.Nodes) != len(nodes) {
		t.Errorf("the region's ledger: %v, %+v", err, report)
	}
}

// TestTwoTenants has one hub server serve two tenants, each with people, nodes
// and releases of its own. Neither sees anything of the other.
func TestTwoTenants(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*timeout)
	defer cancel()
	bank := newFleet(t, 1, "eu")
	shop, err := fleetkit.New(fleetkit.Config{
		Dir: t.TempDir(), Tenant: "shop", Regions: []string{"eu"}, Servers: 1, Daemon: []string{os.Args[0]}, Env: []string{"HOLDFASTD_CHILD=1"}, Beside: bank,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shop.Close)
	join(t, bank, shop)
	if err := bank.StartHubs(ctx); err != nil {
		t.Fatal(err)
	}
	urls, heard := map[string]string{}, map[string]*ears{}
	for tenant, f := range map[string]*fleetkit.Fleet{"bank": bank, "shop": shop} {
		heard[tenant] = listen(t, ctx, f)
		urls[tenant] = startEdge(t, ctx, f, "edge-of-"+tenant, "eu", nil)
		publish(t, ctx, f, nil, allow(t, tenant))
		wait(t, "live decisions of "+tenant, func() bool { decideUntil(t, urls[tenant], tenant, policy.Allow); return heard[tenant].live() })
	}
	for tenant, f := range map[string]*fleetkit.Fleet{"bank": bank, "shop": shop} {
		until(t, ctx, f, tenant+" is in force", func(s *assembly.State) bool {
			v := s.View()
			return v.InForce.Nodes == 1 && v.InForce.Of == 1 && v.Nodes[0].Name == "edge-of-"+tenant && v.InForce.Epoch == 1
		})
		shipped(t, ctx, f)
	}
	// A stop of everything in one is nothing to the other.
	admin, err := shop.Admin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	kill, err := bundle.SignKill(&bundle.Kill{Tenant: "shop", Scope: bundle.ScopeAll, Reason: "drill", Created: time.Now().UnixNano()}, shop.Keys[fleetkit.Killer])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Kill(ctx, kill); err != nil {
		t.Fatal(err)
	}
	decideUntil(t, urls["shop"], "shop", policy.Deny)
	decideUntil(t, urls["bank"], "bank", policy.Allow)
	notOthers(t, ctx, bank, shop, admin, kill)
	for tenant, e := range heard {
		if other := e.others(tenant); len(other) > 0 {
			t.Errorf("%s hears %q", tenant, other)
		}
	}
	for tenant, f := range map[string]*fleetkit.Fleet{"bank": bank, "shop": shop} {
		if code := f.Process("edge-of-" + tenant).End(syscall.SIGTERM); code != 0 {
			t.Errorf("%s: exit code %d", tenant, code)
		}
	}
	ledgerComplete(t, bank, "bank", "edge-of-bank")
}

// join has the first fleet's hub server serve the second's tenant as well.
func join(t *testing.T, first, second *fleetkit.Fleet) {
	t.Helper()
	dir, other := first.Hub("eu-1"), second.Hub("eu-1")
	file := filepath.Join(dir, "hub.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tenant := fmt.Sprintf("tenants:\n  - {name: shop, creds: %[1]s/hub.creds, trust_root: %[1]s/trust-root.dsse, heartbeat_key: %[1]s/heartbeat.key}\n", other)
	both := strings.Replace(string(text), "tenants:\n", tenant, 1)
	both = strings.Replace(both, "trust: nats-trust.json", "trust: "+filepath.Join(other, "nats-trust.json"), 1)
	write(t, file, both)
	// The second tenant's ledger has its own key; the first one's stays where it was.
	into := filepath.Join(dir, "data", "tenants", "shop")
	if err := os.MkdirAll(into, 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(assembly.RegionKeyFile(filepath.Join(other, "data")))
	if err != nil {
		t.Fatal(err)
	}
	write(t, assembly.RegionKeyFile(into), string(key))
}

// ears keep the subjects of all that an operator can hear.
type ears struct {
	mu       sync.Mutex
	subjects []string
}

func listen(t *testing.T, ctx context.Context, f *fleetkit.Fleet) *ears {
	t.Helper()
	admin, err := f.Admin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	e := &ears{}
	// Live decisions are asked for by name: a node publishes them only where
	// somebody listens, and a wish for everything does not get as far.
	for _, subject := range []string{"hf." + admin.Tenant() + ".>", jetstream.LiveSubjects(admin.Tenant(), jetstream.JSON)} {
		stop, err := admin.Conn().Subscribe(ctx, subject, func(m bus.Msg) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.subjects = append(e.subjects, m.Subject)
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
	}
	return e
}

func (e *ears) live() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.subjects {
		if strings.Contains(s, ".live.") {
			return true
		}
	}
	return false
}

// others are the subjects that are not of the tenant or of its node.
func (e *ears) others(tenant string) (out []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	other := map[string]string{"bank": "shop", "shop": "bank"}[tenant]
	for _, s := range e.subjects {
		if strings.Contains(s, other) {
			out = append(out, s)
		}
	}
	return out
}

// notOthers: an operator of one tenant can read, hear and write nothing of
// another, and what is signed for one is nothing for the other.
func notOthers(t *testing.T, ctx context.Context, bank, shop *fleetkit.Fleet, admin *assembly.Admin, kill []byte) {
	t.Helper()
	cfg, err := assembly.AdminOf(shop.Layout)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Tenant, cfg.Root = "bank", bank.Root // with the credentials of shop
	stranger, err := assembly.OpenAdmin(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if s, err := stranger.Read(short); err == nil {
		t.Errorf("shop reads bank: %+v", s.View())
	}
	heard := make(chan string, 1)
	if stop, err := admin.Conn().Subscribe(ctx, "hf.bank.>", func(m bus.Msg) {
		select {
		case heard <- m.Subject:
		default:
		}
	}); err == nil {
		defer stop()
	}
	if _, err := bank.Root.OpenKill(kill); err == nil {
		t.Error("a kill of shop is one of bank")
	}
	ours, err := bank.Admin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if d, err := ours.Kill(ctx, kill); err == nil {
		t.Errorf("bank takes a kill of shop: %s", d)
	}
	// Another release of bank, to be heard by whoever can.
	publish(t, ctx, bank, nil, allow(t, "bank"), allow(t, "bank"))
	counted(t, ctx, bank, 1, 1)
	select {
	case subject := <-heard:
		t.Errorf("shop hears %s", subject)
	default:
	}
}
