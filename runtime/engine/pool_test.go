package engine

import (
	"context"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// loadFile loads a module of testdata on the production engine.
func loadFile(t testing.TB, name string, pool int) *Module {
	t.Helper()
	ctx := context.Background()
	e, err := New(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Load(ctx, Spec{Name: name, Wasm: module, ABI: abi.HoldfastV1, Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
		e.Close(ctx)
	})
	return m
}

func acquire(t *testing.T, m *Module) *slot {
	t.Helper()
	s, err := m.acquire()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPoolGrowsWithDemandAndShrinks(t *testing.T) {
	m := loadFile(t, "probe.wasm", 3)
	var slots []*slot
	for want := 1; want <= 3; want++ {
		slots = append(slots, acquire(t, m))
		if got := m.Stats().Instances; got != want {
			t.Errorf("%d instances in use, %d alive", want, got)
		}
	}
	fourth := make(chan *slot)
	go func() {
		s, _ := m.acquire()
		fourth <- s
	}()
	for m.waiting.Load() == 0 {
		runtime.Gosched()
	}
	m.giveBack(slots[0])
	m.giveBack(<-fourth)
	m.giveBack(slots[1])
	m.dropIdle()
	if got := m.Stats().Instances; got != 3 {
		t.Errorf("%d instances alive, want all 3: they were used since the last look", got)
	}
	m.giveBack(slots[2])
	m.dropIdle()
	if got := m.Stats().Instances; got != 1 || m.slots[2].instance == nil {
		t.Errorf("%d instances alive, want the one that was used", got)
	}
	if _, err := m.Call(abi.Call{Input: []byte("abc")}); err != nil {
		t.Error(err)
	}
}

// TestTrappedInstanceIsReplacedInTheBackground sees that a call that trapped
// returns although nothing can be made, and that the next one waits.
func TestTrappedInstanceIsReplacedInTheBackground(t *testing.T) {
	m := loadFile(t, "probe.wasm", 1)
	before := m.slots[0].instance
	for range 50 {
		if _, err := m.Call(abi.Call{Input: []byte("t")}); err == nil {
			t.Fatal("no trap")
		}
		s := acquire(t, m)
		if s.instance == before || !before.wasm.IsClosed() {
			t.Fatal("the instance that trapped is still there")
		}
		before = s.instance
		m.giveBack(s)
	}
}

// TestCloseWaitsForReplacements closes while instances are being replaced.
func TestCloseWaitsForReplacements(t *testing.T) {
	for range 50 {
		m := loadFile(t, "probe.wasm", 4)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { m.Call(abi.Call{Input: []byte("t")}) })
		}
		wg.Wait()
		if err := m.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		for i := range m.slots {
			if one := m.slots[i].instance; one != nil && !one.wasm.IsClosed() {
				t.Fatal("an instance is open after Close")
			}
		}
	}
}

// TestStalePointersToSlots lets callers believe in a slot that others have.
func TestStalePointersToSlots(t *testing.T) {
	m := loadFile(t, "probe.wasm", 2)
	first := acquire(t, m)
	m.near.Put(first)
	second := acquire(t, m)
	if first == second {
		t.Fatal("one slot was given out twice")
	}
	m.giveBack(first)
	m.giveBack(second)
}

func TestPanicOfTheHostCostsTheInstanceOnly(t *testing.T) {
	m := loadFile(t, "probe.wasm", 1)
	healthy := m.slots[0].instance.guest
	m.slots[0].instance.guest = nil
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		m.Call(abi.Call{Input: []byte("abc")})
	}()
	if result, err := m.Call(abi.Call{Input: []byte("abc")}); err != nil || string(result.Output) != "abc" || healthy == nil {
		t.Errorf("got %q, %v", result.Output, err)
	}
}
