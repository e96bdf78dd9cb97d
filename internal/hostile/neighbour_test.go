package hostile

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/compiler/rego"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
)

const neighbourPolicy = `package p
import rego.v1
allow if {
	some grant in data.grants
	grant.user == input.user
	grant.tool == input.tool
}`

// neighbour is an honest policy of the same process that decides all the time.
type neighbour struct {
	module *engine.Module
	call   abi.Call
	want   abi.Result
	quit   chan struct{}
	done   sync.WaitGroup
	alone  float64 // decisions a second before the corpus
	began  time.Time

	mu      sync.Mutex
	decided int
	wrong   error
	last    time.Time
	stall   time.Duration // since the last mark
	stalls  map[string]time.Duration
}

func startNeighbour(t *testing.T, e *engine.Engine) *neighbour {
	t.Helper()
	n := &neighbour{quit: make(chan struct{}), stalls: map[string]time.Duration{}}
	n.module = loadNeighbour(t, e)
	n.call = abi.Call{Input: []byte(`{"user": "ada", "tool": "search"}`)}
	var err error
	if n.want, err = n.module.Call(n.call); err != nil {
		t.Fatal(err)
	}
	const warm = 5_000
	start := time.Now()
	for range warm {
		if _, err := n.module.Call(n.call); err != nil {
			t.Fatal(err)
		}
	}
	n.alone = warm / time.Since(start).Seconds()
	n.began, n.last = time.Now(), time.Now()
	n.done.Go(n.run)
	return n
}

func loadNeighbour(t *testing.T, e *engine.Engine) *engine.Module {
	t.Helper()
	compiled, err := rego.Compile(t.Context(), fstest.MapFS{"p.rego": {Data: []byte(neighbourPolicy)}}, rego.Options{Entrypoints: []string{"p/allow"}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Load(t.Context(), engine.Spec{Name: "neighbour", Wasm: compiled.Wasm, ABI: abi.OPA1,
		Init: []byte(`{"grants": [{"user": "bob", "tool": "search"}, {"user": "ada", "tool": "mail"}, {"user": "ada", "tool": "search"}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (n *neighbour) run() {
	for {
		select {
		case <-n.quit:
			return
		default:
		}
		got, err := n.module.Call(n.call)
		n.count(got, err)
	}
}

func (n *neighbour) count(got abi.Result, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	n.stall, n.last = max(n.stall, now.Sub(n.last)), now
	n.decided++
	if err == nil && (!bytes.Equal(got.Output, n.want.Output) || got.Fuel != n.want.Fuel) {
		err = &abi.Trap{Code: abi.TrapOutput, Detail: string(got.Output), Fuel: got.Fuel}
	}
	if n.wrong == nil {
		n.wrong = err
	}
}

// mark keeps the longest stall since the last mark under a name.
func (n *neighbour) mark(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stalls[name] = max(n.stall, time.Since(n.last))
	n.stall = 0
}

// stop ends the neighbour and reports.
func (n *neighbour) stop(t *testing.T) {
	t.Helper()
	close(n.quit)
	n.done.Wait()
	if n.wrong != nil {
		t.Errorf("the neighbour answered wrongly: %v", n.wrong)
	}
	during := float64(n.decided) / time.Since(n.began).Seconds()
	if n.decided == 0 {
		t.Error("the neighbour decided nothing")
	}
	worst := ""
	for name, stall := range n.stalls {
		if worst == "" || stall > n.stalls[worst] {
			worst = name
		}
	}
	t.Logf("the neighbour decided %d times, all right: %.0f a second alone, %.0f during the corpus; longest stall %v (%s)", n.decided, n.alone, during, n.stalls[worst], worst)
	if err := n.module.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
