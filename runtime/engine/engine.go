// Package engine runs policy modules: it admits a module, meters it, keeps warm
// instances and restores each one after every call, so that an answer depends
// on nothing but the call. It is the only importer of wazero.
package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"regexp"
	"runtime"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// Config is what New needs. The zero Config is the production engine.
type Config struct {
	// Interpreter runs modules on wazero's interpreter instead of its compiler:
	// a second, slower implementation that must give the same bytes and fuel.
	Interpreter bool
	// MaxFuel bounds the fuel of a call, in units; 0 means abi.MaxFuel. More is for
	// tests whose neighbours need no protection.
	MaxFuel uint64
}

// An Engine compiles modules and owns the code of those that it loaded.
// It is safe for concurrent use.
type Engine struct {
	runtime wazero.Runtime
	maxFuel uint64

	mu    sync.Mutex
	codes map[[sha256.Size]byte]*code // by digest of the rewritten module
}

// code is a compiled module, shared by all that were loaded from the same bytes.
type code struct {
	engine   *Engine
	digest   [sha256.Size]byte
	size     int
	users    int // under engine.mu
	once     sync.Once
	compiled wazero.CompiledModule
	err      error
}

// New makes an engine.
func New(ctx context.Context, config Config) (*Engine, error) {
	settings := wazero.NewRuntimeConfigCompiler()
	if config.Interpreter {
		settings = wazero.NewRuntimeConfigInterpreter()
	}
	settings = settings.
		WithCoreFeatures(api.CoreFeaturesV2 &^ api.CoreFeatureSIMD).
		WithMemoryLimitPages(uint32(wasm.Data.Limits().MemoryPages)).
		WithDebugInfoEnabled(false)
	e := &Engine{
		runtime: wazero.NewRuntimeWithConfig(ctx, settings),
		maxFuel: cmp.Or(config.MaxFuel, abi.MaxFuel),
		codes:   map[[sha256.Size]byte]*code{},
	}
	if err := instantiateHost(ctx, e.runtime); err != nil {
		e.runtime.Close(ctx)
		return nil, fmt.Errorf("engine: host functions: %w", err)
	}
	return e, nil
}

// Close frees all code. Modules must be closed before.
func (e *Engine) Close(ctx context.Context) error { return e.runtime.Close(ctx) }

// A Spec describes a module to load.
type Spec struct {
	Name  string
	Wasm  []byte
	ABI   abi.Kind
	Class wasm.Class
	// Init is what the module is given once, before its first call, as
	// sdk/codec makes it: the input of holdfast_init, or opa_1's data document.
	Init     []byte
	Patterns []string // RE2, named by their index in holdfast_v1.match
	Pool     int      // most instances alive; 0 means twice GOMAXPROCS
}

// Load admits and prepares a module. The error of a module that is not admitted
// wraps a *wasm.Refusal; that of one that trapped while initialising an *abi.Trap.
func (e *Engine) Load(ctx context.Context, spec Spec) (*Module, error) {
	m, err := e.load(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("load module %s: %w", spec.Name, err)
	}
	return m, nil
}

func (e *Engine) load(ctx context.Context, spec Spec) (*Module, error) {
	patterns, err := compilePatterns(spec.Patterns)
	if err != nil {
		return nil, err
	}
	rewritten, err := wasm.Instrument(spec.Wasm, spec.Class, spec.ABI)
	if err != nil {
		return nil, err
	}
	compiled, err := e.compile(ctx, rewritten)
	if err != nil {
		return nil, err
	}
	m := &Module{code: compiled, kind: spec.ABI, patterns: patterns, seed: sha256.Sum256(spec.Wasm), limit: spec.Pool}
	if m.limit <= 0 {
		m.limit = 2 * runtime.GOMAXPROCS(0)
	}
	m.changed.L = &m.mu
	if err := m.initialise(ctx, spec); err != nil {
		e.release(ctx, compiled)
		return nil, err
	}
	return m, nil
}

func compilePatterns(sources []string) ([]*regexp.Regexp, error) {
	patterns := make([]*regexp.Regexp, len(sources))
	for i, source := range sources {
		pattern, err := regexp.Compile(source)
		if err != nil {
			return nil, fmt.Errorf("pattern %d: %w", i, err)
		}
		patterns[i] = pattern
	}
	return patterns, nil
}

// compile returns the code of a rewritten module, compiled at most once while
// anybody uses it.
func (e *Engine) compile(ctx context.Context, module []byte) (*code, error) {
	digest := sha256.Sum256(module)
	e.mu.Lock()
	c := e.codes[digest]
	if c == nil {
		c = &code{engine: e, digest: digest, size: len(module)}
		e.codes[digest] = c
	}
	c.users++
	e.mu.Unlock()
	c.once.Do(func() { c.compiled, c.err = compileGuarded(ctx, e.runtime, module) })
	if c.err != nil {
		err := c.err
		e.release(ctx, c)
		return nil, err
	}
	return c, nil
}

func compileGuarded(ctx context.Context, r wazero.Runtime, module []byte) (compiled wazero.CompiledModule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("compile: the compiler panicked: %v", p)
		}
	}()
	if compiled, err = r.CompileModule(ctx, module); err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	return compiled, nil
}

// release ends one use of the code and frees it after the last.
func (e *Engine) release(ctx context.Context, c *code) error {
	e.mu.Lock()
	c.users--
	last := c.users == 0
	if last {
		delete(e.codes, c.digest)
	}
	e.mu.Unlock()
	if !last || c.compiled == nil {
		return nil
	}
	return c.compiled.Close(ctx)
}
