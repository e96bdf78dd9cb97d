package engine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// TestMain lets the test binary be its own worker.
func TestMain(m *testing.M) {
	engine.Worker()
	os.Exit(m.Run())
}

// apart is a configuration with workers, and a cache in a folder of the test's.
func apart(tb testing.TB) engine.Config {
	return engine.Config{Worker: engine.Self(), Cache: filepath.Join(tb.TempDir(), "compiled")}
}

// large makes a module of many functions, which every rule admits. Branches take
// a compiler's time; without them the code is longer than the module.
func large(functions int, branches bool) []byte {
	var body bytes.Buffer
	body.Write([]byte{1, 100, 0x7e}) // 100 i64 locals
	for i := range 250 {
		a, b, c := byte(i%100), byte((i+7)%100), byte((i+31)%100)
		assign := []byte{0x20, a, 0x20, b, 0x7c, 0x21, c} // local c is local a + local b
		if branches {
			assign = append(append([]byte{0x20, a, 0x50, 0x04, 0x40}, assign...), 0x0b) // if local a is 0
		}
		body.Write(assign)
	}
	body.WriteByte(0x0b)
	var module bytes.Buffer
	module.WriteString("\x00asm\x01\x00\x00\x00")
	section := func(id byte, content []byte) {
		module.WriteByte(id)
		module.Write(leb(len(content)))
		module.Write(content)
	}
	section(1, []byte{4, 0x60, 0, 0, 0x60, 0, 1, 0x7f, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 2, 0x7f, 0x7f, 1, 0x7e})
	section(3, append(append(leb(functions+3), 1, 2, 3), make([]byte, functions)...))
	section(5, []byte{1, 1, 1, 2})
	var exports bytes.Buffer
	exports.WriteByte(4)
	for i, name := range []string{"holdfast_abi_v1", "holdfast_alloc", "holdfast_decide"} {
		exports.Write(append(append(leb(len(name)), name...), 0, byte(i)))
	}
	exports.WriteString("\x06memory\x02\x00")
	section(7, exports.Bytes())
	code := leb(functions + 3)
	for _, b := range []string{"\x00\x41\x00\x0b", "\x00\x41\x08\x0b", "\x00\x42\x01\x0b"} {
		code = append(append(code, leb(len(b))...), b...)
	}
	for range functions {
		code = append(append(code, leb(body.Len())...), body.Bytes()...)
	}
	section(10, code)
	return module.Bytes()
}

func leb(n int) []byte {
	var b []byte
	for n >= 0x80 {
		b, n = append(b, byte(n)|0x80), n>>7
	}
	return append(b, byte(n))
}

// What a worker compiles answers as what this process compiles, cold and warm.
func TestWorkerMakesTheSame(t *testing.T) {
	config := apart(t)
	spec := probe(t)
	own := load(t, newEngine(t, engine.Config{}), spec)
	for _, start := range []string{"cold", "warm"} {
		m := load(t, newEngine(t, config), spec)
		if got, want := m.Stats(), own.Stats(); got != want {
			t.Errorf("%s: %+v, want %+v", start, got, want)
		}
		for _, p := range probes {
			call := abi.Call{Input: []byte(p.input), Now: frozen}
			got, gotErr := m.Call(call)
			want, wantErr := own.Call(call)
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(gotErr, wantErr) {
				t.Errorf("%s: %s: %v, %v; want %v, %v", start, p.name, got, gotErr, want, wantErr)
			}
		}
	}
}

// A rule's refusal is the same error whichever process read the module.
func TestWorkerRefuses(t *testing.T) {
	e, own := newEngine(t, apart(t)), newEngine(t, engine.Config{})
	for name, module := range map[string][]byte{
		"empty":     {},
		"truncated": probe(t).Wasm[:100],
		"locals":    []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x0a\x0a\x01\x08\x01\xff\xff\xff\xff\x0f\x7f\x0b"),
		"too long":  make([]byte, 4<<20+1),
	} {
		spec := engine.Spec{Name: "m", Wasm: module, ABI: abi.HoldfastV1}
		_, err := e.Load(context.Background(), spec)
		_, want := own.Load(context.Background(), spec)
		refusal, ok := errors.AsType[*wasm.Refusal](err)
		if !ok || err.Error() != want.Error() || refusal.Reason == "" {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	// What the scan admits and wazero does not: a body that leaves nothing.
	invalid := bytes.Replace(large(1, false), []byte("\x00\x41\x08\x0b"), []byte("\x00\x42\x08\x0b"), 1)
	spec := engine.Spec{Name: "m", Wasm: invalid, ABI: abi.HoldfastV1}
	_, err := e.Load(context.Background(), spec)
	if _, want := own.Load(context.Background(), spec); err == nil || err.Error() != want.Error() {
		t.Errorf("%v, want %v", err, want)
	}
}

func TestLimitsBite(t *testing.T) {
	const huge = 1 << 40
	slow := large(400, true)
	for _, c := range []struct {
		module  []byte
		config  engine.Config
		want    string
		passing bool
	}{
		{slow, engine.WithLimits(apart(t), time.Second, time.Minute, huge), "exceeded 1s of CPU", false},
		{slow, engine.WithLimits(apart(t), time.Minute, 100*time.Millisecond, huge), "exceeded 100ms", true},
		// its code is one mapping of more than that
		{large(2000, false), engine.WithLimits(apart(t), time.Minute, time.Minute, 8<<20), "exceeded 8 MiB of memory", false},
	} {
		e := newEngine(t, c.config)
		spec := engine.Spec{Name: "large", Wasm: c.module, ABI: abi.HoldfastV1}
		_, err := e.Load(context.Background(), spec)
		if other := firstToFail(err); other != "" {
			c.want, c.passing = other, other == "pthread_create"
		}
		why, ok := errors.AsType[*engine.CompileError](err)
		if !ok || !strings.Contains(err.Error(), c.want) || why.Passing != c.passing {
			t.Errorf("want %s, got %v", c.want, err)
		}
		if _, err := e.Load(context.Background(), spec); err == nil || !strings.Contains(err.Error(), "not tried again") {
			t.Errorf("%s: the next time: %v", c.want, err)
		}
	}
}

// firstToFail names what of a test binary was the first to want memory. Binaries
// of ours have neither a C library nor a race detector.
func firstToFail(err error) string {
	for _, name := range []string{"pthread_create", "ThreadSanitizer", "SIGSEGV"} {
		if err != nil && strings.Contains(err.Error(), name) {
			return name
		}
	}
	return ""
}
