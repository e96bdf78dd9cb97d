package backend

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ir"
)

// Bounds of the index.
const (
	minIndexed = 3      // rules that test the same path: below, a look-up costs more than the tests
	minChain   = 4      // the same for the bodies of one else chain
	maxAny     = 256    // constants that one rule compares a path with
	maxCases   = 16_384 // constants of all tables of a module
	maxInline  = 16     // rules that stand in the function itself
)

// selector is a look-up: the rules by the constant that they want at a path.
type selector struct {
	path  path
	cases []choice
	rules int // that the look-up decides about
}

// choice are the rules that want one constant, in their order.
type choice struct {
	constant constant
	rules    []int
}

// node says which rules to try: those that the selectors find, and the others.
type node struct {
	selectors []selector
	others    []int
}

// guarded are the tests of each rule, by path.
type guarded []map[path][]constant

// arrange puts rules under as few look-ups as possible: each time under the path
// that most of the rest test. A rule stands under one path only.
func (l *linker) arrange(tests guarded, rules []int, used map[path]bool, least int) node {
	var n node
	for {
		best, count := popular(tests, rules, used)
		if count < least {
			break
		}
		s, rest := split(tests, rules, best)
		if l.cases += len(s.cases); l.cases > maxCases {
			break
		}
		n.selectors = append(n.selectors, s)
		rules = rest
	}
	n.others = rules
	return n
}

// popular returns the path that most rules test, the first in order of several.
func popular(tests guarded, rules []int, used map[path]bool) (best path, count int) {
	counts := map[path]int{}
	for _, r := range rules {
		for p, any := range tests[r] {
			if !used[p] && len(any) <= maxAny {
				counts[p]++
			}
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(counts), comparePaths) {
		if counts[p] > count {
			best, count = p, counts[p]
		}
	}
	return best, count
}

func comparePaths(a, b path) int {
	return cmp.Or(cmp.Compare(a.root, b.root), cmp.Compare(a.keys, b.keys))
}

func split(tests guarded, rules []int, p path) (s selector, rest []int) {
	s.path = p
	at := map[constant]int{}
	for _, r := range rules {
		any, ok := tests[r][p]
		if !ok || len(any) > maxAny {
			rest = append(rest, r)
			continue
		}
		s.rules++
		for _, c := range any {
			s.put(at, c, r)
		}
	}
	return s, rest
}

func (s *selector) put(at map[constant]int, c constant, rule int) {
	key := constant{kind: c.kind, text: c.text}
	i, ok := at[key]
	if !ok {
		i = len(s.cases)
		at[key] = i
		s.cases = append(s.cases, choice{constant: c})
	}
	if list := s.cases[i].rules; len(list) == 0 || list[len(list)-1] != rule {
		s.cases[i].rules = append(list, rule)
	}
}

// ruleSet writes the rules of one function.
type ruleSet struct {
	*linker
	shape    *shape
	tests    guarded
	constant bool
	steady   map[ir.Local]bool
	tries    map[string]uint32 // functions that try rules, by their numbers
}

func (l *linker) newRuleSet(s *shape) *ruleSet {
	set := &ruleSet{linker: l, shape: s, constant: s.constant(), steady: s.steady(), tries: map[string]uint32{}}
	for _, r := range s.rules {
		set.tests = append(set.tests, set.guards(r))
	}
	return set
}

// guards are the tests of a rule: of a chain those that every body has, with the
// constants of all.
func (set *ruleSet) guards(r rule) map[path][]constant {
	all := guardsOf(set.policy, set.shape, r.bodies[0])
	for _, b := range r.bodies[1:] {
		more := guardsOf(set.policy, set.shape, b)
		for p := range all {
			if any, ok := more[p]; ok {
				all[p] = append(all[p][:len(all[p]):len(all[p])], any...)
			} else {
				delete(all, p)
			}
		}
	}
	return all
}

// emitter makes one whose function takes the parameters and one more local,
// which it returns.
func (set *ruleSet) emitter(carried ir.Local) *emitter {
	params := append(slices.Clone(set.shape.params), carried)
	e := set.newEmitter(params, uint32(len(params)))
	e.steady = set.steady
	return e
}

// ruleFunction is a function that tries one rule.
func (set *ruleSet) ruleFunction(r int) uint32 {
	return set.once(fmt.Sprint("rule ", r), set.shape.ret, func(e *emitter) { set.rule(e, r) })
}

// once makes the function of a key once.
func (set *ruleSet) once(key string, carried ir.Local, write func(*emitter)) uint32 {
	index, ok := set.tries[key]
	if ok {
		return index
	}
	index = set.declare(len(set.shape.params) + 1)
	set.tries[key] = index
	e := set.emitter(carried)
	write(e)
	e.get(e.of(carried))
	set.define(index, e.finish())
	return index
}

// nodeFunction is a function that tries what a node says.
func (set *ruleSet) nodeFunction(rules []int, used map[path]bool) uint32 {
	if len(rules) == 1 {
		return set.ruleFunction(rules[0])
	}
	return set.once(fmt.Sprint("rules ", rules), set.shape.ret, func(e *emitter) {
		n := set.arrange(set.tests, rules, used, minIndexed)
		e.block(func(done uint32) { set.node(e, n, used, done) })
	})
}

// node tries the rules of a node.
func (set *ruleSet) node(e *emitter, n node, used map[path]bool, done uint32) {
	for _, s := range n.selectors {
		set.selector(e, s, used)
		set.leave(e, done)
	}
	for _, r := range n.others {
		if len(n.others) > maxInline {
			set.try(e, set.ruleFunction(r), set.shape.ret)
		} else {
			set.rule(e, r)
		}
		set.leave(e, done)
	}
}

// leave goes on behind all rules when there is a value that no other can differ from.
func (set *ruleSet) leave(e *emitter, done uint32) {
	if set.constant {
		e.get(e.of(set.shape.ret))
		e.brIfTo(done)
	}
}

// try calls a function with the parameters and a local that it returns.
func (set *ruleSet) try(e *emitter, function uint32, carried ir.Local) {
	set.arguments(e, carried)
	e.call(function)
	e.set(e.of(carried))
}

func (set *ruleSet) arguments(e *emitter, carried ir.Local) {
	for _, p := range set.shape.params {
		e.get(e.of(p))
	}
	e.get(e.of(carried))
}

// selector looks up the value at a path and calls the function of its rules.
func (set *ruleSet) selector(e *emitter, s selector, used map[path]bool) {
	below := maps.Clone(used)
	below[s.path] = true
	t := caseTable{}
	for _, c := range s.cases {
		t.add(c.constant, set.slot(set.nodeFunction(c.rules, below)))
	}
	slot := e.local()
	e.block(func(uint32) {
		set.find(e, s.path, t, slot)
		set.arguments(e, set.shape.ret)
		e.get(slot)
		e.callIndirect(len(set.shape.params) + 1)
		e.set(e.of(set.shape.ret))
	})
}

// find sets slot to what a table says of the value at a path, or leaves the block.
func (set *ruleSet) find(e *emitter, p path, t caseTable, slot uint32) {
	at := e.local()
	e.get(e.of(p.root))
	e.tee(at)
	e.brIfZero(0)
	for _, key := range p.names() {
		e.get(at)
		e.i32(e.strings[key])
		e.invoke("opa_value_get")
		e.tee(at)
		e.brIfZero(0)
	}
	e.get(at)
	e.i32(set.placeTable(t))
	e.call(set.caseFinder())
	e.tee(slot)
	e.brIfZero(0)
}

// rule tries one rule. Where all rules give one constant, its value ends it.
func (set *ruleSet) rule(e *emitter, number int) {
	r := set.shape.rules[number]
	if !set.indexedChain(e, r) {
		for _, b := range r.bodies {
			set.body(e, b)
		}
	}
	if r.end != nil {
		e.blocks([]*ir.Block{r.end})
	}
}

func (set *ruleSet) body(e *emitter, b *ir.Block) {
	e.block(func(depth uint32) {
		if set.constant {
			e.exit = &exit{set.shape.result, depth}
		}
		e.stmts(b)
		e.exit = nil
	})
}

// indexedChain tries the bodies of a long else chain, in their order, that the
// value at one path leaves in question.
func (set *ruleSet) indexedChain(e *emitter, r rule) bool {
	if r.end == nil || len(r.bodies) < minChain {
		return false
	}
	tests, all := make(guarded, len(r.bodies)), make([]int, len(r.bodies))
	for i, b := range r.bodies {
		tests[i], all[i] = guardsOf(set.policy, set.shape, b), i
	}
	best, count := popular(tests, all, nil)
	s, others := split(tests, all, best)
	if count < minChain || set.cases+len(s.cases)*(1+len(others)) > maxCases {
		return false
	}
	set.cases += len(s.cases) * (1 + len(others))
	set.report.chain(best.describe(set.policy, set.shape.params), count)
	set.chain(e, r, s, others)
	return true
}

func (set *ruleSet) chain(e *emitter, r rule, s selector, others []int) {
	t := caseTable{}
	for _, c := range s.cases {
		bodies := slices.Concat(c.rules, others)
		slices.Sort(bodies)
		t.add(c.constant, set.slot(set.chainFunction(r, bodies)))
	}
	slot, result := e.local(), e.of(set.shape.result)
	otherwise := uint32(0)
	if len(others) > 0 {
		otherwise = set.slot(set.chainFunction(r, others))
	}
	e.i32(0)
	e.set(result)
	e.block(func(done uint32) {
		e.block(func(uint32) {
			e.block(func(found uint32) {
				set.find(e, s.path, t, slot)
				e.brTo(found - 1)
			})
			e.i32(otherwise)
			e.tee(slot)
			e.op(opI32Eqz)
			e.brIfTo(done)
		})
		set.arguments(e, set.shape.result)
		e.get(slot)
		e.callIndirect(len(set.shape.params) + 1)
		e.set(result)
	})
}

// chainFunction is a function that tries some bodies of a chain in order.
func (set *ruleSet) chainFunction(r rule, bodies []int) uint32 {
	key := fmt.Sprintf("chain %p %v", r.bodies[0], bodies)
	return set.once(key, set.shape.result, func(e *emitter) {
		e.block(func(done uint32) {
			for _, b := range bodies {
				set.try(e, set.bodyFunction(r.bodies[b]), set.shape.result)
				e.get(e.of(set.shape.result))
				e.brIfTo(done)
			}
		})
	})
}

func (set *ruleSet) bodyFunction(b *ir.Block) uint32 {
	return set.once(fmt.Sprintf("body %p", b), set.shape.result, func(e *emitter) { set.body(e, b) })
}
