package embed_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/regiontest"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/auth"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

// A link that stays down although a hub answers: the server is built anew, at
// the same address, and who is connected to it stays or comes back. While nobody
// answers nothing is built.
func TestWatchdogBuildsTheServerAnew(t *testing.T) {
	stuck, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { // answers, and lets nobody in
		for {
			c, err := stuck.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "INFO {}\r\n")
			t.Cleanup(func() { c.Close() })
		}
	})
	t.Cleanup(func() { stuck.Close(); serving.Wait() })
	addr := stuck.Addr().String()
	s, err := embed.Leaf(t.Context(), embed.LeafConfig{Node: "e1", Login: login, Hubs: []string{addr}, RebuildAfter: 200 * time.Millisecond,
		Workloads: []embed.User{{Name: "app", Password: "app"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	url := s.ClientURL()
	own := regiontest.Connect(t, bus.Config{Server: s})
	app := regiontest.Connect(t, bus.Config{URL: url, User: "app", Password: "app"})
	var heard atomic.Int64
	stop, err := app.Subscribe(t.Context(), "hf.acme.live.>", func(bus.Msg) { heard.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	until(t, "the server is built anew", func() bool { return s.Rebuilt() >= 2 })
	if s.ClientURL() != url {
		t.Errorf("the server moved from %s to %s", url, s.ClientURL())
	}
	was := heard.Load()
	until(t, "the workload hears the node again", func() bool {
		own.Publish("hf.acme.live.json.e1.deny.x", nil) // fails while the connection comes back
		return heard.Load() > was
	})
	stuck.Close()
	time.Sleep(300 * time.Millisecond) // a look that had begun ends
	n := s.Rebuilt()
	time.Sleep(time.Second) // longer than the bound: nobody answers
	if s.Rebuilt() != n {
		t.Error("built anew although nobody answers")
	}
	_, port, _ := net.SplitHostPort(addr)
	var leafPort int
	fmt.Sscan(port, &leafPort)
	hub(t, embed.HubConfig{Region: "ra", LeafPort: leafPort})
	until(t, "the link", func() bool { return s.NumLeafs() == 1 })
	s.Shutdown()
}

// What is beside an edge may ask and tail, and nothing else.
func TestWorkloadsMayAskAndTail(t *testing.T) {
	a := hub(t, embed.HubConfig{Region: "ra"})
	s, err := embed.Leaf(t.Context(), embed.LeafConfig{Node: "e1", Login: login, Hubs: []string{a.LeafAddr()}, Workloads: []embed.User{{Name: "app", Password: "secret"}, {Name: "spy", Password: "spy"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	until(t, "the link", func() bool { return s.NumLeafs() == 1 })
	own, app := regiontest.Connect(t, bus.Config{Server: s}), regiontest.Connect(t, bus.Config{URL: s.ClientURL(), User: "app", Password: "secret", Inbox: auth.WorkloadInbox("app")})
	spy := regiontest.Connect(t, bus.Config{URL: s.ClientURL(), User: "spy", Password: "spy", Inbox: auth.WorkloadInbox("spy")})
	overheard := make(chan string, 100)
	for _, subject := range []string{"_INBOX.>", "_INBOX.workload.>", auth.WorkloadInbox("app") + ".>", "hf.acme.ask.>"} {
		// A refusal comes later: what counts is that nothing is heard.
		if stop, err := spy.Subscribe(t.Context(), subject, func(m bus.Msg) { overheard <- m.Subject }); err == nil {
			t.Cleanup(stop)
		}
	}
	got := make(chan string, 100)
	for _, c := range []*bus.Conn{own, connect(t, a)} {
		stop, err := c.Subscribe(t.Context(), ">", func(m bus.Msg) {
			if string(m.Data) == "of the app" {
				got <- m.Subject
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
	}
	stop, err := own.Serve(t.Context(), "hf.acme.ask.>", "ask", 4, func(q bus.Question) *bus.Answer { return &bus.Answer{Data: q.Data} })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	for _, subject := range []string{"hf.acme.live.json.e1.deny.x", "hf.acme.ra.up.any.e1.who", "hf.acme.ra.hb", "hf.acme.ra.kill", "_INBOX.x", "$JS.API.INFO", "$SYS.REQ.SERVER.PING", "x"} {
		if err := app.Publish(subject, []byte("of the app")); err != nil {
			t.Fatal(err)
		}
	}
	if answer, err := app.Ask(t.Context(), "hf.acme.ask.tool", "", []byte("question")); err != nil || string(answer.Data) != "question" {
		t.Fatalf("%q, %v", answer.Data, err)
	}
	if answer, err := spy.Ask(t.Context(), "hf.acme.ask.tool", "", []byte("mine")); err != nil || string(answer.Data) != "mine" {
		t.Fatalf("%q, %v", answer.Data, err)
	}
	if len(overheard) > 0 {
		t.Errorf("another workload heard %s", <-overheard)
	}
	if len(got) > 0 {
		t.Errorf("the workload published to %s", <-got)
	}
	if _, err := bus.Connect(t.Context(), bus.Config{URL: s.ClientURL(), User: "app", Password: "other"}); err == nil {
		t.Error("a workload with another password came in")
	}
	if _, err := bus.Connect(t.Context(), bus.Config{URL: s.ClientURL()}); err == nil {
		t.Error("a workload without a password came in")
	}
}

// info is what a server says to who has not said anything.
func info(t *testing.T, addr string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// Hubs tell nobody of other addresses, demand TLS 1.3 everywhere, and neither
// they nor an edge write a secret into a log or a file of others.
func TestHubsKeepToThemselves(t *testing.T) {
	f := regiontest.Start(t, 3, "acme")
	linked(t, f)
	edge, own := f.Edge(t, "acme", "e1", f.A, f.B)
	until(t, "the edge's link", func() bool { return edge.NumLeafs() == 1 })
	_ = own
	for i, s := range f.A.Servers {
		client := strings.TrimPrefix(strings.TrimPrefix(s.ClientURL(), "nats://"), "tls://")
		for what, addr := range map[string]string{"leafs": s.LeafAddr(), "clients": client, "leafs by proxy": f.A.Leafs[i].Addr()} {
			said := info(t, addr)
			if !strings.Contains(said, `"tls_required":true`) {
				t.Errorf("%s need no TLS: %s", what, said)
			}
			for j, other := range f.A.Servers {
				if j != i && (strings.Contains(said, other.LeafAddr()) || strings.Contains(said, strings.TrimPrefix(other.ClientURL(), "nats://"))) {
					t.Errorf("%s are told of another server: %s", what, said)
				}
			}
			if strings.Contains(said, "leafnode_urls") || strings.Contains(said, "connect_urls") {
				t.Errorf("%s are told of addresses: %s", what, said)
			}
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			bufio.NewReaderSize(c, 16).ReadByte() // the greeting begins; the handshake fails either way
			c.Close()
			c, err = net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReaderSize(c, 64<<10)
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			old := tls.Client(c, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
			old.SetDeadline(time.Now().Add(5 * time.Second))
			if err := old.Handshake(); err == nil {
				t.Errorf("%s may use TLS 1.2", what)
			}
			c.Close()
		}
	}
	if _, err := bus.Connect(t.Context(), bus.Config{URL: f.A.Servers[0].ClientURL(), Creds: f.Creds(t, "acme", "op", auth.Operator("acme", "op"))}); err == nil {
		t.Error("a server whose certificate nobody vouches for is believed")
	}
}

// Nothing secret is in a log at the most talkative level, nor in what servers
// leave on disk.
func TestSecretsAreNowhere(t *testing.T) {
	var log strings.Builder
	var mu sync.Mutex
	talkative := slog.New(slog.NewTextHandler(writer(func(b []byte) { mu.Lock(); defer mu.Unlock(); log.Write(b) }), &slog.HandlerOptions{Level: slog.LevelDebug}))
	f := regiontest.Start(t, 1, "acme")
	creds, _ := f.Issue(t, "acme", "e1", auth.Edge("acme", "e1"))
	s, err := embed.Leaf(t.Context(), embed.LeafConfig{Node: "e1", Tenant: "acme", Creds: creds, TLS: &auth.TLSFiles{CA: f.CA.CAFile()},
		Hubs: f.A.LeafAddrs(), Workloads: []embed.User{{Name: "app", Password: "workload-secret"}}, Log: talkative})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	until(t, "the link", func() bool { return s.NumLeafs() == 1 })
	_, secret, _ := s.OwnUser()
	regiontest.Connect(t, bus.Config{Server: s, Log: talkative})
	if _, err := bus.Connect(t.Context(), bus.Config{URL: s.ClientURL(), User: "app", Password: "workload-wrong", Log: talkative}); err == nil {
		t.Error("came in with a wrong password")
	} else {
		talkative.Error("connect", "err", err)
	}
	s.Shutdown()
	secrets := map[string]string{"of the process": secret, "of the workload": "workload-secret", "that was wrong": "workload-wrong"}
	file, err := os.ReadFile(creds)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(file), "\n") {
		if strings.HasPrefix(line, "SU") {
			secrets["of the edge"] = line
		}
	}
	if len(secrets) != 4 || secret == "" {
		t.Fatalf("%d secrets: this test looks at nothing", len(secrets))
	}
	mu.Lock()
	defer mu.Unlock()
	if log.Len() == 0 {
		t.Fatal("no log: this test looks at nothing")
	}
	for what, s := range secrets {
		if strings.Contains(log.String(), s) {
			t.Errorf("the secret %s is in the log", what)
		}
	}
	filepath.WalkDir(f.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == creds {
			return err
		}
		b, err := os.ReadFile(path)
		for what, s := range secrets {
			if strings.Contains(string(b), s) {
				t.Errorf("the secret %s is in %s", what, path)
			}
		}
		return err
	})
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }
