package edge_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/tinyguest"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// TestMain lets the test binary be its own compile worker, and a node that is
// killed.
func TestMain(m *testing.M) {
	engine.Worker()
	if dir := os.Getenv("HOLDFAST_TEST_NODE"); dir != "" {
		os.Exit(doomed(dir))
	}
	os.Exit(m.Run())
}

// keys of a tenant, the same in every process.
type keys struct {
	root, author, approver, enrol *bundle.PrivateKey
	heartbeat                     map[string]*bundle.PrivateKey
	kill, data                    []*bundle.PrivateKey
	trust                         *bundle.TrustRoot
}

func key(role bundle.Role, person string, seed byte) *bundle.PrivateKey {
	k, err := bundle.NewPrivateKey(role, person, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		panic(err) // of the test's own
	}
	return k
}

func newKeys() *keys {
	k := &keys{
		root: key(bundle.RoleRoot, "rosa", 1), author: key(bundle.RoleAuthor, "ann", 2), approver: key(bundle.RoleApprover, "bob", 3),
		enrol: key(bundle.RoleEnrol, "eve", 4), heartbeat: map[string]*bundle.PrivateKey{"eu": key(bundle.RoleHeartbeat, "eu", 5), "us": key(bundle.RoleHeartbeat, "us", 6)},
		kill: []*bundle.PrivateKey{key(bundle.RoleKill, "kim", 7), key(bundle.RoleKill, "kai", 8)},
		data: []*bundle.PrivateKey{key(bundle.RoleData, "dana", 9), key(bundle.RoleData, "dora", 10)},
	}
	k.trust = bundle.NewTrustRoot("acme", time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		k.root.Key, k.author.Key, k.approver.Key, k.enrol.Key, k.heartbeat["eu"].Key, k.heartbeat["us"].Key, k.kill[0].Key, k.kill[1].Key, k.data[0].Key, k.data[1].Key)
	return k
}

// world is a tenant and one node of it.
type world struct {
	t testing.TB
	*keys
	folder, dir string // of the source and of the node
	previous    wire.Digest

	mu     sync.Mutex
	offset time.Duration // of the node's clock
	alarms []string
	serial uint64
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, keys: newKeys(), folder: t.TempDir(), dir: t.TempDir()}
	for _, sub := range []string{"releases", "packages", "kills", "heartbeats", "orders", "roots", "enrolments"} {
		w.must(os.Mkdir(filepath.Join(w.folder, sub), 0o700))
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// now is the node's clock: the machine's, moved.
func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.offset)
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset += d
}

func (w *world) alarm(kind, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alarms = append(w.alarms, kind+": "+text)
}

func (w *world) alarmed(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, a := range w.alarms {
		if len(a) > len(kind) && a[:len(kind)+1] == kind+":" {
			n++
		}
	}
	return n
}

// node is a running node.
type node struct {
	*edge.Node
	w    *world
	stop func()
}

// start opens the node's folder and runs it until stop, or the test's end.
func (w *world) start(change func(*edge.Config)) *node {
	w.t.Helper()
	cfg := edge.Config{
		Tenant: "acme", Name: "n1", Dir: w.dir, Root: w.trust, Source: loader.FolderSource{Dir: w.folder},
		Alarm: w.alarm, Now: w.now, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	n, err := edge.Open(context.Background(), cfg)
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		if err := n.Close(context.Background()); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return &node{n, w, stop}
}

// alone has nothing but its own folder.
func alone(c *edge.Config) { c.Source = nil }

// says is a package that always gives the verdict, of module bytes that no other
// variant has.
func says(v policy.Verdict, variant int) *bundle.Package {
	out, err := wire.Marshal(map[string]any{"verdict": v.String(), "reasons": []any{map[string]any{"code": fmt.Sprintf("v%d", variant), "text": ""}}})
	if err != nil {
		panic(err) // of the test's own
	}
	return &bundle.Package{
		Manifest: bundle.Manifest{Name: fmt.Sprintf("says-%s-%d", v, variant), ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy},
		Module:   tinyguest.Says(out),
		Vectors: []bundle.Vector{{Name: "always", Point: policy.PointCustom, Request: []byte(`{"document":1}`),
			Expect: bundle.Expect{Verdict: v, Codes: []string{fmt.Sprintf("v%d", variant)}}}},
	}
}

// unruly does what its parameter mode says; its vectors know it well-behaved.
func (w *world) unruly() *bundle.Package {
	module, err := os.ReadFile("../../internal/assembly/testdata/unruly.wasm")
	w.must(err)
	return &bundle.Package{
		Manifest: bundle.Manifest{Name: "unruly", ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy, Params: map[string]any{"mode": int64(0)}},
		Module:   module,
		Vectors:  []bundle.Vector{{Name: "quiet", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: policy.Allow}}},
	}
}

func (w *world) write(path string, data []byte) {
	w.t.Helper()
	w.must(loader.Replace(path, data))
}

// publish puts a package into the source's folder and returns its reference.
func (w *world) publish(p *bundle.Package) bundle.PackageRef {
	w.t.Helper()
	file, digest, err := p.Encode()
	w.must(err)
	w.write(filepath.Join(w.folder, "packages", digest.Hex()+".hfp"), file)
	raw, err := wire.Decompress(file, bundle.MaxPackage)
	w.must(err)
	return bundle.PackageRef{Name: p.Name, Digest: digest, Size: uint64(len(raw))}
}

func (w *world) release(epoch uint64, ref bundle.PackageRef) *bundle.Release {
	return &bundle.Release{
		Tenant: "acme", Epoch: epoch, Previous: w.previous, Fallback: bundle.FallbackPrevious, Created: w.now().Unix(),
		Points: []bundle.Point{
			{Name: policy.PointCustom, Durability: policy.Written, Packages: []bundle.PackageRef{ref}, LeaseSeconds: 3600},
			{Name: policy.PointAgentStop, Durability: policy.Written, Packages: []bundle.PackageRef{ref}, LeaseSeconds: 3600},
		},
	}
}

// put signs a release and puts it into the source's folder; the next one follows it.
func (w *world) put(r *bundle.Release) wire.Digest {
	w.t.Helper()
	env, err := bundle.SignRelease(r, w.author, w.approver)
	w.must(err)
	payload, err := r.Encode()
	w.must(err)
	w.write(filepath.Join(w.folder, "releases", fmt.Sprintf("%020d.dsse", r.Epoch)), env)
	w.previous = wire.Sum(payload)
	return w.previous
}

// order puts a rollout order into the source's folder.
func (w *world) order(r *bundle.Release, serial uint64, state string, phases ...string) {
	w.t.Helper()
	w.write(filepath.Join(w.folder, "orders", fmt.Sprintf("%020d-%d.dsse", r.Epoch, serial)), w.orderOf(r, serial, state, phases...))
}

func (w *world) orderOf(r *bundle.Release, serial uint64, state string, phases ...string) []byte {
	w.t.Helper()
	payload, err := r.Encode()
	w.must(err)
	env, err := bundle.SignOrder(&bundle.Order{
		Tenant: "acme", Region: "eu", Epoch: r.Epoch, Release: wire.Sum(payload), Serial: serial, State: state, Rings: phases, Created: w.now().UnixNano(), Reason: "test",
	}, w.heartbeat["eu"])
	w.must(err)
	return env
}

func (w *world) killOf(scope string) ([]byte, wire.Digest) {
	w.t.Helper()
	env, err := bundle.SignKill(&bundle.Kill{Tenant: "acme", Scope: bundle.Scope(scope), Reason: "test", Created: w.now().UnixNano()}, w.kill[0])
	w.must(err)
	k, err := w.trust.OpenKill(env)
	w.must(err)
	return env, k.Digest
}

func (w *world) beat(region string) []byte {
	w.t.Helper()
	w.serial++
	env, err := bundle.SignHeartbeat(&bundle.Heartbeat{
		Tenant: "acme", Region: region, Serial: w.serial, Time: w.now().UnixNano(), Expires: w.now().Add(time.Minute).UnixNano(), RootVersion: 1,
	}, w.heartbeat[region])
	w.must(err)
	return env
}

func (w *world) enrolmentOf(n *node, serial, minEpoch uint64, labels map[string]string) []byte {
	w.t.Helper()
	env, err := bundle.SignEnrolment(&bundle.Enrolment{
		Tenant: "acme", Node: "n1", Serial: serial, LogKey: n.VerifierKey(), Labels: labels, MinEpoch: minEpoch, Created: w.now().UnixNano(),
	}, w.enrol)
	w.must(err)
	return env
}

func (n *node) ask() policy.Answer {
	n.w.t.Helper()
	return n.askAt(policy.PointCustom, `{"subject":{"type":"agent","id":"a7"},"action":{"name":"x"},"resource":{"type":"tool","id":"pay"}}`)
}

func (n *node) askAt(point, body string) policy.Answer {
	n.w.t.Helper()
	req, err := policy.ParseRequest(point, []byte(body))
	n.w.must(err)
	a, err := n.Decide(context.Background(), req)
	n.w.must(err)
	return a
}

// wait fails the test unless the condition comes true in time.
func (n *node) wait(what string, true func() bool) {
	n.w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !true() {
		if time.Now().After(deadline) {
			n.w.t.Fatalf("%s: not in time; %+v", what, n.Status())
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *node) waitEpoch(epoch uint64) {
	n.w.t.Helper()
	n.wait(fmt.Sprintf("epoch %d", epoch), func() bool { st := n.Status(); return st.Epoch == epoch && st.Ready })
}

func (n *node) waitFallback(epoch uint64) {
	n.w.t.Helper()
	n.wait(fmt.Sprintf("fallback of epoch %d", epoch), func() bool { st := n.Status(); return st.Epoch == epoch && st.Fallback })
}

// records reads the whole journal of the running boot.
func (n *node) records() []*audit.Record {
	n.w.t.Helper()
	j := n.Journal()
	boots := j.Boots()
	boot := boots[len(boots)-1]
	var out []*audit.Record
	var w audit.Window
	for from := uint64(1); from <= boot.Size; {
		b, err := j.ReadBatch(boot.ID, from, 1000, 1<<20)
		n.w.must(err)
		for i, e := range b.Entries {
			seq := from + uint64(i)
			r, err := e.Record(func(id audit.BlobID) []byte { return w.Find(seq, id) })
			n.w.must(err)
			w.Take(seq, e)
			out = append(out, r)
		}
		from += uint64(len(b.Entries))
	}
	return out
}

// admin returns the administrative records of an event, once they are durable.
func (n *node) admin(event string) []*audit.AdminRecord {
	n.w.t.Helper()
	n.Record(&audit.AdminRecord{Event: "test_mark"}) // synced: what came before is durable
	var out []*audit.AdminRecord
	for _, r := range n.records() {
		if r.Kind == audit.KindAdmin && r.Admin.Event == event {
			out = append(out, r.Admin)
		}
	}
	return out
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	return slices.Sorted(maps.Keys(names))
}
