// Command bench prints the project's figures, each beside a rival or a floor
// measured in the same run: `make bench`. Machines are noisy, so every figure is
// the median of ten rounds in which all competitors take turns.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/engine"
)

func main() {
	engine.Worker()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rounds := flags.Int("rounds", 10, "rounds to take the median of")
	seconds := flags.Float64("seconds", 2, "length of each HTTP measurement")
	edges := flags.String("edges", "1,10,50,200", "numbers of edges of the part fleet")
	records := flags.Int("records", 10_000_000, "length of the large journal of the part journal")
	results := flags.String("results", filepath.Join("bench", "results"), "folder for what benchstat reads")
	parts := flags.String("parts", "process,rego,http,propagation,engine", "what to measure, in this order")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	b := &bench{out: stdout, rounds: *rounds, length: time.Duration(*seconds * float64(time.Second)), results: *results, edges: *edges, records: *records}
	all := map[string]func(context.Context) error{
		"process": b.inProcess, "rego": b.inRego, "http": b.overHTTP, "propagation": b.propagation, "engine": b.engine, "languages": b.languages, "fleet": b.fleet,
		"records": b.recordBytes, "durability": b.durability, "drain": b.drain, "audit": b.audit, "auditcalls": b.auditCalls, "journal": b.journal,
	}
	b.line("Holdfast bench: %s %s/%s, %d CPUs, %s, medians of %d rounds", time.Now().UTC().Format(time.DateOnly),
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), b.rounds)
	for name := range strings.SplitSeq(*parts, ",") {
		part, ok := all[name]
		if !ok {
			fmt.Fprintf(stderr, "bench: no part %q\n", name)
			return 2
		}
		if err := part(ctx); err != nil {
			fmt.Fprintf(stderr, "bench: %s: %v\n", name, err)
			return 1
		}
	}
	return 0
}

type bench struct {
	out     io.Writer
	rounds  int
	length  time.Duration
	results string // folder
	edges   string // numbers of edges
	records int    // of the large journal
}

func (b *bench) line(format string, args ...any) { fmt.Fprintf(b.out, format+"\n", args...) }

// A sample is the latencies of one round.
type sample []time.Duration

// q is the q-th quantile by the nearest-rank method.
func (s sample) q(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	slices.Sort(s)
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// A series is one figure over all rounds.
type series []sample

// median is the median over the rounds of each round's q-th quantile.
func (s series) median(q float64) time.Duration {
	each := make(sample, len(s))
	for i := range s {
		each[i] = s[i].q(q)
	}
	return each.q(0.5)
}

// timed calls f n times and returns how long each call took.
func timed(n int, f func() error) (sample, error) {
	s := make(sample, n)
	for i := range s {
		began := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		s[i] = time.Since(began)
	}
	return s, nil
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
