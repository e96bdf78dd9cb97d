package engine

import (
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// TestInstancesShareTheImage compares what a further instance owns with the
// memory that it sees. Where memories are on Go's heap it owns all.
func TestInstancesShareTheImage(t *testing.T) {
	m := loadFile(t, "keeper.wasm", 2)
	first, second := acquire(t, m), acquire(t, m)
	m.giveBack(first)
	m.giveBack(second)
	if _, err := m.Call(abi.Call{Input: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	stats := m.Stats()
	t.Logf("%+v", stats)
	if own := uint64(len(first.instance.memory.all())); stats.PrivateBytes == 2*own {
		return
	}
	if stats.PrivateBytes > stats.MemoryBytes/2 {
		t.Errorf("two instances of %d bytes own %d", stats.MemoryBytes, stats.PrivateBytes)
	}
	m.dropIdle()
	m.dropIdle()
	if stats := m.Stats(); stats.Instances != 1 || stats.PrivateBytes != 0 {
		t.Errorf("an idle module has %d instances that own %d bytes", stats.Instances, stats.PrivateBytes)
	}
	if _, err := m.Call(abi.Call{Input: []byte("a")}); err != nil {
		t.Error(err)
	}
}
