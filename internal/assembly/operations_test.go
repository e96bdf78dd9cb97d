package assembly_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// scrape reads /metrics as Prometheus does.
func scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	return families
}

// value is a metric's, of the series with the label value; "" is the only one.
func value(t *testing.T, f map[string]*dto.MetricFamily, name, label string) float64 {
	t.Helper()
	family := f["holdfast_"+name]
	if family == nil {
		t.Fatalf("no metric %s", name)
	}
	for _, m := range family.Metric {
		if label == "" || slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetValue() == label }) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("metric %s has no series %s", name, label)
	return 0
}

// site is a hub server and an edge with a workload's user, as their daemons run them.
type site struct {
	home *assembly.Home
	hub  *assembly.Hub
	edge *assembly.Edge
}

func newSite(t *testing.T) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	home, err := assembly.OpenHome(assembly.FleetConfig{Dir: t.TempDir(), Tenant: "demo", Regions: 1, Edges: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	region := home.RegionNames()[0]
	s := &site{home: home}
	cfg := home.HubConfig(region)
	cfg.Listen, cfg.Log = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	if s.hub, err = assembly.StartHub(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.hub.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.hub.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	envelope, err := os.ReadFile(home.Layout().TrustRoot())
	if err != nil {
		t.Fatal(err)
	}
	root, err := bundle.OpenTrustRoot(envelope, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	enrolments, err := home.Enrolments()
	if err != nil {
		t.Fatal(err)
	}
	nats := home.EdgeNATS("edge-1")
	nats.Workloads = []embed.User{{Name: "app", Password: "secret"}}
	s.edge, err = assembly.StartEdge(ctx, assembly.EdgeConfig{
		Tenant: "demo", Node: "edge-1", Dir: home.Layout().Node("edge-1"), Listen: "127.0.0.1:0", Root: root, Enrolment: enrolments["edge-1"], NATS: nats,
		Regions: []assembly.RegionLink{{Name: region, Leafs: []string{s.hub.Server().LeafAddr()}, Key: ledgerKey(t, home, region)}}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.edge.Close() })
	return s
}

// ledgerKey is the region's line in public.keys.
func ledgerKey(t *testing.T, home *assembly.Home, region string) string {
	t.Helper()
	text, err := os.ReadFile(home.Layout().PublicKeys())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if vkey, ok := strings.CutPrefix(strings.TrimSpace(line), "region "); ok && strings.HasPrefix(vkey, audit.RegionKeyName("demo", region)+"+") {
			return vkey
		}
	}
	t.Fatalf("no region %s in %s", region, text)
	return ""
}

// Both daemons' metrics are Prometheus text, before and while a release is in
// force; workloads ask over the bus and may do nothing else.
func TestOperations(t *testing.T) {
	s := newSite(t)
	hub, edge := scrape(t, s.hub.URL()), scrape(t, s.edge.URL())
	if value(t, hub, "hub_ready", "demo") != 1 || value(t, hub, "fleet_epoch", "demo") != 0 || value(t, hub, "fleet_propagation_worst_seconds", "demo") != -1 || value(t, edge, "ready", "") != 0 {
		t.Error("metrics before anything is in force")
	}
	content := regoPackage(t, allowAda)
	publishAt(t, s, content)
	answersWorkloads(t, s)
	for end := time.Now().Add(timeout); value(t, scrape(t, s.hub.URL()), "fleet_nodes", "in_force") != 1; {
		if time.Now().After(end) {
			t.Fatal("the hub does not count the node")
		}
	}
	hub, edge = scrape(t, s.hub.URL()), scrape(t, s.edge.URL())
	if worst := value(t, hub, "fleet_propagation_worst_seconds", "demo"); worst < 0 || worst > timeout.Seconds() {
		t.Errorf("worst propagation %v s", worst)
	}
	for name, want := range map[string]float64{"fleet_epoch": 1, "fleet_kills": 0, "hub_leading": 1, "ledger_evidence": 0} {
		if got := value(t, hub, name, "demo"); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for name, want := range map[string]float64{"ready": 1, "epoch": 1, "leaf_connections": 1, "journal_poisoned": 0, "activations_total": 1, "trust_root_version": 1, "kills": 0} {
		if got := value(t, edge, name, ""); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if value(t, edge, "decisions_total", "allow") != 1 || value(t, edge, "decisions_total", "deny") != 1 || value(t, edge, "staleness", "fresh") != 1 {
		t.Error("decisions or staleness of the edge")
	}
	if len(hub) < 9 || len(edge) < 25 {
		t.Errorf("%d metrics of the hub, %d of the edge", len(hub), len(edge))
	}
}

// answersWorkloads asks as a program beside the edge.
func answersWorkloads(t *testing.T, s *site) {
	t.Helper()
	app, err := bus.Connect(t.Context(), bus.Config{URL: s.edge.NATS(), User: "app", Password: "secret", Inbox: auth.WorkloadInbox("app")})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	ask := func(point, body string) bus.Answer {
		t.Helper()
		a, err := app.Ask(t.Context(), "hf.demo.ask."+point, "", []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for user, want := range map[string]policy.Verdict{"ada": policy.Allow, "bob": policy.Deny} {
		a := ask("custom", `{"document":{"user":"`+user+`"}}`)
		var answer policy.Answer
		if err := json.Unmarshal(a.Data, &answer); err != nil || a.Status != "" || answer.Verdict != want || answer.Seq == 0 || answer.Node != "edge-1" {
			t.Errorf("%s: %q %s, %v", user, a.Status, a.Data, err)
		}
	}
	for _, bad := range []struct{ point, body, code string }{
		{"custom", `{"document":`, "malformed_request"},
		{"custom", ``, "malformed_request"},
		{"tool", `{"document":{}}`, "unknown_point"},
		{"nowhere", `{"document":{}}`, "unknown_point"},
	} {
		a := ask(bad.point, bad.body)
		var body struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal(a.Data, &body); err != nil || a.Status != "error" || body.Error.Message == "" {
			t.Errorf("%+v: %q %s", bad, a.Status, a.Data)
		} else if body.Error.Code != bad.code {
			t.Errorf("%+v: code %s", bad, body.Error.Code)
		}
	}
	for _, subject := range []string{"hf.demo.eu.up.any.edge-1.who", "hf.demo.eu.view.any.app.objects", "$JS.eu.API.STREAM.INFO.POL_demo"} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if a, err := app.Ask(ctx, subject, "", nil); err == nil {
			t.Errorf("a workload was answered on %s: %s", subject, a.Data)
		}
		cancel()
	}
}

// publishAt publishes through an operator and waits for the edge.
func publishAt(t *testing.T, s *site, file []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	rel := point(t, file)
	envelope, err := bundle.SignRelease(&rel, key(t, s, "author"), key(t, s, "approver"))
	if err != nil {
		t.Fatal(err)
	}
	admin := operator(t, s, "nats://127.0.0.1:1", s.hub.Server().ClientURL())
	for _, e := range s.enrolments(t) {
		if err := admin.Enrol(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	region, _, err := admin.Publish(ctx, envelope, file)
	if err != nil || region != "eu" {
		t.Fatalf("published to %q, %v", region, err)
	}
	for s.edge.Node().Status().Epoch != 1 {
		if ctx.Err() != nil {
			t.Fatal("the edge does not take it")
		}
		time.Sleep(2 * time.Millisecond)
	}
	// A region that is away is named, and is nobody's error.
	state, err := admin.Read(ctx)
	if err != nil || !slices.Equal(state.Unreachable, []string{"gone"}) {
		t.Errorf("unreachable %q, %v", state.Unreachable, err)
	}
	// Only what follows the newest is published.
	if _, _, err := admin.Publish(ctx, envelope, file); err != nil {
		t.Errorf("the same again: %v", err)
	}
	kill, err := bundle.SignKill(&bundle.Kill{Tenant: "demo", Scope: "all", Reason: "x", Created: time.Now().UnixNano()}, stranger(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Kill(ctx, kill); err == nil {
		t.Error("a stranger's kill was stored")
	}
	nobody := operator(t, s, s.hub.Server().ClientURL())
	nobody.Close()
	short, done := context.WithTimeout(ctx, time.Second)
	defer done()
	if _, err := nobody.Read(short); !errors.Is(err, assembly.ErrNoRegion) {
		t.Errorf("no connection: %v", err)
	}
}

func (s *site) enrolments(t *testing.T) map[string][]byte {
	t.Helper()
	all, err := s.home.Enrolments()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// operator connects with a region beside the real one that nobody runs.
func operator(t *testing.T, s *site, urls ...string) *assembly.Admin {
	t.Helper()
	l := s.home.Layout()
	envelope, err := os.ReadFile(l.TrustRoot())
	if err != nil {
		t.Fatal(err)
	}
	root, err := bundle.OpenTrustRoot(envelope, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	admin, err := assembly.OpenAdmin(t.Context(), assembly.AdminConfig{
		Tenant: "demo", Root: root, URLs: urls, Creds: l.Creds("operator"), CA: l.CAFile(), Regions: []string{"eu", "gone"}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	return admin
}

func key(t *testing.T, s *site, name string) *bundle.PrivateKey {
	t.Helper()
	k, err := bundle.ReadPrivateKey(s.home.Layout().PrivateKey(name))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func stranger(t *testing.T) *bundle.PrivateKey {
	t.Helper()
	k, err := bundle.GenerateKey(bundle.RoleKill, "mallory")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// point is a first release of one package at the point custom.
func point(t *testing.T, file []byte) bundle.Release {
	t.Helper()
	content, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		t.Fatal(err)
	}
	return bundle.Release{Tenant: "demo", Epoch: 1, Fallback: bundle.FallbackNone, Points: []bundle.Point{{
		Name: "custom", Durability: policy.Synced, Packages: []bundle.PackageRef{{Name: "p", Digest: wire.Sum(content), Size: uint64(len(content))}},
	}}}
}

// A folder that could not be that of a working fleet is not made, and a node's
// enrolments rise, end with its retirement and the revocation of its user, and
// may begin again.
func TestMakeFleetAndEnrol(t *testing.T) {
	dir := t.TempDir()
	good, enrol := newFleetConfig(t, dir)
	three := func(region string, n int) (out []assembly.ServerPlace) {
		for i := range n {
			p, err := assembly.ParseServer(fmt.Sprintf("%s=127.0.0.1:%d", region, 20000+10*i), i+1)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, p)
		}
		return out
	}
	good.Servers = three("eu", 1)
	for what, change := range map[string]func(*assembly.NewFleet){
		"another tenant":   func(c *assembly.NewFleet) { c.Tenant = "other" },
		"no servers":       func(c *assembly.NewFleet) { c.Servers = nil },
		"two servers":      func(c *assembly.NewFleet) { c.Servers = three("eu", 2) },
		"three regions":    func(c *assembly.NewFleet) { c.Servers = slices.Concat(three("eu", 1), three("us", 1), three("ap", 1)) },
		"no heartbeat key": func(c *assembly.NewFleet) { c.Servers = three("us", 1) },
		"another one's key": func(c *assembly.NewFleet) {
			c.Servers, c.Heartbeats = three("us", 1), map[string]string{"us": c.Heartbeats["eu"]}
		},
		"a key of a role":    func(c *assembly.NewFleet) { c.Heartbeats = map[string]string{"eu": filepath.Join(dir, "eve.key")} },
		"no trust root":      func(c *assembly.NewFleet) { c.TrustRoot = filepath.Join(dir, "none") },
		"what is not a root": func(c *assembly.NewFleet) { c.TrustRoot = filepath.Join(dir, "eve.key") },
	} {
		c := good
		change(&c)
		if err := assembly.MakeFleet(c); err == nil {
			t.Errorf("%s: no error", what)
		}
		if _, err := os.Stat(c.Dir); err == nil {
			t.Errorf("%s: a folder was left", what)
		}
	}
	for _, s := range []string{"", "eu", "eu=", "=host", "e u=host", "eu=host:0", "eu=host:65533", "eu=host:x"} {
		if p, err := assembly.ParseServer(s, 1); err == nil {
			t.Errorf("server %q is %+v", s, p)
		}
	}
	if err := assembly.MakeFleet(good); err != nil {
		t.Fatal(err)
	}
	if err := assembly.MakeFleet(good); err == nil {
		t.Error("a fleet was made over another")
	}
	enrolAndRetire(t, assembly.Layout{Dir: good.Dir}, enrol)
}

// newFleetConfig is a trust root with its keys, in a folder.
func newFleetConfig(t *testing.T, dir string) (assembly.NewFleet, *bundle.PrivateKey) {
	t.Helper()
	keys := map[string]*bundle.PrivateKey{}
	var public []bundle.Key
	for person, role := range map[string]bundle.Role{
		"rosa": bundle.RoleRoot, "ann": bundle.RoleAuthor, "bob": bundle.RoleApprover, "eve": bundle.RoleEnrol, "eu": bundle.RoleHeartbeat,
	} {
		k, err := bundle.GenerateKey(role, person)
		if err == nil {
			err = k.WriteFile(filepath.Join(dir, person+".key"))
		}
		if err != nil {
			t.Fatal(err)
		}
		keys[person] = k
		public = append(public, k.Key)
	}
	envelope, err := bundle.SignTrustRoot(bundle.NewTrustRoot("bank", time.Now().Add(time.Hour), public...), keys["rosa"])
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "root.dsse"), envelope, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return assembly.NewFleet{
		Dir: filepath.Join(dir, "fleet"), Tenant: "bank", TrustRoot: filepath.Join(dir, "root.dsse"), Heartbeats: map[string]string{"eu": filepath.Join(dir, "eu.key")},
	}, keys["eve"]
}

func enrolAndRetire(t *testing.T, l assembly.Layout, enrol *bundle.PrivateKey) {
	t.Helper()
	envelope, err := os.ReadFile(l.TrustRoot())
	if err != nil {
		t.Fatal(err)
	}
	root, err := bundle.OpenTrustRoot(envelope, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	open := func(envelope []byte, err error) *bundle.SignedEnrolment {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		e, err := root.OpenEnrolment(envelope)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for what, e := range map[string]assembly.Enrol{
		"no name":       {Node: "", Key: enrol},
		"a path":        {Node: "../x", Key: enrol},
		"an odd region": {Node: "e9", Key: enrol, Home: "mars"},
		"an odd key":    {Node: "e9", Key: enrol, LogKey: "x"},
		"a key to kill": {Node: "e9", Key: stranger(t)},
	} {
		if _, _, err := assembly.EnrolNode(l, e); err == nil {
			t.Errorf("%s: enrolled", what)
		}
	}
	if _, _, err := assembly.RetireNode(l, "e1", enrol); err == nil || !strings.Contains(err.Error(), "never enrolled") {
		t.Errorf("retired a node that is none: %v", err)
	}
	env, dir, err := assembly.EnrolNode(l, assembly.Enrol{Node: "e1", Key: enrol, Labels: map[string]string{"site": "lab"}, MinEpoch: 3})
	first := open(env, err)
	if first.Serial != 1 || first.Labels["site"] != "lab" || first.MinEpoch != 3 || first.Retired {
		t.Errorf("first %+v", first.Enrolment)
	}
	cfg, err := assembly.ReadEdgeConfig(filepath.Join(dir, "edge.yaml"))
	if err != nil {
		t.Fatalf("the node's configuration: %v", err)
	}
	given, err := edge.LoadSecret(cfg.Secret)
	if err != nil || given.ID() != first.Secret || cfg.Secret == l.Secret() {
		t.Errorf("tenant secret %v, enrolled with %q: %v", given, first.Secret, err)
	}
	env, _, err = assembly.EnrolNode(l, assembly.Enrol{Node: "e2", Key: enrol})
	if other := open(env, err); other.Secret != first.Secret || first.Secret == "" {
		t.Errorf("two nodes of a tenant with the secrets %q and %q", first.Secret, other.Secret)
	}
	_, vkey, err := note.GenerateKey(rand.Reader, audit.NodeKeyName("bank", "e1"))
	if err != nil {
		t.Fatal(err)
	}
	env, _, err = assembly.EnrolNode(l, assembly.Enrol{Node: "e1", Key: enrol, LogKey: vkey})
	again := open(env, err)
	if again.Serial != 2 || again.LogKey != vkey || again.User != first.User || len(again.Former) != 1 || again.Former[0] != (bundle.FormerKey{Key: first.LogKey}) {
		t.Errorf("again %+v", again.Enrolment)
	}
	env, account, err := assembly.RetireNode(l, "e1", enrol)
	retired := open(env, err)
	if !retired.Retired || retired.Serial != 3 || retired.LogKey != vkey {
		t.Errorf("retired %+v", retired.Enrolment)
	}
	if _, err := os.Stat(l.Creds("e1")); err == nil {
		t.Error("credentials of a retired node are there")
	}
	if account == "" {
		t.Error("nothing revokes the node's user")
	}
	// Again, when the hubs were not told; by then another person may enrol, whom
	// this folder's trust root does not name.
	next, err := bundle.GenerateKey(bundle.RoleEnrol, "emil")
	if err != nil {
		t.Fatal(err)
	}
	for serial := uint64(4); serial < 6; serial++ {
		env, _, err = assembly.RetireNode(l, "e1", next)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := bundle.UnverifiedEnrolment(env); err != nil || e.Serial != serial || !e.Retired {
			t.Errorf("retired again: %+v, %v", e, err)
		}
	}
	if _, _, err := assembly.RetireNode(l, "../e1", enrol); err == nil {
		t.Error("a path was retired")
	}
	env, _, err = assembly.EnrolNode(l, assembly.Enrol{Node: "e1", Key: enrol})
	back := open(env, err)
	if back.Serial != 6 || back.Retired || back.User == first.User || back.LogKey != first.LogKey || len(back.Former) != 1 || back.Former[0].Key != vkey {
		t.Errorf("back %+v", back.Enrolment)
	}
	env, dir, err = assembly.EnrolNode(l, assembly.Enrol{Node: "e1", Key: enrol, NewLogKey: true, OldKeyUntil: 7})
	replaced := open(env, err)
	want := []bundle.FormerKey{{Key: vkey}, {Key: first.LogKey, Until: 7}}
	if _, key, err := journal.LoadKey(edge.KeyFile(filepath.Join(dir, "data")), audit.NodeKeyName("bank", "e1")); err != nil || key != replaced.LogKey || key == first.LogKey || !slices.Equal(replaced.Former, want) {
		t.Errorf("%v: replaced %+v", err, replaced.Enrolment)
	}
	if keys, err := os.ReadFile(edge.FormerKeysFile(filepath.Join(dir, "data"))); err != nil || strings.TrimSpace(string(keys)) != first.LogKey {
		t.Errorf("%v: the node's folder knows the former keys %q", err, keys)
	}
	// A witness opens what the node signed with any of its keys.
	dir, err = assembly.MakeWitness(l, "outside")
	if err != nil {
		t.Fatal(err)
	}
	known, err := os.ReadFile(filepath.Join(dir, "public.keys"))
	if of := "node " + vkey + "\nnode " + first.LogKey + " until 7\nnode " + replaced.LogKey + "\n"; err != nil || !strings.Contains(string(known), of) {
		t.Errorf("%v: the witness knows\n%swant\n%s", err, known, of)
	}
}
