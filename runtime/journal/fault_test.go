package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// A failingFS writes real files until armed, then fails once.
type failingFS struct {
	osFS
	write, sync atomic.Pointer[error]
	short       atomic.Int64 // bytes that a failing write still writes
}

type failingFile struct {
	File
	fs *failingFS
}

func (f *failingFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	file, err := f.osFS.OpenFile(name, flag, perm)
	if err != nil || !strings.HasSuffix(name, segmentSuffix) {
		return file, err
	}
	return failingFile{file, f}, nil
}

func (f failingFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.write.Swap(nil); err != nil {
		n, _ := f.File.WriteAt(p[:min(int(f.fs.short.Load()), len(p))], off)
		return n, *err
	}
	return f.File.WriteAt(p, off)
}

func (f failingFile) Sync() error {
	if err := f.fs.sync.Swap(nil); err != nil {
		return *err
	}
	return f.File.Sync()
}

func TestDiskErrorsPoison(t *testing.T) {
	noSpace, ioError, short := error(syscall.ENOSPC), error(syscall.EIO), error(nil)
	for name, fail := range map[string]func(*failingFS){
		"ENOSPC":                func(f *failingFS) { f.short.Store(0); f.write.Store(&noSpace) },
		"ENOSPC after a part":   func(f *failingFS) { f.short.Store(50); f.write.Store(&noSpace) },
		"short write, no error": func(f *failingFS) { f.short.Store(50); f.write.Store(&short) },
		"fsync":                 func(f *failingFS) { f.sync.Store(&ioError) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			fs := &failingFS{}
			b.cfg.FS = fs
			j := b.open()
			refs := b.fill(j, 5)
			fail(fs)
			if ref, err := j.Append(context.Background(), decision(9), policy.Synced); !errors.Is(err, ErrPoisoned) {
				t.Fatalf("acknowledged %+v: %v", ref, err)
			}
			// The disk works again, the journal must not.
			for _, class := range []policy.Durability{policy.Written, policy.Synced} {
				if _, err := j.Append(context.Background(), decision(10), class); !errors.Is(err, ErrPoisoned) {
					t.Fatalf("after the error: %v", err)
				}
			}
			if _, err := j.Checkpoint(); !errors.Is(err, ErrPoisoned) || j.Poisoned() == nil {
				t.Fatalf("checkpoint: %v", err)
			}
			if err := j.Close(); !errors.Is(err, ErrPoisoned) {
				t.Fatalf("close: %v", err)
			}
			again := b.open()
			b.mustHave(again, refs)
			b.mustComplete(again)
		})
	}
}

func TestPoisonReachesEveryWaiter(t *testing.T) {
	b := newBench(t)
	fs := &failingFS{}
	b.cfg.FS = fs
	j := b.open()
	ioError := error(syscall.EIO)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var acked []audit.Ref
	for c := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				ref, err := j.Append(context.Background(), decision(i), policy.Synced)
				if err != nil {
					if !errors.Is(err, ErrPoisoned) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				acked = append(acked, ref)
				n := len(acked)
				mu.Unlock()
				if c == 0 && n > 200 {
					fs.sync.Store(&ioError)
				}
			}
		})
	}
	wg.Wait()
	j.Close()
	again := b.open()
	b.mustHave(again, acked)
	b.mustComplete(again)
}

func TestPoisonDuringOpenBeginsNothing(t *testing.T) {
	b := newBench(t)
	fs := &failingFS{}
	b.cfg.FS = fs
	ioError := error(syscall.EIO)
	fs.sync.Store(&ioError)
	if _, err := Open(b.cfg); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	j := b.open()
	if len(j.Boots()) != 1 {
		t.Fatalf("%+v", j.Boots())
	}
}

// mustHave checks that every record of refs is in the journal, as its caller
// was told.
func (b *bench) mustHave(j *Journal, refs []audit.Ref) {
	b.t.Helper()
	batches := map[string]map[uint64]audit.Entry{}
	for _, ref := range refs {
		entries := batches[ref.Boot]
		if entries[ref.Seq].Leaf == nil {
			batch, err := j.ReadBatch(ref.Boot, ref.Seq, 0, 0)
			if err != nil {
				b.t.Fatalf("acknowledged record %+v: %v", ref, err)
			}
			if entries == nil {
				entries = map[uint64]audit.Entry{}
				batches[ref.Boot] = entries
			}
			for i, e := range batch.Entries {
				entries[batch.First+uint64(i)] = e
			}
		}
		if entries[ref.Seq].Hash() != ref.Leaf {
			b.t.Fatalf("acknowledged record %+v has another leaf", ref)
		}
	}
}

func TestTwoOwners(t *testing.T) {
	b := newBench(t)
	j := b.open()
	b.fill(j, 3)
	if _, err := Open(b.cfg); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	// Another process may still export what this one has signed.
	if _, err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	b.fill(j, 3)
	dir := filepath.Join(t.TempDir(), "export")
	if err := exportTo(dir, func(w *audit.ExportWriter) error { return Export(b.cfg, w) }); err != nil {
		t.Fatal(err)
	}
	r, err := audit.Verify(os.DirFS(dir), b.keys)
	if err != nil || r.Verdict != audit.VerdictComplete || r.Nodes[0].Boots[0].To != 4 {
		t.Fatalf("%v %+v", err, r)
	}
}

func TestExportOfAJournalAtRestChangesNothing(t *testing.T) {
	b := newBench(t)
	j := b.open()
	b.fill(j, 3)
	b.crash(j)
	dir := filepath.Join(t.TempDir(), "export")
	if err := exportTo(dir, func(w *audit.ExportWriter) error { return Export(b.cfg, w) }); err != nil {
		t.Fatal(err)
	}
	r, err := audit.Verify(os.DirFS(dir), b.keys)
	if err != nil || r.Verdict != audit.VerdictComplete || r.Nodes[0].Boots[0].To != 4 {
		t.Fatalf("%v %+v", err, r)
	}
	if boots, err := listBoots(osFS{}, b.cfg.Dir); err != nil || len(boots) != 1 {
		t.Fatalf("%v %v", boots, err)
	}
}

const childEnv = "HOLDFAST_JOURNAL_CHILD"

// TestKillNine kills a process that appends from several goroutines; whatever
// it had acknowledged, by a line on its standard output, must be there.
func TestKillNine(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		appendForEver(t, dir)
		return
	}
	b := newBench(t)
	b.cfg.SegmentBytes = 64 << 10
	var acked []audit.Ref
	for round := range 5 {
		refs := b.killChild(150 + 117*round)
		acked = append(acked, refs...)
		j := b.open()
		if d := j.Report().Damage; len(d) != 0 {
			t.Fatalf("round %d: %+v", round, d)
		}
		b.mustHave(j, acked)
		b.mustComplete(j)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killChild lets a child acknowledge n records, kills it and returns what it
// acknowledged.
func (b *bench) killChild(n int) []audit.Ref {
	b.t.Helper()
	child := exec.Command(os.Args[0], "-test.run", "^TestKillNine$")
	child.Env = append(os.Environ(), childEnv+"="+filepath.Dir(b.cfg.Dir))
	out, err := child.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		b.t.Fatal(err)
	}
	var refs []audit.Ref
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var ref audit.Ref
		var leaf string
		if _, err := fmt.Sscanf(lines.Text(), "acked %s %d %s", &ref.Boot, &ref.Seq, &leaf); err != nil {
			continue
		}
		if err := ref.Leaf.UnmarshalJSON([]byte(`"` + leaf + `"`)); err != nil {
			b.t.Fatal(err)
		}
		if refs = append(refs, ref); len(refs) == n {
			if _, err := Open(b.cfg); !errors.Is(err, ErrLocked) {
				b.t.Errorf("while the child owns the journal: %v", err)
			}
			child.Process.Kill()
		}
	}
	io.Copy(io.Discard, out)
	child.Wait()
	if len(refs) < n {
		b.t.Fatalf("the child ended after %d of %d records", len(refs), n)
	}
	return refs
}

func appendForEver(t *testing.T, dir string) {
	key, _, err := LoadOrCreateKey(filepath.Join(dir, "log.key"), audit.NodeKeyName(tenant, nodeName))
	if err != nil {
		t.Fatal(err)
	}
	j, err := Open(Config{
		Dir: filepath.Join(dir, "journal"), Tenant: tenant, Node: nodeName, Key: key,
		SegmentBytes: 64 << 10, CheckpointInterval: 5 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				class := policy.Synced
				if i%2 == 0 {
					class = policy.Written
				}
				ref, err := j.Append(context.Background(), decision(i), class)
				if err != nil {
					t.Error(err)
					return
				}
				os.Stdout.WriteString(fmt.Sprintf("acked %s %d %s\n", ref.Boot, ref.Seq, ref.Leaf))
			}
		})
	}
	wg.Wait()
}
