package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/internal/demo"
	"github.com/holdfast-policy/holdfast/sdk/client"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// maxFailures is how many failures are kept with their words.
const maxFailures = 10

// A recordName is what a client holds in its hands of an answered decision.
type recordName struct {
	Node, Boot string
	Seq        uint64
}

// A tally is what the clients saw. It never asks the product.
type tally struct {
	mu         sync.Mutex
	answered   map[recordName]string // leaf, by name
	twice      uint64                // names that were given to two answers
	verdicts   map[policy.Verdict]int
	durability map[policy.Durability]int
	decisions  int
	failed     int
	failures   []string
	unanswered int
	// tolerant counts requests without an answer apart from the failures: while
	// a node is killed, what it did not answer is no decision.
	tolerant bool
	decide   []time.Duration
	record   []time.Duration
	// countOnly keeps nothing of single answers: for load without an end.
	countOnly bool
}

func newTally() *tally {
	return &tally{answered: map[recordName]string{}, verdicts: map[policy.Verdict]int{}, durability: map[policy.Durability]int{}}
}

// add counts one answer, or the lack of one. Whatever was answered is kept to
// be looked for in the ledgers, expected or not.
func (t *tally) add(c demo.Call, a policy.Answer, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && t.tolerant {
		t.unanswered++
		return
	}
	t.decisions++
	if err != nil {
		t.fail("%s: %v", c.ID, err)
		return
	}
	t.verdicts[a.Verdict]++
	t.durability[a.Durability]++
	if !t.countOnly {
		t.decide = append(t.decide, a.Timing.Decide)
		t.record = append(t.record, a.Timing.Record)
	}
	if a.Recorded && !t.countOnly {
		name := recordName{a.Node, a.Boot, a.Seq}
		if _, ok := t.answered[name]; ok {
			t.twice++
		}
		t.answered[name] = a.Leaf
	}
	switch {
	case !a.Recorded:
		t.fail("%s: answered without a record: %v", c.ID, a.Reasons)
	case a.Verdict != c.Want:
		t.fail("%s: %s, expected %s: %v", c.ID, a.Verdict, c.Want, a.Reasons)
	case c.Code != "" && !slices.ContainsFunc(a.Reasons, func(r policy.Reason) bool { return r.Code == c.Code }):
		t.fail("%s: no reason %q in %v", c.ID, c.Code, a.Reasons)
	}
}

// fail is called with mu held.
func (t *tally) fail(format string, args ...any) {
	t.failed++
	if len(t.failures) < maxFailures {
		t.failures = append(t.failures, fmt.Sprintf(format, args...))
	}
}

// counts returns how many decisions there were and how many of them failed.
func (t *tally) counts() (decisions, failed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.decisions, t.failed
}

// sums is a tally at one moment.
type sums struct{ decisions, allowed, denied, failed int }

func (t *tally) sums() sums {
	t.mu.Lock()
	defer t.mu.Unlock()
	return sums{t.decisions, t.verdicts[policy.Allow], t.verdicts[policy.Deny], t.failed}
}

// An asker sends calls to nodes and keeps the tally.
type asker struct {
	nodes []*client.Client
	tally *tally
}

func newAsker(urls []string, t *tally) (*asker, error) {
	a := &asker{tally: t}
	for _, u := range urls {
		c, err := client.New(client.Config{Node: u})
		if err != nil {
			return nil, err
		}
		a.nodes = append(a.nodes, c)
	}
	return a, nil
}

func (a *asker) close() {
	for _, c := range a.nodes {
		c.Close()
	}
}

// ask sends one call to a node.
func (a *asker) ask(ctx context.Context, node int, c demo.Call) {
	answer, err := a.nodes[node].Decide(ctx, c.Point, c.Body)
	a.tally.add(c, answer, err)
}

// all sends every call once, spread over the nodes, by that many clients at a
// node.
func (a *asker) all(ctx context.Context, calls []demo.Call, clients int, done func(n int)) {
	work := make(chan int)
	var running sync.WaitGroup
	for w := range clients * len(a.nodes) {
		running.Go(func() {
			for i := range work {
				a.ask(ctx, w%len(a.nodes), calls[i])
			}
		})
	}
	for i := range calls {
		if ctx.Err() != nil {
			break
		}
		work <- i
		done(i + 1)
	}
	close(work)
	running.Wait()
}

// during sends calls over and over at a rate in calls a second, to each node in
// turn, until stop is closed or ctx ends. A slow answer delays no other call.
func (a *asker) during(ctx context.Context, calls []demo.Call, rate float64, stop <-chan struct{}) {
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	var running sync.WaitGroup
	defer running.Wait()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-stop:
			return
		case <-tick.C:
			running.Go(func() { a.ask(ctx, i%len(a.nodes), calls[i%len(calls)]) })
		}
	}
}

// quantile returns the q-th quantile by the nearest-rank method; it sorts.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[max(int(math.Ceil(q*float64(len(d))))-1, 0)]
}

func micros(d time.Duration) float64 { return math.Round(float64(d)/100) / 10 }

func millis(d time.Duration) float64 { return math.Round(float64(d)/1e5) / 10 }
