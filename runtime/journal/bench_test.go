package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// BenchmarkAppendSynced measures acknowledged records: ns/op is the time per
// record over all callers.
func BenchmarkAppendSynced(b *testing.B) {
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			bench := newBench(b)
			bench.cfg.SegmentBytes, bench.cfg.CheckpointRecords, bench.cfg.CheckpointInterval = 0, 0, time.Second
			j := bench.open()
			r := decision(1)
			b.ReportAllocs()
			b.ResetTimer()
			var next atomic.Int64
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						if _, err := j.Append(context.Background(), r, policy.Synced); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkRawFsync is what the disk does without a journal: 512 bytes and a
// sync, appended and into preallocated space.
func BenchmarkRawFsync(b *testing.B) {
	for _, reserve := range []int64{0, 16 << 20} {
		b.Run(fmt.Sprintf("preallocated=%t", reserve > 0), func(b *testing.B) {
			f, err := osFS{}.OpenFile(filepath.Join(b.TempDir(), "raw"), os.O_RDWR|os.O_CREATE, 0o644)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			if reserve > 0 {
				if err := f.Preallocate(reserve); err != nil {
					b.Fatal(err)
				}
			}
			block := make([]byte, 512)
			for off := int64(0); b.Loop(); off += 512 {
				if _, err := f.WriteAt(block, off); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
