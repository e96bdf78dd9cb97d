package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// A CompileError says why a worker has no answer for a module. The module was
// not refused by a rule: compiling it took too much, or broke the compiler.
type CompileError struct {
	Reason string
	// Passing reports that the cause may lie in the machine and not in the module:
	// the same module may be compiled later.
	Passing bool

	untried bool // no worker had the module
}

func (e *CompileError) Error() string { return "compile: " + e.Reason }

// errWall is the cause of a worker's end at its wall time.
var errWall = errors.New("wall time")

// runWorker has a new worker process do the job. Its error is a *wasm.Refusal, a
// *CompileError, the compiler's own or that of ctx.
func runWorker(ctx context.Context, program string, j job, module []byte) (*artefact, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, j.limits.Wall, errWall)
	defer cancel()
	// A worker dies with the thread that started it, so that thread has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, err := startProcess(bounded, program, j)
	if ctx.Err() != nil && err != nil {
		return nil, fmt.Errorf("compile: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, &CompileError{Reason: err.Error(), Passing: true, untried: true}
	}
	a, err := p.converse(bounded, module, j)
	if errors.Is(err, errGarbage) {
		cancel() // it is not waited for
	}
	ended := p.cmd.Wait()
	if err == nil && ended == nil {
		return a, nil
	}
	if a != nil {
		a.close()
	}
	var refusal *wasm.Refusal
	var own *failure
	switch {
	case errors.As(err, &refusal), errors.As(err, &own):
		return nil, err
	case errors.Is(err, errGarbage):
		return nil, &CompileError{Reason: fmt.Sprintf("the compiler answered garbage: %v", err)}
	case ctx.Err() != nil:
		return nil, fmt.Errorf("compile: %w", context.Cause(ctx))
	}
	return nil, p.verdict(context.Cause(bounded), j.limits, cmp.Or(err, ended))
}

// process is a worker as its parent sees it.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr excerpt
}

// startProcess starts a worker with an empty environment and three pipes.
func startProcess(ctx context.Context, program string, j job) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, program)}
	p.cmd.Args, p.cmd.Env, p.cmd.Dir = j.args(), []string{}, j.dir
	p.cmd.SysProcAttr = attributes()
	p.cmd.Cancel = func() error { return kill(p.cmd.Process) }
	p.cmd.WaitDelay = time.Second
	p.cmd.Stderr = &p.stderr
	var e1, e2 error
	p.stdin, e1 = p.cmd.StdinPipe()
	p.stdout, e2 = p.cmd.StdoutPipe()
	if err := errors.Join(e1, e2); err != nil {
		return nil, err
	}
	return p, p.cmd.Start()
}

// converse sends the module once the worker has its limits, and reads the answer.
func (p *process) converse(ctx context.Context, module []byte, j job) (*artefact, error) {
	// What the worker itself might start could hold the pipes open.
	stop := context.AfterFunc(ctx, func() { p.stdin.Close(); p.stdout.Close() })
	defer stop()
	hello := make([]byte, len(ready))
	if _, err := io.ReadFull(p.stdout, hello); err != nil {
		return nil, fmt.Errorf("%w: greeting: %w", errCut, err)
	}
	if string(hello) != ready {
		return nil, fmt.Errorf("%w: %q is no greeting", errGarbage, hello)
	}
	if _, err := p.stdin.Write(module); err != nil {
		return nil, fmt.Errorf("%w: %w", errCut, err)
	}
	if err := p.stdin.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", errCut, err)
	}
	return readAnswer(p.stdout, j)
}

// verdict says why a worker that has ended gave no answer.
func (p *process) verdict(cause error, limits compileLimits, err error) *CompileError {
	state, said := p.cmd.ProcessState, p.stderr.String()
	switch {
	case strings.Contains(said, "out of memory") || strings.Contains(said, "cannot allocate memory"):
		return &CompileError{Reason: fmt.Sprintf("the compiler exceeded %d MiB of memory", limits.Memory>>20)}
	case state.ExitCode() == workerSpent:
		return &CompileError{Reason: fmt.Sprintf("the compiler exceeded %v of CPU", limits.CPU)}
	case errors.Is(cause, errWall):
		return &CompileError{Reason: fmt.Sprintf("the compiler exceeded %v", limits.Wall), Passing: true}
	case !state.Exited():
		return &CompileError{Reason: fmt.Sprintf("the compiler was killed: %v", state), Passing: true}
	case !state.Success():
		line, _, _ := strings.Cut(said, "\n")
		return &CompileError{Reason: fmt.Sprintf("the compiler broke: %v: %s", state, line), Passing: state.ExitCode() == workerTrouble || strings.Contains(said, "OS thread") || strings.Contains(said, "pthread_create")}
	}
	return &CompileError{Reason: fmt.Sprintf("the compiler answered garbage: %v", err)}
}

// excerpt keeps the beginning of what is written to it.
type excerpt struct{ text []byte }

func (e *excerpt) Write(b []byte) (int, error) {
	room := maxReport - len(e.text)
	e.text = append(e.text, b[:min(len(b), room)]...)
	return len(b), nil
}

func (e *excerpt) String() string { return string(e.text) }

// quarantine remembers the modules that broke a worker.
type quarantine struct {
	mu   sync.Mutex
	held map[identity]held
}

type held struct {
	why   *CompileError
	until time.Time // zero: as long as this process lives
}

const (
	maxQuarantine = 1024
	// passingQuarantine is how long a module whose failure may have been the
	// machine's is not tried again.
	passingQuarantine = 10 * time.Second
)

// check returns why a module is not tried again now.
func (q *quarantine) check(id identity) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	h, ok := q.held[id]
	if !ok || !h.until.IsZero() && time.Now().After(h.until) {
		return nil
	}
	return &CompileError{Reason: h.why.Reason + " (not tried again)", Passing: h.why.Passing}
}

// add holds a module whose worker broke; any other error is no reason to.
func (q *quarantine) add(id identity, err error) {
	why, ok := errors.AsType[*CompileError](err)
	if !ok || why.untried {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held == nil || len(q.held) >= maxQuarantine {
		q.held = map[identity]held{}
	}
	h := held{why: why}
	if why.Passing {
		h.until = time.Now().Add(passingQuarantine)
	}
	q.held[id] = h
}

// Self is this program, for Config.Worker, provided that its main begins with
// Worker. It is "" where workers have no limits, and so no use.
func Self() string {
	switch runtime.GOOS {
	case "linux":
		return "/proc/self/exe" // what runs, even when the file has been replaced
	case "windows":
		return ""
	}
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	return path
}
