package edge_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// doomed is a node in a process of its own that kills itself with SIGKILL before
// the step of that number, or ends well when what it is to do is done.
func doomed(dir string) int {
	folder, until, back := os.Getenv("HOLDFAST_TEST_SOURCE"), os.Getenv("HOLDFAST_TEST_EPOCH"), os.Getenv("HOLDFAST_TEST_BACK") != ""
	last, err := strconv.ParseInt(os.Getenv("HOLDFAST_TEST_STEP"), 10, 64)
	if err != nil {
		return 2
	}
	var armed atomic.Bool
	var steps atomic.Int64
	n, err := edge.Open(context.Background(), edge.Config{
		Tenant: "acme", Name: "n1", Dir: dir, Root: newKeys().trust, Source: loader.FolderSource{Dir: folder}, Log: slog.New(slog.DiscardHandler),
		Step: func(step string) {
			if armed.Load() && steps.Add(1) == last {
				fmt.Println(step)
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return 2
	}
	armed.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	for ctx.Err() == nil {
		st := n.Status()
		if fmt.Sprint(st.Epoch) == until && st.Fallback == back {
			cancel()
			if err := errors.Join(<-ended, n.Close(context.Background())); err != nil {
				fmt.Println(err)
				return 2
			}
			return 0
		}
		time.Sleep(time.Millisecond)
	}
	return 3
}

// crash runs a doomed node on a copy of dir and returns what it printed, and
// whether it was killed.
func (w *world) crash(dir, epoch string, back bool, step int) (string, bool) {
	w.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_NODE="+dir, "HOLDFAST_TEST_SOURCE="+w.folder, "HOLDFAST_TEST_EPOCH="+epoch, "HOLDFAST_TEST_STEP="+strconv.Itoa(step))
	if back {
		cmd.Env = append(cmd.Env, "HOLDFAST_TEST_BACK=1")
	}
	out, err := cmd.Output()
	said := strings.TrimSpace(string(out))
	if err == nil {
		return said, false
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return said, true
	}
	w.t.Fatalf("step %d: %v: %s", step, err, said)
	return "", false
}

func (w *world) copyOf(dir string) string {
	w.t.Helper()
	to := filepath.Join(w.t.TempDir(), "node")
	w.must(os.CopyFS(to, os.DirFS(dir)))
	for _, secret := range []string{edge.KeyFile(to), edge.SecretFile(to)} {
		w.must(os.Chmod(secret, 0o600))
	}
	return to
}

// A node that is killed with SIGKILL before any step of an activation has the old
// release in force after a restart without anybody, or the new one, whole: and
// never the old one once the ratchet has the new one.
func TestKillAtEveryStepOfAnActivation(t *testing.T) {
	w := newWorld(t)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(nil)
	n.waitEpoch(1)
	n.stop()
	w.put(w.release(2, w.publish(says(policy.Throttle, 2))))
	before := w.dir
	seen := map[uint64]int{}
	step := 1
	for ; ; step++ {
		w.dir = w.copyOf(before)
		where, killed := w.crash(w.dir, "2", false, step)
		ratchet := w.ratchetIn(w.dir)
		again := w.start(alone)
		st, a := again.Status(), again.ask()
		want := map[uint64]policy.Verdict{1: policy.Allow, 2: policy.Throttle}[st.Epoch]
		if !st.Ready || a.Epoch != st.Epoch || a.Verdict != want || st.Epoch != ratchet.Epoch {
			t.Fatalf("killed before %q: %+v, %+v", where, st, a)
		}
		seen[st.Epoch]++
		again.stop()
		if !killed {
			break
		}
	}
	if seen[1] < 8 || seen[2] < 4 {
		t.Errorf("steps: %v", seen)
	}
	t.Logf("killed before each of %d steps: %v", step-1, seen)
}

func (w *world) ratchetIn(dir string) bundle.Ratchet {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "store", "ratchet"))
	w.must(err)
	r, err := bundle.DecodeRatchet(b)
	w.must(err)
	return r
}

// haltedIn reports whether the node has stored the order to halt epoch 2.
func (w *world) haltedIn(dir string) bool {
	w.t.Helper()
	env, err := os.ReadFile(filepath.Join(dir, "store", "orders", fmt.Sprintf("%020d.dsse", 2)))
	w.must(err)
	o, err := w.trust.OpenOrder(env)
	w.must(err)
	return o.State == bundle.RolloutHalted
}

// The same for a step back.
func TestKillAtEveryStepOfAStepBack(t *testing.T) {
	w := newWorld(t)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(nil)
	n.waitEpoch(1)
	second := w.release(2, w.publish(says(policy.Throttle, 2)))
	second.Rings = ringOf("all")
	w.put(second)
	w.order(second, 1, "running", "active")
	n.waitEpoch(2)
	n.stop()
	w.order(second, 2, "halted")
	before := w.dir
	seen := map[bool]int{}
	step := 1
	for ; ; step++ {
		w.dir = w.copyOf(before)
		where, killed := w.crash(w.dir, "2", true, step)
		ratchet := w.ratchetIn(w.dir)
		again := w.start(alone)
		again.wait("a set", func() bool { return again.Status().Ready })
		if w.haltedIn(w.dir) { // then the restarted node obeys, alone
			again.waitFallback(2)
		}
		st, a := again.Status(), again.ask()
		want := map[bool]policy.Verdict{true: policy.Allow, false: policy.Throttle}[st.Fallback]
		if !st.Ready || st.Epoch != 2 || a.Epoch != 2 || a.Verdict != want || ratchet.Fallback && !st.Fallback {
			t.Fatalf("killed before %q: %+v, %+v", where, st, a)
		}
		seen[st.Fallback]++
		again.stop()
		if !killed {
			break
		}
	}
	if seen[true] < 4 {
		t.Errorf("steps: %v", seen)
	}
	t.Logf("killed before each of %d steps: %v", step-1, seen)
}
