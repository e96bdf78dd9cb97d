package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// maxRequestsFile bounds bench's input.
const maxRequestsFile = 256 << 20

// benchFlags are what bench is asked.
type benchFlags struct {
	input, point, entrypoint string
	raw, asJSON              bool
	n                        int
}

func benchCommand(e *env) *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use:   "bench [DIR|FILE.hfp]",
		Short: "Measure decisions of one policy",
		Long: `Bench decides N times in one goroutine, from request bytes to decision bytes: parse, encode, call a restored and metered
instance, decode, write. Nothing is memoised. The requests come from a file, one JSON object a line, or else from the
package's golden vectors; they are asked in turn. Fuel is exact, and checked on both engines.`,
		Example: "  holdfast bench modules/tool-authz\n  holdfast bench rbac.hfp -i requests.jsonl --raw --entrypoint rbac/allow -n 100000 -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return e.bench(c, argument(args), &f) },
	}
	c.Flags().StringVarP(&f.input, "input", "i", "", "requests, one JSON object a line, - for standard input (default: the golden vectors)")
	c.Flags().StringVar(&f.point, "point", "", "decision point (default: the package's first)")
	c.Flags().BoolVar(&f.raw, "raw", false, "the lines are bare input documents, as for OPA")
	c.Flags().StringVar(&f.entrypoint, "entrypoint", "", "entry point of a Rego package, such as rbac/allow")
	c.Flags().IntVarP(&f.n, "count", "n", 10_000, "decisions to measure")
	outputFlag(c, &f.asJSON)
	return c
}

// measurement is what bench prints as JSON.
type measurement struct {
	Digest    wire.Digest `json:"digest"`
	N         int         `json:"n"`
	LatencyNS struct {
		P50 int64 `json:"p50"`
		P99 int64 `json:"p99"`
		Max int64 `json:"max"`
	} `json:"latency_ns"`
	Fuel        fuelRange `json:"fuel"`
	MemoryBytes uint64    `json:"memory_bytes"` // of one instance
	Instances   int       `json:"instances"`
	AllocsPerOp float64   `json:"allocs_per_op"` // on the host
}

// fuelRange is exact: a request uses the same units in every call, on every
// machine and on both engines, which bench checks.
type fuelRange struct {
	Min      uint64        `json:"min"`
	Max      uint64        `json:"max"`
	Requests []requestFuel `json:"requests,omitempty"` // of the golden vectors
}

type requestFuel struct {
	Name string `json:"name"`
	Fuel uint64 `json:"fuel"`
}

func (e *env) bench(c *cobra.Command, path string, f *benchFlags) error {
	if f.n < 1 {
		return fmt.Errorf("-n %d: at least one decision", f.n)
	}
	h, err := newHost(c.Context())
	if err != nil {
		return err
	}
	defer h.Close(c.Context())
	pkg, digest, err := h.openPackage(c.Context(), path, nil)
	if err != nil {
		return err
	}
	var questions []question
	if f.input == "" {
		questions, err = h.vectorQuestions(c.Context(), pkg, f)
	} else {
		questions, err = e.lineQuestions(c.Context(), h, pkg, f)
	}
	if err != nil {
		return err
	}
	if len(questions) == 0 {
		return errors.New("no requests: name a file of them with -i, or give the policy golden vectors")
	}
	m, err := measure(c.Context(), questions, f.n)
	if err != nil {
		return err
	}
	m.Digest = digest
	if m.Fuel, err = fuelOf(c.Context(), questions); err != nil {
		return err
	}
	if f.asJSON {
		return e.printJSON(m)
	}
	fmt.Fprintf(e.stdout, "%s\n%d decisions of %d requests, from request bytes to decision bytes\n", digest, m.N, len(questions))
	fmt.Fprintf(e.stdout, "  latency    p50 %v   p99 %v   max %v\n", time.Duration(m.LatencyNS.P50), time.Duration(m.LatencyNS.P99), time.Duration(m.LatencyNS.Max))
	fmt.Fprintf(e.stdout, "  fuel       %d to %d, the same on both engines\n", m.Fuel.Min, m.Fuel.Max)
	for _, r := range m.Fuel.Requests {
		fmt.Fprintf(e.stdout, "%18d  %s\n", r.Fuel, r.Name)
	}
	fmt.Fprintf(e.stdout, "  memory     %d KiB an instance, %d instances\n", m.MemoryBytes>>10, m.Instances)
	fmt.Fprintf(e.stdout, "  allocs     %.1f a decision, on the host\n", m.AllocsPerOp)
	return nil
}

// vectorQuestions asks what the golden vectors ask, but not those that trap.
func (h *host) vectorQuestions(ctx context.Context, pkg *bundle.Package, f *benchFlags) ([]question, error) {
	if f.raw || f.entrypoint != "" {
		return nil, errors.New("--raw and --entrypoint are for requests from a file: name it with -i")
	}
	variants, err := vectors.ByParams(pkg)
	if err != nil {
		return nil, err
	}
	var all []question
	for _, v := range variants {
		q, err := h.questionFor(ctx, v, f.point, "", false)
		if err != nil {
			return nil, err
		}
		for _, vector := range v.Vectors {
			if vector.Expect.Trap == "" {
				q.name, q.point, q.body = vector.Name, vector.Point, vector.Request
				all = append(all, q)
			}
		}
	}
	return all, nil
}

func (e *env) lineQuestions(ctx context.Context, h *host, pkg *bundle.Package, f *benchFlags) ([]question, error) {
	raw, err := e.readInput(f.input, maxRequestsFile)
	if err != nil {
		return nil, err
	}
	q, err := h.questionFor(ctx, pkg, f.point, f.entrypoint, f.raw)
	if err != nil {
		return nil, err
	}
	var all []question
	for i, line := range bytes.Split(raw, []byte{'\n'}) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if q.body, err = f.request(q.point, line); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", f.input, i+1, err)
		}
		all = append(all, q)
	}
	return all, nil
}

// request checks one line and makes the request of it.
func (f *benchFlags) request(point string, line []byte) ([]byte, error) {
	if f.raw {
		_, err := policy.ParseValue(line)
		return wrapDocument(line), err
	}
	_, err := policy.ParseRequest(point, line)
	return line, err
}

// measure asks each question once to warm up, and then n in turn.
func measure(ctx context.Context, questions []question, n int) (*measurement, error) {
	for i := range questions {
		if _, _, err := questions[i].ask(); err != nil {
			return nil, fmt.Errorf("request %d: %w", i+1, err)
		}
	}
	m := &measurement{N: n}
	took := make([]int64, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		start := time.Now()
		_, _, err := questions[i%len(questions)].ask()
		took[i] = int64(time.Since(start))
		if err != nil {
			return nil, err
		}
	}
	runtime.ReadMemStats(&after)
	m.AllocsPerOp = float64(after.Mallocs-before.Mallocs) / float64(n)
	slices.Sort(took)
	m.LatencyNS.P50, m.LatencyNS.P99, m.LatencyNS.Max = took[n/2], took[n*99/100], took[n-1]
	seen := map[any]bool{}
	for _, q := range questions {
		if s := q.module.Stats(); !seen[q.module] {
			seen[q.module] = true
			m.Instances += s.Instances
			m.MemoryBytes = max(m.MemoryBytes, s.MemoryBytes)
		}
	}
	return m, nil
}

// fuelOf asks every question once on each engine and returns what they used. An
// answer or use that differs is an error.
func fuelOf(ctx context.Context, questions []question) (fuelRange, error) {
	used := fuelRange{Min: ^uint64(0)}
	interpreter, err := loader.OpenHost(ctx, engine.Config{Interpreter: true})
	if err != nil {
		return used, err
	}
	defer interpreter.Close(context.Background())
	twins := map[*engine.Module]*engine.Module{}
	for n := range questions {
		q := &questions[n]
		if twins[q.module] == nil {
			if twins[q.module], err = interpreter.Open(ctx, q.pkg); err != nil {
				return used, err
			}
		}
		fuel, err := q.compare(twins[q.module])
		if err != nil {
			return used, fmt.Errorf("request %d: %w", n+1, err)
		}
		used.Min, used.Max = min(used.Min, fuel), max(used.Max, fuel)
		if q.name != "" {
			used.Requests = append(used.Requests, requestFuel{q.name, fuel})
		}
	}
	return used, nil
}

// compare asks the module and its twin on the other engine and returns the fuel
// that both used.
func (q *question) compare(twin *engine.Module) (uint64, error) {
	asked, other := *q, *q
	asked.now = clockNow()
	other.now, other.module = asked.now, twin
	answer, fuel, err := asked.ask()
	if err != nil {
		return fuel, err
	}
	again, fuelAgain, err := other.ask()
	if err == nil && (fuel != fuelAgain || !bytes.Equal(answer, again)) {
		err = checkFailed("the compiler used %d units for %s, the interpreter %d for %s", fuel, answer, fuelAgain, again)
	}
	return fuel, err
}
