// Package backend compiles OPA's plan to Wasm. Unlike OPA's own back end it
// finds the rules of a document by the constants that they compare the input
// with, stops at the first value where no other can differ, and reads arrays by
// position. The module has OPA's ABI and links OPA's Wasm library, which is cut
// out of a module that OPA's compiler writes.
package backend

import (
	"context"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ir"
)

// Compile returns the module of a plan, which it changes, and what its index does. The same plan
// gives the same bytes. An error is about OPA's plan or library having changed,
// not about the policy.
func Compile(ctx context.Context, plan *ir.Policy) ([]byte, *Report, error) {
	plain(plan)
	lib, err := loadLibrary(ctx, plan.Static.BuiltinFuncs)
	if err != nil {
		return nil, nil, err
	}
	l := newLinker(lib, plan)
	module, err := l.link()
	if err != nil {
		return nil, nil, fmt.Errorf("plan to Wasm: %w", err)
	}
	return module, l.report, nil
}

// function writes one planned function.
func (l *linker) function(f *ir.Func) {
	e := l.newEmitter(f.Params, uint32(len(f.Params)))
	ret := e.of(f.Return)
	index := l.functions[f.Name]
	memoize := len(f.Params) == 2
	if memoize {
		e.i32(index)
		e.invoke("opa_memoize_get")
		e.tee(ret)
		e.ifElse(func() { e.get(ret); e.op(opReturn) }, nil)
	}
	if s, ok := shapeOf(f); ok {
		l.shaped(e, f, s)
	} else if n := len(f.Blocks); n > 0 && returns(f.Blocks[n-1], f.Return) {
		e.blocks(f.Blocks[:n-1])
	} else {
		l.errs = append(l.errs, fmt.Errorf("function %s does not end in its return", f.Name))
	}
	if memoize {
		e.i32(index)
		e.get(ret)
		e.invoke("opa_memoize_insert")
	}
	e.get(ret)
	l.define(index, e.finish())
}

func (l *linker) shaped(e *emitter, f *ir.Func, s *shape) {
	set := l.newRuleSet(s)
	e.steady = set.steady
	all := make([]int, len(s.rules))
	for i := range all {
		all[i] = i
	}
	l.report.begin(strings.Join(f.Path[1:], "."), len(all), set.constant)
	n := l.arrange(set.tests, all, nil, minIndexed)
	for _, s := range n.selectors {
		l.report.selector(s.path.describe(l.policy, f.Params), s.rules, len(s.cases))
	}
	l.report.others(len(n.others))
	e.blocks(s.prepare)
	e.block(func(done uint32) { set.node(e, n, map[path]bool{}, done) })
	e.blocks(s.rest)
}
