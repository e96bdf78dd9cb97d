package guests

import (
	"slices"
	"testing"
	"time"
)

// Percentiles runs f b.N times and reports the median and the 99th percentile.
func Percentiles(b *testing.B, f func()) {
	b.Helper()
	for range 100 {
		f()
	}
	took := make([]time.Duration, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range took {
		start := time.Now()
		f()
		took[i] = time.Since(start)
	}
	b.StopTimer()
	Report(b, took)
}

// Report adds what Percentiles reports for latencies that were measured otherwise,
// and the longest. It sorts them.
func Report(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	for name, d := range map[string]time.Duration{"p50-ns": took[len(took)/2], "p99-ns": took[(len(took)*99-1)/100], "max-ns": took[len(took)-1]} {
		b.ReportMetric(float64(d.Nanoseconds()), name)
	}
}
