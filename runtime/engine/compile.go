package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// identity names compiled code by all that it was made of: the module, how it
// was admitted, and, for code that outlives this process, the build of this
// program and the version and platform of wazero.
type identity [sha256.Size]byte

// identify makes the identity of a spec; with is what else it depends on.
func identify(spec Spec, with string) (id identity) {
	raw := sha256.Sum256(spec.Wasm)
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%x", with, spec.Class, spec.ABI, raw)
	h.Sum(id[:0])
	return id
}

// compiler admits a module and compiles it for a runtime. The size is that of
// the rewritten module in bytes.
type compiler interface {
	identify(Spec) identity
	compile(context.Context, wazero.Runtime, Spec, identity) (wazero.CompiledModule, int, error)
	close(context.Context) error
}

// inProcess compiles where the module will run.
type inProcess struct{}

func (inProcess) identify(spec Spec) identity { return identify(spec, "") }

func (inProcess) compile(ctx context.Context, r wazero.Runtime, spec Spec, _ identity) (wazero.CompiledModule, int, error) {
	rewritten, err := wasm.Instrument(spec.Wasm, spec.Class, spec.ABI)
	if err != nil {
		return nil, 0, err
	}
	compiled, err := compileGuarded(ctx, r, rewritten)
	return compiled, len(rewritten), err
}

func (inProcess) close(context.Context) error { return nil }

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

// errNotTaken is that wazero found no code where it was put: the code is of
// another CPU, or the key is not what we think it is.
var errNotTaken = errors.New("wazero does not take the code")

// A workshop has modules compiled by workers and keeps what they made. Code
// reaches wazero through its compilation cache, whose folder is private to this
// process and is empty but for the moments in which an artefact is handed over.
type workshop struct {
	worker string
	with   string // identity of this program's build and of wazero
	limits *compileLimits
	log    *slog.Logger

	dir     string // private
	door    wazero.CompilationCache
	doorDir string // where wazero looks for code
	handing [64]sync.Mutex

	cache      *cache // nil: nothing is kept
	slots      chan struct{}
	quarantine quarantine
}

// maxWorkers bounds the workers of one engine, and so their memory.
const maxWorkers = 16

func newWorkshop(config Config, inUse func(identity) bool) (*workshop, error) {
	w := &workshop{
		worker: config.Worker, limits: config.limits, log: config.Log,
		slots: make(chan struct{}, min(runtime.NumCPU(), maxWorkers)),
	}
	if w.log == nil {
		w.log = slog.Default()
	}
	withholdFiles()
	if err := w.openDoor(); err != nil {
		return nil, fmt.Errorf("private folder: %w", err)
	}
	if config.Cache != "" {
		if err := w.openCache(config, inUse); err != nil {
			w.log.Warn("compiled modules are not kept; the next start compiles again", "folder", config.Cache, "err", err)
		}
	}
	return w, nil
}

// openDoor makes the private folder. /dev/shm is there when the disk is full.
func (w *workshop) openDoor() (err error) {
	var errs []error
	for _, base := range []string{os.TempDir(), "/dev/shm"} {
		if w.dir, err = os.MkdirTemp(base, "holdfast-"); err == nil {
			break
		}
		errs = append(errs, err)
	}
	if err != nil {
		return errors.Join(errs...)
	}
	if w.door, w.doorDir, err = openDoor(w.dir); err != nil {
		return errors.Join(err, os.RemoveAll(w.dir))
	}
	return nil
}

// openDoor returns wazero's compilation cache in dir, and the folder in it that
// wazero made for its version and platform.
func openDoor(dir string) (wazero.CompilationCache, string, error) {
	door, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, "", err
	}
	folders, err := filepath.Glob(filepath.Join(dir, "wazero-*"))
	if err == nil && len(folders) != 1 {
		err = fmt.Errorf("wazero made %d folders in its cache, not one", len(folders))
	}
	if err != nil {
		return nil, "", err
	}
	return door, folders[0], nil
}

func (w *workshop) openCache(config Config, inUse func(identity) bool) error {
	build, err := buildIdentity(w.worker)
	if err != nil {
		return fmt.Errorf("identify %s: %w", w.worker, err)
	}
	w.with = fmt.Sprintf("%x %s", build, filepath.Base(w.doorDir))
	w.cache, err = openCache(config.Cache, config.CacheBytes, inUse)
	return err
}

func (w *workshop) identify(spec Spec) identity { return identify(spec, w.with) }

func (w *workshop) close(ctx context.Context) error {
	return errors.Join(w.door.Close(ctx), os.RemoveAll(w.dir))
}

func (w *workshop) compile(ctx context.Context, r wazero.Runtime, spec Spec, id identity) (wazero.CompiledModule, int, error) {
	if compiled, size, ok := w.recall(ctx, r, spec, id); ok {
		return compiled, size, nil
	}
	if err := w.quarantine.check(id); err != nil {
		return nil, 0, err
	}
	if w.cache != nil {
		defer w.cache.turn(ctx, id)()
		if compiled, size, ok := w.recall(ctx, r, spec, id); ok {
			return compiled, size, nil
		}
	}
	a, err := w.make(ctx, spec)
	if err != nil {
		w.quarantine.add(id, err)
		return nil, 0, err
	}
	defer a.close()
	compiled, err := w.hand(ctx, r, a)
	if err != nil {
		return nil, 0, err
	}
	if w.cache != nil {
		if err := w.cache.store(id, a); err != nil {
			w.log.Warn("compiled module is not kept; the next start compiles it again", "module", spec.Name, "err", err)
		}
	}
	return compiled, int(a.rewritten), nil
}

// recall takes the code from the cache, and discards what it does not believe.
func (w *workshop) recall(ctx context.Context, r wazero.Runtime, spec Spec, id identity) (wazero.CompiledModule, int, bool) {
	if w.cache == nil {
		return nil, 0, false
	}
	a, err := w.cache.load(id, w.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, false
	}
	var compiled wazero.CompiledModule
	if err == nil {
		defer a.close()
		compiled, err = w.hand(ctx, r, a)
	}
	if err != nil {
		if isAny(err, errEntry, errForeign, errMAC, errNotTaken) {
			err = errors.Join(err, w.cache.discard(id))
		}
		w.log.Warn("compiled module discarded; it is compiled again", "module", spec.Name, "entry", fmt.Sprintf("%x", id), "err", err)
		return nil, 0, false
	}
	return compiled, int(a.rewritten), true
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// make has a worker admit and compile the module; as many work as there are CPUs.
func (w *workshop) make(ctx context.Context, spec Spec) (*artefact, error) {
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("compile: %w", context.Cause(ctx))
	}
	limits := limitsOf(spec.Class)
	if w.limits != nil {
		limits = *w.limits
	}
	dir, err := os.MkdirTemp(w.dir, "worker-")
	if err != nil {
		return nil, &CompileError{Reason: err.Error(), Passing: true, untried: true}
	}
	defer os.RemoveAll(dir)
	return runWorker(ctx, w.worker, job{dir: dir, keep: w.dir, class: spec.Class, kind: spec.ABI, limits: limits}, spec.Wasm)
}

// hand lets wazero load an artefact. The context that it gets is over already:
// wazero looks at it only before it compiles, and this process never compiles.
func (w *workshop) hand(ctx context.Context, r wazero.Runtime, a *artefact) (wazero.CompiledModule, error) {
	turn := &w.handing[a.name[0]%byte(len(w.handing))] // one name is handed over once at a time
	turn.Lock()
	defer turn.Unlock()
	at := filepath.Join(w.doorDir, a.name)
	if err := os.Symlink(a.path, at); err != nil {
		return nil, &CompileError{Reason: err.Error(), Passing: true}
	}
	defer os.Remove(at)
	over, end := context.WithCancelCause(ctx)
	end(errNotTaken)
	return compileGuarded(experimental.WithCompilationWorkers(over, 2), r, a.outline)
}

// An artefact is what a worker made of a module.
type artefact struct {
	name      string // of the code in wazero's cache, which depends on outline and CPU
	rewritten uint32 // size of the rewritten module
	outline   []byte // of the rewritten module
	code      *os.File
	path      string // leads to code
	size      int64  // of code
}

func (a *artefact) close() {
	a.code.Close()
	if a.code.Name() == a.path {
		os.Remove(a.path)
	}
}

// fill copies exactly size bytes of code.
func (a *artefact) fill(r io.Reader, size int64) error {
	a.size = size
	_, err := io.CopyN(a.code, r, size)
	return err
}
