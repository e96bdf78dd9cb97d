package hub_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/control/hub"
	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/regiontest"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/bus"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const (
	tenant = "acme"
	within = 40 * time.Second
)

// stage is two regions on real servers with people's keys, without hubs.
type stage struct {
	t    *testing.T
	ctx  context.Context
	w    *regiontest.World
	keys map[string]*bundle.PrivateKey
	root *bundle.TrustRoot
	logs map[string]note.Signer
	node map[string]*regiontest.Node
	said uint64
}

func newStage(t *testing.T) *stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	s := &stage{t: t, ctx: ctx, w: regiontest.StartWorld(t, 1, tenant), keys: map[string]*bundle.PrivateKey{}, logs: map[string]note.Signer{}, node: map[string]*regiontest.Node{}}
	var public []bundle.Key
	for person, role := range map[string]bundle.Role{
		"ruth": bundle.RoleRoot, "ann": bundle.RoleAuthor, "bob": bundle.RoleApprover, "eve": bundle.RoleEnrol, "kim": bundle.RoleKill, "ra": bundle.RoleHeartbeat, "rb": bundle.RoleHeartbeat,
	} {
		k, err := bundle.GenerateKey(role, person)
		s.check(err)
		s.keys[person] = k
		public = append(public, k.Key)
	}
	s.root = bundle.NewTrustRoot(tenant, time.Now().Add(time.Hour), public...)
	return s
}

func (s *stage) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// enrol makes a node whose enrolment is that old; it can attest.
func (s *stage) enrol(node string, ago time.Duration) {
	s.t.Helper()
	secret, vkey, err := note.GenerateKey(rand.Reader, audit.NodeKeyName(tenant, node))
	s.check(err)
	s.logs[node], err = note.NewSigner(secret)
	s.check(err)
	envelope, err := bundle.SignEnrolment(&bundle.Enrolment{Tenant: tenant, Node: node, Serial: 1, LogKey: vkey, Created: time.Now().Add(-ago).UnixNano()}, s.keys["eve"])
	s.check(err)
	s.check(s.region(s.w.A).PutEnrolment(s.ctx, node, 1, envelope))
	s.node[node] = s.w.Node(tenant, node, s.w.A)
}

func (s *stage) region(r *regiontest.Region) jetstream.Region { return s.w.Region(r, 0, tenant) }

// publish stores a release in a region.
func (s *stage) publish(r *regiontest.Region, epoch uint64, rings ...bundle.Ring) *bundle.SignedRelease {
	s.t.Helper()
	envelope, err := bundle.SignRelease(&bundle.Release{
		Tenant: tenant, Epoch: epoch, Fallback: bundle.FallbackNone, Rings: rings,
		Points: []bundle.Point{{Name: "custom", Durability: policy.Synced, Packages: []bundle.PackageRef{{Name: "p", Digest: wire.Sum([]byte("package")), Size: 1}}}},
	}, s.keys["ann"], s.keys["bob"])
	s.check(err)
	s.check(s.region(r).PublishRelease(s.ctx, epoch, envelope))
	rel, err := s.root.OpenRelease(envelope, time.Now())
	s.check(err)
	return rel
}

// attest has a node say that it enforces a release, and more.
func (s *stage) attest(node string, rel *bundle.SignedRelease, change func(*audit.Attestation)) {
	s.t.Helper()
	s.said++
	a := &audit.Attestation{
		Tenant: tenant, Node: node, Boot: "00000001-0000000000000001", Serial: s.said, Time: time.Now().UnixNano(),
		Kills: new(bundle.KillSet).Digest(), Staleness: "fresh", HeartbeatAge: 1,
	}
	if rel != nil {
		a.Epoch, a.Release, a.Enforced = rel.Epoch, rel.Digest, rel.Digest
	}
	if change != nil {
		change(a)
	}
	msg, err := audit.SignAttestation(a, s.logs[node])
	s.check(err)
	for err = bus.ErrUnreachable; errors.Is(err, bus.ErrUnreachable) && s.ctx.Err() == nil; { // a busy machine
		err = s.node[node].Attest(s.ctx, rel != nil, a.Epoch, msg)
	}
	s.check(err)
}

// server is a hub server: the hub, and what it did.
type server struct {
	*hub.Hub
	jetstream.Region
	lease  *jetstream.Lease
	always bool // takes the lease for held, whoever has it
	cut    atomic.Bool
	beats  atomic.Int64
	stop   func()

	mu     sync.Mutex
	alarms []hub.Alarm
	orders []error
}

func (v *server) Heartbeat(ctx context.Context, envelope []byte) error {
	v.beats.Add(1)
	return v.Region.Heartbeat(ctx, envelope)
}

func (v *server) Order(ctx context.Context, epoch, serial uint64, envelope []byte) error {
	err := v.PutOrder(ctx, epoch, serial, envelope)
	if errors.Is(err, jetstream.ErrConflict) {
		err = fmt.Errorf("%w: %w", hub.ErrTaken, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.orders = append(v.orders, err)
	return err
}

func (v *server) Lease(ctx context.Context, holder string, term time.Duration) (bool, error) {
	if v.cut.Load() {
		return false, bus.ErrUnreachable
	}
	held, err := v.lease.Hold(ctx, holder, term)
	return held || v.always, err
}

// told are the alarms that the server raised, such as "node_away/e1" or, when
// they were resolved, "-node_away/e1".
func (v *server) told() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []string
	for _, a := range v.alarms {
		id := a.ID
		if a.Resolved {
			id = "-" + id
		}
		out = append(out, id)
	}
	return strings.Join(out, " ")
}

// server starts a hub server of a region, on a connection of its own.
func (s *stage) server(r *regiontest.Region, name string, always bool) *server {
	s.t.Helper()
	region := s.region(r)
	region.Conn = s.w.Hub(s.t, r, 0, tenant)
	v := &server{Region: region, lease: region.NewLease(), always: always}
	h, err := hub.New(hub.Config{
		Tenant: tenant, Region: r.Name, Server: name, Root: s.root, Key: s.keys[r.Name], Beat: 50 * time.Millisecond, Reader: region, Writer: v, Log: regiontest.Log(s.t),
		Alarm: func(a hub.Alarm) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.alarms = append(v.alarms, a)
		},
	})
	s.check(err)
	v.Hub = h
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = h.Run(ctx) })
	v.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	s.t.Cleanup(v.stop)
	return v
}

// One of a region's two servers leads and says heartbeats. When it stops the
// other one does, without a word of the first, and serials go on rising.
func TestOneLeads(t *testing.T) {
	s := newStage(t)
	var mu sync.Mutex
	var beats []*bundle.SignedHeartbeat
	_, err := s.region(s.w.A).Conn.Subscribe(s.ctx, "hf.acme.ra.hb", func(m bus.Msg) {
		b, err := s.root.OpenHeartbeat(m.Data)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		beats = append(beats, b)
	})
	s.check(err)
	one, two := s.server(s.w.A, "ra-1", false), s.server(s.w.A, "ra-2", false)
	leads := func(a, b *server) {
		t.Helper()
		regiontest.Until(t, "somebody leads", within, func() bool { return a.Leading() || b.Leading() })
		if a.Leading() == b.Leading() {
			t.Fatal("both lead")
		}
		leader, other := a, b
		if b.Leading() {
			leader, other = b, a
		}
		from, before := leader.beats.Load(), other.beats.Load()
		regiontest.Until(t, "heartbeats", within, func() bool { return leader.beats.Load() > from+10 })
		if other.beats.Load() != before || other.Leading() {
			t.Error("the other one says heartbeats too")
		}
	}
	leads(one, two)
	first, second := one, two
	if two.Leading() {
		first, second = two, one
	}
	first.stop()
	said := first.beats.Load()
	regiontest.Until(t, "the other leads", within, second.Leading)
	from := second.beats.Load()
	regiontest.Until(t, "heartbeats of the other", within, func() bool { return second.beats.Load() > from+5 })
	if first.beats.Load() != said {
		t.Error("a server that was stopped says heartbeats")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(beats) < 10 {
		t.Fatalf("%d heartbeats came", len(beats))
	}
	for i, b := range beats {
		if b.Region != "ra" || b.Tenant != tenant || b.Expires-b.Time != (15*time.Minute).Nanoseconds() || b.RootVersion != 1 {
			t.Fatalf("heartbeat %+v", b.Heartbeat)
		}
		if i > 0 && b.Serial <= beats[i-1].Serial {
			t.Errorf("serial %d after %d", b.Serial, beats[i-1].Serial)
		}
	}
}

// A heartbeat says what its region knows, and a server that cannot renew its
// lease says none when the lease is over.
func TestHeartbeat(t *testing.T) {
	s := newStage(t)
	var newest atomic.Pointer[bundle.SignedHeartbeat]
	_, err := s.region(s.w.A).Conn.Subscribe(s.ctx, "hf.acme.ra.hb", func(m bus.Msg) {
		if b, err := s.root.OpenHeartbeat(m.Data); err == nil {
			newest.Store(b)
		}
	})
	s.check(err)
	v := s.server(s.w.A, "ra-1", false)
	rel := s.publish(s.w.A, 1, bundle.Ring{Name: "all", Percent: 100, Shadow: bundle.Bake{Decisions: 1}})
	envelope, err := bundle.SignKill(&bundle.Kill{Tenant: tenant, Scope: "point:custom", Reason: "drill", Created: time.Now().UnixNano()}, s.keys["kim"])
	s.check(err)
	kill, err := s.root.OpenKill(envelope)
	s.check(err)
	s.check(s.region(s.w.A).PutKill(s.ctx, kill.Digest, envelope))
	kills := &bundle.KillSet{}
	_, err = kills.AddKill(kill)
	s.check(err)
	regiontest.Until(t, "a heartbeat of everything", within, func() bool {
		b := newest.Load()
		return b != nil && b.Epoch == 1 && b.Release == rel.Digest && b.Order == 1 && b.KillCount == 1 && b.Kills == kills.Digest()
	})
	v.cut.Store(true)
	regiontest.Until(t, "it leads no more", 6*time.Second, func() bool { return !v.Leading() })
	regiontest.Until(t, "no heartbeats", within, func() bool {
		before := v.beats.Load()
		time.Sleep(200 * time.Millisecond)
		return v.beats.Load() == before
	})
}

// Two servers that both take themselves for the leader step at the same moment:
// every order exists once, without gaps, signed by one of them, and both see the
// same. A region that did not publish the release leads nothing.
func TestOrdersAreCreatedOnce(t *testing.T) {
	s := newStage(t)
	s.enrol("e1", 0)
	one, two, far := s.server(s.w.A, "ra-1", true), s.server(s.w.A, "ra-2", true), s.server(s.w.B, "rb-1", false)
	regiontest.Until(t, "all lead", within, func() bool { return one.Leading() && two.Leading() && far.Leading() })
	for epoch := uint64(1); epoch <= 5; epoch++ {
		rel := s.publish(s.w.A, epoch, bundle.Ring{Name: "canary", Percent: 50}, bundle.Ring{Name: "rest", Percent: 100})
		done := func(v *server) bool {
			r := v.View().Rollout
			return r != nil && r.Epoch == epoch && r.State == bundle.RolloutComplete
		}
		regiontest.Until(t, "complete", within, func() bool {
			s.attest("e1", rel, func(a *audit.Attestation) { a.Live.Decisions = 1000 })
			return done(one) && done(two) && done(far)
		})
		a, b := one.View(), two.View()
		if !same(a.Rollout, b.Rollout) || !same(a.InForce, b.InForce) || a.InForce.Nodes != 1 || a.InForce.Epoch != epoch || a.InForce.WorstPropagation < 0 {
			t.Errorf("two servers see\n%+v\n%+v", a.InForce, b.InForce)
		}
	}
	objects, err := s.region(s.w.A).SignedObjects(s.ctx)
	s.check(err)
	seen := map[uint64][]uint64{}
	for _, o := range objects {
		if bundle.Type(o.Data) != bundle.OrderType {
			continue
		}
		order, err := s.root.OpenOrder(o.Data)
		s.check(err)
		if order.Region != "ra" || !slices.Contains([]string{"ra-1", "ra-2"}, order.Leader) || order.Created == 0 {
			t.Errorf("order %+v", order.Order)
		}
		seen[order.Epoch] = append(seen[order.Epoch], order.Serial)
	}
	created := 0
	for epoch, serials := range seen {
		for i, n := range serials {
			if n != uint64(i+1) {
				t.Errorf("orders of epoch %d: %d", epoch, serials)
			}
		}
		created += len(serials)
	}
	taken := 0
	for _, v := range []*server{one, two, far} {
		for _, err := range v.orders {
			switch {
			case err == nil:
				created--
			case errors.Is(err, hub.ErrTaken):
				taken++
			default:
				t.Error(err)
			}
		}
	}
	if created != 0 || len(seen) != 5 || len(far.orders) != 0 {
		t.Errorf("%d orders more than were created; %d epochs; %d by another region", created, len(seen), len(far.orders))
	}
	t.Logf("%d orders were taken already", taken)
}

// An alarm is raised once, by the leading server, and resolved once; the server
// that takes over raises again what holds, under the same name.
func TestAlarms(t *testing.T) {
	s := newStage(t)
	s.enrol("e1", time.Hour)
	s.enrol("new", 0) // has a while until it is missed
	v := s.server(s.w.A, "ra-1", false)
	regiontest.Until(t, "away", within, func() bool { return v.told() != "" })
	time.Sleep(600 * time.Millisecond) // it looks four times a second, and says nothing more
	rel := s.publish(s.w.A, 1)
	s.attest("e1", rel, nil)
	regiontest.Until(t, "back", within, func() bool { return v.told() == "node_away/e1 -node_away/e1" })
	s.attest("e1", rel, func(a *audit.Attestation) {
		a.Fallback, a.Enforced, a.Vectors.Failed, a.Staleness = true, wire.Sum([]byte("before")), 2, "stale"
	})
	want := []string{"node_fallback/e1", "vectors_failed/e1", "node_stale/e1"}
	time.Sleep(600 * time.Millisecond)
	regiontest.Until(t, "fallback, vectors, stale", within, func() bool { return len(strings.Fields(v.told())) >= 5 })
	for _, id := range want {
		if strings.Count(v.told(), id) != 1 {
			t.Errorf("alarms %s; want %s once", v.told(), id)
		}
	}
	v.mu.Lock()
	for _, a := range v.alarms {
		if a.Tenant != tenant || a.Region != "ra" || a.Node != "e1" || a.Text == "" || time.Since(a.At).Abs() > time.Minute {
			t.Errorf("alarm %+v", a)
		}
	}
	v.mu.Unlock()
	next := s.server(s.w.A, "ra-2", false)
	v.stop()
	regiontest.Until(t, "raised again", within, func() bool {
		s.attest("e1", rel, func(a *audit.Attestation) {
			a.Fallback, a.Enforced, a.Vectors.Failed, a.Staleness = true, wire.Sum([]byte("before")), 2, "stale"
		})
		return len(strings.Fields(next.told())) >= 3
	})
	for _, id := range want {
		if strings.Count(next.told(), id) != 1 {
			t.Errorf("the next server's alarms %s; want %s once", next.told(), id)
		}
	}
	s.attest("e1", rel, nil)
	regiontest.Until(t, "resolved", within, func() bool { return strings.Count(next.told(), "-") == 3 })
}

// A hub that could not lead is not made.
func TestNewRefuses(t *testing.T) {
	key := func(role bundle.Role, person string) *bundle.PrivateKey {
		k, err := bundle.GenerateKey(role, person)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	good := hub.Config{Tenant: tenant, Region: "ra", Server: "ra-1", Root: &bundle.TrustRoot{}, Reader: jetstream.Region{}, Writer: &server{}}
	if _, err := hub.New(good); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*hub.Config){
		"another region's key": func(c *hub.Config) { c.Key = key(bundle.RoleHeartbeat, "rb") },
		"a key to kill":        func(c *hub.Config) { c.Key = key(bundle.RoleKill, "ra") },
		"no root":              func(c *hub.Config) { c.Root = nil },
		"no reader":            func(c *hub.Config) { c.Reader = nil },
		"no writer":            func(c *hub.Config) { c.Writer = nil },
		"no name":              func(c *hub.Config) { c.Server = "" },
	} {
		c := good
		change(&c)
		if _, err := hub.New(c); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func same(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}
