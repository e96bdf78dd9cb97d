package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
	"github.com/open-policy-agent/opa/v1/topdown/print"

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
	// bound charges for work that the length of the arguments does not bound,
	// before it is done, and refuses what no fuel pays for; nil where it does.
	bound func(*instance, arguments) error
}

// arguments of one call, and how long each is in OPA's syntax.
type arguments struct {
	terms []*ast.Term
	bytes []uint64
}

// refusedBuiltins says why a policy that uses one of these is not loaded.
var refusedBuiltins = map[string]string{
	"http.send":          "policies do not reach the network",
	"net.lookup_ip_addr": "policies do not reach the network",
}

// RefusedBuiltins returns the names of the built-ins of OPA's that no policy
// may call, sorted.
func RefusedBuiltins() []string { return slices.Sorted(maps.Keys(refusedBuiltins)) }

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
		run := ownBuiltins[name]
		if run == nil {
			run = topdown.GetBuiltin(name)
		}
		if run == nil {
			return nil, fmt.Errorf("built-in %s: the host does not have it", name)
		}
		resolved[numbers[name]] = builtin{name: name, run: run, fuel: builtinFuel(name), bound: builtinBounds[name]}
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
			Context:      overContext(),
			Metrics:      metrics.New(),
			Seed:         i.randomSource(),
			Time:         ast.NumberTerm(json.Number(strconv.FormatInt(i.now, 10))),
			Cancel:       topdown.NewCancel(),
			Cache:        make(builtins.Cache),
			Capabilities: &ast.Capabilities{AllowNet: []string{}},
			PrintHook:    printHook{i},
		}}
	}
	return i.builtins
}

// overContext is one that was cancelled: nothing that asks it begins a request.
func overContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// printHook makes logs of what a policy prints.
type printHook struct{ instance *instance }

func (h printHook) Print(_ print.Context, message string) error {
	h.instance.charge(uint64(len(message)) >> hostByteShift)
	h.instance.log(abi.LogInfo, []byte(message))
	return nil
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

func (i *instance) builtin(call *builtinCall, number int32, addresses []uint64) uint64 {
	b, ok := i.module.opa.builtins[number]
	if !ok {
		panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: fmt.Sprintf("no built-in %d", number)})
	}
	i.charge(b.fuel)
	g := i.guest.(*opaGuest)
	var args arguments
	for _, at := range addresses {
		term, bytes := g.term(i, b.name, at)
		args.terms, args.bytes = append(args.terms, term), append(args.bytes, bytes)
	}
	if err := boundedNumbers(args.terms); err != nil {
		panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: b.name + ": " + err.Error()})
	}
	if b.bound != nil {
		if err := b.bound(i, args); err != nil {
			panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: b.name + ": " + err.Error()})
		}
	}
	result, err := b.apply(call, args.terms)
	if err != nil {
		panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: b.name + ": " + err.Error()})
	}
	if result == nil {
		return 0
	}
	return g.value(i, result)
}

// apply runs the function. As in OPA, an error that does not halt the
// evaluation means that the result is undefined.
func (b *builtin) apply(call *builtinCall, terms []*ast.Term) (result *ast.Term, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case *abi.Trap:
			panic(p)
		default:
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

// term reads a value of the guest and says how long it is in OPA's syntax.
func (g *opaGuest) term(i *instance, name string, at uint64) (*ast.Term, uint64) {
	text, ok := i.text(i.nested(g.valueDump, at))
	if !ok {
		panic(&abi.Trap{Code: abi.TrapMemory, Detail: "argument of " + name})
	}
	length := uint64(len(text))
	i.charge(builtinByteFuel * length)
	term, err := parseTerm(text)
	if err != nil {
		panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: name + ": argument: " + err.Error()})
	}
	return term, length
}

// value writes a term into the guest's heap and returns its address there. Terms
// can be far longer than what they were made from, so the fuel that is left
// bounds what is written.
func (g *opaGuest) value(i *instance, term *ast.Term) uint64 {
	w := termWriter{limit: int(i.fuel.Get() / builtinByteFuel)}
	err := w.term(term)
	if errors.Is(err, errTooLong) {
		i.charge(i.fuel.Get() + 1)
	}
	if err != nil {
		panic(&abi.Trap{Code: abi.TrapBuiltin, Detail: err.Error()})
	}
	i.charge(builtinByteFuel * uint64(len(w.text)))
	at := i.nested(g.malloc, uint64(len(w.text)))
	copy(i.buffer(at, uint64(len(w.text))), w.text)
	return i.nested(g.valueParse, at, uint64(len(w.text)))
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
