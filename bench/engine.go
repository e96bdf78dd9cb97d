package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// engine runs the Go benchmarks that measure the engine and prints what they
// come to beside what issue and design want. Only runtime/engine may call wazero,
// so the floor is measured there, in one process with what stands on it; each
// round is a run of every benchmark, so that all competitors take turns. The
// lines as Go printed them go to a file for benchstat.
func (b *bench) engine(ctx context.Context) error {
	work, err := os.MkdirTemp("", "holdfast-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	raw := filepath.Join(b.results, fmt.Sprintf("%s-%s-%s-engine.txt", time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH))
	file, err := os.Create(raw)
	if err != nil {
		return err
	}
	defer file.Close()
	all := figures{}
	packages := []string{"runtime/engine", "runtime/loader", "bench/guests"}
	for round := range b.rounds {
		for i, pkg := range packages {
			binary := filepath.Join(work, strconv.Itoa(i)+".test")
			if round == 0 {
				if _, err := output(ctx, "", "go", "test", "-c", "-o", binary, "./"+pkg); err != nil {
					return err
				}
			}
			lines, err := output(ctx, pkg, binary, "-test.run=^$", "-test.bench=.", "-test.skip="+elsewhere, "-test.benchtime=0.3s")
			if err != nil {
				return err
			}
			if _, err := file.Write(lines); err != nil {
				return err
			}
			all.add(string(lines))
		}
	}
	b.line("\nThe engine (medians; every round is in %s)", raw)
	all.report(b.out)
	return file.Close()
}

// elsewhere are benchmarks with results of their own, or that take longer than
// all others: sdk/wasm/README.md and compiler/rego name them.
const elsewhere = "Storms|Builtins|OwnFolder/.*/(cold|in-process)"

// output runs a command in a folder and returns what it printed.
func output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, name, args...)
	command.Dir = dir
	var printed, complaints bytes.Buffer
	command.Stdout, command.Stderr = &printed, &complaints
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", command, err, printed.Bytes(), complaints.Bytes())
	}
	return printed.Bytes(), nil
}

// figures are the values of each benchmark and unit, one for each round.
type figures map[string]map[string][]float64

// add reads the lines that a benchmark binary prints.
func (f figures) add(text string) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		name = strings.TrimSuffix(name, "-"+strconv.Itoa(runtime.GOMAXPROCS(0)))
		if f[name] == nil {
			f[name] = map[string][]float64{}
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if value, err := strconv.ParseFloat(fields[i], 64); err == nil {
				f[name][fields[i+1]] = append(f[name][fields[i+1]], value)
			}
		}
	}
}

// median is the median over the rounds, 0 when there is no such figure.
func (f figures) median(name, unit string) float64 {
	values := slices.Sorted(slices.Values(f[name][unit]))
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}

// names are the benchmarks under a name, sorted.
func (f figures) names(under string) (names []string) {
	for name := range f {
		if strings.HasPrefix(name, under+"/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (f figures) us(name, unit string) float64 { return f.median(name, unit) / 1e3 }

func (f figures) report(w io.Writer) {
	p := func(format string, args ...any) {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  "+format, args...), " "))
	}
	f.calls(p)
	f.node(p)
	f.hostile(p)
}

type printf func(format string, args ...any)

func (f figures) calls(line printf) {
	line("%-34s %9s %9s %9s  %s", "call of a guest", "plain us", "isolated", "p99", "wanted")
	for _, language := range []string{"c", "zig", "rust", "assemblyscript", "go"} {
		plain, isolated := "Guest/"+language+"/plain", "Guest/"+language+"/isolated"
		wanted := fmt.Sprintf("%.2f = 1.3 plain + 0.7", 1.3*f.us(plain, "p50-ns")+0.7)
		if language == "go" {
			wanted = "20"
		}
		line("%-34s %9.2f %9.2f %9.2f  %s", language, f.us(plain, "p50-ns"), f.us(isolated, "p50-ns"), f.us(isolated, "p99-ns"), wanted)
	}
	line("%-34s %9.2f %9.2f %9.2f  %.2f = 1.5 plain; topdown %.2f", "OPA RBAC, 100 bindings", f.us("OPARBAC/plain", "p50-ns"), f.us("OPARBAC/isolated", "p50-ns"),
		f.us("OPARBAC/isolated", "p99-ns"), 1.5*f.us("OPARBAC/plain", "p50-ns"), f.us("OPARBAC/topdown", "p50-ns"))
}

func (f figures) node(line printf) {
	line("")
	line("%-34s %9s %9s %9s  %s", "in process", "p50 us", "p99 us", "allocs", "wanted")
	for _, c := range []struct{ name, wanted string }{{"Decide/engine", "0 allocs"}, {"Decide/decide", "4 allocs"}} {
		line("%-34s %9.2f %9.2f %9.0f  %s", c.name, f.us(c.name, "p50-ns"), f.us(c.name, "p99-ns"), f.median(c.name, "allocs/op"), c.wanted)
	}
	scaling := func(work string) float64 {
		return 2 * f.median("Scaling/"+work+"/goroutines=1", "ns/op") / f.median("Scaling/"+work+"/goroutines=2", "ns/op")
	}
	line("two goroutines: calls x %.2f, a pure loop x %.2f: %.2f of it (wanted: 0.90)", scaling("engine"), scaling("loop"), scaling("engine")/scaling("loop"))

	line("")
	line("%-34s %9s %9s %14s", "look-up in data", "p50 us", "p99 us", "KiB/instance")
	for _, name := range f.names("Data") {
		line("%-34s %9.2f %9.2f %14.0f", name, f.us(name, "p50-ns"), f.us(name, "p99-ns"), f.median(name, "KiB/instance"))
	}
	line("")
	for _, name := range append(f.names("OwnFolder"), f.names("MixedStart")...) {
		line("%-34s %9.1f ms, %.1f MiB (wanted for 100, warm: 300 ms, 100 MiB)", name, f.us(name, "ns/op")/1e3, f.median(name, "MiB"))
	}
	for _, name := range f.names("Admit") {
		line("%-34s %9.1f ms, this process rises by %.0f MiB", name, f.us(name, "ns/op")/1e3, f.median(name, "peak-MiB"))
	}
}

func (f figures) hostile(line printf) {
	line("")
	line("%-34s %9s %9s  %s", "hostile, 1 M units (wanted: 10 ms)", "ms", "ns/unit", "units")
	for _, name := range f.names("Hostile") {
		line("%-34s %9.2f %9.2f  %.0f", name, f.us(name, "ns/op")/1e3, f.median(name, "ns/unit"), f.median(name, "units/op"))
	}
	line("")
	line("%-34s %9s %9s %9s", "neighbours of guests at 20 M units", "p50 us", "p99 us", "max us")
	for _, name := range f.names("Neighbour") {
		line("%-34s %9.1f %9.1f %9.1f", name, f.us(name, "p50-ns"), f.us(name, "p99-ns"), f.us(name, "max-ns"))
	}
}
