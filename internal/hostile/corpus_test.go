package hostile

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

var update = flag.Bool("update", false, "write the outcomes that were seen to corpus.txt; review the difference")

// maxGrowth bounds what one module may add to the process at any moment.
const maxGrowth = 50 << 20

// maxTime is far above what any case takes on a busy machine: it ends a test
// that would not end.
const maxTime = 60 * time.Second

// TestMain lets the test binary be its own compile worker.
func TestMain(m *testing.M) {
	engine.Worker()
	os.Exit(m.Run())
}

func newEngine(t *testing.T, config engine.Config) *engine.Engine {
	t.Helper()
	e, err := engine.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	return e
}

// TestCorpus runs every module of the corpus beside a policy that decides all
// the time, and wants the outcome of corpus.txt, memory within its bound, and
// the other policy's answers right.
func TestCorpus(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, engine.Config{Worker: engine.Self()})
	neighbour := startNeighbour(t, e)
	worst, stages := growth{}, map[string]int{}
	for n := range cases {
		c := &cases[n]
		t.Run(c.Name, func(t *testing.T) {
			module, err := c.Module()
			if err != nil {
				t.Fatal(err)
			}
			var got string
			measured := measure(func() { got = outcome(t, e, c, module) })
			got, _, _ = strings.Cut(got, "\n") // OPA shows the place on further lines
			neighbour.mark(c.Name)
			if *update {
				c.Outcome = got
			} else if got != c.Outcome {
				t.Errorf("got  %s\nwant %s", got, c.Outcome)
			}
			if measured.bytes > maxGrowth {
				t.Errorf("the process grew by %d MiB", measured.bytes>>20)
			}
			if measured.took > maxTime {
				t.Errorf("took %v", measured.took)
			}
			measured.name = c.Name
			worst = worst.or(measured)
			stage, _, _ := strings.Cut(got, ":")
			stages[stage]++
		})
	}
	neighbour.stop(t)
	t.Logf("%d modules by the stage that stops them: %v", len(cases), stages)
	t.Logf("largest growth %d MiB (%s), longest %v (%s)", worst.bytes>>20, worst.name, worst.took, worst.slowest)
	if *update {
		if err := os.WriteFile("../../testdata/hostile/corpus.txt", Format(cases), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// growth is what a case took of the process.
type growth struct {
	bytes         int64
	name, slowest string
	took          time.Duration
}

// or returns the larger of each.
func (g growth) or(other growth) growth {
	if other.bytes > g.bytes {
		g.bytes, g.name = other.bytes, other.name
	}
	if other.took > g.took {
		g.took, g.slowest = other.took, other.name
	}
	return g
}

func measure(run func()) growth {
	before := resident()
	start := time.Now()
	run()
	took := time.Since(start)
	return growth{bytes: peak() - before, took: took}
}

// outcome says what became of a module, in the words of the index.
func outcome(t *testing.T, e *engine.Engine, c *Case, module []byte) string {
	spec := engine.Spec{Name: c.Name, Wasm: module, ABI: c.ABI, Class: c.Class, Patterns: []string{"a+b"}, Pool: 1}
	m, err := e.Load(context.Background(), spec)
	if err != nil {
		return loadStage(err) + ": " + strings.TrimPrefix(err.Error(), "load module "+c.Name+": ")
	}
	defer m.Close(context.Background())
	speaks, err := codec.For(c.ABI)
	if err != nil {
		t.Fatal(err)
	}
	first, err := m.Call(abi.Call{Input: input(t, speaks, "first"), Fuel: abi.MaxFuel})
	if err != nil {
		return stopped(err)
	}
	kept := bytes.Clone(first.Output)
	second, err := m.Call(abi.Call{Input: input(t, speaks, "other"), Fuel: abi.MaxFuel})
	if err != nil {
		return "second " + stopped(err)
	}
	if !bytes.Equal(first.Output, kept) {
		return "answers: and changes its first answer in the second call"
	}
	decision, err := speaks.Decode(second.Output)
	if err != nil {
		return "output: " + err.Error()
	}
	return "answers: " + decision.Verdict.String()
}

func loadStage(err error) string {
	var refusal *wasm.Refusal
	switch {
	case errors.As(err, &refusal):
		return "scan"
	case strings.Contains(err.Error(), ": compile: "):
		return "compile"
	}
	return "initialise"
}

// stopped names the stage of a call that trapped.
func stopped(err error) string {
	var trap *abi.Trap
	if !errors.As(err, &trap) {
		return "call: no trap: " + err.Error()
	}
	if trap.Code == abi.TrapOutput {
		return "output: " + err.Error()
	}
	return "call: " + err.Error()
}

func input(t *testing.T, c codec.Codec, id string) []byte {
	t.Helper()
	r, err := policy.ParseRequest("tool.pre_call", []byte(`{"id": "`+id+`", "subject": {"type": "agent", "id": "a"}, "action": {"name": "call"}, "resource": {"type": "tool", "id": "t"}}`))
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// TestEveryModuleIsInTheIndex finds modules that no test runs.
func TestEveryModuleIsInTheIndex(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, c := range cases {
		if listed[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		listed[c.Name] = true
	}
	for name := range generated() {
		if !listed[name] {
			t.Errorf("%s is generated and not in corpus.txt", name)
		}
	}
	files, err := os.ReadDir("../../testdata/hostile")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".wat"); ok && !listed[name] {
			t.Errorf("%s is not in corpus.txt", f.Name())
		}
	}
	for name, size := range map[string]int{"locals-bomb-42": 42, "locals-bomb-41": 41} {
		if got := len(generated()[name]()); got != size {
			t.Errorf("%s has %d bytes", name, got)
		}
	}
}
