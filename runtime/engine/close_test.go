package engine

import (
	"context"
	"os"
	"runtime"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

func TestCloseWaitsForTheInstanceInUse(t *testing.T) {
	ctx := context.Background()
	e, err := New(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(ctx)
	module, err := os.ReadFile("testdata/probe.wasm")
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Load(ctx, Spec{Name: "probe", Wasm: module, ABI: abi.HoldfastV1})
	if err != nil {
		t.Fatal(err)
	}
	used, err := m.acquire()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- m.Close(ctx) }()
	for begun := false; !begun; runtime.Gosched() {
		m.mu.Lock()
		begun = m.closed
		m.mu.Unlock()
	}
	if used.instance.wasm.IsClosed() {
		t.Error("the instance was closed while it was in use")
	}
	m.giveBack(used)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if !used.instance.wasm.IsClosed() {
		t.Error("the instance is still open")
	}
}
