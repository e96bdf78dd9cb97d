package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// workerName is what a worker is started as, where other programs have their path.
const workerName = "holdfast-compile"

// ready is what a worker says when its limits are in place. Before, it reads nothing.
const ready = "holdfast worker 1\n"

// Exit codes of workers. Go's own for a crash is 2.
const (
	workerTrouble = 1 // this machine kept it from its work
	workerSpent   = 4 // it has used its CPU time
)

// Worker compiles one module and ends the process, when this process was
// started as a compile worker; else it does nothing. It is the first call in
// main of every program that is given as Config.Worker.
func Worker() {
	if len(os.Args) == 0 || os.Args[0] != workerName {
		return
	}
	if err := work(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(workerTrouble)
	}
	os.Exit(0)
}

// compileLimits bound one worker.
type compileLimits struct {
	CPU    time.Duration // whole seconds
	Wall   time.Duration
	Memory int64 // bytes that it may write to, beside what the program takes to start
}

// limitsOf returns the limits for a class of modules. Wall time is longer than
// CPU time, because a busy machine is not the module's fault.
func limitsOf(class wasm.Class) compileLimits {
	if class == wasm.LanguageRuntime {
		return compileLimits{CPU: 30 * time.Second, Wall: 2 * time.Minute, Memory: 2 << 30}
	}
	return compileLimits{CPU: 5 * time.Second, Wall: 30 * time.Second, Memory: 1 << 30}
}

// job is what a worker is told before it is sent the module.
type job struct {
	dir    string // its own, for wazero's file
	class  wasm.Class
	kind   abi.Kind
	limits compileLimits
	keep   string // the parent's folder for the code; the worker is not told
}

func (j job) args() []string {
	cpu, memory := int64(j.limits.CPU/time.Second), j.limits.Memory
	return []string{workerName, j.dir, j.class.String(), string(j.kind), strconv.FormatInt(cpu, 10), strconv.FormatInt(memory, 10)}
}

func parseJob(args []string) (j job, err error) {
	if len(args) != 5 {
		return j, fmt.Errorf("worker: %d arguments", len(args))
	}
	j.dir, j.kind = args[0], abi.Kind(args[2])
	j.class, err = wasm.ParseClass(args[1])
	cpu, e1 := strconv.ParseInt(args[3], 10, 32)
	memory, e2 := strconv.ParseInt(args[4], 10, 64)
	j.limits = compileLimits{CPU: time.Duration(cpu) * time.Second, Memory: memory}
	return j, errors.Join(err, e1, e2)
}

// maxCode bounds the code of a module. Measured are 4 to 6 times the module.
func (j job) maxCode() int64 { return 16 * int64(j.class.Limits().ModuleBytes) }

// maxRewritten bounds the rewritten module. Measured are 1.5 times the module.
func (j job) maxRewritten() int64 { return 4 * int64(j.class.Limits().ModuleBytes) }

func work(args []string, stdin io.Reader, stdout io.Writer) error {
	j, err := parseJob(args)
	if err != nil {
		return err
	}
	if err := confine(j.limits, j.maxCode()); err != nil {
		return fmt.Errorf("worker: limits: %w", err)
	}
	if _, err := io.WriteString(stdout, ready); err != nil {
		return err
	}
	module, err := io.ReadAll(io.LimitReader(stdin, int64(j.class.Limits().ModuleBytes)+1))
	if err != nil {
		return err
	}
	return respond(stdout, module, j)
}

// respond compiles the module and writes the result, or why there is none.
func respond(stdout io.Writer, module []byte, j job) error {
	rewritten, err := wasm.Instrument(module, j.class, j.kind)
	if refusal, ok := errors.AsType[*wasm.Refusal](err); ok {
		text, err := json.Marshal(refusal)
		return errors.Join(err, writeReport(stdout, answerRefused, text))
	}
	var made compiledModule
	if err == nil {
		made, err = produce(j.dir, rewritten)
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return err // of this machine, and not of the module
	}
	if err != nil {
		return writeReport(stdout, answerFailed, []byte(err.Error()))
	}
	if _, err := stdout.Write([]byte{answerCode}); err != nil {
		return err
	}
	return writeArtefact(stdout, &made.artefact, bytes.NewReader(made.code))
}

// compiledModule is an artefact before it has a file.
type compiledModule struct {
	artefact
	code []byte
}

// produce compiles the module, and then its outline, for the name alone.
func produce(dir string, module []byte) (made compiledModule, err error) {
	made.rewritten = uint32(len(module))
	if made.outline, err = outline(module); err != nil {
		return made, err
	}
	if _, made.code, err = compileFile(filepath.Join(dir, "module"), module); err != nil {
		return made, err
	}
	made.size = int64(len(made.code))
	made.name, _, err = compileFile(filepath.Join(dir, "outline"), made.outline)
	return made, err
}

// compileFile compiles a module and returns what wazero wrote into its cache.
func compileFile(dir string, module []byte) (name string, code []byte, err error) {
	ctx := context.Background()
	door, folder, err := openDoor(dir)
	if err != nil {
		return "", nil, err
	}
	r := wazero.NewRuntimeWithConfig(ctx, settings(wazero.NewRuntimeConfigCompiler()).WithCompilationCache(door))
	if _, err := r.CompileModule(ctx, module); err != nil { // a panic ends the worker and tells the parent
		return "", nil, fmt.Errorf("compile: %w", err)
	}
	files, err := os.ReadDir(folder)
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("wazero wrote %d files, not one", len(files))
	}
	if err != nil {
		return "", nil, err
	}
	code, err = os.ReadFile(filepath.Join(folder, files[0].Name()))
	return files[0].Name(), code, err
}
