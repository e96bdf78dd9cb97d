package engine_test

import (
	"context"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/holdfast-policy/holdfast/bench/guests"
	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// plain is a holdfast_v1 module as its author compiled it on bare wazero: no
// meter, no restore, no limit. It is the floor of the benchmarks.
type plain struct {
	module        api.Module
	alloc, decide api.Function
	stack         []uint64
	output        []byte
}

func newPlain(tb testing.TB, module, init []byte) *plain {
	tb.Helper()
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	tb.Cleanup(func() { r.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	if _, err := r.NewHostModuleBuilder(abi.ImportModule).
		NewFunctionBuilder().WithFunc(func(level, at, length uint32) {}).Export(abi.ImportLog).
		NewFunctionBuilder().WithFunc(func() int64 { return 1 }).Export(abi.ImportNow).
		NewFunctionBuilder().WithFunc(func(pattern, at, length uint32) int32 { return -1 }).Export(abi.ImportMatch).
		Instantiate(ctx); err != nil {
		tb.Fatal(err)
	}
	m, err := r.InstantiateWithConfig(ctx, module, wazero.NewModuleConfig().WithStartFunctions(abi.ExportInitialize))
	if err != nil {
		tb.Fatal(err)
	}
	p := &plain{module: m, alloc: m.ExportedFunction(abi.ExportAlloc), decide: m.ExportedFunction(abi.ExportDecide), stack: make([]uint64, 2)}
	if f := m.ExportedFunction(abi.ExportInit); f != nil {
		if status, err := f.Call(ctx, p.write(tb, init), uint64(len(init))); err != nil || status[0] != 0 {
			tb.Fatal(status, err)
		}
	}
	return p
}

// write puts input where the guest wants it.
func (p *plain) write(tb testing.TB, input []byte) uint64 {
	p.stack[0] = uint64(len(input))
	if err := p.alloc.CallWithStack(context.Background(), p.stack); err != nil {
		tb.Fatal(err)
	}
	at := p.stack[0]
	if !p.module.Memory().Write(uint32(at), input) {
		tb.Fatal("the guest's buffer is out of bounds")
	}
	return at
}

// call answers with a copy of the output, valid until the next call.
func (p *plain) call(tb testing.TB, input []byte) []byte {
	p.stack[0], p.stack[1] = p.write(tb, input), uint64(len(input))
	if err := p.decide.CallWithStack(context.Background(), p.stack); err != nil {
		tb.Fatal(err)
	}
	output, ok := p.module.Memory().Read(uint32(p.stack[0]>>32), uint32(p.stack[0]))
	if !ok || len(output) == 0 {
		tb.Fatal("no answer")
	}
	p.output = append(p.output[:0], output...)
	return p.output
}

// TestKeepersKeepOnAPlainHost: the guests that never keep anything here do keep
// it where nobody restores them, so that bench/guests tests something.
func TestKeepersKeepOnAPlainHost(t *testing.T) {
	// {"subject": {"id": "hoard"}}
	request := []byte("\xa1\x67subject\xa1\x62id\x65hoard")
	for _, language := range guests.Languages() {
		p := newPlain(t, guest(t, language, "keeper"), []byte("\xa0"))
		p.call(t, request)
		if second := string(p.call(t, request)); !strings.Contains(second, "calls 1") && !strings.Contains(second, "calls 2") ||
			!strings.Contains(second, "secret hoard") || strings.Contains(second, "pool 0") {
			t.Errorf("%s: %q", language, second)
		}
	}
}

// guest is a module of bench/guests.
func guest(tb testing.TB, language, name string) []byte {
	tb.Helper()
	module, err := guests.FS.ReadFile(language + "/" + name + ".wasm")
	if err != nil {
		tb.Fatal(err)
	}
	return module
}
