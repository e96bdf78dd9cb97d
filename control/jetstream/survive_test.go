package jetstream_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/internal/regiontest"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

var (
	cutFor = flag.Duration("cut", 5*time.Second, "how long TestResumeAfterACut cuts")
	edges  = flag.Int("edges", 5, "how many edges TestReach has")
)

// ship publishes numbered batches of a boot until ctx ends, as a shipper does:
// after an error it asks for the head.
func ship(ctx context.Context, sink jetstream.Sink, node, boot string, acknowledged *atomic.Int64) {
	done := 0
	defer func() { acknowledged.Store(int64(done)) }()
	var fence uint64
	for ctx.Err() == nil {
		seq, err := sink.Publish(ctx, node, boot, fence, fmt.Append(nil, done+1))
		if err == nil {
			fence, done = seq, done+1
			acknowledged.Store(int64(done))
			continue
		}
		for ctx.Err() == nil {
			stored, seq, err := headOf(ctx, sink, node, boot)
			if err == nil {
				fence, done = seq, max(done, stored)
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// headOf reads the number in the last batch of a boot.
func headOf(ctx context.Context, sink jetstream.Sink, node, boot string) (n int, fence uint64, err error) {
	m, err := sink.Conn.Ask(ctx, "hf."+sink.Tenant+"."+sink.Name+".up."+anyGate(ctx, sink, node)+"."+node+".head."+boot, "", nil)
	switch {
	case err != nil:
		return 0, 0, err
	case m.Status == "none":
		return 0, 0, nil
	case m.Status != "":
		return 0, 0, errors.New(m.Status)
	}
	fmt.Sscan(string(m.Data), &n)
	fmt.Sscan(m.Number, &fence)
	return n, fence, nil
}

func anyGate(ctx context.Context, sink jetstream.Sink, node string) string {
	a, _ := sink.Conn.Ask(ctx, "hf."+sink.Tenant+"."+sink.Name+".up.any."+node+".who", "", nil)
	return string(a.Data)
}

// Every hub server of a region is restarted in turn while orders, releases and
// records are written: nothing is lost and nothing doubled.
func TestServersRestartWhileEverythingIsWritten(t *testing.T) {
	w := regiontest.StartWorld(t, 3, "acme")
	e1 := w.Node("acme", "e1", w.A, w.B)
	ra := w.Region(w.A, 1, "acme")
	sink := jetstream.Sink{Region: jetstream.Region{Conn: e1.Conn, Tenant: "acme", Name: "ra"}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writing sync.WaitGroup
	var ordered, released, shipped atomic.Int64
	writing.Go(func() { ship(ctx, sink, "e1", "b1", &shipped) })
	until := func(done *atomic.Int64, put func(n int) error) { // repeats each until it is acknowledged
		for ctx.Err() == nil {
			if put(int(done.Load())+1) == nil {
				done.Add(1)
			} else {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	writing.Go(func() {
		until(&ordered, func(n int) error {
			return ra.PutOrder(ctx, 1, uint64(n), fmt.Append(nil, "order ", n))
		})
	})
	writing.Go(func() {
		until(&released, func(n int) error {
			time.Sleep(20 * time.Millisecond)
			return ra.PublishRelease(ctx, uint64(n), fmt.Append(nil, "release ", n), wire.Compress(blob(n, 100<<10)))
		})
	})
	for i := range 3 {
		at := time.Now()
		w.A.StopServer(i)
		w.A.StartServer(t, i)
		if t.Failed() {
			t.FailNow()
		}
		regiontest.Until(t, "writing goes on", 20*time.Second, func() bool { return ra.PutRoot(ctx, uint64(i+2), []byte("root")) == nil })
		t.Logf("server %d is away: writing goes on %v after it was stopped", i+1, time.Since(at).Round(time.Millisecond))
		time.Sleep(300 * time.Millisecond) // some writing with all three
	}
	regiontest.Until(t, "enough is written to say something", 60*time.Second, func() bool {
		return ordered.Load() >= 10 && released.Load() >= 3 && shipped.Load() >= 10
	})
	cancel()
	writing.Wait()
	orders, releases, batches := int(ordered.Load()), int(released.Load()), int(shipped.Load())
	t.Logf("%d orders, %d releases, %d batches", orders, releases, batches)
	for n := range orders {
		e1.Expect(t, 15*time.Second, fmt.Sprint("order ", n+1))
	}
	for n := range releases {
		e1.Expect(t, 15*time.Second, fmt.Sprint("release ", n+1))
		if n%5 == 0 {
			if _, err := e1.Package(t.Context(), wire.Sum(blob(n+1, 100<<10)), 100<<10); err != nil {
				t.Error(err)
			}
		}
	}
	for _, env := range e1.All() {
		if n := e1.Times(env); n > 1 {
			t.Errorf("%q came %d times", env, n)
		}
	}
	var all []string
	regiontest.Until(t, "the stream is whole", 15*time.Second, func() bool {
		all = nil
		for seq := uint64(1); ; {
			group, err := ra.Conn.Stream("ra", "REC_acme").Batch(t.Context(), seq, "hf.acme.ra.rec.e1.b1", 1000, 1<<20)
			if err != nil {
				return false
			}
			if len(group) == 0 {
				return len(all) >= batches
			}
			for _, m := range group {
				all, seq = append(all, string(m.Data)), m.Seq+1
			}
		}
	})
	for i, n := range all {
		if n != fmt.Sprint(i+1) {
			t.Fatalf("batch %d is %s", i+1, n)
		}
	}
}

// A region is cut off for a while. When the links are back, everything flows
// within three seconds: releases of that region, records to it, its heartbeats.
func TestResumeAfterACut(t *testing.T) {
	w := regiontest.StartWorld(t, 3, "acme")
	nodes := []*regiontest.Node{w.Node("acme", "e1", w.A, w.B), w.Node("acme", "e2", w.B, w.A)}
	ra, rb := w.Region(w.A, 0, "acme"), w.Region(w.B, 0, "acme")
	ctx := t.Context()
	regiontest.Background(t, func(ctx context.Context) {
		for tick := time.NewTicker(500 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			ra.Heartbeat(ctx, fmt.Append(nil, "hb of ra ", time.Now().UnixNano()))
			rb.Heartbeat(ctx, fmt.Append(nil, "hb of rb ", time.Now().UnixNano()))
		}
	})
	beats := func(n *regiontest.Node, region string, since time.Time) bool {
		all := n.All()
		for i := len(all) - 1; i >= 0; i-- {
			var at int64
			if text, ok := strings.CutPrefix(all[i], "hb of "+region+" "); ok {
				fmt.Sscan(text, &at)
				return time.Unix(0, at).After(since)
			}
		}
		return false
	}
	for _, n := range nodes {
		for _, region := range []string{"ra", "rb"} {
			regiontest.Until(t, "a heartbeat of "+region, 15*time.Second, func() bool { return beats(n, region, time.Time{}) })
		}
	}
	w.A.Cut()
	began := time.Now()
	if err := rb.PublishRelease(ctx, 1, []byte("release of rb"), wire.Compress(blob(1, 100<<10))); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.Expect(t, 10*time.Second, "release of rb") // rb suffices
	}
	if err := ra.PublishRelease(ctx, 2, []byte("release of ra"), wire.Compress(blob(2, 100<<10))); err != nil {
		t.Fatal(err)
	}
	select {
	case <-time.After(time.Until(began.Add(*cutFor))): // the cut's length is what is tested
	case <-ctx.Done():
	}
	for _, n := range nodes {
		if _, ok := n.Has("release of ra"); ok {
			t.Fatalf("%s got a release over a cut link", n.Name)
		}
	}
	healed := time.Now()
	w.A.Heal()
	took := map[string]time.Duration{}
	var mu sync.Mutex
	var waiting sync.WaitGroup
	measure := func(what string, ok func() bool) {
		waiting.Go(func() {
			for end := healed.Add(60 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
				if time.Now().After(end) {
					t.Errorf("%s: not within a minute", what)
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took[what] = max(took[what], time.Since(healed))
		})
	}
	for _, n := range nodes {
		measure("release", func() bool {
			if _, ok := n.Has("release of ra"); !ok {
				return false
			}
			_, err := n.Package(ctx, wire.Sum(blob(2, 100<<10)), 100<<10)
			return err == nil
		})
		measure("heartbeat", func() bool { return beats(n, "ra", healed) })
		sink := jetstream.Sink{Region: jetstream.Region{Conn: n.Conn, Tenant: "acme", Name: "ra"}}
		measure("records", func() bool { _, err := sink.Publish(ctx, n.Name, "b1", 0, []byte("batch")); return err == nil })
	}
	measure("copies", func() bool { l, err := rb.Leader(ctx, 2); return err == nil && l == "ra" })
	waiting.Wait()
	t.Logf("after a cut of %v: %v", *cutFor, took)
	for what, d := range took {
		if d > 3*time.Second {
			t.Errorf("%s: %v after the links", what, d)
		}
	}
}

// An order of a serial is created once, whoever tries.
func TestOrderIsCreatedOnce(t *testing.T) {
	_, r := hub1(t)
	var writing sync.WaitGroup
	won := make(chan int, 8)
	for i := range 8 {
		writing.Go(func() {
			switch err := r.PutOrder(t.Context(), 1, 1, fmt.Append(nil, "hub ", i)); {
			case err == nil:
				won <- i
			case !errors.Is(err, jetstream.ErrConflict):
				t.Error(err)
			}
		})
	}
	writing.Wait()
	if len(won) != 1 {
		t.Fatalf("%d hubs created serial 1", len(won))
	}
	if err := r.PutOrder(t.Context(), 1, 1, fmt.Append(nil, "hub ", <-won)); err != nil {
		t.Errorf("the same again: %v", err)
	}
}

func TestLeaseIsHeldByOne(t *testing.T) {
	_, r := hub1(t)
	ctx := t.Context()
	const term = 400 * time.Millisecond
	one, two := r.NewLease(), r.NewLease()
	hold := func(l *jetstream.Lease, name string) bool {
		t.Helper()
		held, err := l.Hold(ctx, name, term)
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	if !hold(one, "one") || hold(two, "two") || !hold(one, "one") {
		t.Fatal("one does not hold it, or two does")
	}
	if two.Holder() != "one" {
		t.Errorf("two believes that %q holds it", two.Holder())
	}
	renewed := time.Now()
	for !hold(two, "two") { // one is dead
		time.Sleep(10 * time.Millisecond)
		if time.Since(renewed) > 10*term {
			t.Fatal("two never gets it")
		}
	}
	if d := time.Since(renewed); d < term {
		t.Fatalf("two has it %v after one renewed it for %v", d, term)
	}
	if hold(one, "one") {
		t.Fatal("one comes back and takes it")
	}
	three := r.NewLease() // two's server started again: its name is no claim
	if hold(three, "two") {
		t.Fatal("a new life holds what the old one held")
	}
	if err := two.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if !hold(three, "three") {
		t.Fatal("released, and not free")
	}
	for _, bad := range []time.Duration{0, -1, time.Hour} {
		if _, err := one.Hold(ctx, "one", bad); err == nil {
			t.Errorf("held for %v", bad)
		}
	}
	// It becomes free, and eight ask at once: one gets it.
	if err := three.Release(ctx); err != nil {
		t.Fatal(err)
	}
	for round := range 20 {
		var contending sync.WaitGroup
		winners := make(chan *jetstream.Lease, 8)
		ready := make(chan struct{})
		for i := range cap(winners) {
			contending.Go(func() {
				l := r.NewLease()
				<-ready
				if held, err := l.Hold(ctx, fmt.Sprint("contender ", i), term); err == nil && held {
					winners <- l
				}
			})
		}
		close(ready)
		contending.Wait()
		if len(winners) != 1 {
			t.Fatalf("round %d: %d hold it", round, len(winners))
		}
		if err := (<-winners).Release(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// hub1 is a region of one server.
func hub1(t *testing.T) (*regiontest.World, jetstream.Region) {
	t.Helper()
	w := regiontest.StartWorld(t, 1, "acme")
	return w, w.Region(w.A, 0, "acme")
}

// How long a release with a new package of 300 KiB, and a kill, take to every
// edge. With -edges 50 it is the measurement.
func TestReach(t *testing.T) {
	w := regiontest.StartWorld(t, 3, "acme")
	ra := w.Region(w.A, 0, "acme")
	ctx := t.Context()
	var nodes []*regiontest.Node
	for i := range *edges {
		home := []*regiontest.Region{w.A, w.B}
		if i%2 == 1 {
			slices.Reverse(home)
		}
		nodes = append(nodes, w.Node("acme", fmt.Sprint("e", i), home...))
	}
	if err := ra.PutRoot(ctx, 2, []byte("root")); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.Expect(t, 60*time.Second, "root")
	}
	measure := func(what string, rounds int, envelope func(i int) string, send func(i int) error, have func(n *regiontest.Node, i int) error) {
		var each, last []time.Duration
		for i := range rounds {
			start := time.Now()
			if err := send(i); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			var slowest time.Duration
			var waiting sync.WaitGroup
			for _, n := range nodes {
				waiting.Go(func() {
					at, ok := n.Has(envelope(i))
					for end := time.Now().Add(30 * time.Second); !ok; at, ok = n.Has(envelope(i)) {
						if time.Sleep(time.Millisecond); time.Now().After(end) {
							t.Errorf("%s: %q never came", n.Name, envelope(i))
							return
						}
					}
					d := at.Sub(start)
					if have != nil {
						if err := have(n, i); err != nil {
							t.Errorf("%s: %v", n.Name, err)
						}
						d = time.Since(start)
					}
					mu.Lock()
					defer mu.Unlock()
					each, slowest = append(each, d), max(slowest, d)
				})
			}
			waiting.Wait()
			last = append(last, slowest)
		}
		if len(each) == 0 {
			return
		}
		slices.Sort(each)
		slices.Sort(last)
		t.Logf("%d edges, %s: p50 %v, p99 %v, max %v; all edges p50 %v", len(nodes), what, each[len(each)/2].Round(100*time.Microsecond),
			each[len(each)*99/100].Round(100*time.Microsecond), each[len(each)-1].Round(100*time.Microsecond), last[len(last)/2].Round(100*time.Microsecond))
	}
	measure("release and 300 KiB", 12, func(i int) string { return fmt.Sprint("release ", i) }, func(i int) error {
		return ra.PublishRelease(ctx, uint64(i+1), fmt.Append(nil, "release ", i), wire.Compress(blob(i, 300<<10)))
	}, func(n *regiontest.Node, i int) error {
		_, err := n.Package(ctx, wire.Sum(blob(i, 300<<10)), 300<<10)
		return err
	})
	measure("release, package known", 12, func(i int) string { return fmt.Sprint("small release ", i) }, func(i int) error {
		return ra.PublishRelease(ctx, uint64(i+100), fmt.Append(nil, "small release ", i))
	}, nil)
	measure("kill", 20, func(i int) string { return fmt.Sprint("kill ", i) }, func(i int) error {
		return ra.PutKill(ctx, wire.Sum(fmt.Append(nil, i)), fmt.Append(nil, "kill ", i))
	}, nil)
}
