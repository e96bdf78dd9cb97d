package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// A worker that waits for its module has nothing but three pipes, and all its limits.
func TestWorkerIsConfined(t *testing.T) {
	withholdFiles()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p, err := startProcess(ctx, Self(), job{dir: t.TempDir(), kind: abi.HoldfastV1, limits: limitsOf(0)})
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(p.stdout).ReadString('\n'); line != ready {
		t.Fatal(line, err)
	}
	pid := p.cmd.Process.Pid
	read := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	if environ := read("environ"); environ != "" {
		t.Errorf("environment %q", environ)
	}
	for what, pattern := range map[string]string{
		"core": `Max core file size +0 +0 `, "CPU": `Max cpu time +5 +6 `, "files": `Max open files +32 +32 `,
		"file size": `Max file size +67108864 +67108864 `, "data": `Max data size +1\d{9} +1\d{9} `,
	} {
		if limits := read("limits"); !regexp.MustCompile(pattern).MatchString(limits) && !raceEnabled(limits, what) {
			t.Errorf("%s is not limited:\n%s", what, limits)
		}
	}
	if limits := read("limits"); regexp.MustCompile(`Max address space +unlimited`).MatchString(limits) {
		t.Error("address space is not limited")
	}
	status := read("status")
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in %s", want, status)
		}
	}
	if score := strings.TrimSpace(read("oom_score_adj")); score != "1000" {
		t.Errorf("oom_score_adj %s", score)
	}
	checkFiles(t, pid)
	checkThreads(t, pid)
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("process group %d, %v", group, err)
	}
	cancel()
	if err := p.cmd.Wait(); err == nil {
		t.Error("a worker without its parent's interest goes on")
	}
}

// raceEnabled forgives a data limit that is higher by what the race detector maps.
func raceEnabled(limits, what string) bool {
	return what == "data" && regexp.MustCompile(`Max data size +\d{11,} `).MatchString(limits)
}

func checkFiles(t *testing.T, pid int) {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, f.Name()))
		if err == nil && !strings.HasPrefix(to, "pipe:") && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			t.Errorf("descriptor %s is %s", f.Name(), to)
		}
	}
}

// checkThreads wants every thread to be nice.
func checkThreads(t *testing.T, pid int) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		t.Fatal(err)
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		const nice = 19 - 3 // fields behind the name
		if f := strings.Fields(after); f[nice] != "10" {
			t.Errorf("%s: nice %s", path, f[nice])
		}
	}
}

// children returns the workers of this process.
func children(t *testing.T) (pids []int) {
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // the thread may have ended
		for _, field := range strings.Fields(string(text)) {
			var pid int
			fmt.Sscan(field, &pid)
			if name, _ := os.ReadFile("/proc/" + field + "/cmdline"); strings.HasPrefix(string(name), workerName) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// A worker killed at its work costs its own module, for a while, and nothing else.
func TestKilledWorker(t *testing.T) {
	s := newShop(t, filepath.Join(t.TempDir(), "compiled"))
	s.check(t, 1)
	heavy := Spec{Name: "heavy", ABI: abi.HoldfastV1, Wasm: heavyModule(t)}
	failed := make(chan error)
	go func() {
		_, err := s.Load(context.Background(), heavy)
		failed <- err
	}()
	var pids []int
	for ; len(pids) == 0; pids = children(t) {
		runtime.Gosched()
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	err := <-failed
	if why, ok := errors.AsType[*CompileError](err); !ok || !why.Passing || !strings.Contains(err.Error(), "was killed: signal: killed") {
		t.Errorf("killed: %v", err)
	}
	_, err = s.Load(context.Background(), heavy)
	if err == nil || !strings.Contains(err.Error(), "not tried again") || len(children(t)) != 0 {
		t.Errorf("at once: %v", err)
	}
	s.check(t, 2)
	for id, h := range s.quarantine.held {
		h.until = time.Now().Add(-1)
		s.quarantine.held[id] = h
	}
	m, err := s.Load(context.Background(), heavy)
	if err != nil {
		t.Fatalf("later: %v", err)
	}
	m.Close(context.Background())
}

func heavyModule(t *testing.T) []byte {
	b, err := os.ReadFile("testdata/probe.wasm")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Programs that are no worker, or a worker that something has taken over.
func TestStrangeWorkers(t *testing.T) {
	hello := "#!/bin/sh\nprintf 'holdfast worker 1\\n'\n"
	drink := "/bin/cat >/dev/null\n"
	for want, script := range map[string]string{
		"is no greeting":             "#!/bin/sh\necho hello, hello, hello, hello\n",
		"signal: killed":             hello + drink + "kill -9 $$\n",
		"broke: exit status 3: ouch": hello + drink + "echo ouch >&2; exit 3\n",
		"begins with 0x78":           hello + drink + "echo x\n",
		"unexpected EOF":             hello + drink + "printf c0123\n",
		"answered garbage":           hello + drink + "printf r; printf '\\0\\0\\0\\2[]'\n",
		"a report of":                hello + drink + "printf e; printf '\\377\\377\\377\\377'\n",
		"exceeded 300ms":             hello + drink + "/bin/sleep 1000\n",
		"no such file or directory":  "",
	} {
		program := filepath.Join(t.TempDir(), "worker")
		if script != "" {
			if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		limits := limitsOf(0)
		if strings.Contains(script, "sleep") {
			limits.Wall = 300 * time.Millisecond
		}
		e, err := New(context.Background(), Config{Worker: program, limits: &limits})
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.Load(context.Background(), say(1))
		if _, ok := errors.AsType[*CompileError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// A load that is cancelled ends its worker and is no reason for quarantine.
func TestCancelledLoad(t *testing.T) {
	s := newShop(t, filepath.Join(t.TempDir(), "compiled"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Load(ctx, say(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	s.check(t, 1)
}
