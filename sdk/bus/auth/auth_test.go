package auth_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"

	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

func authority(t *testing.T, tenants ...string) (*auth.Authority, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "auth")
	a, err := auth.Create(dir, "bank")
	if err != nil {
		t.Fatal(err)
	}
	for _, tenant := range tenants {
		if err := a.AddTenant(tenant, auth.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	return a, dir
}

func claims(t *testing.T, c auth.Credentials) *jwt.UserClaims {
	t.Helper()
	token, err := jwt.ParseDecoratedJWT(c.File)
	if err != nil {
		t.Fatal(err)
	}
	u, err := jwt.DecodeUserClaims(token)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// The lists are data: a line that is added, or widened, is a change of this test.
func TestPermissions(t *testing.T) {
	for _, c := range []struct {
		who      string
		p        auth.Permissions
		pub, sub []string
	}{
		{"edge", auth.Edge("acme", "e1"), []string{
			"hf.acme.*.up.*.e1.>", "hf.acme.live.*.e1.>",
		}, []string{
			"_INBOX.edge.e1.>", "hf.acme.*.hb", "hf.acme.*.kill",
			"hf.acme.stored.*.hf.acme.*.pol.enrol.e1.*", "hf.acme.stored.*.hf.acme.*.pol.kill.*", "hf.acme.stored.*.hf.acme.*.pol.lift.*",
			"hf.acme.stored.*.hf.acme.*.pol.order.>", "hf.acme.stored.*.hf.acme.*.pol.rel.*", "hf.acme.stored.*.hf.acme.*.pol.root.*",
			"hf.acme.stored.*.hf.acme.*.rcpt.e1.*",
		}},
		{"hub", auth.Hub("acme", "ra-1"), []string{
			"$JS.*.API.>", "$JS.API.>", "_INBOX.edge.>", "_INBOX.hub.>", "_INBOX.operator.>", "_INBOX.reader.>", "hf.acme.>",
		}, []string{"_INBOX.hub.ra-1.>", "hf.acme.>"}},
		{"operator", auth.Operator("acme", "anna"), []string{
			"$JS.*.API.DIRECT.GET.*", "$JS.*.API.STREAM.INFO.*", "$JS.API.DIRECT.GET.*", "$JS.API.STREAM.INFO.*",
			"hf.acme.*.blob.>", "hf.acme.*.kill", "hf.acme.*.pol.>", "hf.acme.*.view.*.anna.>",
		}, []string{"_INBOX.operator.anna.>", "hf.acme.>"}},
		{"reader", auth.Reader("acme", "rita"), []string{"hf.acme.*.view.*.rita.>"}, []string{
			"_INBOX.reader.rita.>", "hf.acme.*.alarm.>", "hf.acme.*.hb", "hf.acme.*.kill", "hf.acme.live.>",
			"hf.acme.stored.*.hf.acme.*.act.>", "hf.acme.stored.*.hf.acme.*.att.*", "hf.acme.stored.*.hf.acme.*.pol.>",
		}},
		{"link", auth.Link("acme"), []string{"$JS.*.API.>", "_INBOX.>", "hf.acme.>"}, []string{"$JS.*.API.>", "_INBOX.>", "hf.acme.>"}},
		{"workload", auth.Workload("acme", "app"), []string{"hf.acme.ask.>"}, []string{"_INBOX.workload.app.>", "hf.acme.live.>"}},
	} {
		if got := c.p.PublishSubjects(); !slices.Equal(got, c.pub) {
			t.Errorf("%s publishes to\n%q, want\n%q", c.who, got, c.pub)
		}
		if got := c.p.SubscribeSubjects(); !slices.Equal(got, c.sub) {
			t.Errorf("%s subscribes to\n%q, want\n%q", c.who, got, c.sub)
		}
		for _, line := range slices.Concat(c.p.Publish, c.p.Subscribe) {
			if line.Reason == "" {
				t.Errorf("%s: %s has no reason", c.who, line.Subject)
			}
		}
		a, _ := authority(t, "acme")
		issued, err := a.Issue("acme", "x", c.p, 0)
		if err != nil {
			t.Fatalf("%s: %v", c.who, err)
		}
		u := claims(t, issued)
		if !slices.Equal([]string(u.Permissions.Pub.Allow), c.pub) || !slices.Equal([]string(u.Permissions.Sub.Allow), c.sub) {
			t.Errorf("%s: the JWT says %v", c.who, u.Permissions)
		}
		if len(u.AllowedConnectionTypes) == 0 || u.Limits.Payload != auth.MaxPayload || u.BearerToken {
			t.Errorf("%s: connections %q, payload %d", c.who, u.AllowedConnectionTypes, u.Limits.Payload)
		}
	}
}

func TestIssueRefusesWhatWouldWiden(t *testing.T) {
	a, _ := authority(t, "acme")
	for _, name := range []string{"", "*", ">", "a.b", "a b", "ä", strings.Repeat("x", 129), "../x"} {
		if _, err := a.Issue("acme", name, auth.Edge("acme", "e1"), 0); err == nil {
			t.Errorf("a user is called %q", name)
		}
		if err := a.AddTenant(name, auth.Limits{}); err == nil {
			t.Errorf("a tenant is called %q", name)
		}
	}
	for _, node := range []string{"", "*", ">", "a b", "e1.>", "*.x"} {
		if _, err := a.Issue("acme", "x", auth.Edge("acme", node), 0); err == nil {
			t.Errorf("a node is called %q", node)
		}
		if _, err := a.Issue("acme", "x", auth.Edge(node, "e1"), 0); err == nil {
			t.Errorf("a tenant is called %q", node)
		}
	}
	for _, p := range []auth.Permissions{
		{}, {Publish: auth.Edge("a", "b").Publish}, {Subscribe: auth.Edge("a", "b").Subscribe},
		{Publish: []auth.Permission{{">", "all"}}, Subscribe: auth.Edge("a", "b").Subscribe},
		{Publish: []auth.Permission{{"hf.a", ""}}, Subscribe: auth.Edge("a", "b").Subscribe},
	} {
		if _, err := a.Issue("acme", "x", p, 0); err == nil {
			t.Errorf("issued with %+v", p)
		}
	}
	if _, err := a.Issue("nobody", "x", auth.Edge("nobody", "e1"), 0); !errors.Is(err, auth.ErrNoTenant) {
		t.Error(err)
	}
	if err := a.AddTenant("acme", auth.Limits{}); !errors.Is(err, auth.ErrExists) {
		t.Error(err)
	}
	if err := a.AddTenant("system", auth.Limits{}); err == nil {
		t.Error("a tenant has the system account's name")
	}
}

func TestAuthorityIsKeptAndNobodyElseReadsIt(t *testing.T) {
	a, dir := authority(t, "acme", "rival")
	if _, err := auth.Create(dir, "again"); !errors.Is(err, auth.ErrExists) {
		t.Fatal(err)
	}
	if _, err := auth.Open(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	b, err := auth.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	one, err := a.Trust()
	if err != nil {
		t.Fatal(err)
	}
	two, err := b.Trust()
	if err != nil {
		t.Fatal(err)
	}
	first, _ := json.Marshal(one)
	second, _ := json.Marshal(two)
	if !bytes.Equal(first, second) {
		t.Fatalf("%s\n%s", first, second)
	}
	tenants, err := two.Tenants()
	if err != nil || len(tenants) != 2 || tenants["acme"] == "" {
		t.Fatalf("%v, %v", tenants, err)
	}
	c, err := b.Issue("acme", "e1", auth.Edge("acme", "e1"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if inbox, err := auth.Inbox(c.File); err != nil || inbox != "_INBOX.edge.e1" {
		t.Fatalf("%q, %v", inbox, err)
	}
	if left := time.Until(time.Unix(claims(t, c).Expires, 0)); left < 59*time.Minute || left > time.Hour {
		t.Errorf("expires in %v", left)
	}
	path := filepath.Join(dir, "e1.creds")
	if err := c.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	secrets := []string{string(c.File)}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		if strings.HasSuffix(path, ".key") {
			seed, err := os.ReadFile(path)
			secrets = append(secrets, strings.TrimSpace(string(seed)))
			return err
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(secrets) < 8 {
		t.Fatalf("%d secrets: this test looks at nothing", len(secrets))
	}
	said := fmt.Sprintf("%s %v %+v %#v %s", first, c, c, c, &c)
	for _, bad := range []string{"acme.creds", "not a file"} {
		_, err := auth.Inbox([]byte(bad + secrets[1]))
		said += fmt.Sprint(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "operator-signing.key"), []byte(secrets[1]+"x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = auth.Open(dir)
	said += fmt.Sprint(err)
	for _, s := range secrets {
		if strings.Contains(said, s) {
			t.Errorf("a secret is told: %s", said)
		}
	}
}

func TestRevokeIsInTheNextTrust(t *testing.T) {
	a, _ := authority(t, "acme")
	c, err := a.Issue("acme", "e1", auth.Edge("acme", "e1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	before, err := a.AccountJWT("acme")
	if err != nil {
		t.Fatal(err)
	}
	token, err := a.Revoke("acme", c.User)
	if err != nil {
		t.Fatal(err)
	}
	old, err := jwt.DecodeAccountClaims(before)
	if err != nil {
		t.Fatal(err)
	}
	now, err := jwt.DecodeAccountClaims(token)
	if err != nil {
		t.Fatal(err)
	}
	if !now.IsClaimRevoked(claims(t, c)) || now.IssuedAt <= old.IssuedAt || old.IsClaimRevoked(claims(t, c)) {
		t.Errorf("revoked %v, issued at %d after %d", now.Revocations, now.IssuedAt, old.IssuedAt)
	}
	trust, err := a.Trust()
	if err != nil || !slices.Contains(trust.Accounts, token) {
		t.Errorf("the next trust lacks the revocation: %v", err)
	}
	if _, err := a.Revoke("acme", "e1"); err == nil {
		t.Error("revoked by name")
	}
	other, _ := authority(t, "acme")
	foreign, err := other.AccountJWT("acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := trust.AccountOf(foreign); err == nil {
		t.Error("an account of another operator is taken")
	}
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	if _, err := auth.LoadOrCreateCA(filepath.Join(dir, "ca"), "bank"); err != nil {
		t.Fatal(err)
	}
	ca, err := auth.LoadOrCreateCA(filepath.Join(dir, "ca"), "bank")
	if err != nil {
		t.Fatal(err)
	}
	files, err := ca.Server(filepath.Join(dir, "tls"), "ra-1", "127.0.0.1", "hub.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{files.Key, filepath.Join(dir, "ca", "ca.key")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	text, err := os.ReadFile(files.Cert)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	caText, err := os.ReadFile(files.CA)
	if err != nil || !roots.AppendCertsFromPEM(caText) {
		t.Fatal(err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		for host, ok := range map[string]bool{"127.0.0.1": true, "hub.example": true, "other.example": false} {
			_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{usage}})
			if (err == nil) != ok {
				t.Errorf("%s: %v", host, err)
			}
		}
	}
	if _, err := ca.Server(dir, "ra-2"); err == nil {
		t.Error("a certificate for nobody")
	}
	if _, err := ca.Server(dir, "../x", "h"); err == nil {
		t.Error("a certificate outside its folder")
	}
}

// Who may connect how, and with how many subscriptions.
func TestConnections(t *testing.T) {
	for _, u := range []struct {
		what string
		may  auth.Permissions
		ways string
		subs int64
	}{
		{"edge", auth.Edge("acme", "e1"), "STANDARD LEAFNODE", 512},
		{"hub", auth.Hub("acme", "ra-1"), "STANDARD IN_PROCESS", 0},
		{"operator", auth.Operator("acme", "op"), "STANDARD WEBSOCKET", 0},
		{"reader", auth.Reader("acme", "r"), "STANDARD WEBSOCKET", 256},
		{"link", auth.Link("acme"), "LEAFNODE", 0},
		{"workload", auth.Workload("acme", "app"), "STANDARD", 256},
	} {
		if ways := strings.Join(u.may.Connections, " "); ways != u.ways || u.may.Subscriptions != u.subs {
			t.Errorf("%s: %s, %d subscriptions; want %s, %d", u.what, ways, u.may.Subscriptions, u.ways, u.subs)
		}
	}
}
