// Package engine runs policy modules: it admits a module, meters it, keeps warm
// instances and restores each one after every call, so that an answer depends
// on nothing but the call. It is the only importer of wazero.
package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// Config is what New needs. The zero Config compiles in this process and keeps
// nothing: for tests, and for tools that load only modules of their own.
type Config struct {
	// Interpreter runs modules on wazero's interpreter instead of its compiler:
	// a second, slower implementation that must give the same bytes and fuel. It
	// has nothing to compile, so that Worker and Cache do nothing.
	Interpreter bool
	// Worker is the program that admits and compiles modules, each in a process
	// of its own with limits; its main begins with Worker. Nodes set it to Self().
	Worker string
	// Cache is a folder of this engine's for what the worker made, its own or one
	// that it shares with others of the same user; "" keeps nothing. The key that
	// authenticates the entries is in Cache + ".key". A folder that cannot be used
	// is logged and done without.
	Cache string
	// CacheBytes bounds the folder; 0 means 512 MiB.
	CacheBytes int64
	Log        *slog.Logger // nil: slog.Default

	limits *compileLimits // in place of the class's; tests set it
}

// An Engine compiles modules and owns the code of those that it loaded.
// It is safe for concurrent use.
type Engine struct {
	runtime  wazero.Runtime
	compiler compiler

	mu    sync.Mutex
	codes map[identity]*code
}

// code is a compiled module, shared by all that were loaded from the same bytes.
type code struct {
	engine   *Engine
	id       identity
	size     int // of the rewritten module
	users    int // under engine.mu
	once     sync.Once
	compiled wazero.CompiledModule
	err      error
}

// New makes an engine.
func New(ctx context.Context, config Config) (*Engine, error) {
	kind := wazero.NewRuntimeConfigCompiler()
	if config.Interpreter {
		kind = wazero.NewRuntimeConfigInterpreter()
	}
	runtimeConfig := settings(kind)
	e := &Engine{codes: map[identity]*code{}, compiler: inProcess{}}
	if config.Worker != "" && !config.Interpreter {
		w, err := newWorkshop(config, e.inUse)
		if err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
		e.compiler, runtimeConfig = w, runtimeConfig.WithCompilationCache(w.door)
	}
	e.runtime = wazero.NewRuntimeWithConfig(ctx, runtimeConfig)
	if err := instantiateHost(ctx, e.runtime); err != nil {
		return nil, errors.Join(fmt.Errorf("engine: host functions: %w", err), e.Close(ctx))
	}
	return e, nil
}

// settings are what a module is compiled with, here or in a worker.
func settings(c wazero.RuntimeConfig) wazero.RuntimeConfig {
	return c.
		WithCoreFeatures(api.CoreFeaturesV2 &^ api.CoreFeatureSIMD).
		WithMemoryLimitPages(uint32(wasm.Data.Limits().MemoryPages + wasm.MapPages)).
		WithDebugInfoEnabled(false)
}

// Close frees all code. Modules must be closed before.
func (e *Engine) Close(ctx context.Context) error {
	return errors.Join(e.runtime.Close(ctx), e.compiler.close(ctx))
}

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
	compiled, err := e.compile(ctx, spec)
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

// compile returns the code of a module, compiled at most once while anybody uses it.
func (e *Engine) compile(ctx context.Context, spec Spec) (*code, error) {
	id := e.compiler.identify(spec)
	e.mu.Lock()
	c := e.codes[id]
	if c == nil {
		c = &code{engine: e, id: id}
		e.codes[id] = c
	}
	c.users++
	e.mu.Unlock()
	c.once.Do(func() { c.compiled, c.size, c.err = e.compiler.compile(ctx, e.runtime, spec, id) })
	if c.err != nil {
		err := c.err
		e.release(ctx, c)
		return nil, err
	}
	return c, nil
}

// inUse reports whether a module of this engine has this code.
func (e *Engine) inUse(id identity) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.codes[id] != nil
}

// release ends one use of the code and frees it after the last.
func (e *Engine) release(ctx context.Context, c *code) error {
	e.mu.Lock()
	c.users--
	last := c.users == 0
	if last {
		delete(e.codes, c.id)
	}
	e.mu.Unlock()
	if !last || c.compiled == nil {
		return nil
	}
	return c.compiled.Close(ctx)
}
