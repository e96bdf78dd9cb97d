package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/hub"
	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/cut"
	"github.com/holdfast-policy/holdfast/internal/fleetkit"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// lease of the releases of these tests.
const lease = 3 * time.Second

// leased gives the point a lease of a few seconds.
func leased(r *bundle.Release) {
	r.Points[0].LeaseSeconds = int64(lease / time.Second)
	r.Staleness.AgingSeconds = 1
}

// twoRegions is a fleet of two regions with a server each and a node at each.
// What the second node hears, and what the regions hear of one another, goes
// through links that can be cut.
type twoRegions struct {
	*fleetkit.Fleet
	t        *testing.T
	ctx      context.Context
	admin    *assembly.Admin
	one, two string // the nodes' URLs
	second   []*cut.Proxy
	between  []*cut.Proxy
	alarms   mailbox
}

func newTwoRegions(t *testing.T, ctx context.Context) *twoRegions {
	t.Helper()
	f := &twoRegions{Fleet: newFleet(t, 1, "eu", "us"), t: t, ctx: ctx}
	configure(t, f.Fleet, "heartbeat: 200ms\n")
	f.between = f.through(filepath.Join(f.Hub("us-1"), "hub.yaml"), f.Servers[:1])
	if err := f.StartHubs(ctx); err != nil {
		t.Fatal(err)
	}
	f.admin = watched(t, ctx, f.Fleet, "hf.bank.*.alarm.>", &f.alarms)
	f.one = startEdge(t, ctx, f.Fleet, "one", "eu", nil)
	if err := f.Enrol(ctx, "two", "us", nil); err != nil {
		t.Fatal(err)
	}
	f.second = f.through(filepath.Join(f.Node("two"), "edge.yaml"), f.Servers)
	f.two = restartEdge(t, f.Fleet, "two")
	return f
}

// through has a configuration reach the servers' leaf ports through links.
func (f *twoRegions) through(file string, servers []assembly.ServerPlace) (links []*cut.Proxy) {
	f.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, s := range servers {
		direct := net.JoinHostPort(s.Host, strconv.Itoa(s.Leaf))
		p, err := cut.New(direct)
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { _ = p.Close() })
		if !strings.Contains(string(text), direct) {
			f.t.Fatalf("no %s in\n%s", direct, text)
		}
		text = []byte(strings.ReplaceAll(string(text), direct, p.Addr()))
		links = append(links, p)
	}
	write(f.t, file, string(text))
	return links
}

func sever(links []*cut.Proxy) {
	for _, l := range links {
		l.Cut()
	}
}

func heal(links []*cut.Proxy) {
	for _, l := range links {
		l.Heal()
	}
}

// only is an operator who reaches one region alone.
func (f *twoRegions) only(region string) *assembly.Admin {
	f.t.Helper()
	cfg, err := assembly.AdminOf(f.Layout)
	if err != nil {
		f.t.Fatal(err)
	}
	i := slices.IndexFunc(f.Servers, func(s assembly.ServerPlace) bool { return s.Region == region })
	cfg.Regions, cfg.URLs = []string{region}, cfg.URLs[i:i+1]
	a, err := assembly.OpenAdmin(f.ctx, cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(a.Close)
	return a
}

// killed signs a kill of a scope.
func (f *twoRegions) killed(scope, by string) (envelope []byte) {
	f.t.Helper()
	envelope, err := bundle.SignKill(&bundle.Kill{Tenant: "bank", Scope: bundle.Scope(scope), Reason: "drill", Created: time.Now().UnixNano()}, f.Keys[by])
	if err != nil {
		f.t.Fatal(err)
	}
	return envelope
}

func (f *twoRegions) press(a *assembly.Admin, envelope []byte) wire.Digest {
	f.t.Helper()
	d, err := a.Kill(f.ctx, envelope)
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

// lift signs the end of kills, by these people.
func (f *twoRegions) lift(by []string, kills ...wire.Digest) []byte {
	f.t.Helper()
	var keys []*bundle.PrivateKey
	for _, who := range by {
		keys = append(keys, f.Keys[who])
	}
	envelope, err := bundle.SignLift(&bundle.Lift{Tenant: "bank", Kills: kills, Reason: "over", Created: time.Now().UnixNano()}, keys...)
	if err != nil {
		f.t.Fatal(err)
	}
	return envelope
}

// confirmed waits until so many nodes confirm every kill, and so many do not.
func (f *twoRegions) confirmed(kills, yes, no int) (missing []string, stopsBy time.Time) {
	f.t.Helper()
	until(f.t, f.ctx, f.Fleet, fmt.Sprintf("%d kills confirmed by %d and not by %d", kills, yes, no), func(s *assembly.State) bool {
		v := s.View()
		if len(v.Kills) != kills {
			return false
		}
		missing = nil
		for _, n := range v.NotConfirmed {
			missing, stopsBy = append(missing, n.Node), n.StopsBy
		}
		for _, k := range v.Kills {
			if k.Confirmed != yes || len(k.NotConfirmed) != no {
				return false
			}
		}
		return true
	})
	return missing, stopsBy
}

var both = []string{fleetkit.Killer, fleetkit.Killer2}

// TestStopOrders has kills reach nodes that hear, stop nodes that hear nothing,
// and unite over regions that were cut apart.
func TestStopOrders(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*timeout)
	defer cancel()
	f := newTwoRegions(t, ctx)
	publish(t, ctx, f.Fleet, leased, allow(t, "ada"))
	counted(t, ctx, f.Fleet, 2, 2)
	f.connected()
	f.unheard()
	f.byFile()
	f.apart()
	f.silence()
}

// connected presses and lifts again and again: every asker is stopped, no
// question goes unanswered.
func (f *twoRegions) connected() {
	f.t.Helper()
	loads := []*load{startLoad(f.t, f.one, `{"document":{"user":"ada"}}`), startLoad(f.t, f.two, `{"document":{"user":"ada"}}`)}
	var took []time.Duration
	for range 5 {
		for _, l := range loads {
			wait(f.t, "allowed", func() bool { return l.last().verdict == policy.Allow })
		}
		envelope := f.killed(bundle.ScopeAll, fleetkit.Killer)
		pressed := time.Now()
		d := f.press(f.admin, envelope)
		f.confirmed(1, 2, 0)
		for _, l := range loads {
			wait(f.t, "killed", func() bool { a := l.last(); return a.verdict == policy.Deny && a.code == "killed" })
			took = append(took, l.lastAllowed().at.Sub(pressed))
		}
		f.press(f.admin, f.lift(both, d))
		f.confirmed(0, 0, 0)
	}
	for i, l := range loads {
		l.end()
		l.answeredAll(f.t, []string{"one", "two"}[i])
	}
	figures(f.t, "press to the last allowed decision, connected", took)
}

// unheard cuts the second node off, then kills: it is named with the time by
// which it stops, stops before, and stays stopped over a kill -9 without network.
func (f *twoRegions) unheard() {
	f.t.Helper()
	l := startLoad(f.t, f.two, `{"document":{"user":"ada"}}`)
	wait(f.t, "allowed", func() bool { return l.last().verdict == policy.Allow })
	sever(f.second)
	severed := time.Now()
	d := f.press(f.admin, f.killed("point:custom", fleetkit.Killer))
	missing, stopsBy := f.confirmed(1, 1, 1)
	if len(missing) != 1 || missing[0] != "two" || stopsBy.Before(severed) || stopsBy.After(severed.Add(4*lease+10*time.Second)) {
		f.t.Errorf("not confirmed: %v, stops by %v, cut off at %v", missing, stopsBy, severed)
	}
	wait(f.t, "stopped by its lease", func() bool { a := l.last(); return a.verdict == policy.Deny && a.code == "stale" })
	l.end()
	stopped := l.lastAllowed().at
	if over := stopped.Sub(severed); over > lease+time.Second || stopped.After(stopsBy) {
		f.t.Errorf("allowed until %v after the cut, with a lease of %v; said to stop by %v", over, lease, stopsBy)
	}
	figures(f.t, fmt.Sprintf("cut off to the last allowed decision, lease %v", lease), []time.Duration{stopped.Sub(severed)})
	f.Process("two").End(syscall.SIGKILL)
	f.two = restartEdge(f.t, f.Fleet, "two")
	if a := decideUntil(f.t, f.two, "ada", policy.Deny); len(a.Reasons) == 0 || a.Reasons[0].Code != "stale" {
		f.t.Errorf("restarted without network: %+v", a)
	}
	l = startLoad(f.t, f.two, `{"document":{"user":"ada"}}`)
	heal(f.second)
	healed := time.Now()
	wait(f.t, "the kill, once it hears", func() bool { return l.last().code == "killed" })
	f.t.Logf("figure: healed to the kill in force: %v", time.Since(healed).Round(time.Millisecond))
	f.confirmed(1, 2, 0)
	l.end()
	if a := l.lastAllowed(); !a.at.IsZero() {
		f.t.Errorf("allowed %v after the heal, before the kill came", a.at.Sub(healed))
	}
	f.lifting(d)
}

// lifting takes two persons, also of whoever gets past the operator's tools.
func (f *twoRegions) lifting(d wire.Digest) {
	f.t.Helper()
	for _, by := range [][]string{{fleetkit.Killer}, {fleetkit.Killer, fleetkit.Killer}, {fleetkit.Author, fleetkit.Approver}} {
		envelope := f.lift(by, d)
		if _, err := f.admin.Kill(f.ctx, envelope); err == nil {
			f.t.Errorf("a lift by %v was taken", by)
		}
		region := jetstream.Region{Conn: f.admin.Conn(), Tenant: "bank", Name: "eu"}
		if err := region.PutLift(f.ctx, wire.Sum(envelope), envelope); err != nil {
			f.t.Fatal(err)
		}
		file := filepath.Join(edge.KillDir(filepath.Join(f.Node("one"), "data")), strings.Join(by, "-")+".dsse")
		write(f.t, file, string(envelope))
	}
	// What was stored after them has come: so have they.
	after := f.press(f.admin, f.killed("subject:nobody", fleetkit.Killer))
	f.confirmed(2, 2, 0)
	file := filepath.Join(edge.KillDir(filepath.Join(f.Node("one"), "data")), "zz.dsse")
	write(f.t, file, string(f.killed("subject:somebody", fleetkit.Killer)))
	until(f.t, f.ctx, f.Fleet, "the file after them", func(s *assembly.State) bool { return len(s.View().NotConfirmed) == 1 })
	raw, err := os.ReadFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	more := f.press(f.admin, raw)
	f.confirmed(3, 2, 0)
	for _, url := range []string{f.one, f.two} {
		decideUntil(f.t, url, "ada", policy.Deny)
	}
	f.press(f.admin, f.lift(both, d, after, more))
	for _, url := range []string{f.one, f.two} {
		decideUntil(f.t, url, "ada", policy.Allow)
	}
}

// byFile kills on one node alone, by a file in its folder; the node is listed
// until the regions are given the same kill.
func (f *twoRegions) byFile() {
	f.t.Helper()
	envelope := f.killed("subject:mallory", fleetkit.Killer)
	write(f.t, filepath.Join(edge.KillDir(filepath.Join(f.Node("one"), "data")), "mallory.dsse"), string(envelope))
	put := time.Now()
	f.subject(f.one, "mallory", policy.Deny)
	f.t.Logf("figure: a kill by file in force: %v", time.Since(put).Round(time.Millisecond))
	f.subject(f.two, "mallory", policy.Allow)
	until(f.t, f.ctx, f.Fleet, "one has another kill set", func(s *assembly.State) bool {
		n := s.View().NotConfirmed
		return len(n) == 1 && n[0].Node == "one"
	})
	d := f.press(f.admin, envelope)
	f.confirmed(1, 2, 0)
	f.subject(f.two, "mallory", policy.Deny)
	f.press(f.admin, f.lift(both, d))
	f.confirmed(0, 0, 0)
}

// subject waits until a node gives a subject's request the verdict.
func (f *twoRegions) subject(url, who string, want policy.Verdict) {
	f.t.Helper()
	l := startLoad(f.t, url, `{"subject":{"type":"user","id":"`+who+`"},"document":{"user":"ada"}}`)
	defer l.end()
	wait(f.t, fmt.Sprintf("%s: %s", who, want), func() bool { a := l.last(); return !a.at.IsZero() && a.verdict == want })
}

// apart cuts the regions from one another: two people kill, one in each; the
// union holds everywhere after the heal.
func (f *twoRegions) apart() {
	f.t.Helper()
	eu, us := f.only("eu"), f.only("us")
	sever(f.between)
	// A node hears of one region at a time; these two hear of different ones.
	f.second[0].Cut()
	a := f.press(eu, f.killed("subject:alice", fleetkit.Killer))
	b := f.press(us, f.killed("subject:bert", fleetkit.Killer2))
	f.subject(f.one, "alice", policy.Deny)
	f.subject(f.two, "bert", policy.Deny)
	f.subject(f.one, "bert", policy.Allow)
	f.subject(f.two, "alice", policy.Allow)
	heal(f.between)
	f.second[0].Heal()
	healed := time.Now()
	for _, url := range []string{f.one, f.two} {
		f.subject(url, "alice", policy.Deny)
		f.subject(url, "bert", policy.Deny)
	}
	f.confirmed(2, 2, 0)
	f.t.Logf("figure: regions healed to the union confirmed everywhere: %v", time.Since(healed).Round(time.Millisecond))
	for _, admin := range []*assembly.Admin{eu, us} {
		wait(f.t, "the union in a region alone", func() bool {
			s, err := admin.Read(f.ctx)
			return err == nil && len(s.View().Kills) == 2
		})
	}
	f.press(f.admin, f.lift(both, a, b))
	f.confirmed(0, 0, 0)
}

// silence stops every hub without a word: connections stay open, nothing comes.
func (f *twoRegions) silence() {
	f.t.Helper()
	loads := []*load{startLoad(f.t, f.one, `{"document":{"user":"ada"}}`), startLoad(f.t, f.two, `{"document":{"user":"ada"}}`)}
	for _, l := range loads {
		wait(f.t, "allowed", func() bool { return l.last().verdict == policy.Allow })
	}
	signal := func(s syscall.Signal) {
		for _, server := range f.Servers {
			if err := f.Process(server.Name).Signal(s); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	silent := time.Now()
	var took []time.Duration
	for _, l := range loads {
		wait(f.t, "stopped by its lease", func() bool { return l.last().code == "stale" })
		took = append(took, l.lastAllowed().at.Sub(silent))
	}
	signal(syscall.SIGCONT)
	again := time.Now()
	for i, l := range loads {
		wait(f.t, "allowed again", func() bool { return l.last().verdict == policy.Allow })
		l.end()
		l.answeredAll(f.t, []string{"one", "two"}[i])
		if took[i] > lease+time.Second {
			f.t.Errorf("allowed for %v in silence", took[i])
		}
	}
	f.t.Logf("figure: hubs wake to allowed again: %v", time.Since(again).Round(time.Millisecond))
	figures(f.t, fmt.Sprintf("silent hubs to the last allowed decision, lease %v", lease), took)
}

// TestWhoCounts has nodes leave the count and come back, and trust change hands.
func TestWhoCounts(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*timeout)
	defer cancel()
	f := newTwoRegions(t, ctx)
	publish(t, ctx, f.Fleet, nil, allow(t, "ada"))
	counted(t, ctx, f.Fleet, 2, 2)
	f.killedAndSwapped()
	f.retired()
	f.older()
	f.revokedAuthor()
}

// killedAndSwapped: a node that is killed leaves the count; one that comes back
// with another log key does not count and raises an alarm until it is enrolled anew.
func (f *twoRegions) killedAndSwapped() {
	f.t.Helper()
	f.Process("two").End(syscall.SIGKILL)
	counted(f.t, f.ctx, f.Fleet, 1, 2)
	key := edge.KeyFile(filepath.Join(f.Node("two"), "data"))
	if err := os.Rename(key, key+".mine"); err != nil {
		f.t.Fatal(err)
	}
	f.two = restartEdge(f.t, f.Fleet, "two")
	wait(f.t, "the alarm", func() bool { return f.alarms.has(hub.AlarmDistrusted, "two", 0, false) })
	until(f.t, f.ctx, f.Fleet, "two attests, and does not count", func(s *assembly.State) bool {
		v := s.View()
		return v.InForce.Nodes == 1 && v.InForce.Of == 2 && strings.Contains(v.Nodes[1].Distrusted, "log key")
	})
	// Whoever holds the key of enrolments says that this is the node's key now.
	if err := f.Enrol(f.ctx, "two", "us", nil); err != nil {
		f.t.Fatal(err)
	}
	counted(f.t, f.ctx, f.Fleet, 2, 2)
	wait(f.t, "the alarm's end", func() bool { return f.alarms.has(hub.AlarmDistrusted, "two", 0, true) })
	until(f.t, f.ctx, f.Fleet, "nothing is distrusted", func(s *assembly.State) bool { return s.View().Nodes[1].Distrusted == "" })
}

// retired: a node is taken out of the count and off the bus, and comes back with
// a new enrolment and new credentials.
func (f *twoRegions) retired() {
	f.t.Helper()
	envelope, account, err := assembly.RetireNode(f.Layout, "two", f.Keys[fleetkit.Enroller])
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.admin.Enrol(f.ctx, envelope); err != nil {
		f.t.Fatal(err)
	}
	counted(f.t, f.ctx, f.Fleet, 1, 1)
	if err := f.admin.PutAccount(f.ctx, account); err != nil {
		f.t.Fatal(err)
	}
	wait(f.t, "off the bus", func() bool { return strings.Contains(metrics(f.t, f.two), "holdfast_leaf_connections 0\n") })
	s := publish(f.t, f.ctx, f.Fleet, nil, allow(f.t, "bob"))
	decideUntil(f.t, f.one, "bob", policy.Allow)
	if st := status(f.t, f.two); st.Epoch >= s.Epoch {
		f.t.Errorf("a retired node took epoch %d", st.Epoch)
	}
	f.Process("two").End(syscall.SIGTERM)
	f.two = startEdge(f.t, f.ctx, f.Fleet, "two", "us", nil)
	counted(f.t, f.ctx, f.Fleet, 2, 2)
}

// older: releases that go out while a node is away are passed over, an older one
// that somebody gets into a region is refused, and a node whose store is that of
// yesterday does not stay there.
func (f *twoRegions) older() {
	f.t.Helper()
	store := filepath.Join(f.Node("two"), "data", "store")
	f.Process("two").End(syscall.SIGKILL)
	yesterday := f.t.TempDir()
	if err := os.CopyFS(yesterday, os.DirFS(store)); err != nil {
		f.t.Fatal(err)
	}
	was := publish(f.t, f.ctx, f.Fleet, nil, allow(f.t, "eva"))
	publish(f.t, f.ctx, f.Fleet, nil, allow(f.t, "ada"))
	newest := publish(f.t, f.ctx, f.Fleet, func(r *bundle.Release) { r.Epoch += 5 }, allow(f.t, "bob"))
	f.two = restartEdge(f.t, f.Fleet, "two")
	for _, url := range []string{f.one, f.two} { // before that, the older one is passed over and no refusal
		wait(f.t, "the newest", func() bool { return status(f.t, url).Epoch == newest.Epoch })
	}
	// An epoch that was left out, signed by the same two people, from one who may
	// write into the region.
	envelope, old, err := f.Release([]fleetkit.Policy{allow(f.t, "eva")}, func(r *bundle.Release) { r.Epoch, r.Previous = newest.Epoch-2, was.Digest })
	if err != nil {
		f.t.Fatal(err)
	}
	if _, _, err := f.admin.Publish(f.ctx, envelope); err == nil {
		f.t.Error("published an older epoch")
	}
	region := jetstream.Region{Conn: f.admin.Conn(), Tenant: "bank", Name: "us"}
	if err := region.PublishRelease(f.ctx, old.Epoch, envelope, allow(f.t, "eva").File); err != nil {
		f.t.Fatal(err)
	}
	for i, node := range []string{"one", "two"} {
		url := []string{f.one, f.two}[i]
		wait(f.t, node+" refuses", func() bool { return strings.Contains(status(f.t, url).Refused, "older") })
		if st := status(f.t, url); st.Epoch != newest.Epoch {
			f.t.Errorf("%s: epoch %d after an older one was offered", node, st.Epoch)
		}
	}
	f.Process("two").End(syscall.SIGKILL)
	for _, step := range []error{os.RemoveAll(store), os.CopyFS(store, os.DirFS(yesterday))} {
		if step != nil {
			f.t.Fatal(step)
		}
	}
	f.two = restartEdge(f.t, f.Fleet, "two")
	began := time.Now()
	wait(f.t, "the newest, from an older store", func() bool { return status(f.t, f.two).Epoch == newest.Epoch })
	f.t.Logf("figure: restored with an older store, to the newest release: %v", time.Since(began).Round(time.Millisecond))
	counted(f.t, f.ctx, f.Fleet, 2, 2)
	for _, a := range enforced(records(f.t, f.Fleet, "two")) {
		if a.Epoch > was.Epoch-1 && a.Epoch < newest.Epoch {
			f.t.Errorf("epoch %d was in force on the node that was away", a.Epoch)
		}
	}
}

// revokedAuthor: a new trust root takes a key away. What that author signs is
// refused everywhere, what is in force stays, and his successor goes on.
func (f *twoRegions) revokedAuthor() {
	f.t.Helper()
	before := status(f.t, f.one)
	rogue, stolen, err := f.Release([]fleetkit.Policy{allow(f.t, "mallory")}, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	successor, err := bundle.GenerateKey(bundle.RoleAuthor, "amy")
	if err != nil {
		f.t.Fatal(err)
	}
	next := *f.Root
	next.Version++
	next.Keys = append(slices.DeleteFunc(slices.Clone(f.Root.Keys), func(k bundle.Key) bool { return k.Role == bundle.RoleAuthor }), successor.Key)
	slices.SortFunc(next.Keys, func(a, b bundle.Key) int { return bytes.Compare(a.Public, b.Public) })
	envelope, err := bundle.SignTrustRoot(&next, f.Keys[fleetkit.Root])
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.admin.PutRoot(f.ctx, envelope); err != nil {
		f.t.Fatal(err)
	}
	begin := time.Now()
	urls := map[string]string{"one": f.one, "two": f.two}
	for node, url := range urls {
		wait(f.t, node+" takes the root", func() bool { return status(f.t, url).RootVersion == 2 })
	}
	f.t.Logf("figure: a trust root on both nodes: %v", time.Since(begin).Round(time.Millisecond))
	if _, _, err := f.admin.Publish(f.ctx, rogue, allow(f.t, "mallory").File); err == nil {
		f.t.Error("published what a revoked author signed")
	}
	region := jetstream.Region{Conn: f.admin.Conn(), Tenant: "bank", Name: "eu"}
	if err := region.PublishRelease(f.ctx, stolen.Epoch, rogue, allow(f.t, "mallory").File); err != nil {
		f.t.Fatal(err)
	}
	for node, url := range urls {
		wait(f.t, node+" refuses", func() bool { r := status(f.t, url).Refused; return r != "" && !strings.Contains(r, "older") })
		if st := status(f.t, url); st.Enforced != before.Enforced {
			f.t.Errorf("%s: %s in force, which was %s", node, st.Enforced, before.Enforced)
		}
		decideUntil(f.t, url, "bob", policy.Allow)
	}
	counted(f.t, f.ctx, f.Fleet, 2, 2)
	// His last release occupies its epoch; the successor's takes the one after.
	f.Root, f.Keys[fleetkit.Author] = &next, successor
	s := publish(f.t, f.ctx, f.Fleet, func(r *bundle.Release) { r.Epoch++ }, allow(f.t, "ada"))
	counted(f.t, f.ctx, f.Fleet, 2, 2)
	for node, url := range urls {
		if st := status(f.t, url); st.Epoch != s.Epoch {
			f.t.Errorf("%s: %+v", node, st)
		}
	}
}

func metrics(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
