package main

import (
	"strings"
	"testing"
)

// TestFigures reads what Go's benchmarks print, over three rounds.
func TestFigures(t *testing.T) {
	f := figures{}
	for _, round := range []string{
		"goos: linux\nBenchmarkGuest/c/plain \t 100\t 1000 ns/op\t 900.0 p50-ns\t 0 allocs/op\nPASS\n",
		"BenchmarkGuest/c/plain \t 100\t 1200 ns/op\t 1100 p50-ns\nBenchmarkGuest/c/isolated\t 50\t 2000 ns/op\t 1900 p50-ns\n",
		"BenchmarkGuest/c/plain \t 100\t 5000 ns/op\t 1000 p50-ns\nBenchmarkGuest/c/isolated\t 50\t 2000 ns/op\t 1900 p50-ns\n",
	} {
		f.add(round)
	}
	if got := f.median("Guest/c/plain", "p50-ns"); got != 1000 {
		t.Errorf("median %v", got)
	}
	if got := strings.Join(f.names("Guest"), " "); got != "Guest/c/isolated Guest/c/plain" {
		t.Errorf("names %s", got)
	}
	if f.median("Guest/c/plain", "MiB") != 0 || f.median("nothing", "ns/op") != 0 {
		t.Error("a figure that nobody measured")
	}
	var out strings.Builder
	f.report(&out)
	if !strings.Contains(out.String(), "2.00 = 1.3 plain + 0.7") {
		t.Errorf("got\n%s", out.String())
	}
}
