package main

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// What the fault drills of drills_test.go share: a fleet whose nodes are asked
// all the time, and the demand that every answer has its record in both regions.

var (
	drillSeed = flag.Uint64("seed", 0, "seed of the fault drills; 0 takes another one each time")
	drillFull = flag.Bool("full", false, "many more rounds of each fault drill")
)

// rounds is how often a fault is repeated.
func rounds(quick, full int) int {
	if *drillFull {
		return full
	}
	return quick
}

// A drill is two regions of one hub server each and two nodes that both ship to
// both, each through links that can be cut.
type drill struct {
	*twoRegions
	rnd    *rand.Rand
	askers map[string]*asker
	keys   *audit.Keys
	hook   mailbox
	early  map[string]bool // evidence of nodes that shipped before a region heard of their enrolment
}

// newDrill starts a fleet and asks its nodes until the test ends.
func newDrill(t *testing.T) *drill {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	seed := *drillSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -seed=%d", seed)
	d := &drill{
		twoRegions: &twoRegions{Fleet: newFleet(t, 1, "eu", "us"), t: t, ctx: ctx},
		rnd:        rand.New(rand.NewPCG(seed, 0)), askers: map[string]*asker{},
	}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var raw json.RawMessage
		if err := errors.Join(json.NewDecoder(r.Body).Decode(&raw), d.hook.put(raw)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(receiver.Close)
	configure(t, d.Fleet, "heartbeat: 500ms\nalarms: {webhook: '"+receiver.URL+"'}\n")
	d.between = d.through(filepath.Join(d.Hub("us-1"), "hub.yaml"), d.Servers[:1])
	if err := d.StartHubs(ctx); err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(d.PublicKeys())
	if err == nil {
		d.keys, err = audit.ParseKeys(public)
	}
	if err != nil {
		t.Fatal(err)
	}
	for node, home := range map[string]string{"one": "eu", "two": "us"} {
		d.join(node, home)
	}
	publish(t, ctx, d.Fleet, nil, allow(t, "ada"))
	for _, a := range d.askers {
		decideUntil(t, *a.url.Load(), "ada", policy.Allow)
	}
	d.early = map[string]bool{}
	for _, s := range d.Servers {
		for node := range d.askers {
			wait(t, s.Name+" knows "+node, func() bool { return d.complete(s.Name, node, d.boot(node)) > 0 })
		}
		for _, name := range d.evidence(s.Name) {
			d.early[name] = true
		}
	}
	for _, a := range d.askers {
		a.start(t)
	}
	t.Cleanup(func() {
		for node := range d.askers {
			if p := d.Process(node); t.Failed() && p != nil {
				t.Logf("%s:\n%s", node, p.Log())
			}
		}
	})
	return d
}

// join enrols a node and starts it.
func (d *drill) join(node, home string) {
	d.t.Helper()
	if err := d.Enrol(d.ctx, node, home, nil); err != nil {
		d.t.Fatal(err)
	}
	d.begin(node)
}

// begin starts a node for the first time; what it ships goes through links.
func (d *drill) begin(node string) {
	d.t.Helper()
	links := d.through(filepath.Join(d.Node(node), "edge.yaml"), d.Servers)
	if node == "two" {
		d.second = links
	}
	d.askers[node] = &asker{node: node, questions: map[string]fate{}}
	d.restart(node)
	key, err := os.ReadFile(edge.KeyFile(filepath.Join(d.Node(node), "data")))
	if err == nil {
		err = d.keys.SetNode(strings.Split(string(key), "\n")[1])
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// restart starts a node again; who asks it asks it there.
func (d *drill) restart(node string) {
	d.t.Helper()
	url := restartEdge(d.t, d.Fleet, node)
	d.askers[node].url.Store(&url)
}

// start starts hub servers again and returns when their region can be used.
func (d *drill) startHubs(servers ...string) {
	d.t.Helper()
	for _, s := range servers {
		if _, err := d.StartHub(s); err != nil {
			d.t.Fatal(err)
		}
	}
}

// kill ends processes with SIGKILL.
func (d *drill) kill(names ...string) {
	for _, name := range names {
		d.Process(name).End(syscall.SIGKILL)
	}
}

// sometime lets a random part of most pass: when a fault strikes is not
// synchronised with anything.
func (d *drill) sometime(most time.Duration) { time.Sleep(time.Duration(d.rnd.Int64N(int64(most)))) }

// hub is a server's folder.
func (d *drill) data(server string) string { return filepath.Join(d.Hub(server), "data") }

// A fate is what became of a question.
type fate int

const (
	open       fate = iota // no answer came, or not yet: it may have a record
	recorded               // it was answered, and has a record
	unrecorded             // it was answered and has none
)

// An asker asks one node all the time, also while it is down, and remembers what
// became of every question.
type asker struct {
	node string
	url  atomic.Pointer[string]
	end  func()
	pad  atomic.Int64 // bytes that each question has more, never the same
	gone bool         // the node is, for ever

	mu        sync.Mutex // guards what follows
	questions map[string]fate
	acked     []policy.Answer
	without   int // answers without a record
	allowed   int // and those of them that allow
	disorder  error
}

const (
	askersEach    = 2
	questionEvery = 15 * time.Millisecond
)

// start asks until the test ends, each question under a name of its own.
func (a *asker) start(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	for i := range askersEach {
		asking.Go(func() { a.ask(ctx, i) })
	}
	a.end = sync.OnceFunc(func() { cancel(); asking.Wait() })
	t.Cleanup(a.end)
}

func (a *asker) ask(ctx context.Context, self int) {
	var c *client.Client
	var at string
	var last policy.Answer
	tick := time.NewTicker(questionEvery)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		if url := *a.url.Load(); url != at {
			c, _ = client.New(client.Config{Node: url}) // it is the daemon's own
			defer c.Close()
			at = url
		}
		id := fmt.Sprintf("%s-%d-%d", a.node, self, n)
		a.mu.Lock()
		a.questions[id] = open
		a.mu.Unlock()
		// One that was asked is waited for: it may be recorded.
		answer, err := c.Decide(context.Background(), policy.PointCustom, []byte(`{"id":"`+id+`","document":{"user":"ada","pad":"`+padding(int(a.pad.Load()))+`"}}`))
		if err == nil {
			a.heard(id, &last, answer)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// padding is so many letters that do not compress well.
func padding(n int) string {
	b := make([]byte, n/2)
	_, _ = crand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

// heard notes an answer; last is the asker's one before.
func (a *asker) heard(id string, last *policy.Answer, answer policy.Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !answer.Recorded {
		a.questions[id] = unrecorded
		a.without++
		if answer.Verdict.Permits() {
			a.allowed++
		}
		return
	}
	was, _, _ := strings.Cut(last.Boot, "-") // the counter
	if answer.Boot < was || answer.Boot == last.Boot && answer.Seq <= last.Seq {
		a.disorder = fmt.Errorf("record %s/%d was answered after %s/%d", answer.Boot, answer.Seq, last.Boot, last.Seq)
	}
	a.questions[id] = recorded
	a.acked = append(a.acked, answer)
	*last = answer
}

// known is how many answers have a record, and how many have none.
func (a *asker) known() (with, without int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.acked), a.without
}

// goesOn waits until a node has given so many more recorded answers.
func (d *drill) goesOn(node string, more int) {
	d.t.Helper()
	a := d.askers[node]
	from, _ := a.known()
	wait(d.t, "decisions of "+node+" go on", func() bool { n, _ := a.known(); return n >= from+more })
}

// whole demands of both regions all that every node has answered, after it has
// gone on answering.
func (d *drill) whole(after string) {
	d.t.Helper()
	d.goOn()
	d.holds(after, audit.VerdictComplete, nil)
	for _, s := range d.Servers {
		for _, name := range d.evidence(s.Name) {
			if !strings.HasPrefix(name, "damaged-") && !d.early[name] {
				d.t.Errorf("%s: %s has evidence: %s", after, s.Name, name)
			}
		}
	}
}

// evidence lists what a server's ledger refused.
func (d *drill) evidence(server string) (names []string) {
	d.t.Helper()
	entries, err := os.ReadDir(filepath.Join(assembly.LedgerDir(d.data(server)), "evidence"))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// goOn waits until every node that there is has gone on answering.
func (d *drill) goOn() {
	d.t.Helper()
	for node, a := range d.askers {
		if !a.gone {
			d.goesOn(node, 20)
		}
	}
}

// A loss is which records of a boot are lost, by "node/boot", and whether a
// signed statement says that there were such: then verification names them.
type loss map[string][]lostRange

type lostRange struct {
	audit.Range
	named bool
}

// of reports whether a record is lost.
func (l loss) of(boot string, seq uint64) bool {
	return slices.ContainsFunc(l[boot], func(r lostRange) bool { return r.From <= seq && seq <= r.To })
}

// named are the ranges of a boot that verification must name.
func (l loss) named(boot string) (out []audit.Range) {
	for _, r := range l[boot] {
		if r.named {
			out = append(out, r.Range)
		}
	}
	return out
}

// holds demands that the export of each region has the verdict, and of every
// recorded answer the record: once, with that leaf, in order; but for those that
// are lost.
func (d *drill) holds(after, verdict string, lost loss) {
	d.t.Helper()
	began, total := time.Now(), 0
	acked := map[string][]policy.Answer{}
	for node, a := range d.askers {
		a.mu.Lock()
		acked[node] = a.acked[:len(a.acked):len(a.acked)]
		if a.disorder != nil {
			d.t.Errorf("%s: %v", after, a.disorder)
		}
		a.mu.Unlock()
		total += len(acked[node])
	}
	for _, s := range d.Servers {
		var err error
		for deadline := time.Now().Add(timeout); ; time.Sleep(100 * time.Millisecond) {
			if err = d.check(s.Name, s.Region, verdict, acked, lost); err == nil {
				break
			}
			if time.Now().After(deadline) {
				d.t.Fatalf("%s: region %s: %v", after, s.Region, err)
			}
		}
	}
	d.t.Logf("%s: %d answers have their records in both regions after %v", after, total, time.Since(began).Round(time.Millisecond))
}

// export is a region's evidence as one of its servers has it.
func (d *drill) export(server string) (dir string) {
	d.t.Helper()
	dir = filepath.Join(d.t.TempDir(), "export")
	if err := assembly.ExportHub(filepath.Join(d.Hub(server), "hub.yaml"), "", dir); err != nil {
		d.t.Fatal(err)
	}
	return dir
}

// check compares one region's export with what was answered.
func (d *drill) check(server, region, verdict string, acked map[string][]policy.Answer, lost loss) error {
	dir := d.export(server)
	defer os.RemoveAll(dir)
	h := &held{refs: map[string]map[audit.Ref]int{}, asked: map[string]int{}, counted: map[string]uint64{}, last: map[string]uint64{}}
	report, err := audit.VerifyEach(os.DirFS(dir), d.keys, h.take)
	if err != nil {
		return err
	}
	if report.Verdict != verdict {
		return fmt.Errorf("the verdict is %s: %+v %+v", report.Verdict, report.Problems, report.Nodes)
	}
	if h.wrong != nil {
		return h.wrong
	}
	cosigned := map[string]uint64{}
	for _, n := range report.Nodes {
		for _, b := range n.Boots {
			boot := n.Name + "/" + b.Boot
			cosigned[boot] = b.Cosigned[region]
			if want := lost.named(boot); !slices.Equal(b.Gaps, want) {
				return fmt.Errorf("%s: gaps %v, not %v", boot, b.Gaps, want)
			}
		}
	}
	for node, answers := range acked {
		for _, a := range answers {
			if err := h.has(node, a, cosigned[node+"/"+a.Boot], lost.of(node+"/"+a.Boot, a.Seq)); err != nil {
				return err
			}
		}
		if err := d.askers[node].agrees(h); err != nil {
			return err
		}
	}
	return nil
}

// held is what an export proves.
type held struct {
	refs    map[string]map[audit.Ref]int // by node
	asked   map[string]int               // decision records, by the question's name
	counted map[string]uint64            // unrecorded answers, by node
	last    map[string]uint64
	wrong   error
}

func (h *held) take(node, boot string, r *audit.Record, leaf tlog.Hash) {
	if h.refs[node] == nil {
		h.refs[node] = map[audit.Ref]int{}
	}
	h.refs[node][audit.Ref{Boot: boot, Seq: r.Seq, Leaf: leaf}]++
	if last := h.last[node+"/"+boot]; r.Seq <= last {
		h.wrong = fmt.Errorf("record %s/%s/%d comes after %d", node, boot, r.Seq, last)
	}
	h.last[node+"/"+boot] = r.Seq
	switch {
	case r.Decision != nil:
		h.asked[r.Decision.RequestID]++
	case r.Admin != nil && r.Admin.Event == "unrecorded_answers":
		h.counted[node] += r.Admin.Count
	}
}

// has demands the record of an answer, counter-signed, or that it is among those
// which are lost.
func (h *held) has(node string, a policy.Answer, cosigned uint64, lost bool) error {
	b, err := hex.DecodeString(a.Leaf)
	var leaf tlog.Hash
	if err != nil || copy(leaf[:], b) != len(leaf) {
		return fmt.Errorf("leaf %q of an answer: %w", a.Leaf, err)
	}
	n, want := h.refs[node][audit.Ref{Boot: a.Boot, Seq: a.Seq, Leaf: leaf}], 1
	if lost {
		want = 0
	}
	if n != want {
		return fmt.Errorf("the record %s/%s/%d of an answer is there %d times, not %d; the last is %d", node, a.Boot, a.Seq, n, want, h.last[node+"/"+a.Boot])
	}
	if !lost && cosigned < a.Seq {
		return fmt.Errorf("the record %s/%s/%d of an answer is not counter-signed; %d is", node, a.Boot, a.Seq, cosigned)
	}
	return nil
}

// agrees demands that no question has two records, that none which was answered
// without a record has one, that all records are of questions, and that those
// answers were counted.
func (a *asker) agrees(h *held) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.counted[a.node] != uint64(a.without) {
		return fmt.Errorf("%s: %d answers are counted as unrecorded, %d were", a.node, h.counted[a.node], a.without)
	}
	for id, n := range h.asked {
		if !strings.HasPrefix(id, a.node+"-") {
			continue
		}
		if f, was := a.questions[id]; !was || f == unrecorded || n != 1 {
			return fmt.Errorf("question %s, whose fate was %d (%v), has %d records", id, f, was, n)
		}
	}
	return nil
}
