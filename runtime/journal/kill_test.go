package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

const stepEnv = "HOLDFAST_JOURNAL_STEP"

// A doomedFS kills its process with SIGKILL before the operation of that number.
type doomedFS struct {
	osFS
	mu   sync.Mutex
	left int
}

func (d *doomedFS) step(op, path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left--; d.left == 0 {
		fmt.Printf("killed before %s %s\n", op, filepath.Base(path))
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (d *doomedFS) OpenFile(path string, flag int, perm os.FileMode) (File, error) {
	if flag != os.O_RDONLY {
		d.step("open", path)
	}
	f, err := d.osFS.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return doomedFile{f, d, path}, nil
}

func (d *doomedFS) Mkdir(path string, perm os.FileMode) error {
	d.step("mkdir", path)
	return d.osFS.Mkdir(path, perm)
}

func (d *doomedFS) Remove(path string) error {
	d.step("remove", path)
	return d.osFS.Remove(path)
}

func (d *doomedFS) Rename(from, to string) error {
	d.step("rename", to)
	return d.osFS.Rename(from, to)
}

func (d *doomedFS) SyncDir(dir string) error {
	d.step("syncdir", dir)
	return d.osFS.SyncDir(dir)
}

type doomedFile struct {
	File
	fs   *doomedFS
	path string
}

func (f doomedFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.step("write", f.path)
	if n, err := f.File.WriteAt(p[:len(p)/2], off); err != nil {
		return n, err
	}
	f.fs.step("write the rest of", f.path)
	n, err := f.File.WriteAt(p[len(p)/2:], off+int64(len(p)/2))
	return len(p)/2 + n, err
}

func (f doomedFile) Preallocate(size int64) error {
	f.fs.step("preallocate", f.path)
	return f.File.Preallocate(size)
}

func (f doomedFile) Truncate(size int64) error {
	f.fs.step("truncate", f.path)
	return f.File.Truncate(size)
}

func (f doomedFile) Sync() error {
	f.fs.step("sync", f.path)
	return f.File.Sync()
}

// doomedConfig is that of both processes.
func doomedConfig(dir string) (Config, error) {
	key, _, err := LoadKey(filepath.Join(dir, "log.key"), audit.NodeKeyName(tenant, nodeName))
	return Config{
		Dir: filepath.Join(dir, "journal"), Tenant: tenant, Node: nodeName, Key: key, SegmentBytes: 4 << 10, window: 1,
		CheckpointRecords: 1 << 40, CheckpointInterval: 1 << 40, IdleInterval: 1 << 40, ReserveBytes: 4 << 10, ScrubBytes: -1,
	}, err
}

// doomed opens the journal, which recovers what the one before left, appends over
// several segments, signs, trims both boots, and ends. It says what was acknowledged.
func doomed(t *testing.T, dir string) {
	cfg, err := doomedConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	last, err := strconv.Atoi(os.Getenv(stepEnv))
	if err != nil {
		t.Fatal(err)
	}
	cfg.FS = &doomedFS{left: last}
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 14 {
		ref, err := j.Append(context.Background(), decision(i), policy.Synced)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("acked %s %d %s\n", ref.Boot, ref.Seq, ref.Leaf)
		if i == 7 {
			if _, err := j.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	boots := j.Boots()
	for _, b := range boots[len(boots)-2:] {
		through := b.Size
		if !b.Closed {
			through = 8
		}
		fmt.Printf("trimming %s %d\n", b.ID, through)
		if err := j.Trim(b.ID, through); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestKillAtEveryStep kills the process with SIGKILL before, and in the middle of,
// every operation on the disk of opening, appending, rotating, signing and
// trimming: what was acknowledged is there or was given up, nothing is doubled,
// nothing is damage.
func TestKillAtEveryStep(t *testing.T) {
	if dir := os.Getenv(stepEnv + "_DIR"); dir != "" {
		doomed(t, dir)
		return
	}
	b := newBench(t)
	home := filepath.Dir(b.cfg.Dir)
	var err error
	if b.cfg, err = doomedConfig(home); err != nil {
		t.Fatal(err)
	}
	j := b.open()
	first := b.fill(j, 12)
	b.crash(j)
	kinds := map[string]int{}
	step := 1
	for killed := true; killed; step++ {
		var said string
		c := *b
		dir := filepath.Join(t.TempDir(), "copy")
		if err := errors.Join(os.CopyFS(dir, os.DirFS(home)), os.Chmod(filepath.Join(dir, "log.key"), 0o600)); err != nil {
			t.Fatal(err)
		}
		c.cfg.Dir = filepath.Join(dir, "journal")
		said, killed = runDoomed(t, dir, step)
		refs, trimming, where := hear(t, said)
		kinds[where]++
		j, err := Open(c.cfg)
		if err != nil {
			t.Fatalf("step %d, %s: %v", step, where, err)
		}
		if d := j.Report().Damage; len(d) > 0 {
			t.Fatalf("step %d, %s: %+v", step, where, d[0].Damage)
		}
		trimmed := map[string]uint64{}
		for _, boot := range j.Boots() {
			trimmed[boot.ID] = boot.TrimmedThrough
			if boot.TrimmedThrough > trimming[boot.ID] {
				t.Fatalf("step %d, %s: %+v, asked for %d", step, where, boot, trimming[boot.ID])
			}
		}
		var left []audit.Ref
		for _, ref := range append(refs, first...) {
			if ref.Seq > trimmed[ref.Boot] {
				left = append(left, ref)
			}
		}
		c.mustHave(j, left)
		r, err := c.verify(j)
		if err != nil || r.Verdict == audit.VerdictAltered || r.Verdict == audit.VerdictFork {
			t.Fatalf("step %d, %s: %v %+v", step, where, err, r)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"mkdir", "open", "preallocate", "write", "write the rest of", "sync", "syncdir", "rename", "truncate", "remove"} {
		if kinds[want] == 0 {
			t.Errorf("never killed before %s", want)
		}
	}
	t.Logf("killed before each of %d steps: %v", step-2, kinds)
}

func runDoomed(t *testing.T, dir string, step int) (said string, killed bool) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run", "^TestKillAtEveryStep$")
	child.Env = append(os.Environ(), stepEnv+"="+strconv.Itoa(step), stepEnv+"_DIR="+dir)
	var out bytes.Buffer
	child.Stdout, child.Stderr = &out, &out
	err := child.Run()
	if err == nil {
		return out.String(), false
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return out.String(), true
	}
	t.Fatalf("step %d: %v: %s", step, err, out.String())
	return "", false
}

// hear reads what a doomed process said.
func hear(t *testing.T, said string) (refs []audit.Ref, trimming map[string]uint64, where string) {
	t.Helper()
	trimming = map[string]uint64{}
	for line := range strings.Lines(said) {
		line = strings.TrimSuffix(line, "\n")
		var ref audit.Ref
		var leaf string
		if _, err := fmt.Sscanf(line, "acked %s %d %s", &ref.Boot, &ref.Seq, &leaf); err == nil {
			if err := ref.Leaf.UnmarshalJSON([]byte(`"` + leaf + `"`)); err != nil {
				t.Fatal(err)
			}
			refs = append(refs, ref)
		}
		if _, err := fmt.Sscanf(line, "trimming %s %d", &ref.Boot, &ref.Seq); err == nil {
			trimming[ref.Boot] = ref.Seq
		}
		if op, ok := strings.CutPrefix(line, "killed before "); ok {
			where = op[:strings.LastIndexByte(op, ' ')]
		}
	}
	return refs, trimming, where
}
