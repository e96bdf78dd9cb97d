package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/fleetkit"
	"github.com/holdfast-policy/holdfast/internal/tinyguest"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// What the tests of whole fleets share: packages, load, what a node recorded.

// encoded is a signed-ready policy of a package made by hand: no compiler has
// looked at its vectors.
func encoded(t *testing.T, p *bundle.Package, params map[string]any) fleetkit.Policy {
	t.Helper()
	file, _, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return fleetkit.Policy{Point: policy.PointCustom, Name: p.Name, File: file, Params: params}
}

// unruly does what its mode says; its vectors know it well-behaved.
func unruly(t *testing.T, mode int64) fleetkit.Policy {
	t.Helper()
	module, err := os.ReadFile("../../internal/assembly/testdata/unruly.wasm")
	if err != nil {
		t.Fatal(err)
	}
	return encoded(t, &bundle.Package{
		Manifest: bundle.Manifest{Name: "unruly", ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy, Params: map[string]any{"mode": int64(0)}},
		Module:   module,
		Vectors:  []bundle.Vector{{Name: "quiet", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: policy.Allow}}},
	}, map[string]any{"mode": mode})
}

// says always gives a verdict; its vector expects another one. more is added to
// the module as a section that nothing reads.
func says(t *testing.T, v, expected policy.Verdict, more int) fleetkit.Policy {
	t.Helper()
	out, err := wire.Marshal(map[string]any{"verdict": v.String()})
	if err != nil {
		t.Fatal(err)
	}
	module := tinyguest.Says(out)
	if more > 0 {
		size := more + 2
		module = append(module, 0, byte(size)|0x80, byte(size>>7)|0x80, byte(size>>14)|0x80, byte(size>>21), 1, 'x')
		module = append(module, make([]byte, more)...)
	}
	return encoded(t, &bundle.Package{
		Manifest: bundle.Manifest{Name: "says", ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy}, Module: module,
		Vectors: []bundle.Vector{{Name: "always", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: expected}}},
	}, nil)
}

// configure adds to the configuration of every hub server; before StartHubs.
func configure(t *testing.T, f *fleetkit.Fleet, text string) {
	t.Helper()
	for _, s := range f.Servers {
		file := filepath.Join(f.Hub(s.Name), "hub.yaml")
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, string(have)+text)
	}
}

// startEdge enrols a node and starts it.
func startEdge(t *testing.T, ctx context.Context, f *fleetkit.Fleet, node, home string, labels map[string]string) (url string) {
	t.Helper()
	if err := f.Enrol(ctx, node, home, labels); err != nil {
		t.Fatal(err)
	}
	return restartEdge(t, f, node)
}

func restartEdge(t *testing.T, f *fleetkit.Fleet, node string) (url string) {
	t.Helper()
	url, err := f.StartEdge(node)
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// publish publishes a release and returns it.
func publish(t *testing.T, ctx context.Context, f *fleetkit.Fleet, change func(*bundle.Release), policies ...fleetkit.Policy) *bundle.SignedRelease {
	t.Helper()
	s, err := f.Publish(ctx, policies, change)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// until waits until something is true of the fleet's view.
func until(t *testing.T, ctx context.Context, f *fleetkit.Fleet, what string, true func(*assembly.State) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := f.WaitView(ctx, true); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// wait waits until something is true that can be asked for often.
func wait(t *testing.T, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !true(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", timeout, what)
		}
	}
}

// status asks a node what is in force.
func status(t *testing.T, url string) policy.Status {
	t.Helper()
	c, err := client.New(client.Config{Node: url})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An answered is what an asker saw of one question.
type answered struct {
	at      time.Time // when the answer was there
	verdict policy.Verdict
	epoch   uint64
	code    string // of the first reason
}

// A load asks one node again and again, gently, until end.
type load struct {
	end  func()
	mu   sync.Mutex // guards what follows
	all  []answered
	errs []error
}

// askEvery is the pause between two questions of a load.
const askEvery = 5 * time.Millisecond

func startLoad(t *testing.T, url, body string) *load {
	t.Helper()
	c, err := client.New(client.Config{Node: url})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l, asking := &load{}, sync.WaitGroup{}
	l.end = sync.OnceFunc(func() { cancel(); asking.Wait(); c.Close() })
	t.Cleanup(l.end)
	asking.Go(func() {
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			a, err := c.Decide(ctx, policy.PointCustom, []byte(body))
			l.add(ctx, a, err)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return l
}

func (l *load) add(ctx context.Context, a policy.Answer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case ctx.Err() != nil: // the load ends: nobody waits for this one
	case err != nil || !a.Recorded:
		l.errs = append(l.errs, fmt.Errorf("%v: recorded %v", err, a.Recorded))
	default:
		seen := answered{at: time.Now(), verdict: a.Verdict, epoch: a.Epoch}
		if len(a.Reasons) > 0 {
			seen.code = a.Reasons[0].Code
		}
		l.all = append(l.all, seen)
	}
}

// answers returns what was answered so far, and every question that was not.
func (l *load) answers() ([]answered, []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all), slices.Clone(l.errs)
}

// last is the newest answer.
func (l *load) last() (a answered) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.all); n > 0 {
		a = l.all[n-1]
	}
	return a
}

// lastAllowed is the newest answer that allows.
func (l *load) lastAllowed() (a answered) {
	all, _ := l.answers()
	for _, seen := range all {
		if seen.verdict == policy.Allow {
			a = seen
		}
	}
	return a
}

// answeredAll fails unless every question was answered and recorded.
func (l *load) answeredAll(t *testing.T, node string) {
	t.Helper()
	all, errs := l.answers()
	if len(errs) > 0 || len(all) == 0 {
		t.Errorf("%s: %d answers, %d unanswered, the first: %v", node, len(all), len(errs), append(errs, nil)[0])
	}
	t.Logf("%s: %d of %d questions answered and recorded", node, len(all), len(all)+len(errs))
}

// records verifies and returns what a node has in its journal, oldest first.
func records(t *testing.T, f *fleetkit.Fleet, node string) []*audit.Record {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "export")
	if err := assembly.ExportNode(filepath.Join(f.Node(node), "edge.yaml"), dir); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(edge.KeyFile(filepath.Join(f.Node(node), "data")))
	if err != nil {
		t.Fatal(err)
	}
	keys := &audit.Keys{}
	if err := keys.SetNode(strings.Split(string(key), "\n")[1]); err != nil {
		t.Fatal(err)
	}
	boots, order := map[string][]*audit.Record{}, []string{}
	report, err := audit.VerifyEach(os.DirFS(dir), keys, func(_, boot string, r *audit.Record, _ tlog.Hash) {
		if boots[boot] == nil {
			order = append(order, boot)
		}
		boots[boot] = append(boots[boot], r)
	})
	if err != nil || report.Verdict != audit.VerdictComplete {
		t.Fatalf("%s: the journal is %v: %v %+v", node, report.Verdict, err, report.Problems)
	}
	slices.Sort(order) // a boot's counter leads its name
	var out []*audit.Record
	for _, boot := range order {
		out = append(out, boots[boot]...)
	}
	return out
}

// enforced are the releases that a node ever put in force, in order.
func enforced(all []*audit.Record) (out []*audit.ActivationRecord) {
	for _, r := range all {
		if r.Kind == audit.KindActivation {
			out = append(out, r.Activation)
		}
	}
	return out
}

// admins are a node's administrative records of an event.
func admins(all []*audit.Record, event string) (out []*audit.AdminRecord) {
	for _, r := range all {
		if r.Kind == audit.KindAdmin && r.Admin.Event == event {
			out = append(out, r.Admin)
		}
	}
	return out
}

// figures states the median and the worst of what was measured.
func figures(t *testing.T, what string, took []time.Duration) {
	t.Helper()
	if len(took) == 0 {
		t.Errorf("%s: nothing was measured", what)
		return
	}
	sorted := slices.Clone(took)
	slices.Sort(sorted)
	t.Logf("figure: %s: p50 %v, max %v, n %d", what, sorted[len(sorted)/2].Round(100*time.Microsecond), sorted[len(sorted)-1].Round(100*time.Microsecond), len(sorted))
}
