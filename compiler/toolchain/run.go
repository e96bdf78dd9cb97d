package toolchain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// maxModule bounds what is read back; admission has the limits that count.
const maxModule = 64 << 20

// maxSaid bounds what is kept of a tool's output.
const maxSaid = 64 << 10

// lingering is how long a killed tool's children may hold on to its output.
const lingering = 5 * time.Second

// A tool is a compiler's program as it runs in a policy's folder.
type tool struct {
	path  string   // as exec wants it
	name  string   // as messages call it
	dir   string   // the working folder
	env   []string // NAME=value, replaces the environment's
	unset []string // names taken out of the environment
}

// run runs the tool and returns what it said on both outputs, at most maxSaid
// bytes of it.
func (t tool) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, t.path, args...)
	cmd.Dir, cmd.WaitDelay = t.dir, lingering
	cmd.Env = t.environ()
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return said.String(), err
}

// environ is the environment of the tool. It runs in the policy's folder, so PATH
// has no relative part: what the tool starts is never a program of that folder.
func (t tool) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(t.unset, name)
	})
	path := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(part string) bool { return !filepath.IsAbs(part) })
	return append(append(env, "PATH="+strings.Join(path, string(filepath.ListSeparator))), t.env...)
}

// compile runs the tool for its effect. A failure is a *CompileError with what
// the tool said, in which the policy's folder is not named.
func (t tool) compile(ctx context.Context, args ...string) error {
	said, err := t.run(ctx, args...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return err
	case !errors.As(err, &exit):
		said = strings.TrimRight(said, "\n") + "\n" + err.Error()
	}
	if dir, err := filepath.Abs(t.dir); err == nil {
		said = strings.ReplaceAll(said, dir+string(filepath.Separator), "")
	}
	return &CompileError{Command: t.name, Output: strings.TrimLeft(said, "\n")}
}

// output keeps the first maxSaid bytes.
type output struct{ kept bytes.Buffer }

func (o *output) Write(p []byte) (int, error) {
	o.kept.Write(p[:min(len(p), maxSaid-o.kept.Len())])
	return len(p), nil
}

func (o *output) String() string {
	if o.kept.Len() < maxSaid {
		return o.kept.String()
	}
	return o.kept.String() + "\n(more was said)\n"
}

// scratch calls f with a folder that is gone afterwards.
func scratch(f func(tmp string) (*Module, error)) (*Module, error) {
	root, err := filepath.Abs(os.TempDir()) // tools run in another folder
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(root, "holdfast-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	return f(tmp)
}

// readModule reads what a tool wrote.
func readModule(file, command string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxModule {
		return nil, fmt.Errorf("%s wrote %d bytes, at most %d", command, info.Size(), maxModule)
	}
	return os.ReadFile(file)
}

// sources returns the names of dir's own files with one of the endings, sorted,
// each as a relative path that no tool takes for an option.
func sources(dir string, endings ...string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && e.Type()&fs.ModeIrregular == 0 && slices.Contains(endings, filepath.Ext(e.Name())) {
			names = append(names, "./"+e.Name())
		}
	}
	return names, nil
}

// local looks for a program that npm installed in node_modules of dir or of a
// folder above it; "" when there is none.
func local(dir, program string) string {
	if runtime.GOOS == "windows" {
		program += ".cmd"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	for {
		file := filepath.Join(dir, "node_modules", ".bin", program)
		if info, err := os.Stat(file); err == nil && !info.IsDir() {
			return file
		}
		above := filepath.Dir(dir)
		if above == dir {
			return ""
		}
		dir = above
	}
}

// absolute makes a program that was named by a path independent of the folder
// that it runs in; a bare name is left to PATH.
func absolute(program string) string {
	if !strings.ContainsRune(program, '/') && !strings.ContainsRune(program, filepath.Separator) {
		return program
	}
	abs, err := filepath.Abs(program)
	if err != nil {
		return program
	}
	return abs
}

// An install says how a program comes onto a machine, as a shell would have it.
type install struct {
	apt, dnf, brew, winget string // commands; "" where the platform has no such package
	other                  string // what always works
}

// hint is what to do on this machine.
func (i install) hint() string {
	command := ""
	switch runtime.GOOS {
	case "darwin":
		command = i.brew
	case "windows":
		command = i.winget
	default:
		command = i.linux()
	}
	if command == "" {
		return i.other
	}
	return "run `" + command + "`, or " + i.other
}

func (i install) linux() string {
	for _, m := range []struct{ program, command string }{{"apt-get", i.apt}, {"dnf", i.dnf}} {
		if _, err := exec.LookPath(m.program); err == nil && m.command != "" {
			return m.command
		}
	}
	return ""
}
