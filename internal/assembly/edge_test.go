package assembly_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/schema"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const timeout = 30 * time.Second

// allowAda is a policy that allows one user and denies the rest.
const allowAda = "package p\n\ndefault allow := false\n\nallow if input.user == \"ada\"\n"

// one is a fleet's home with one node, to be started and stopped by the test.
type one struct {
	t    *testing.T
	home *assembly.Home
	cfg  assembly.EdgeConfig
	edge *assembly.Edge
}

func newOne(t *testing.T) *one {
	t.Helper()
	home, err := assembly.OpenHome(assembly.FleetConfig{Dir: t.TempDir(), Tenant: "demo", Edges: 1})
	if err != nil {
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
	return &one{t: t, home: home, cfg: assembly.EdgeConfig{
		Tenant: "demo", Node: "edge-1", Dir: home.Layout().Node("edge-1"), Listen: "127.0.0.1:0",
		Root: root, Folder: home.Layout().Published(), Log: slog.New(slog.DiscardHandler),
	}}
}

func (o *one) start() {
	o.t.Helper()
	e, err := assembly.StartEdge(context.Background(), o.cfg)
	if err != nil {
		o.t.Fatal(err)
	}
	o.edge = e
	o.t.Cleanup(o.stop)
}

func (o *one) stop() {
	if o.edge == nil {
		return
	}
	if err := o.edge.Close(); err != nil && !errors.Is(err, journal.ErrPoisoned) {
		o.t.Error(err)
	}
	o.edge = nil
}

// publish makes one release of one point with the package and waits for it.
func (o *one) publish(file []byte, change func(*bundle.Point)) {
	o.t.Helper()
	published := o.handOver(file, change)
	o.waitFor(fmt.Sprintf("epoch %d", published.Epoch), func() bool { return o.edge.Node().Status().Epoch == published.Epoch })
}

// handOver is publish without the waiting.
func (o *one) handOver(file []byte, change func(*bundle.Point)) assembly.Published {
	o.t.Helper()
	content, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		o.t.Fatal(err)
	}
	d := wire.Sum(content)
	p := bundle.Point{Name: "custom", Durability: policy.Synced, Packages: []bundle.PackageRef{{Name: "p", Digest: d, Size: uint64(len(content))}}}
	if change != nil {
		change(&p)
	}
	published, err := o.home.Publish([]bundle.Point{p}, map[wire.Digest][]byte{d: file})
	if err != nil {
		o.t.Fatal(err)
	}
	return published
}

func (o *one) waitFor(what string, ready func() bool) {
	o.t.Helper()
	for deadline := time.Now().Add(timeout); !ready(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			o.t.Fatalf("%s: not after %v; last refusal %q", what, timeout, o.edge.Node().Status().Refused)
		}
	}
}

func (o *one) ask(body string) policy.Answer {
	o.t.Helper()
	c, err := client.New(client.Config{Node: o.edge.URL()})
	if err != nil {
		o.t.Fatal(err)
	}
	defer c.Close()
	a, err := c.Decide(context.Background(), "custom", []byte(body))
	if err != nil {
		o.t.Fatal(err)
	}
	return a
}

// records stops the node, exports its journal, verifies it and returns it.
func (o *one) records() []*audit.Record {
	o.t.Helper()
	o.stop()
	dir := filepath.Join(o.t.TempDir(), "export")
	if err := assembly.Export(o.home.Layout(), dir, "", ""); err != nil {
		o.t.Fatal(err)
	}
	var out []*audit.Record
	report, err := audit.VerifyEach(os.DirFS(dir), o.home.Keys(), func(_, _ string, r *audit.Record, _ tlog.Hash) { out = append(out, r) })
	if err != nil || report.Verdict != audit.VerdictComplete {
		o.t.Fatalf("verify: %v, %+v", err, report)
	}
	return out
}

// regoPackage compiles source to a package.
func regoPackage(t *testing.T, source string) []byte {
	t.Helper()
	b, err := compiler.BuildFS(context.Background(), fstest.MapFS{
		"p.rego":        {Data: []byte(source)},
		"holdfast.yaml": {Data: []byte("name: p\nlanguage: rego\nentrypoint: p/allow\n")},
	}, compiler.Options{Loader: newLoader(t)})
	if err != nil {
		t.Fatal(err)
	}
	return b.File
}

// A release whose parameters break the package's schema is not signed.
func TestParamsThatBreakTheirSchemaAreNotPublished(t *testing.T) {
	o := newOne(t)
	b, err := compiler.BuildFS(context.Background(), fstest.MapFS{
		"p.rego":             {Data: []byte("package p\n\nallow if input.n > data.params.n\n")},
		"holdfast.yaml":      {Data: []byte("entrypoint: p/allow\nparams: {n: 1}\n")},
		"params.schema.json": {Data: []byte(`{"properties": {"n": {"type": "integer"}}}`)},
	}, compiler.Options{Loader: newLoader(t)})
	if err != nil {
		t.Fatal(err)
	}
	point := bundle.Point{Name: "custom", Durability: policy.Synced, Packages: []bundle.PackageRef{{Name: "p", Digest: b.Digest, Size: b.Size}}}
	publish := func(n any, packages map[wire.Digest][]byte) error {
		p := point
		p.Packages = []bundle.PackageRef{point.Packages[0]}
		p.Packages[0].Params = map[string]any{"n": n}
		_, err := o.home.Publish([]bundle.Point{p}, packages)
		return err
	}
	files := map[wire.Digest][]byte{b.Digest: b.File}
	if err := publish("one", files); !errors.Is(err, schema.ErrParams) || !strings.Contains(err.Error(), "at /n: type: got string, want integer") {
		t.Errorf("%v", err)
	}
	if err := publish(int64(2), files); err != nil {
		t.Error(err)
	}
	// The package is there already; its schema still counts.
	if err := publish("two", nil); !errors.Is(err, schema.ErrParams) {
		t.Errorf("%v", err)
	}
	published, err := o.home.Publish([]bundle.Point{point}, nil)
	if err != nil || published.Epoch != 2 {
		t.Errorf("epoch %d after one refused and one taken, %v", published.Epoch, err)
	}
}

// newLoader runs packages for the compiler.
func newLoader(t *testing.T) *loader.Host {
	t.Helper()
	h, err := loader.NewHost(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(context.Background()) })
	return h
}

func TestNotReadyMeansDeny(t *testing.T) {
	o := newOne(t)
	o.start()
	a := o.ask(`{"document":{"user":"ada"}}`)
	if a.Verdict != policy.Deny || !a.Recorded || a.Reasons[0].Code != "not_ready" || a.Epoch != 0 {
		t.Errorf("without a release: %+v", a)
	}
	if resp, err := http.Get(o.edge.URL() + "/readyz"); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("readyz: %v, %v", resp, err)
	}
}

func TestDecisionIsRecordedBeforeItIsAnswered(t *testing.T) {
	o := newOne(t)
	o.start()
	o.publish(regoPackage(t, allowAda), nil)
	yes, no := o.ask(`{"id":"r1","document":{"user":"ada"}}`), o.ask(`{"id":"r2","document":{"user":"bob"}}`)
	if yes.Verdict != policy.Allow || no.Verdict != policy.Deny || yes.Durability != policy.Synced || yes.Epoch != 1 {
		t.Fatalf("%+v\n%+v", yes, no)
	}
	var kinds []string
	for _, r := range o.records() {
		kinds = append(kinds, r.Kind.String())
		if r.Seq == yes.Seq && (r.Decision.RequestID != "r1" || r.Decision.Verdict != policy.Allow || r.Decision.Activation != 3 ||
			!strings.Contains(string(r.Decision.Request.Bytes), `"ada"`) || r.Decision.Runs[0].Fuel == 0) {
			t.Errorf("record of the first answer: %+v", r.Decision)
		}
	}
	if got := strings.Join(kinds, " "); got != "boot admin activation decision decision" {
		t.Errorf("records: %s", got)
	}
}

// What is in force survives a restart without any source.
func TestColdStartFromTheOwnFolder(t *testing.T) {
	o := newOne(t)
	o.start()
	o.publish(regoPackage(t, allowAda), nil)
	o.stop()
	o.cfg.Folder = filepath.Join(t.TempDir(), "empty")
	o.start()
	if a := o.ask(`{"document":{"user":"ada"}}`); a.Verdict != policy.Allow || a.Epoch != 1 {
		t.Errorf("after a restart: %+v", a)
	}
}

func TestBadRequestsAreRefusedWithTheirPlace(t *testing.T) {
	o := newOne(t)
	o.start()
	o.publish(regoPackage(t, allowAda), nil)
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for name, c := range map[string]struct {
		method, path, contentType, body string
		status                          int
		code                            string
		line                            int
	}{
		"malformed":      {"POST", "custom", "", "{\n  \"document\": nope}", 400, "malformed_request", 2},
		"wrong type":     {"POST", "custom", "", `{"subject": 7}`, 400, "malformed_request", 1},
		"empty":          {"POST", "custom", "", ``, 400, "malformed_request", 1},
		"missing input":  {"POST", "custom", "", `{"id":"x"}`, 400, "malformed_request", 1},
		"duplicate key":  {"POST", "custom", "", "{\"id\":\"x\",\n\n\"id\":\"y\",\"document\":1}", 400, "malformed_request", 3},
		"too deep":       {"POST", "custom", "", `{"document":` + deep + `}`, 400, "malformed_request", 1},
		"too long":       {"POST", "custom", "", `{"document":"` + strings.Repeat("x", 256<<10) + `"}`, 413, "request_too_large", 0},
		"unknown point":  {"POST", "nowhere", "", `{"document":1}`, 404, "unknown_point", 0},
		"form":           {"POST", "custom", "text/plain", `{"document":1}`, 415, "unsupported_media_type", 0},
		"GET":            {"GET", "custom", "", ``, 405, "", 0},
		"no point":       {"POST", "", "", `{"document":1}`, 404, "", 0},
		"trailing":       {"POST", "custom", "", `{"document":1}{}`, 400, "malformed_request", 1},
		"number too big": {"POST", "custom", "", `{"document":1e999}`, 400, "malformed_request", 1},
	} {
		req, err := http.NewRequest(c.method, o.edge.URL()+"/v1/decide/"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.contentType != "" {
			req.Header.Set("Content-Type", c.contentType)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		var doc struct {
			Error struct {
				Code, Message string
				Line          int
			}
		}
		_ = json.Unmarshal(body, &doc) // the mux's own answers are text
		if err != nil || resp.StatusCode != c.status || doc.Error.Code != c.code || doc.Error.Line != c.line || c.code != "" && doc.Error.Message == "" {
			t.Errorf("%s: %d %s, %v; want %d %s line %d", name, resp.StatusCode, bytes.TrimSpace(body), err, c.status, c.code, c.line)
		}
	}
	for _, r := range o.records() {
		if r.Kind == audit.KindDecision {
			t.Errorf("a refused request left a decision record: %+v", r.Decision)
		}
	}
}

// A web page that somebody visits beside a node cannot ask it, neither across
// origins nor under a name that resolves to the loopback address.
func TestWebPagesAreRefused(t *testing.T) {
	o := newOne(t)
	o.start()
	o.publish(regoPackage(t, allowAda), nil)
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"curl":           {func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 200},
		"another origin": {func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, 403},
		"cross-site":     {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		"rebound name":   {func(r *http.Request) { r.Host = "evil.example" }, 421},
		"localhost":      {func(r *http.Request) { r.Host = "localhost" }, 200},
	} {
		req, err := http.NewRequest("POST", o.edge.URL()+"/v1/decide/custom", strings.NewReader(`{"document":{"user":"ada"}}`))
		if err != nil {
			t.Fatal(err)
		}
		c.change(req)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", name, resp.StatusCode, c.status)
		}
	}
}

// A decision that no record can hold is a denial that one does, whatever the
// fail modes say: nobody chooses to be answered without a record.
func TestDecisionsTooLargeForARecord(t *testing.T) {
	o := newOne(t)
	o.start()
	talk := regoPackage(t, `package p

allow := {"verdict": "allow", "reasons": [{"code": sprintf("c%d", [i]), "text": input.text} | some i in [1, 2, 3, 4, 5, 6, 7]]}
`)
	o.publish(talk, func(p *bundle.Point) {
		p.OnLogFailure, p.OnError, p.OnFuel = policy.FailAllowFlagged, policy.FailAllowFlagged, policy.FailAllowFlagged
		for i := range 12 {
			ref := p.Packages[0]
			ref.Fuel = 20_000_000
			ref.Params = map[string]any{"copy": int64(i)}
			p.Packages = append(p.Packages, ref)
		}
	})
	a := o.ask(`{"id":"` + strings.Repeat("i", 100<<10) + `","document":{"text":"` + strings.Repeat("x", 8<<10) + `"}}`)
	if a.Verdict != policy.Deny || !a.Recorded || a.Reasons[0].Code != "decision_too_large" {
		t.Errorf("recorded %t, %s, %d reasons, first %.200v", a.Recorded, a.Verdict, len(a.Reasons), a.Reasons[0])
	}
	for _, r := range o.records() {
		if r.Kind == audit.KindDecision && r.Decision.Verdict != policy.Deny {
			t.Errorf("a record says %s", r.Decision.Verdict)
		}
	}
}

// Releases that must not come into force do not, the node says why and records
// it, and what was in force stays.
func TestRefusedReleases(t *testing.T) {
	o := newOne(t)
	o.start()
	o.publish(regoPackage(t, allowAda), nil)
	in := filepath.Join(o.home.Layout().Published(), "releases")
	good, err := os.ReadFile(filepath.Join(in, fmt.Sprintf("%020d.dsse", 1)))
	if err != nil {
		t.Fatal(err)
	}
	author, err := bundle.ReadPrivateKey(o.home.Layout().PrivateKey("author"))
	if err != nil {
		t.Fatal(err)
	}
	release := &bundle.Release{Tenant: "demo", Epoch: 2, Fallback: bundle.FallbackNone, Points: []bundle.Point{{Name: "custom", Durability: policy.Synced,
		Packages: []bundle.PackageRef{{Name: "p", Digest: wire.Sum([]byte("nothing")), Size: 1}}}}}
	byAuthor, err := bundle.SignRelease(release, author)
	if err != nil {
		t.Fatal(err)
	}
	for name, envelope := range map[string][]byte{
		"altered":         bytes.Replace(good, []byte(`"payload":"`), []byte(`"payload":"AAAA`), 1),
		"unsigned":        []byte(`{"payloadType":"application/vnd.holdfast.release.v1+cbor","payload":"oA==","signatures":[]}`),
		"by the author":   byAuthor,
		"no envelope":     []byte("junk"),
		"of another kind": []byte(`{"payloadType":"application/x","payload":"oA==","signatures":[]}`),
	} {
		before := o.edge.Node().Status().Refused
		file := filepath.Join(in, fmt.Sprintf("%020d.dsse", 2))
		if err := os.WriteFile(file, envelope, 0o600); err != nil {
			t.Fatal(err)
		}
		o.waitFor(name+" to be refused", func() bool { return o.edge.Node().Status().Refused != before })
		if a := o.ask(`{"document":{"user":"ada"}}`); a.Verdict != policy.Allow || a.Epoch != 1 {
			t.Errorf("%s: %+v", name, a)
		}
	}
	refused := 0
	for _, r := range o.records() {
		if r.Kind == audit.KindAdmin && r.Admin.Event == "release_refused" && r.Admin.Text != "" {
			refused++
		}
		if r.Kind == audit.KindActivation && (r.Activation.Epoch != 1 || r.Activation.Author == r.Activation.Approver) {
			t.Errorf("activated: %+v", r.Activation)
		}
	}
	if refused == 0 {
		t.Error("no refusal is recorded")
	}
}
