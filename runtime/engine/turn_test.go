//go:build unix

package engine

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// One engine at a time compiles a module for a folder; others wait for it, and
// no longer than they are told to.
func TestTurn(t *testing.T) {
	dir := t.TempDir()
	one, other := &cache{dir: dir}, &cache{dir: dir}
	id, elsewhere := identity{1}, identity{2}
	done := one.turn(t.Context(), id)
	other.turn(t.Context(), elsewhere)() // another module does not wait
	var first atomic.Bool
	waited := make(chan bool)
	go func() {
		defer other.turn(context.Background(), id)()
		waited <- first.Load()
	}()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	other.turn(over, id)() // nobody waits for a context that is over
	time.AfterFunc(20*time.Millisecond, func() { first.Store(true); done() })
	if !<-waited {
		t.Error("two compiled at once")
	}
}
