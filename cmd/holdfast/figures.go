package main

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// buildCalls is how many decisions build measures.
const buildCalls = 300

// figures are what build says of a package beside its digest. Fuel and sizes are
// the same everywhere; what took time did so on this machine, just now.
type figures struct {
	Size         uint64      `json:"uncompressed_bytes"` // of the package
	DataBytes    int         `json:"data_bytes"`
	Fuel         *fuelUse    `json:"fuel,omitempty"`       // of the vectors that answer
	Latency      *callsTaken `json:"latency_ns,omitempty"` // here, now
	MemoryBytes  uint64      `json:"memory_bytes"`         // of one instance
	AdmissionMS  float64     `json:"admission_ms"`         // here, now, with no code kept from before
	Instructions int         `json:"code_bytes"`
}

type fuelUse struct {
	Min   uint64  `json:"min"`
	Max   uint64  `json:"max"`
	Limit uint64  `json:"limit"`
	Share float64 `json:"share"` // of the limit, by the dearest vector
}

type callsTaken struct {
	P50 int64 `json:"p50"`
	P99 int64 `json:"p99"`
	N   int   `json:"n"`
}

// figuresOf measures a package that was built: its admission once, and a few
// hundred decisions on its vectors' requests.
func (h *host) figuresOf(ctx context.Context, b *compiler.Built) (*figures, error) {
	f := &figures{Size: b.Size, DataBytes: len(b.Package.Data), Fuel: fuelUsed(b), Instructions: b.Report.CodeBytes}
	if err := f.admit(ctx, b); err != nil {
		return nil, err
	}
	questions, err := h.vectorQuestions(ctx, b.Package, &benchFlags{})
	if err != nil || len(questions) == 0 {
		return f, err
	}
	m, err := measure(ctx, questions, buildCalls)
	if err != nil {
		return nil, err
	}
	f.Latency = &callsTaken{m.LatencyNS.P50, m.LatencyNS.P99, m.N}
	f.MemoryBytes = m.MemoryBytes
	return f, nil
}

// admit opens the package as a node does that never saw it.
func (f *figures) admit(ctx context.Context, b *compiler.Built) error {
	cold, err := loader.OpenHost(ctx, engine.Config{Worker: engine.Self()})
	if err != nil {
		return err
	}
	defer cold.Close(context.Background())
	began := time.Now()
	m, err := cold.Open(ctx, b.Package)
	if err != nil {
		return authorError(err)
	}
	f.AdmissionMS = float64(time.Since(began)) / float64(time.Millisecond)
	f.MemoryBytes = m.Stats().MemoryBytes
	return nil
}

// fuelUsed is the range over the vectors that expect an answer; nil without any.
func fuelUsed(b *compiler.Built) *fuelUse {
	use := &fuelUse{Min: ^uint64(0), Limit: b.Package.Fuel}
	if use.Limit == 0 {
		use.Limit = abi.DefaultFuel
	}
	for i, r := range b.Vectors {
		if b.Package.Vectors[i].Expect.Trap == "" {
			use.Min, use.Max = min(use.Min, r.Fuel), max(use.Max, r.Fuel)
		}
	}
	if use.Min > use.Max {
		return nil
	}
	use.Share = float64(use.Max) / float64(use.Limit)
	return use
}

func (e *env) printFigures(f *figures) {
	if f.Fuel != nil {
		fmt.Fprintf(e.stdout, "  fuel     %d to %d units a decision, of %d (%.1f %%)\n", f.Fuel.Min, f.Fuel.Max, f.Fuel.Limit, 100*f.Fuel.Share)
	}
	if f.Latency != nil {
		fmt.Fprintf(e.stdout, "  latency  p50 %v from request to decision, here and now (%d calls)\n", time.Duration(f.Latency.P50).Round(100*time.Nanosecond), f.Latency.N)
	}
	fmt.Fprintf(e.stdout, "  memory   %d KiB an instance\n", (f.MemoryBytes+1023)>>10)
	fmt.Fprintf(e.stdout, "  admitted in %.0f ms, here and now, nothing kept from before\n", f.AdmissionMS)
}
