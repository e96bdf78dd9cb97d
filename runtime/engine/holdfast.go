package engine

import (
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// holdfastGuest speaks holdfast_v1.
type holdfastGuest struct {
	alloc, decide, init api.Function // init may be nil
}

func newHoldfastGuest(m api.Module) *holdfastGuest {
	return &holdfastGuest{
		alloc:  m.ExportedFunction(abi.ExportAlloc),
		decide: m.ExportedFunction(abi.ExportDecide),
		init:   m.ExportedFunction(abi.ExportInit),
	}
}

// emptyInit is the CBOR of {"params": {}}: nothing to initialise with.
const emptyInit = "\xa1\x66params\xa0"

func (g *holdfastGuest) initialise(i *instance, spec Spec) error {
	if g.init == nil {
		if len(spec.Init) > 0 && string(spec.Init) != emptyInit {
			return errors.New("parameters or data for a module that exports no " + abi.ExportInit)
		}
		return nil
	}
	input := spec.Init
	if len(input) == 0 {
		input = []byte(emptyInit)
	}
	at, trap := g.write(i, input)
	if trap != nil {
		return fmt.Errorf("%s: %w", abi.ExportInit, trap)
	}
	status, trap := i.run(g.init, at, uint64(len(input)))
	if trap != nil {
		return fmt.Errorf("%s: %w", abi.ExportInit, trap)
	}
	if int32(status) != 0 {
		return fmt.Errorf("%s: %w", abi.ExportInit, &abi.Trap{Code: abi.TrapRefused, Detail: fmt.Sprintf("status %d", int32(status))})
	}
	return nil
}

// write puts the input where the guest wants it.
func (g *holdfastGuest) write(i *instance, input []byte) (uint64, *abi.Trap) {
	at, trap := i.run(g.alloc, uint64(len(input)))
	if trap != nil {
		return 0, trap
	}
	if uint32(at) == 0 {
		return 0, &abi.Trap{Code: abi.TrapInput, Detail: "the guest has no room"}
	}
	if !i.write(uint32(at), input) {
		return 0, &abi.Trap{Code: abi.TrapInput, Detail: "the guest's buffer is out of bounds"}
	}
	return uint64(uint32(at)), nil
}

func (g *holdfastGuest) call(i *instance, call abi.Call) ([]byte, *abi.Trap) {
	at, trap := g.write(i, call.Input)
	if trap != nil {
		return nil, trap
	}
	packed, trap := i.run(g.decide, at, uint64(len(call.Input)))
	if trap != nil {
		return nil, trap
	}
	if packed == 0 {
		return nil, &abi.Trap{Code: abi.TrapRefused}
	}
	output, _ := i.memory.Read(uint32(packed>>32), uint32(packed))
	return output, nil
}
