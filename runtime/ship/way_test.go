package ship_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/runtime/ship"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A record in two streams is not yet one in two ledgers; a ledger that comes back
// signs what it missed.
func TestClassesWantWhatTheySay(t *testing.T) {
	w := newWorld(t, "ra", "rb")
	w.regions[1].stopBook()
	s, _ := w.ship(w.journal, nil)
	size, boot := w.write(50), w.journal.Boot()
	within := func(d time.Duration, class policy.Durability) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		return s.Await(ctx, boot, size, class)
	}
	w.must(within(20*time.Second, policy.Synced))
	w.must(within(20*time.Second, policy.Region))
	until(t, "both streams have everything, one ledger signed", func() bool {
		st := s.Status()
		return st[0].Boots[boot].Cosigned == size && st[1].Boots[boot].Shipped == size
	})
	if err := within(100*time.Millisecond, policy.Regions); !errors.Is(err, context.DeadlineExceeded) || s.Met(boot, size) != policy.Region {
		t.Fatalf("with one ledger: %v, %s", err, s.Met(boot, size))
	}
	if err := within(20*time.Second, policy.Regions); !errors.Is(err, ship.ErrStalled) {
		t.Fatalf("waits again although nothing moves: %v", err)
	}
	w.regions[1].stop()
	w.startHub(w.regions[1])
	until(t, "the ledger is back", func() bool { return within(time.Second, policy.Regions) == nil })
	if s.Met(boot, size) != policy.Regions || s.Met(boot, size+1) != policy.Synced {
		t.Fatalf("%s, %s", s.Met(boot, size), s.Met(boot, size+1))
	}
	s.Retire([]string{"ra"})
	if err := within(20*time.Second, policy.Regions); !errors.Is(err, ship.ErrTooFewRegions) || s.Met(boot, size) != policy.Region {
		t.Fatalf("a retired region counts: %v, %s", err, s.Met(boot, size))
	}
}

// A sink with a way to tell what is published, and to get in its way.
type way struct {
	ship.Sink
	publish func(boot string, frame []byte, send func() (uint64, error)) (uint64, error)
}

func (w way) Publish(ctx context.Context, node, boot string, fence uint64, frame []byte) (uint64, error) {
	return w.publish(boot, frame, func() (uint64, error) { return w.Sink.Publish(ctx, node, boot, fence, frame) })
}

// While the backlog of a boot before drains, the running boot's records do not
// wait for it.
func TestFreshRecordsPassAnOldBacklog(t *testing.T) {
	w := newWorld(t, "ra")
	backlog := w.write(10_000)
	old := w.journal.Boot()
	w.must(w.journal.Close())
	w.open()
	var behind atomic.Int64 // batches of the old boot before the fresh one
	slow := func(s ship.Sink) ship.Sink {
		return way{s, func(boot string, frame []byte, send func() (uint64, error)) (uint64, error) {
			if boot == old {
				behind.Add(1)
				time.Sleep(60 * time.Millisecond) // a slow link is what is tested
			}
			return send()
		}}
	}
	s, _ := w.shipOver(w.journal, nil, slow)
	until(t, "the backlog drains", func() bool { return behind.Load() > 2 })
	for range 5 {
		before := behind.Load()
		size := w.write(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := s.Await(ctx, w.journal.Boot(), size, policy.Region)
		cancel()
		if st := s.Status()[0].Boots[old]; err != nil || st.Shipped >= backlog || behind.Load()-before > 3 {
			t.Fatalf("a fresh record behind %d batches of the old boot, %+v: %v", behind.Load()-before, st, err)
		}
	}
	w.wait(s, w.journal.Boots()[1].Size)
	until(t, "the old boot too", func() bool { return s.Status()[0].Boots[old].Cosigned == backlog })
	w.complete(w.journal.Boots()[1].Size)
}

// An unreadable journal reads every boot but one.
type unreadable struct {
	*journal.Journal
	boot string
}

func (u unreadable) ReadBatch(boot string, from uint64, records, bytes int) (*audit.Batch, error) {
	if boot == u.boot {
		return nil, errors.New("the disk does not answer")
	}
	return u.Journal.ReadBatch(boot, from, records, bytes)
}

// A boot that cannot be read, and one that the region does not take, keep neither
// the boots behind them nor the running boot back.
func TestOneBootKeepsNothingBack(t *testing.T) {
	w := newWorld(t, "ra")
	for range 3 {
		w.write(10)
		w.must(w.journal.Close())
		w.open()
	}
	boots := w.journal.Boots()
	refused := func(s ship.Sink) ship.Sink {
		return way{s, func(boot string, frame []byte, send func() (uint64, error)) (uint64, error) {
			if boot == boots[0].ID {
				return 0, errors.New("not this one")
			}
			return send()
		}}
	}
	s, _ := w.shipOver(unreadable{w.journal, boots[1].ID}, nil, refused)
	until(t, "the third boot is shipped", func() bool { return s.Status()[0].Boots[boots[2].ID].Cosigned == boots[2].Size })
	for range 5 {
		size := w.write(1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		w.must(s.Await(ctx, w.journal.Boot(), size, policy.Region))
		cancel()
	}
	st := s.Status()[0]
	if st.Err == nil || st.Boots[boots[0].ID].Shipped != 0 || st.Boots[boots[1].ID].Shipped != 0 {
		t.Fatalf("%+v", st)
	}
}

// Acknowledgements that are lost, frames that arrive twice, and frames that arrive
// again long after others: the fence lets each record in once, in order, however
// much later it is, for it knows no window.
func TestLostAcksTwicesAndLateFrames(t *testing.T) {
	w := newWorld(t, "ra", "rb")
	var mu sync.Mutex
	var late []func() (uint64, error)
	var lost, doubled, came int
	rough := func(s ship.Sink) ship.Sink {
		return way{s, func(boot string, frame []byte, send func() (uint64, error)) (uint64, error) {
			mu.Lock()
			defer mu.Unlock()
			var again []func() (uint64, error)
			if len(late) > 3 {
				again, late = late, nil
			}
			for _, old := range again { // out of order: behind what came after them
				if _, err := old(); err == nil {
					came++
				}
			}
			next, err := send()
			if err != nil {
				return 0, err
			}
			switch rand.IntN(3) {
			case 0:
				lost++
				return 0, errors.New("the acknowledgement is lost")
			case 1:
				doubled++
				if _, err := send(); err == nil {
					came++
				}
			}
			late = append(late, send)
			return next, nil
		}}
	}
	s, _ := w.shipOver(w.journal, func(e ship.Evidence) { t.Errorf("%+v", e) }, rough)
	var size uint64
	for range 30 {
		size = w.write(20)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		w.must(s.Await(ctx, w.journal.Boot(), size, policy.Region))
		cancel()
	}
	w.wait(s, size)
	mu.Lock()
	defer mu.Unlock()
	if lost == 0 || doubled == 0 || came > 0 {
		t.Fatalf("%d lost, %d doubled, %d came in twice", lost, doubled, came)
	}
	w.complete(size)
}

// Answers that do not come while questions arrive, and then a cut: what was stored
// without the shipper's knowledge is not stored again.
func TestMutedLinkThenCut(t *testing.T) {
	w := newWorld(t, "ra", "rb")
	s, _ := w.ship(w.journal, func(e ship.Evidence) { t.Errorf("%+v", e) })
	size := w.write(10)
	w.wait(s, size)
	for _, r := range []int{0, 1} {
		link := w.regions[r].link
		link.Mute()
		size = w.write(10)
		until(t, "the region has what nobody told the node", func() bool {
			return w.regions[r].book.Status().Cosigned[node][w.journal.Boot()] == size || s.Status()[1-r].Boots[w.journal.Boot()].Cosigned == size
		})
		link.Cut()
		size = w.write(10)
		link.Heal()
		w.wait(s, size)
	}
	w.complete(size)
}

// Waiters that are reached, give up and come by the thousand, against a slow and
// obvious count of who may pass.
func TestWaitersHammer(t *testing.T) {
	w := newWorld(t, "ra", "rb")
	s, _ := w.ship(w.journal, nil)
	var waiting sync.WaitGroup
	var passed, gaveUp atomic.Int64
	for range 8 {
		waiting.Go(func() {
			for range 60 {
				ref, err := w.journal.Append(t.Context(), record(1), policy.Synced)
				if err != nil {
					t.Error(err)
					return
				}
				class := []policy.Durability{policy.Region, policy.Regions}[rand.IntN(2)]
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rand.IntN(30))*time.Millisecond)
				err = s.Await(ctx, ref.Boot, ref.Seq, class)
				cancel()
				if err != nil {
					gaveUp.Add(1)
					continue
				}
				passed.Add(1)
				enough := 0
				for _, st := range s.Status() {
					b := st.Boots[ref.Boot]
					if class == policy.Region && max(b.Shipped, b.Cosigned) >= ref.Seq || class == policy.Regions && b.Cosigned >= ref.Seq {
						enough++
					}
				}
				if want := map[policy.Durability]int{policy.Region: 1, policy.Regions: 2}[class]; enough < want {
					t.Errorf("%s with %d regions", class, enough)
				}
			}
		})
	}
	waiting.Wait()
	t.Logf("%d passed, %d gave up", passed.Load(), gaveUp.Load())
	if passed.Load() == 0 {
		t.Fatal("nobody passed")
	}
	w.wait(s, w.journal.Boots()[0].Size)
}

// No more wait at a time than is configured, and those who gave up make room.
func TestWaitersAreBounded(t *testing.T) {
	p := newPlot(t)
	p.config.MaxWaiting = 3
	p.ship()
	ref, err := p.journal.Append(t.Context(), record(1), policy.Synced)
	p.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() {
			err := ship.ErrTooManyWait // while the one below is in
			for errors.Is(err, ship.ErrTooManyWait) {
				err = p.shipper.Await(ctx, ref.Boot, ref.Seq, policy.Regions)
			}
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	until(t, "the fourth is turned away", func() bool {
		short, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		return errors.Is(p.shipper.Wait(short, ref.Boot, ref.Seq, ship.Need{Cosigned: 2}), ship.ErrTooManyWait)
	})
	cancel()
	waiting.Wait()
	short, stop := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer stop()
	if err := p.shipper.Wait(short, ref.Boot, ref.Seq, ship.Need{Cosigned: 2}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("no room after all left: %v", err)
	}
}
