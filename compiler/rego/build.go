package rego

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/holdfast-policy/holdfast/compiler/rego/backend"
)

// wasm compiles with OPA's compiler, either to Wasm or to its plan, which the
// back end of this project then compiles.
func (s *source) wasm(ctx context.Context, entrypoints []string) ([]byte, error) {
	target := compile.TargetPlan
	if s.noIndex {
		target = compile.TargetWasm
	}
	out, err := s.build(ctx, target, entrypoints)
	if err != nil {
		return nil, err
	}
	if s.noIndex {
		if len(out.WasmModules) != 1 {
			return nil, fmt.Errorf("OPA's compiler wrote %d modules, not one", len(out.WasmModules))
		}
		return out.WasmModules[0].Raw, nil
	}
	if len(out.PlanModules) != 1 {
		return nil, fmt.Errorf("OPA's compiler wrote %d plans, not one", len(out.PlanModules))
	}
	var plan ir.Policy
	if err := json.Unmarshal(out.PlanModules[0].Raw, &plan); err != nil {
		return nil, fmt.Errorf("OPA's plan: %w", err)
	}
	module, _, err := backend.Compile(ctx, &plan)
	return module, err
}

func (s *source) build(ctx context.Context, target string, entrypoints []string) (*bundle.Bundle, error) {
	b := &bundle.Bundle{Modules: s.modules, Data: s.data}
	b.SetRegoVersion(s.version)
	b.Manifest.Init()
	c := compile.New().WithTarget(target).WithRegoVersion(s.version).
		WithCapabilities(ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(s.version))).WithEntrypoints(entrypoints...).WithBundle(b)
	if err := c.Build(ctx); err != nil {
		return nil, positioned(err)
	}
	return c.Bundle(), nil
}
