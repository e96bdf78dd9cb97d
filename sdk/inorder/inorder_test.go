package inorder_test

import (
	"iter"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/inorder"
)

func count(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

func TestMapKeepsTheOrder(t *testing.T) {
	var running, most atomic.Int64
	got := slices.Collect(inorder.Map(4, count(2000), func(i int) int {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		for range i % 7 * 1000 { // those after overtake
		}
		running.Add(-1)
		return i * i
	}))
	for i, v := range got {
		if v != i*i {
			t.Fatalf("at %d: %d", i, v)
		}
	}
	if len(got) != 2000 || most.Load() > 4 {
		t.Fatalf("%d results, %d at once", len(got), most.Load())
	}
}

func TestMapStopsWithItsConsumer(t *testing.T) {
	drawn := 0
	for v := range inorder.Map(2, func(yield func(int) bool) {
		for drawn = 0; yield(drawn); drawn++ {
		}
	}, func(i int) int { return i }) {
		if v == 10 {
			break
		}
	}
	if drawn > 10+3*2+2 {
		t.Fatalf("%d were drawn for 10", drawn)
	}
	for range inorder.Map(0, count(0), func(i int) int { return i }) {
		t.Fatal("something of nothing")
	}
}

// Maps of maps are how a batch passes several stages.
func TestMapOfMap(t *testing.T) {
	inner := inorder.Map(2, count(500), func(i int) int { return i + 1 })
	if got := slices.Collect(inorder.Map(2, inner, func(i int) int { return i * 2 })); len(got) != 500 || got[499] != 1000 {
		t.Fatal(len(got))
	}
	for range inorder.Map(2, inner, func(i int) int { return i }) {
		break
	}
}
