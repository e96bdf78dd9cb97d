package guest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/abi/conformance"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/guest"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/vectors"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// TestMain lets the test binary be its own compile worker, as a node's is.
func TestMain(m *testing.M) {
	engine.Worker()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "holdfast-guest-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		codeDir = filepath.Join(dir, "code")
		return m.Run()
	}())
}

// codeDir has the compiled modules of this run; TestMain sets it.
var codeDir string

// proofHost opens packages as a node does: admitted and compiled in a child.
func proofHost(t *testing.T) *loader.Host {
	t.Helper()
	h, err := loader.OpenHost(t.Context(), engine.Config{Worker: engine.Self(), Cache: codeDir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(context.Background()) })
	return h
}

// committed is the package of a project with the committed module in the place of
// a compiler's; a language that needs no toolchain is compiled, and commits none. Its
// golden vectors have passed.
func committed(t *testing.T, h *loader.Host, l guest.Language, example string) *bundle.Package {
	t.Helper()
	files, err := l.Project(example, example)
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{}
	needsToolchain := l.Install != ""
	if needsToolchain {
		module, err := os.ReadFile(l.Module(example))
		if err != nil {
			t.Fatalf("%s has no module of %s: %v; make guests", l.Name, example, err)
		}
		fsys["policy.wasm"] = &fstest.MapFile{Data: module}
	}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: text}
	}
	built, err := compiler.BuildFS(t.Context(), fsys, compiler.Options{Loader: h, Prebuilt: needsToolchain})
	if err != nil {
		t.Fatalf("%s, %s: %v", l.Name, example, err)
	}
	return built.Package
}

// A speaker is one language's module of one example, with one set of parameters.
type speaker struct {
	language string
	module   abi.Module
}

// speakers loads an example with the parameters in every language that has it,
// Go first.
func speakers(t *testing.T, packages map[string]*bundle.Package, h *loader.Host, params map[string]any) []speaker {
	t.Helper()
	var out []speaker
	for _, l := range guest.Languages() {
		pkg, ok := packages[l.Name]
		if !ok {
			continue
		}
		with := *pkg
		with.Params = pkg.Merged(params)
		m, _, err := h.Load(t.Context(), &with)
		if err != nil {
			t.Fatalf("%s with %v: %v", l.Name, params, err)
		}
		out = append(out, speaker{l.Name, m})
	}
	slices.SortStableFunc(out, func(a, b speaker) int { return order(a) - order(b) })
	return out
}

func order(s speaker) int {
	if s.language == "go" {
		return 0
	}
	return 1
}

// said is all that a request came to, but for the fuel.
type said struct {
	output []byte
	logs   []abi.Log
	trap   string
}

func (s said) equal(o said) bool {
	return bytes.Equal(s.output, o.output) && slices.Equal(s.logs, o.logs) && s.trap == o.trap
}

func (s said) String() string {
	return fmt.Sprintf("%.400q, logs %.200q, trap %q", s.output, s.logs, s.trap)
}

// ask gives all fuel that there is: how much is needed differs, what is answered
// must not.
func (s speaker) ask(input []byte, now int64) (said, uint64) {
	res, err := s.module.Call(abi.Call{Input: input, Fuel: abi.MaxFuel, Now: now})
	if trap, ok := errors.AsType[*abi.Trap](err); ok {
		return said{trap: string(trap.Code)}, trap.Fuel
	}
	if err != nil {
		return said{trap: err.Error()}, 0
	}
	return said{output: res.Output, logs: res.Logs}, res.Fuel
}

// generated is how many requests are made for each set of parameters.
var generated = flag.Int("requests", 400, "requests made for each set of parameters in TestOneAnswer")

// TestOneAnswer is the proof that a policy means the same in every language. It
// compares all languages that guest.Languages has, with every example that each
// has: the golden vectors, and requests that are made of them. All must answer the
// bytes of Go's module, log what it logs, use the same fuel when asked again, and
// Go's must answer what the slow, obvious oracle does.
func TestOneAnswer(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	h := proofHost(t)
	for _, example := range guest.Examples() {
		packages := map[string]*bundle.Package{}
		for _, l := range guest.Languages() {
			if slices.Contains(l.Examples(), example) {
				packages[l.Name] = committed(t, h, l, example)
			}
		}
		for n, params := range variants[example] {
			all := speakers(t, packages, h, params)
			asked := proof{t: t, example: example, all: all, rules: newRules(packages["go"], params), random: rand.New(rand.NewPCG(seed, uint64(n)))}
			asked.vectors(packages["go"].Vectors)
			if n == 0 {
				asked.swept()
			}
			asked.generated(packages["go"].Vectors)
			asked.report(params)
		}
	}
}

// A proof asks all languages the same and compares.
type proof struct {
	t       *testing.T
	example string
	all     []speaker
	rules   rules
	random  *rand.Rand

	answered map[string]int // by verdict and code
	asked    int
	failures int
}

// vectors asks each language the requests of all vectors, whatever they expect:
// the parameters may be others.
func (p *proof) vectors(list []bundle.Vector) {
	for _, v := range list {
		p.ask(v.Request, vectors.Now)
	}
}

// swept puts every odd value in every place that the example looks at.
func (p *proof) swept() {
	maker := newMaker(p.t, p.random, nil)
	for _, place := range places[p.example] {
		for _, v := range maker.values {
			p.ask(maker.with(full[p.example], place, v), vectors.Now)
		}
	}
}

func (p *proof) generated(list []bundle.Vector) {
	maker := newMaker(p.t, p.random, list)
	enough := p.asked + *generated
	for tries := 0; p.asked < enough && tries < 10**generated; tries++ {
		p.ask(maker.request(), maker.instant())
	}
}

// ask compares what all say to one request.
func (p *proof) ask(body []byte, now int64) {
	req, err := policy.ParseRequest(policy.PointPreCall, body)
	if err != nil {
		return // a changed request may be none
	}
	p.asked++
	c, err := codec.For(abi.HoldfastV1)
	if err != nil {
		p.t.Fatal(err)
	}
	input, err := c.Encode(req)
	if err != nil {
		p.t.Fatal(err)
	}
	var first said
	for i, s := range p.all {
		got, fuel := s.ask(input, now)
		if p.asked%4 == 0 {
			p.again(s, body, input, now, got, fuel)
		}
		if i == 0 {
			first = got
			p.oracle(c, body, now, req, got)
		} else if !got.equal(first) {
			p.fail(body, now, "%s: %s\n%s: %s", p.all[0].language, first, s.language, got)
		}
	}
}

// again asks once more: neither the answer nor the fuel may depend on what was
// asked before.
func (p *proof) again(s speaker, body, input []byte, now int64, before said, units uint64) {
	got, fuel := s.ask(input, now)
	if !got.equal(before) || fuel != units {
		p.fail(body, now, "%s: %s with %d units, again %s with %d", s.language, before, units, got, fuel)
	}
}

// oracle holds Go's answer against the obvious one and counts it.
func (p *proof) oracle(c codec.Codec, body []byte, now int64, req *policy.Request, got said) {
	want := p.rules.decide(req, now)
	if !got.equal(want) {
		p.fail(body, now, "oracle: %s\n%s: %s", want, p.all[0].language, got)
	}
	if d, err := c.Decode(got.output); err == nil && len(d.Reasons) == 1 {
		if p.answered == nil {
			p.answered = map[string]int{}
		}
		p.answered[fmt.Sprintf("%v %s", d.Verdict, d.Reasons[0].Code)]++
	}
}

// fail reports a difference, and ends the test when there are many.
func (p *proof) fail(body []byte, now int64, format string, args ...any) {
	p.t.Errorf("%s, now %d, %.600s:\n%s", p.example, now, body, fmt.Sprintf(format, args...))
	if p.failures++; p.failures == 10 {
		p.t.FailNow()
	}
}

// report says what was compared, and fails when that was next to nothing.
func (p *proof) report(params map[string]any) {
	var names []string
	for _, s := range p.all {
		names = append(names, s.language)
	}
	with, err := json.Marshal(params)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("%s with %.100s: %q agree on %d requests: %v", p.example, with, names, p.asked, p.answered)
	if p.asked < *generated {
		p.t.Errorf("%s: only %d requests", p.example, p.asked)
	}
}

// TestAllReasonsAreReached: with the package's own parameters the generated
// requests reach every line of the tables in examples/README.md.
func TestAllReasonsAreReached(t *testing.T) {
	h := proofHost(t)
	for _, example := range guest.Examples() {
		l, _ := guest.Find("go")
		pkg := committed(t, h, l, example)
		r, reached := newRules(pkg, nil), map[string]bool{}
		maker := newMaker(t, rand.New(rand.NewPCG(1, 2)), pkg.Vectors)
		for range 2400 {
			if req, err := policy.ParseRequest(policy.PointPreCall, maker.request()); err == nil {
				reached[reasonOf(t, r.decide(req, maker.instant()))] = true
			}
		}
		for _, reason := range lines[example] {
			if !reached[reason] {
				t.Errorf("%s: no generated request reaches %q", example, reason)
			}
		}
	}
}

// TestConfigureRefuses: what an example cannot work with does not load, in any
// language.
func TestConfigureRefuses(t *testing.T) {
	h := proofHost(t)
	for _, l := range guest.Languages() {
		for _, example := range l.Examples() {
			pkg := committed(t, h, l, example)
			for _, bad := range refused[example] {
				with := *pkg
				with.Params = pkg.Merged(bad.params)
				if bad.data != "" {
					with.Data = []byte(bad.data)
				}
				for _, without := range bad.without {
					delete(with.Params, without)
				}
				_, _, err := h.Load(t.Context(), &with)
				if trap, ok := errors.AsType[*abi.Trap](err); !ok || trap.Code != abi.TrapRefused {
					t.Errorf("%s, %s with %v, data %s, without %v: %v", l.Name, example, bad.params, bad.data, bad.without, err)
				}
			}
		}
	}
}

// TestConformance holds the module that a newcomer gets, in every language,
// against the guest contract, on the compiler and on the interpreter.
func TestConformance(t *testing.T) {
	h := proofHost(t)
	for _, l := range guest.Languages() {
		t.Run(l.Name, func(t *testing.T) {
			pkg := committed(t, h, l, guest.DefaultExample)
			g := guestOf(t, pkg)
			var err error
			if g.Class, err = wasm.ParseClass(pkg.Class); err != nil {
				t.Fatal(err)
			}
			report := conformance.CheckGuest(t.Context(), kitHosts(t), g)
			if err := report.Err(); err != nil || len(report) < 30 {
				t.Errorf("%d cases, %v", len(report), err)
			}
		})
	}
}
