package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// BenchmarkAdmit admits a language runtime: here, in a worker, and from the
// cache. peak-MiB is how far the resident memory of this process rises.
func BenchmarkAdmit(b *testing.B) {
	guard := readFile(b, "../../modules/argument-guard/argument-guard.wasm")
	for name, module := range map[string][]byte{"argument-guard": guard, "straight": large(2300, false)} {
		spec := engine.Spec{Name: name, Wasm: module, ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime}
		config := engine.Config{Worker: engine.Self(), Cache: filepath.Join(b.TempDir(), "compiled")}
		run := func(how string, config engine.Config, before func() error) {
			b.Run(fmt.Sprintf("%s/bytes=%d/%s", name, len(module), how), func(b *testing.B) {
				var peak int
				for b.Loop() {
					if err := before(); err != nil {
						b.Fatal(err)
					}
					peak = max(peak, admit(b, config, spec))
				}
				b.ReportMetric(float64(peak)/1024, "peak-MiB")
			})
		}
		nothing := func() error { return nil }
		run("in-process", engine.Config{}, nothing)
		run("cold", config, func() error { return os.RemoveAll(config.Cache) })
		run("warm", config, nothing)
	}
}

// admit returns by how many KiB the resident memory rose at most.
func admit(b *testing.B, config engine.Config, spec engine.Spec) int {
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal("the kernel does not reset the peak:", err)
	}
	before := kibibytes(b, "VmRSS:")
	e, err := engine.New(context.Background(), config)
	if err != nil {
		b.Fatal(err)
	}
	m, err := e.Load(context.Background(), spec)
	if err != nil {
		b.Fatal(err)
	}
	peak := kibibytes(b, "VmHWM:")
	if err := m.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	if err := e.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	return peak - before
}

// kibibytes reads a line of this process's status.
func kibibytes(b *testing.B, line string) (n int) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), line)
	if _, err := fmt.Sscan(after, &n); err != nil {
		b.Fatal(err)
	}
	return n
}
