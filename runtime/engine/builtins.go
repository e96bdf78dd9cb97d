package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// builtinByteFuel is what a built-in costs for each byte of its arguments and result.
const builtinByteFuel = 16

// builtin is one of OPA's functions that the host runs for a guest.
type builtin struct {
	name string
	run  topdown.BuiltinFunc
	fuel uint64 // of one call, beside its bytes
}

// refusedBuiltins says why a policy that uses one of these is not loaded.
var refusedBuiltins = map[string]string{
	"json.match_schema":     "a schema may name others, by network and by file",
	"json.verify_schema":    "a schema may name others, by network and by file",
	"graph.reachable_paths": "its work is not bounded by the length of its input",
	"http.send":             "policies do not reach the network",
	"net.lookup_ip_addr":    "policies do not reach the network",
	"net.cidr_expand":       "its work is not bounded by the length of its input",
	"numbers.range":         "its work is not bounded by the length of its input",
	"numbers.range_step":    "its work is not bounded by the length of its input",
	"rand.intn":             "its answer does not depend on the input alone",
	"opa.runtime":           "its answer does not depend on the input alone",
}

// resolveBuiltins finds the function of every built-in that a module asks for.
func resolveBuiltins(numbers map[string]int32) (map[int32]builtin, error) {
	resolved := make(map[int32]builtin, len(numbers))
	names := make([]string, 0, len(numbers))
	for name := range numbers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if reason, refused := refusedBuiltins[name]; refused {
			return nil, fmt.Errorf("built-in %s: %s", name, reason)
		}
		if nativeBuiltins[name] {
			return nil, fmt.Errorf("built-in %s: OPA's modules have it of their own", name)
		}
		run := topdown.GetBuiltin(name)
		if run == nil {
			return nil, fmt.Errorf("built-in %s: the host does not have it", name)
		}
		resolved[numbers[name]] = builtin{name: name, run: run, fuel: builtinFuel(name)}
	}
	return resolved, nil
}

// builtinFuel returns the price of one call by the family of the name.
func builtinFuel(name string) uint64 {
	family, _, _ := strings.Cut(name, ".")
	switch family {
	case "crypto", "io":
		return 100_000
	case "graphql", "rego", "yaml":
		return 20_000
	case "regex", "json":
		return 5_000
	}
	return 2_000
}

// builtinCall is what the built-ins of one call of the guest share.
type builtinCall struct {
	context topdown.BuiltinContext
	running bool
}

func (i *instance) builtinCall() *builtinCall {
	if i.builtins == nil {
		i.builtins = &builtinCall{context: topdown.BuiltinContext{
			Context: context.Background(),
			Metrics: metrics.New(),
			Seed:    i.randomSource(),
			Time:    ast.NumberTerm(json.Number(strconv.FormatInt(i.now, 10))),
			Cancel:  topdown.NewCancel(),
			Cache:   make(builtins.Cache),
		}}
	}
	return i.builtins
}

// opaBuiltin returns the import for built-ins of that many arguments: (id,
// reserved, arguments...) -> address of the result, 0 = undefined.
func opaBuiltin(arity int) hostFunction {
	return func(i *instance, stack []uint64) {
		call := i.builtinCall()
		if call.running {
			panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: "a built-in was called inside of another"})
		}
		call.running = true
		stack[0] = i.builtin(call, int32(stack[0]), stack[2:2+arity])
		call.running = false
	}
}

func (i *instance) builtin(call *builtinCall, number int32, arguments []uint64) uint64 {
	b, ok := i.module.opa.builtins[number]
	if !ok {
		panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: fmt.Sprintf("no built-in %d", number)})
	}
	i.charge(b.fuel)
	g := i.guest.(*opaGuest)
	terms := make([]*ast.Term, len(arguments))
	for n, at := range arguments {
		terms[n] = g.term(i, b.name, at)
	}
	if err := b.bounded(terms); err != nil {
		panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: b.name + ": " + err.Error()})
	}
	result, err := b.apply(call, terms)
	if err != nil {
		panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: b.name + ": " + err.Error()})
	}
	if result == nil {
		return 0
	}
	return g.value(i, result)
}

// maxBuiltinResult bounds, in bytes, what a built-in whose result can be much
// longer than its arguments may make.
const maxBuiltinResult = 1 << 20

// wide finds the verbs of sprintf that pad to a width or precision of their own.
var wide = regexp.MustCompile(`%[^%a-zA-Z]*(\*|\d{4,})`)

// bounded refuses a call whose result could be far longer than its arguments,
// before it is run: the fuel is charged for what there is only afterwards.
func (b *builtin) bounded(terms []*ast.Term) error {
	if err := boundedNumbers(terms); err != nil {
		return err
	}
	text := func(n int) string {
		if n < len(terms) {
			if s, ok := terms[n].Value.(ast.String); ok {
				return string(s)
			}
		}
		return ""
	}
	switch b.name {
	case "json.patch":
		if len(terms) > 1 {
			return boundedPatch(terms[1], len(terms[0].String()))
		}
	case "sprintf":
		if wide.MatchString(text(0)) {
			return errors.New("a width or precision of more than 999, or of an argument")
		}
	case "regex.replace": // (text, pattern, replacement)
		if (len(text(0))+1)*max(len(text(2)), 1) > maxBuiltinResult {
			return fmt.Errorf("the result could be longer than %d bytes", maxBuiltinResult)
		}
	}
	return nil
}

// apply runs the function. As in OPA, an error that does not halt the
// evaluation means that the result is undefined.
func (b *builtin) apply(call *builtinCall, terms []*ast.Term) (result *ast.Term, err error) {
	defer func() {
		if p := recover(); p != nil {
			result, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	err = b.run(call.context, terms, func(t *ast.Term) error {
		result = t
		return nil
	})
	if _, halted := errors.AsType[topdown.Halt](err); halted {
		return nil, err
	}
	return result, nil
}

// nested calls a function of the guest from within a host function. A trap in
// it ends the outer call too.
func (i *instance) nested(f api.Function, params ...uint64) uint64 {
	var stack [2]uint64
	copy(stack[:], params)
	if err := i.enter(f, stack[:]); err != nil {
		panic(i.trap(err))
	}
	return stack[0]
}

// term reads a value of the guest in OPA's syntax.
func (g *opaGuest) term(i *instance, name string, at uint64) *ast.Term {
	text, ok := i.text(i.nested(g.valueDump, at))
	if !ok {
		panic(&abi.Trap{Code: abi.TrapMemory, Detail: "argument of " + name})
	}
	i.charge(builtinByteFuel * uint64(len(text)))
	term, err := ast.ParseTerm(string(text))
	if err != nil {
		panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: name + ": argument: " + err.Error()})
	}
	return term
}

// value writes a term into the guest's heap and returns its address there.
func (g *opaGuest) value(i *instance, term *ast.Term) uint64 {
	text := term.String()
	i.charge(builtinByteFuel * uint64(len(text)))
	at := i.nested(g.malloc, uint64(len(text)))
	copy(i.buffer(at, uint64(len(text))), text)
	return i.nested(g.valueParse, at, uint64(len(text)))
}

func opaAbort(i *instance, stack []uint64) {
	text, _ := i.text(stack[0])
	panic(&abi.Trap{Code: abi.TrapAbort, Detail: string(text[:min(len(text), abi.MaxLogBytes)])})
}

func opaPrintln(i *instance, stack []uint64) {
	text, ok := i.text(stack[0])
	if !ok {
		panic(&abi.Trap{Code: abi.TrapMemory, Detail: "opa_println"})
	}
	i.charge(uint64(len(text)) >> hostByteShift)
	i.log(abi.LogInfo, text)
}
