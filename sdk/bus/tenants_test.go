package bus_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/holdfast-policy/holdfast/internal/regiontest"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
)

// Two tenants share the hubs. A user of the one with every permission that an
// account can give sees nothing of the other.
func TestTenantsSeeNothingOfEachOther(t *testing.T) {
	s := newScene(t)
	all := []auth.Permission{{Subject: "hf.>", Reason: "test"}, {Subject: "$JS.>", Reason: "test"}, {Subject: "$SYS.>", Reason: "test"}, {Subject: "_INBOX.>", Reason: "test"}, {Subject: "$SRV.>", Reason: "test"}}
	creds := s.Creds(t, "rival", "mighty", auth.Permissions{Publish: all, Subscribe: all, Connections: []string{"STANDARD"}})
	var mu sync.Mutex
	got := map[string]string{}
	var conns []*nats.Conn
	for _, r := range []*regiontest.Region{s.A, s.B} {
		nc, err := nats.Connect(r.Servers[1].ClientURL(), nats.UserCredentials(creds), nats.RootCAs(s.CA.CAFile()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		conns = append(conns, nc)
		for _, p := range all {
			if _, err := nc.Subscribe(p.Subject, func(m *nats.Msg) { mu.Lock(); defer mu.Unlock(); got[m.Subject] += string(m.Data) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	s.traffic(t)
	regiontest.Until(t, "the rival hears itself", 10*time.Second, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(got["hf.rival.ra.hb"], "hb of the rival")
	})
	mu.Lock()
	for subject, data := range got {
		if strings.Contains(subject, "acme") || strings.Contains(data, "acme") || strings.Contains(data, "e1 attests") {
			t.Errorf("the rival received %s: %q", subject, data)
		}
	}
	mu.Unlock()
	account := func(tenant string) string {
		trust, err := s.Authority.Trust()
		if err != nil {
			t.Fatal(err)
		}
		key, err := trust.Account(tenant)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	ask := func(nc *nats.Conn, subject string) string {
		m, err := nc.Request(subject, nil, 300*time.Millisecond)
		if err != nil {
			return err.Error()
		}
		return string(m.Data)
	}
	for i, nc := range conns {
		region := []string{"ra", "rb"}[i]
		for _, api := range []string{"$JS.API.", "$JS." + region + ".API."} {
			var names struct {
				Streams []string `json:"streams"`
			}
			if err := json.Unmarshal([]byte(ask(nc, api+"STREAM.NAMES")), &names); err != nil || len(names.Streams) != 4 {
				t.Errorf("%s: streams %q, %v", region, names.Streams, err)
			}
			for _, subject := range []string{"STREAM.NAMES", "STREAM.LIST", "INFO"} {
				if said := ask(nc, api+subject); strings.Contains(said, "acme") || !strings.Contains(said, "rival") && subject != "INFO" {
					t.Errorf("%s says %.300q", subject, said)
				}
			}
			for _, subject := range []string{"STREAM.INFO.POL_acme", "STREAM.DELETE.POL_acme", "STREAM.PURGE.REC_acme", "CONSUMER.NAMES.POL_acme"} {
				if said := ask(nc, api+subject); !strings.Contains(said, "not found") {
					t.Errorf("%s says %.300q", subject, said)
				}
			}
			for _, subject := range []string{"DIRECT.GET.POL_acme", "DIRECT.GET.REC_acme.hf.acme.ra.rec.e1.b1"} {
				// The one who listens to $JS.> is the user himself.
				if said := ask(nc, api+subject); said != nats.ErrNoResponders.Error() && said != nats.ErrTimeout.Error() {
					t.Errorf("%s says %.300q", subject, said)
				}
			}
		}
		for _, subject := range []string{
			"$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT." + account("acme") + ".INFO", "$SYS.REQ.ACCOUNT." + account("acme") + ".CONNZ",
			"$SYS.REQ.ACCOUNT." + account("acme") + ".CLAIMS.LOOKUP", "$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.LIST",
			"hf.acme.ra.up.any.e1.who", "hf.acme.ra.view.any.mighty.who",
		} {
			if said := ask(nc, subject); said != nats.ErrNoResponders.Error() && said != nats.ErrTimeout.Error() {
				t.Errorf("%s says %.300q", subject, said)
			}
		}
		for _, subject := range []string{"$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.ACCOUNT.PING.SUBSZ", "$SYS.REQ.USER.INFO", "$SYS.REQ.ACCOUNT.PING.JSZ"} {
			if said := ask(nc, subject); strings.Contains(said, account("acme")) || strings.Contains(said, "hf.acme") {
				t.Errorf("%s says %.300q", subject, said)
			}
		}
		for _, subject := range []string{"hf.acme.ra.kill", "hf.acme.ra.pol.rel.2", "hf.acme.ra.hb"} {
			if err := nc.Publish(subject, []byte(evil)); err != nil { // into its own account, where nobody of acme is
				t.Fatal(err)
			}
		}
		nc.Flush()
	}
	s.traffic(t)
	if times := s.honest.Times(evil); times > 0 {
		t.Errorf("e1 got %d messages of the rival", times)
	}
	if _, err := s.hubA.Conn.Stream("ra", "POL_acme").Last(t.Context(), "hf.acme.ra.pol.rel.2"); err == nil {
		t.Error("the rival published a release of acme")
	}
}

// A revoked user is thrown out of every server at once, comes back on none, also
// after every server was started again, and others stay.
func TestRevokedUserStaysOut(t *testing.T) {
	w := regiontest.StartWorld(t, 3, "acme")
	creds, user := w.Issue(t, "acme", "e66", auth.Edge("acme", "e66"))
	honest := w.Node("acme", "e1", w.B, w.A)
	asClient := func(r *regiontest.Region, i int, options ...nats.Option) (*nats.Conn, error) {
		return nats.Connect(r.Servers[i].ClientURL(), append(options, nats.UserCredentials(creds), nats.RootCAs(w.CA.CAFile()), nats.NoReconnect())...)
	}
	out := make(chan string, 1)
	var conns []*nats.Conn
	for _, r := range []*regiontest.Region{w.A, w.B} {
		for i := range 3 {
			nc, err := asClient(r, i, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(nc.Close)
			conns = append(conns, nc)
		}
	}
	leaf := dialLeaf(t, w.A.Leafs[2].Addr(), w.CA.CAFile(), creds, "e66")
	if leaf.settled() {
		t.Fatal("the hub hangs up on a user in good standing")
	}
	token, err := w.Authority.Revoke("acme", user)
	if err != nil {
		t.Fatal(err)
	}
	// The system account reaches the region's servers; the object those of the other.
	system, err := w.Authority.IssueSystem("retire", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	path := w.Dir + "/system.creds"
	if err := system.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	sys := regiontest.Connect(t, bus.Config{URLs: []string{w.A.Servers[0].ClientURL()}, CA: w.CA.CAFile(), Creds: path})
	if err := sys.PushAccount(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if err := w.Region(w.A, 0, "acme").PutAccount(t.Context(), time.Now().Unix(), token); err != nil {
		t.Fatal(err)
	}
	for i, nc := range conns {
		regiontest.Until(t, fmt.Sprint("connection ", i, " is closed"), 5*time.Second, nc.IsClosed)
	}
	select {
	case <-leaf.done:
	case <-time.After(5 * time.Second):
		t.Error("the leaf stays")
	}
	t.Logf("out of two regions after %v", time.Since(start).Round(time.Millisecond))
	close(out)
	refused := func(when string) {
		t.Helper()
		for _, r := range []*regiontest.Region{w.A, w.B} {
			for i := range 3 {
				if nc, err := asClient(r, i); err == nil {
					nc.Close()
					t.Errorf("%s: back on %s-%d", when, r.Name, i+1)
				}
			}
			again := dialLeaf(t, r.Leafs[1].Addr(), w.CA.CAFile(), creds, "e66")
			if !again.settled() {
				t.Errorf("%s: the leaf is back at %s", when, r.Name)
			}
		}
	}
	refused("at once")
	for _, r := range []*regiontest.Region{w.A, w.B} {
		for i := range 3 {
			r.StopServer(i)
		}
		var starting sync.WaitGroup
		for i := range 3 {
			starting.Go(func() { r.StartServer(t, i) })
		}
		starting.Wait()
	}
	if t.Failed() {
		t.FailNow()
	}
	refused("after a restart")
	regiontest.Until(t, "e1 is still in", 20*time.Second, func() bool { return honest.Attest(t.Context(), false, 0, []byte("here")) == nil })
}
