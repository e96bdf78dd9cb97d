package ship_test

import (
	"crypto/rand"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// However long the backlog and slow the regions, a shipper holds a few frames.
func TestMemoryIsBounded(t *testing.T) {
	p := newPlot(t)
	const records, bytes = 2000, 20 << 10
	for range 2 { // two boots with a backlog each
		var writing sync.WaitGroup
		for range 20 {
			writing.Go(func() {
				for range records / 20 {
					noise := make([]byte, bytes)
					rand.Read(noise)
					_, err := p.journal.Append(t.Context(), &audit.Record{Kind: audit.KindDecision, Decision: &audit.DecisionRecord{Request: audit.NewPart(nil, noise)}}, policy.Synced)
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		writing.Wait()
		p.must(p.journal.Close())
		p.open()
	}
	before := heap()
	var asked atomic.Int64
	hold := make(chan struct{})
	for i := range p.config.Regions {
		p.config.Regions[i].Sink = way{p.config.Regions[i].Sink, func(_ string, _ []byte, send func() (uint64, error)) (uint64, error) {
			if asked.Add(1) > 6 {
				<-hold
			}
			return send()
		}}
	}
	defer close(hold)
	p.ship()
	until(t, "every region has a frame on its way", func() bool { return asked.Load() == 8 })
	held := heap() - before
	t.Logf("%d MiB are behind, %.1f MiB held", 2*records*bytes>>20, float64(held)/(1<<20))
	// The compressors that frames share have 8 MiB each, one for each that runs.
	if most := int64(min(4, runtime.GOMAXPROCS(0))<<23 + 8<<20); held > most {
		t.Fatalf("%d bytes held, more than %d", held, most)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
