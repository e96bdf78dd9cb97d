package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/abi/conformance"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// conformanceHost is one of our engines as the kit wants it.
type conformanceHost struct {
	engine *engine.Engine
	opened []*engine.Module
}

func newConformanceHost(ctx context.Context, interpreter bool) (*conformanceHost, error) {
	e, err := engine.New(ctx, engine.Config{Interpreter: interpreter})
	return &conformanceHost{engine: e}, err
}

func (h *conformanceHost) Load(ctx context.Context, g conformance.Guest) (abi.Module, error) {
	m, err := h.open(ctx, g)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// open loads a guest that stays open until close.
func (h *conformanceHost) open(ctx context.Context, g conformance.Guest) (*engine.Module, error) {
	m, err := h.engine.Load(ctx, engine.Spec{Name: g.Name, Wasm: g.Wasm, ABI: g.ABI, Class: g.Class, Init: g.Init, Patterns: g.Patterns, Pool: 1})
	if err == nil {
		h.opened = append(h.opened, m)
	}
	return m, err
}

func (h *conformanceHost) close(ctx context.Context) {
	for _, m := range h.opened {
		m.Close(ctx)
	}
	h.engine.Close(ctx)
}

// testConformance checks a module against the guest contract, on the compiler
// and on the interpreter.
func (e *env) testConformance(c *cobra.Command, path string, asJSON bool) error {
	guest, err := conformanceGuest(c.Context(), path)
	if err != nil {
		return err
	}
	var hosts []conformance.Host
	for _, interpreter := range []bool{false, true} {
		h, err := newConformanceHost(c.Context(), interpreter)
		if err != nil {
			return err
		}
		defer h.close(context.Background())
		hosts = append(hosts, h)
	}
	report := conformance.CheckGuest(c.Context(), hosts, guest)
	if asJSON {
		err = e.printJSON(conformanceJSON(report))
	} else {
		e.printConformance(report)
	}
	if missing := len(report.Missing()); err == nil && missing > 0 {
		err = checkFailed("%s: %d of %d cases do not hold", path, missing, len(report))
	}
	return err
}

// conformanceGuest takes a bare module under the narrowest class that admits it,
// or the module of a package with its parameters and data.
func conformanceGuest(ctx context.Context, path string) (conformance.Guest, error) {
	if strings.HasSuffix(path, ".wasm") {
		raw, err := os.ReadFile(path)
		g := conformance.Guest{Name: path, Wasm: raw, ABI: abi.HoldfastV1, Class: wasm.LanguageRuntime}
		if report, _ := narrowest(raw); report != nil {
			g.ABI, g.Class = report.ABI, report.Class
		}
		return g, err
	}
	h, err := newHost(ctx)
	if err != nil {
		return conformance.Guest{}, err
	}
	defer h.Close(ctx)
	pkg, _, err := h.openPackage(ctx, path, nil)
	if err != nil {
		return conformance.Guest{}, err
	}
	return guestOf(pkg)
}

// guestOf is a package's module with the package's own parameters and data.
func guestOf(pkg *bundle.Package) (g conformance.Guest, err error) {
	g = conformance.Guest{Name: pkg.Name, Wasm: pkg.Module, ABI: abi.Kind(pkg.ABI), Patterns: pkg.Patterns}
	if g.Class, err = wasm.ParseClass(pkg.Class); err != nil {
		return g, err
	}
	speaks, err := codec.For(g.ABI)
	if err != nil {
		return g, err
	}
	g.Init, err = speaks.Init(pkg.Params, pkg.Data)
	return g, err
}

func conformanceJSON(report conformance.Report) map[string]any {
	cases := make([]map[string]any, 0, len(report))
	for _, r := range report {
		cases = append(cases, map[string]any{"case": r.Case, "held": r.Held(), "expected": r.Expected, "missing": r.Missing, "advice": r.Advice})
	}
	failed := len(report.Missing())
	return map[string]any{"held": len(report) - failed, "missing": failed, "cases": cases}
}

func (e *env) printConformance(report conformance.Report) {
	for _, r := range report {
		if r.Held() {
			fmt.Fprintf(e.stdout, "ok       %s\n", r.Case)
		} else {
			fmt.Fprintf(e.stdout, "MISSING  %s\n           wanted  %s\n           came    %s\n           do      %s\n", r.Case, r.Expected, r.Missing, r.Advice)
		}
	}
}
