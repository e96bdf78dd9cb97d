package journal

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/needs"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// spaceBench returns a bench for a small disk, and what it was told of its room.
func spaceBench(t *testing.T) (*bench, chan Space) {
	b := newBench(t)
	b.cfg.SegmentBytes, b.cfg.ReserveBytes, b.cfg.LowBytes = 16<<10, 64<<10, 150<<10
	b.cfg.SpaceInterval = time.Millisecond
	told := make(chan Space, 100)
	b.cfg.OnSpace = func(s Space) { told <- s }
	return b, told
}

func mustBe(t *testing.T, told chan Space, want SpaceLevel) Space {
	t.Helper()
	select {
	case s := <-told:
		if s.Level != want {
			t.Fatalf("told %+v, not %s", s, want)
		}
		return s
	case <-time.After(20 * time.Second):
		t.Fatalf("nobody was told that room is %s", want)
	}
	panic("unreachable")
}

func admin(event string) *audit.Record {
	return &audit.Record{Kind: audit.KindAdmin, Time: 1, Admin: &audit.AdminRecord{Event: event}}
}

// fillUp appends decisions from several goroutines until there is no room.
func (b *bench) fillUp(j *Journal) (refs []audit.Ref) {
	b.t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				ref, err := j.Append(context.Background(), decision(i), policy.Synced)
				if errors.Is(err, ErrFull) {
					return
				}
				mu.Lock()
				refs = append(refs, ref)
				n := len(refs)
				mu.Unlock()
				if err != nil || n > 100_000 {
					b.t.Errorf("after %d records: %v", n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return refs
}

// filledUp checks a journal on a disk that fills up; more makes room.
func (b *bench) filledUp(told chan Space, more func(*Journal)) {
	t := b.t.(*testing.T)
	j := b.open()
	b.fill(j, 3)
	refs := b.fillUp(j)
	mustBe(t, told, SpaceLow)
	mustBe(t, told, SpaceFull)
	if len(refs) < 50 {
		t.Errorf("%d records", len(refs))
	}
	for range 40 { // in the reserve
		ref, err := j.Append(context.Background(), admin("kill"), policy.Synced)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	if _, err := j.Append(context.Background(), decision(1), policy.Written); !errors.Is(err, ErrFull) || j.Poisoned() != nil || !j.Full() {
		t.Fatalf("%v; poisoned: %v", err, j.Poisoned())
	}
	if err := j.Close(); err != nil { // with a closing checkpoint
		t.Fatal(err)
	}
	j = b.open()
	b.mustHave(j, refs)
	b.mustComplete(j)
	for len(told) > 0 {
		<-told
	}
	for {
		ref, err := j.Append(context.Background(), decision(1), policy.Synced)
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	if _, err := j.Append(context.Background(), admin("kill"), policy.Synced); err != nil {
		t.Fatal(err)
	}
	more(j)
	deadline := time.After(20 * time.Second)
	for j.Full() {
		select {
		case <-told:
		case <-deadline:
			t.Fatal("decisions are still refused")
		}
	}
	more20 := b.fill(j, 20)
	if j.Boots()[0].TrimmedThrough > 0 {
		b.mustHave(j, more20)
		return
	}
	b.mustHave(j, append(refs, more20...))
	b.mustComplete(j)
}

func TestFullDisk(t *testing.T) {
	b, told := spaceBench(t)
	fs := newMemFS(b.cfg.Dir, rand.New(rand.NewPCG(1, 1)))
	fs.size = 300 << 10
	b.cfg.FS = fs
	b.filledUp(told, func(*Journal) {
		fs.mu.Lock()
		fs.size = 10 << 20
		fs.mu.Unlock()
	})
}

func TestQuota(t *testing.T) {
	b, told := spaceBench(t)
	b.cfg.QuotaBytes, b.cfg.LowBytes, b.cfg.window = 3<<20, 1, 1
	b.cfg.FS = unsyncedFS{}
	b.filledUp(told, func(j *Journal) {
		first := j.Boots()[0]
		if err := j.Trim(first.ID, first.Size); err != nil {
			t.Fatal(err)
		}
	})
}

// TestFullTmpfs is TestFullDisk on a real file system of 1 MiB.
func TestFullTmpfs(t *testing.T) {
	b, told := spaceBench(t)
	if err := mountTmpfs(b.cfg.Dir, "1m"); err != nil {
		needs.Mounting(t, err)
	}
	t.Cleanup(func() { unmount(b.cfg.Dir) })
	ballast := filepath.Join(b.cfg.Dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 600<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	b.filledUp(told, func(*Journal) { os.Remove(ballast) })
}

// A file system that fills up while nobody can tell how much is free: what was
// under way is written into the reserve, or poisons the journal; nothing that was
// acknowledged is lost.
func TestFullDiskThatDoesNotSay(t *testing.T) {
	b, _ := spaceBench(t)
	fs := newMemFS(b.cfg.Dir, rand.New(rand.NewPCG(1, 1)))
	fs.size = 1 << 40
	b.cfg.FS = fs
	j := b.open()
	refs := b.fill(j, 10)
	fs.mu.Lock()
	fs.size = fs.used() // from now on
	fs.mu.Unlock()
	for i := 0; ; i++ {
		ref, err := j.Append(context.Background(), decision(i), policy.Synced)
		if errors.Is(err, ErrFull) || errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	if j.Poisoned() != nil {
		t.Fatal(j.Poisoned())
	}
	b.mustHave(j, refs)
	b.mustComplete(j)
}
