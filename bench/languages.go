package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/compiler/toolchain"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/guest"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// modulesOf is where the committed modules of the guest languages are.
var modulesOf = filepath.Join("sdk", "guest")

// An entrant is one example policy in one language.
type entrant struct {
	language guest.Language
	example  string
	lines    int // of its source, without empty ones
	pkg      *bundle.Package
	build    time.Duration // 0: the toolchain is not here
	module   *engine.Module
	codec    codec.Codec
	requests []*policy.Request
	fuel     [2]uint64 // least and most
	calls    series
	admitted sample // one a round
}

// languages compares the same three policies in every language. All take turns
// in every round; the modules are the committed ones.
func (b *bench) languages(ctx context.Context) error {
	host, err := loader.NewHost(ctx)
	if err != nil {
		return err
	}
	defer host.Close(context.Background())
	all, err := entrants(ctx, host)
	if err != nil {
		return err
	}
	for range b.rounds {
		for _, e := range all {
			if err := e.round(ctx); err != nil {
				return fmt.Errorf("%s in %s: %w", e.example, e.language.Title, err)
			}
		}
	}
	b.printLanguages(all)
	return b.writeLanguages(all)
}

func entrants(ctx context.Context, host *loader.Host) (all []*entrant, err error) {
	for _, example := range guest.Examples() {
		for _, l := range guest.Languages() {
			if !slices.Contains(l.Examples(), example) {
				continue
			}
			e := &entrant{language: l, example: example}
			if err := e.prepare(ctx, host); err != nil {
				return nil, fmt.Errorf("%s in %s: %w", example, l.Title, err)
			}
			all = append(all, e)
		}
	}
	return all, nil
}

// prepare packs the committed module with the project's vectors, which it must
// pass, and builds the project from its source where the toolchain is.
func (e *entrant) prepare(ctx context.Context, host *loader.Host) error {
	project, err := e.language.Project(e.example, e.example)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(project[e.language.Source])) {
		if strings.TrimSpace(line) != "" {
			e.lines++
		}
	}
	if e.build, err = buildTime(ctx, project); err != nil {
		return err
	}
	fsys := fstest.MapFS{}
	needsToolchain := e.language.Install != "" // and then a module is committed
	if needsToolchain {
		module, err := os.ReadFile(filepath.Join(modulesOf, filepath.FromSlash(e.language.Module(e.example))))
		if err != nil {
			return err
		}
		fsys["policy.wasm"] = &fstest.MapFile{Data: module}
	}
	for name, data := range project {
		fsys[name] = &fstest.MapFile{Data: data}
	}
	built, err := compiler.BuildFS(ctx, fsys, compiler.Options{Loader: host, Prebuilt: needsToolchain})
	if err != nil {
		return err
	}
	e.pkg = built.Package
	return e.open(ctx, host, built)
}

// open makes the module ready and reads the requests of the vectors that answer
// and want no parameters of their own.
func (e *entrant) open(ctx context.Context, host *loader.Host, built *compiler.Built) (err error) {
	if e.module, err = host.Open(ctx, e.pkg); err != nil {
		return err
	}
	if e.codec, err = codec.For(abi.Kind(e.pkg.ABI)); err != nil {
		return err
	}
	e.fuel[0] = ^uint64(0)
	for i, v := range e.pkg.Vectors {
		if v.Expect.Trap != "" || len(v.Params) > 0 {
			continue
		}
		req, err := policy.ParseRequest(v.Point, v.Request)
		if err != nil {
			return err
		}
		e.requests = append(e.requests, req)
		e.fuel[0], e.fuel[1] = min(e.fuel[0], built.Vectors[i].Fuel), max(e.fuel[1], built.Vectors[i].Fuel)
	}
	if len(e.requests) == 0 {
		return errors.New("no vector to ask")
	}
	return nil
}

// opens is a Loader for builds without vectors: it runs nothing.
type opens struct{}

func (opens) Load(context.Context, *bundle.Package) (abi.Module, int32, error) { return nil, 0, nil }

// buildTime builds the project twice in a folder of its own and returns what the
// second build took, so that what a toolchain compiles once does not count; 0
// when the toolchain is not on this machine.
func buildTime(ctx context.Context, project map[string][]byte) (took time.Duration, err error) {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	for name, data := range project {
		if name == "vectors.yaml" {
			continue
		}
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, data, 0o600)); err != nil {
			return 0, err
		}
	}
	for range 2 {
		began := time.Now()
		_, err := compiler.Build(ctx, dir, compiler.Options{Loader: opens{}})
		var missing *toolchain.MissingError
		if errors.As(err, &missing) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		took = time.Since(began)
	}
	return took, nil
}

// round times decisions, and one admission with nothing kept from before.
func (e *entrant) round(ctx context.Context) error {
	n := 0
	s, err := timed(calls, func() error { n++; return e.decide(e.requests[n%len(e.requests)]) })
	if err != nil {
		return err
	}
	e.calls = append(e.calls, s)
	cold, err := loader.NewHost(ctx)
	if err != nil {
		return err
	}
	defer cold.Close(context.Background())
	began := time.Now()
	if _, err := cold.Open(ctx, e.pkg); err != nil {
		return err
	}
	e.admitted = append(e.admitted, time.Since(began))
	return nil
}

// decide is one isolated, metered decision: the request is encoded, and the
// answer decoded.
func (e *entrant) decide(r *policy.Request) error {
	input, err := e.codec.Encode(r)
	if err != nil {
		return err
	}
	res, err := e.module.Call(abi.Call{Input: input, Fuel: e.pkg.Fuel, Now: 1_767_225_600_000_000_000})
	if err != nil {
		return err
	}
	_, err = e.codec.Decode(res.Output)
	return err
}

func (b *bench) printLanguages(all []*entrant) {
	b.line("\nThe same policy in every language. Decisions: from the parsed request to the decision, CBOR both ways, isolated and metered, %d a round over the golden vectors.", calls)
	b.line("Admission: scan, rewrite, compile, initialise, in this process and with nothing kept from before. Build: the second one, from source to admitted package.")
	example := ""
	for _, e := range all {
		if e.example != example {
			example = e.example
			b.line("\n  %-15s %6s %9s %9s %9s %8s %8s %17s %7s", example, "lines", "module B", "build ms", "admit ms", "p50 us", "p99 us", "fuel", "KiB")
		}
		build := "-"
		if e.build > 0 {
			build = fmt.Sprintf("%.0f", ms(e.build))
		}
		b.line("  %-15s %6d %9d %9s %9.1f %8.2f %8.2f %17s %7d", e.language.Title, e.lines, len(e.pkg.Module), build, ms(e.admitted.q(0.5)),
			us(e.calls.median(0.5)), us(e.calls.median(0.99)), fmt.Sprintf("%d-%d", e.fuel[0], e.fuel[1]), e.module.Stats().MemoryBytes>>10)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// writeLanguages keeps every round for benchstat.
func (b *bench) writeLanguages(all []*entrant) error {
	var out strings.Builder
	fmt.Fprintf(&out, "goos: %s\ngoarch: %s\n", runtime.GOOS, runtime.GOARCH)
	for _, e := range all {
		for n := range e.calls {
			fmt.Fprintf(&out, "BenchmarkLanguages/%s/%s \t %d\t %d p50-ns\t %d p99-ns\t %d admit-ns\n",
				e.language.Name, e.example, calls, e.calls[n].q(0.5), e.calls[n].q(0.99), e.admitted[n])
		}
	}
	name := fmt.Sprintf("%s-%s-%s-languages.txt", time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH)
	return os.WriteFile(filepath.Join(b.results, name), []byte(out.String()), 0o644)
}
