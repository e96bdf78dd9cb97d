package edge_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func (w *world) erasure(tenant, node string, keys ...*bundle.PrivateKey) []byte {
	w.t.Helper()
	env, err := bundle.SignErasure(&bundle.Erasure{Tenant: tenant, Reason: "Art. 17", Created: time.Now().UnixNano(), Records: []bundle.ErasedRecords{
		{Node: node, Boot: audit.BootID(1, 2), Ranges: [][2]uint64{{3, 5}, {7, 7}}},
	}}, keys...)
	w.must(err)
	return env
}

// A node answers an erasure of its own records once, whatever starts lie between,
// and nothing that the trust root's people of role data have not signed.
func TestErasureIsAnswered(t *testing.T) {
	w := newWorld(t)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(nil)
	n.waitEpoch(1)
	n.Deliver(w.erasure("acme", "n2", w.data[0]))
	n.Deliver(w.erasure("umbrella", "n1", w.data[0]))
	n.Deliver(w.erasure("acme", "n1", w.kill[0]))
	n.Deliver(w.erasure("acme", "n1", key(bundle.RoleData, "mallory", 99)))
	if got := n.admin(audit.EventErased); len(got) != 0 {
		t.Fatalf("answered: %+v", got)
	}
	env := w.erasure("acme", "n1", w.data[0])
	n.Deliver(env)
	n.Deliver(env)
	got := n.admin(audit.EventErased)
	if len(got) != 1 || got[0].Count != 4 || fmt.Sprint(got[0].Detail["ranges"]) != "2" || got[0].Actor != "dana" {
		t.Errorf("%+v", got)
	}
	n.stop()
	n = w.start(nil)
	n.Deliver(env)
	if got := n.admin(audit.EventErased); len(got) != 0 {
		t.Errorf("answered again after a restart: %+v", got)
	}
}

// A region that two persons have retired stays retired, and the node records it once.
func TestRetirement(t *testing.T) {
	w := newWorld(t)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	var mu sync.Mutex
	var told []string
	start := func() *node {
		return w.start(func(c *edge.Config) {
			c.Retired = func(regions []string) {
				mu.Lock()
				defer mu.Unlock()
				told = regions
			}
		})
	}
	retired := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told)
	}
	retire := func(region string, keys ...*bundle.PrivateKey) []byte {
		env, err := bundle.SignRetirement(&bundle.Retirement{Tenant: "acme", Region: region, Reason: "gone", Created: time.Now().UnixNano()}, keys...)
		w.must(err)
		return env
	}
	n := start()
	n.waitEpoch(1)
	n.Deliver(retire("us", w.data[0]))
	n.Deliver(retire("us", w.data[0], w.kill[0]))
	if len(retired()) > 0 {
		t.Fatalf("retired by one person: %v", retired())
	}
	env := retire("us", w.data...)
	n.Deliver(env)
	if !slices.Equal(retired(), []string{"us"}) {
		t.Fatalf("%v", retired())
	}
	if got := n.admin("region_retired"); len(got) != 1 || got[0].Detail["region"] != "us" {
		t.Errorf("%+v", got)
	}
	n.stop()
	told = nil
	n = start()
	if !slices.Equal(retired(), []string{"us"}) {
		t.Errorf("after a restart: %v", retired())
	}
	n.Deliver(env)
	n.Deliver(retire("ap", w.data...))
	if got := n.admin("region_retired"); len(got) != 1 || got[0].Detail["region"] != "ap" {
		t.Errorf("after a restart: %+v", got)
	}
	if !slices.Equal(retired(), []string{"us", "ap"}) {
		t.Errorf("%v", retired())
	}
}

// The activation's leaf names each point's class of retention.
func TestActivationNamesRetention(t *testing.T) {
	w := newWorld(t)
	r := w.release(1, w.publish(says(policy.Allow, 1)))
	r.Points[0].Retention = bundle.Retention{Class: "standard", RecordsDays: 400, PartsDays: 30}
	w.put(r)
	n := w.start(nil)
	n.waitEpoch(1)
	for _, rec := range n.records() {
		if rec.Activation == nil {
			continue
		}
		for _, p := range rec.Activation.Points {
			want := p.Name == r.Points[0].Name
			if (p.Retention != nil) != want || want && *p.Retention != (audit.Retention{Class: "standard", RecordsDays: 400, PartsDays: 30}) {
				t.Errorf("%s: %+v", p.Name, p.Retention)
			}
		}
		return
	}
	t.Error("no activation")
}
