package assembly_test

import (
	"context"
	_ "embed"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/holdfast-policy/holdfast/compiler"
	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

//go:embed testdata/unruly.wasm
var unruly []byte

func unrulyPackage(t *testing.T) []byte {
	t.Helper()
	b, err := compiler.BuildFS(context.Background(), fstest.MapFS{
		"unruly.wasm":   {Data: unruly},
		"holdfast.yaml": {Data: []byte("name: unruly\nlanguage: wasm\n")},
	}, compiler.Options{Loader: newLoader(t)})
	if err != nil {
		t.Fatal(err)
	}
	return b.File
}

// Whatever a policy does instead of answering, the declared fail mode answers,
// the record has the trap, and the node decides on.
func TestUnrulyPolicies(t *testing.T) {
	file := unrulyPackage(t)
	o := newOne(t)
	o.start()
	want := map[string]abi.TrapCode{} // by request id
	for mode, code := range map[int64]abi.TrapCode{
		1: abi.TrapFuel, 2: abi.TrapDepth, 3: abi.TrapFuel, 4: abi.TrapOutput, 5: abi.TrapUnreachable,
		6: abi.TrapOutput, 7: abi.TrapOutput, 8: abi.TrapRefused, 9: abi.TrapArithmetic,
	} {
		for _, fail := range []policy.FailMode{policy.FailDeny, policy.FailAllowFlagged, policy.FailEscalate} {
			o.publish(file, func(p *bundle.Point) {
				p.OnError, p.OnFuel = fail, fail
				p.Packages[0].Params = map[string]any{"mode": mode}
			})
			id := string(code) + " " + fail.String()
			a := o.ask(`{"id":"` + id + `","document":1}`)
			if a.Verdict != fail.Verdict() || !a.Recorded || !strings.Contains(a.Reasons[0].Text, string(code)) {
				t.Errorf("mode %d, %s: %+v", mode, fail, a)
			}
			want[id] = code
		}
	}
	o.publish(file, func(p *bundle.Point) { p.Packages[0].Params = map[string]any{"mode": int64(0)} })
	if a := o.ask(`{"document":1}`); a.Verdict != policy.Allow {
		t.Errorf("well-behaved again: %+v", a)
	}
	for _, r := range o.records() {
		if r.Kind != audit.KindDecision || r.Decision.RequestID == "" {
			continue
		}
		code := string(want[r.Decision.RequestID])
		if f := r.Decision.Failure; f == nil || f.Trap != code || f.Module == nil || !strings.HasSuffix(r.Decision.RequestID, f.Mode.String()) || r.Decision.Runs[0].Trap != code {
			t.Errorf("record of %q: %+v", r.Decision.RequestID, r.Decision)
		}
	}
}

// failingFS is the operating system's, but the writing or syncing of segments
// fails while a switch is on.
type failingFS struct {
	journal.FS
	write, sync atomic.Bool
	failed      atomic.Int64 // writes
}

func (f *failingFS) OpenFile(name string, flag int, perm os.FileMode) (journal.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	return failingFile{file, f}, err
}

type failingFile struct {
	journal.File
	fs *failingFS
}

func (f failingFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fs.write.Load() {
		f.fs.failed.Add(1)
		return 0, syscall.ENOSPC
	}
	return f.File.WriteAt(p, off)
}

func (f failingFile) Sync() error {
	if f.fs.sync.Load() {
		return syscall.EIO
	}
	return f.File.Sync()
}

// A record that cannot be written: the fail mode answers and says so; when the
// disk works again a new boot counts what went unrecorded and enforces the same.
func TestDiskFailure(t *testing.T) {
	for name, failing := range map[string]func(*failingFS) *atomic.Bool{
		"write": func(f *failingFS) *atomic.Bool { return &f.write },
		"fsync": func(f *failingFS) *atomic.Bool { return &f.sync },
	} {
		t.Run(name, func(t *testing.T) {
			fs := &failingFS{FS: journal.OS()}
			o := newOne(t)
			o.cfg.JournalFS = fs
			o.start()
			o.publish(regoPackage(t, allowAda), nil)
			if a := o.ask(`{"document":{"user":"ada"}}`); a.Verdict != policy.Allow || !a.Recorded {
				t.Fatalf("before: %+v", a)
			}
			failing(fs).Store(true)
			const unrecorded = 3
			for range unrecorded {
				a := o.ask(`{"document":{"user":"ada"}}`)
				if a.Verdict != policy.Deny || a.Recorded || a.Durability != policy.NotRecorded || a.Leaf != "" || a.Reasons[0].Code != "log_failure" {
					t.Fatalf("while the disk fails: %+v", a)
				}
			}
			if o.edge.Node().Ready() == nil {
				t.Error("ready although nothing can be recorded")
			}
			failing(fs).Store(false)
			o.waitFor("the journal to be opened again", func() bool { return o.edge.Node().Ready() == nil })
			if a := o.ask(`{"document":{"user":"ada"}}`); a.Verdict != policy.Allow || !a.Recorded || a.Epoch != 1 {
				t.Fatalf("after: %+v", a)
			}
			var counted uint64
			for _, r := range o.records() {
				if r.Kind == audit.KindAdmin && r.Admin.Event == "unrecorded_answers" {
					counted += r.Admin.Count
				}
			}
			if counted != unrecorded {
				t.Errorf("%d answers counted as unrecorded, not %d", counted, unrecorded)
			}
		})
	}
}

// on_log_failure may let a decision stand, flagged; it never turns a denial
// into anything else.
func TestLogFailureModes(t *testing.T) {
	fs := &failingFS{FS: journal.OS()}
	o := newOne(t)
	o.cfg.JournalFS = fs
	o.start()
	o.publish(regoPackage(t, allowAda), func(p *bundle.Point) { p.OnLogFailure = policy.FailAllowFlagged })
	fs.write.Store(true)
	for user, verdict := range map[string]policy.Verdict{"ada": policy.Allow, "bob": policy.Deny} {
		a := o.ask(`{"document":{"user":"` + user + `"}}`)
		if a.Verdict != verdict || a.Recorded || a.Reasons[len(a.Reasons)-1].Code != "log_failure" {
			t.Errorf("%s: %+v", user, a)
		}
	}
	fs.write.Store(false)
}

// A second process on the same folder is refused.
func TestOneProcessANode(t *testing.T) {
	o := newOne(t)
	o.start()
	if _, err := assembly.StartEdge(context.Background(), o.cfg); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("a second node on the same folder: %v", err)
	}
}
