package embed_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/regiontest"
	"github.com/holdfast-policy/holdfast/sdk/bus"
)

// linked waits until every server of a region of three sees its peers and links.
func linked(t *testing.T, f *regiontest.Fleet) {
	t.Helper()
	regiontest.Until(t, "routes and links", 20*time.Second, func() bool {
		links := 0
		for i := range f.A.Servers {
			if len(f.A.Servers) > 1 && (f.A.Servers[i].NumRoutes() < 2 || f.B.Servers[i].NumRoutes() < 2) {
				return false
			}
			if f.B.Servers[i].NumLeafs() < 1 {
				return false
			}
			links += f.A.Servers[i].NumLeafs()
		}
		return links >= len(f.A.Servers)
	})
}

func TestTwoRegionsOfThreeCarryEachMessageOnce(t *testing.T) {
	f := regiontest.Start(t, 3, "acme")
	linked(t, f)
	conns := map[string]*bus.Conn{}
	for i := range 3 {
		conns[fmt.Sprint("ra", i)] = f.Hub(t, f.A, i, "acme")
		conns[fmt.Sprint("rb", i)] = f.Hub(t, f.B, i, "acme")
	}
	_, conns["edge at ra"] = f.Edge(t, "acme", "e1", f.A, f.B)
	_, conns["edge at rb"] = f.Edge(t, "acme", "e2", f.B, f.A)
	got := map[string]*atomic.Int64{}
	for name, c := range conns {
		n := &atomic.Int64{}
		got[name] = n
		stop, err := c.Subscribe(t.Context(), "hf.acme.ra.hb", func(bus.Msg) { n.Add(1) })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	all := func(n int64) bool {
		for _, c := range got {
			if c.Load() < n {
				return false
			}
		}
		return true
	}
	hubs := []string{"ra0", "ra1", "ra2", "rb0", "rb1", "rb2"}
	// Interest spreads; from then on everybody hears everything.
	regiontest.Until(t, "the first message everywhere", 20*time.Second, func() bool {
		for _, from := range hubs {
			conns[from].Publish("hf.acme.ra.hb", nil)
		}
		return all(6)
	})
	var before map[string]int64
	regiontest.Until(t, "quiet", 5*time.Second, func() bool {
		was := before
		before = map[string]int64{}
		same := was != nil
		for name, n := range got {
			before[name] = n.Load()
			same = same && was[name] == before[name]
		}
		time.Sleep(50 * time.Millisecond)
		return same
	})
	for range 50 {
		for _, from := range hubs {
			if err := conns[from].Publish("hf.acme.ra.hb", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := int64(50 * len(hubs))
	regiontest.Until(t, "every message everywhere", 10*time.Second, func() bool {
		for name, n := range got {
			if n.Load()-before[name] < want {
				return false
			}
		}
		return true
	})
	time.Sleep(200 * time.Millisecond) // what comes twice comes late
	for name, n := range got {
		if d := n.Load() - before[name]; d != want {
			t.Errorf("%s got %d messages, want %d", name, d, want)
		}
	}
}
