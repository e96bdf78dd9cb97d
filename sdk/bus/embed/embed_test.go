package embed_test

import (
	"context"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/cut"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/bus/embed"
)

var login = embed.Login{Tenant: "acme", User: "u", Password: `p"\/@:é`}

func hub(t *testing.T, c embed.HubConfig) *embed.Server {
	t.Helper()
	c.Dir, c.Login = t.TempDir(), login
	s, err := embed.Hub(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func connect(t *testing.T, s *embed.Server) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(t.Context(), bus.Config{Server: s, User: login.User, Password: login.Password, Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func proxy(t *testing.T, target string) *cut.Proxy {
	t.Helper()
	p, err := cut.New(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// until polls for a condition of another process's making.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func TestDomainsAndSubjectsCrossTheLeafsBothWays(t *testing.T) {
	ctx := t.Context()
	a := hub(t, embed.HubConfig{Region: "ra", Websocket: true})
	toA := proxy(t, a.LeafAddr())
	b := hub(t, embed.HubConfig{Region: "rb", Join: toA.Addr()})
	edge, err := embed.Leaf(ctx, embed.LeafConfig{Node: "e1", Login: login, Hubs: []string{toA.Addr(), b.LeafAddr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(edge.Shutdown)
	if a.WebsocketURL() == "" || a.ClientURL() == "" || edge.LeafAddr() != "" {
		t.Fatalf("addresses: %q %q %q", a.WebsocketURL(), a.ClientURL(), edge.LeafAddr())
	}
	until(t, "leafs", func() bool { return edge.NumLeafs() == 1 && a.NumLeafs() == 2 })

	conns := map[string]*bus.Conn{"ra": connect(t, a), "rb": connect(t, b), "e1": connect(t, edge)}
	for _, domain := range []string{"ra", "rb"} {
		if err := conns[domain].Stream(domain, "S").Ensure(ctx, bus.StreamConfig{Subjects: []string{"s." + domain}, MaxMsgSize: 1 << 10}); err != nil {
			t.Fatal(err)
		}
	}
	appendAll := func(when string, fence map[string]uint64, reach map[string][]string) {
		for from, domains := range reach {
			for _, domain := range domains {
				var seq uint64
				until(t, when+": "+from+" to "+domain, func() bool {
					s, err := conns[from].Stream(domain, "S").Append(ctx, "s."+domain, []byte(from), fence[domain])
					seq = s
					return err == nil
				})
				fence[domain] = seq
				m, err := conns[from].Stream(domain, "S").Last(ctx, "s."+domain)
				if err != nil || string(m.Data) != from || m.Seq != seq {
					t.Fatalf("%s: %s reads %s: %+v, %v", when, from, domain, m, err)
				}
			}
		}
	}
	fence := map[string]uint64{}
	all := []string{"ra", "rb"}
	appendAll("whole", fence, map[string][]string{"ra": all, "rb": all, "e1": all})

	stop, err := conns["rb"].Subscribe(ctx, "live.*", func(bus.Msg) {})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "interest at the edge", func() bool { return edge.Interest("live.x") })
	stop()
	until(t, "no interest at the edge", func() bool { return !edge.Interest("live.x") })

	toA.Cut()
	until(t, "the edge moves", func() bool { return edge.NumLeafs() == 1 && b.NumLeafs() == 1 && a.NumLeafs() == 0 })
	appendAll("cut", fence, map[string][]string{"rb": {"rb"}, "e1": {"rb"}})
	toA.Heal()
	appendAll("healed", fence, map[string][]string{"ra": all, "rb": all, "e1": all})
}

func TestWrongPasswordIsRefused(t *testing.T) {
	a := hub(t, embed.HubConfig{Region: "ra"})
	if _, err := bus.Connect(t.Context(), bus.Config{URL: a.ClientURL(), User: login.User, Password: "other"}); err == nil {
		t.Fatal("a client with another password came in")
	}
	c, err := bus.Connect(t.Context(), bus.Config{URL: a.ClientURL(), User: login.User, Password: login.Password})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	edge, err := embed.Leaf(t.Context(), embed.LeafConfig{
		Node: "e1", Login: embed.Login{Tenant: "acme", User: "u", Password: "other"}, Hubs: []string{a.LeafAddr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Shutdown()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; <-tick.C {
		if a.NumLeafs() > 0 {
			t.Fatal("an edge with another password came in")
		}
	}
}

func TestStreamsOutliveTheServer(t *testing.T) {
	dir := t.TempDir()
	start := func(port int) *embed.Server {
		s, err := embed.Hub(t.Context(), embed.HubConfig{Region: "ra", Dir: dir, Login: login, LeafPort: port})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := start(0)
	c := connect(t, a)
	if err := c.Stream("ra", "S").Ensure(t.Context(), bus.StreamConfig{Subjects: []string{"s"}, MaxMsgSize: 100}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stream("ra", "S").Append(t.Context(), "s", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	a.Shutdown()
	a.Shutdown()
	a = start(0)
	defer a.Shutdown()
	if m, err := connect(t, a).Stream("ra", "S").Last(t.Context(), "s"); err != nil || string(m.Data) != "x" {
		t.Fatalf("%+v, %v", m, err)
	}
}
