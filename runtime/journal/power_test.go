package journal

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

var (
	seeds     = flag.Int("seeds", 120, "how many disks lose power")
	firstSeed = flag.Uint64("seed", 1, "the first one")
)

// A powerless is a journal on a disk that loses power again and again, and what
// its callers were told.
type powerless struct {
	*bench
	fs  *memFS
	rng *rand.Rand

	mu      sync.Mutex
	acked   []audit.Ref
	trimmed map[string]uint64 // asked for
	done    map[string]uint64 // and acknowledged
}

func newPowerless(t *testing.T, seed uint64) *powerless {
	b := newBench(t)
	b.cfg.SegmentBytes = 4 << 10
	b.cfg.CheckpointRecords, b.cfg.CheckpointInterval = 7, time.Hour
	b.cfg.ReserveBytes, b.cfg.ScrubBytes, b.cfg.window, b.cfg.kept = -1, -1, 3, 1
	rng := rand.New(rand.NewPCG(seed, 7))
	if rng.IntN(2) == 0 {
		b.cfg.ScanBytes = 1
	}
	return &powerless{bench: b, rng: rng, fs: newMemFS(b.cfg.Dir, rng), trimmed: map[string]uint64{}, done: map[string]uint64{}}
}

// run opens the journal and appends and trims until the power is gone.
func (p *powerless) run() {
	p.cfg.FS = p.fs
	callers, trims := 1+p.rng.IntN(3), p.rng.IntN(3) == 0 // the disk goes on with the same numbers
	j, err := Open(p.cfg)
	if err != nil {
		if !p.fs.dead {
			p.t.Fatal(err)
		}
		return
	}
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() { p.append(j, caller) })
	}
	for j.Poisoned() == nil {
		changed := j.Changed()
		if trims {
			p.trim(j)
		}
		if j.Poisoned() == nil {
			<-changed
		}
	}
	wg.Wait()
	j.Close()
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	if !p.fs.dead {
		p.t.Errorf("poisoned with power: %v", j.Poisoned())
	}
}

func (p *powerless) append(j *Journal, caller int) {
	for i := 0; ; i++ {
		r := decision(i)
		r.Decision.RequestID = fmt.Sprintf("%s-%d-%d", j.Boot(), caller, i)
		class := policy.Synced
		if i%4 == 3 {
			class = policy.Written
		}
		ref, err := j.Append(context.Background(), r, class)
		if err != nil {
			return
		}
		if class == policy.Synced {
			p.mu.Lock()
			p.acked = append(p.acked, ref)
			p.mu.Unlock()
		}
	}
}

// trim gives up about half of every boot.
func (p *powerless) trim(j *Journal) {
	for _, b := range j.Boots() {
		if b.Size/2 <= p.trimmed[b.ID] {
			continue
		}
		p.trimmed[b.ID] = b.Size / 2
		if b.Closed && b.Size < 100 {
			p.trimmed[b.ID] = b.Size
		}
		if j.Trim(b.ID, p.trimmed[b.ID]) == nil {
			for _, b := range j.Boots() {
				p.done[b.ID] = b.TrimmedThrough
			}
		}
	}
}

// check reads everything and compares it with what was acknowledged.
func (p *powerless) check(seed uint64) {
	p.t.Helper()
	p.cfg.FS = p.fs
	j := p.open()
	if r := j.Report(); len(r.Damage) > 0 {
		p.t.Fatalf("seed %d: damage without any: %+v", seed, r.Damage[0].Damage)
	}
	records, trimmed, ids := map[string]map[uint64]audit.Ref{}, map[string]uint64{}, map[string]bool{}
	there := map[string]bool{}
	for _, b := range j.Boots() {
		there[b.ID] = true
	}
	previous := ""
	for _, b := range j.Boots() {
		if b.TrimmedThrough > p.trimmed[b.ID] || b.TrimmedThrough < p.done[b.ID] {
			p.t.Fatalf("seed %d: boot %s was trimmed through %d; %d was asked for, %d acknowledged", seed, b.ID, b.TrimmedThrough, p.trimmed[b.ID], p.done[b.ID])
		}
		records[b.ID], trimmed[b.ID] = map[uint64]audit.Ref{}, b.TrimmedThrough
		if b.TrimmedThrough > 0 {
			if _, err := j.ReadBatch(b.ID, b.TrimmedThrough, 0, 0); !errors.Is(err, ErrTrimmed) {
				p.t.Fatalf("seed %d: reading what was trimmed: %v", seed, err)
			}
		}
		for next := b.TrimmedThrough + 1; next <= b.Size; {
			batch, err := j.ReadBatch(b.ID, next, 0, 0)
			if err != nil {
				p.t.Fatalf("seed %d: boot %s from %d of %d: %v", seed, b.ID, next, b.Size, err)
			}
			_, rs, err := batch.Verify(p.node, nil)
			if err != nil {
				p.t.Fatalf("seed %d: %v", seed, err)
			}
			for i, r := range rs {
				records[b.ID][r.Seq] = audit.Ref{Boot: b.ID, Seq: r.Seq, Leaf: batch.Entries[i].Hash()}
				if r.Decision != nil {
					if ids[r.Decision.RequestID] {
						p.t.Fatalf("seed %d: %s is there twice", seed, r.Decision.RequestID)
					}
					ids[r.Decision.RequestID] = true
				}
				if r.Boot != nil && r.Boot.Previous != previous && (there[r.Boot.Previous] || p.trimmed[r.Boot.Previous] == 0) {
					p.t.Fatalf("seed %d: boot %s follows %q, not %q", seed, b.ID, r.Boot.Previous, previous)
				}
			}
			next = batch.Last() + 1
		}
		previous = b.ID
	}
	for _, ref := range p.acked {
		if !there[ref.Boot] && ref.Seq <= p.trimmed[ref.Boot] {
			continue // it vanished
		}
		if records[ref.Boot][ref.Seq] != ref && ref.Seq > trimmed[ref.Boot] {
			p.t.Fatalf("seed %d: %+v was acknowledged; %+v is there", seed, ref, records[ref.Boot][ref.Seq])
		}
	}
	if err := j.Close(); err != nil {
		p.t.Fatal(err)
	}
}

// TestLossOfPower loses power at any operation of appending, rotating, signing,
// trimming and recovering, several times in a row.
func TestLossOfPower(t *testing.T) {
	acked, trimmed := 0, 0
	for seed := *firstSeed; seed < *firstSeed+uint64(*seeds); seed++ {
		p := newPowerless(t, seed)
		for range 2 + p.rng.IntN(4) {
			p.fs.dies = 1 + p.rng.IntN(250)
			p.run()
			p.fs = p.fs.reboot()
		}
		p.check(seed)
		acked += len(p.acked)
		trimmed += len(p.done)
	}
	t.Logf("%d records acknowledged, %d boots trimmed", acked, trimmed)
	if acked < *seeds*10 || trimmed < *seeds/4 {
		t.Error("the test does not test")
	}
}

// TestDiskErrorsAtEveryOperation has one operation of each kind fail once: what
// was acknowledged is there after the next start.
func TestDiskErrorsAtEveryOperation(t *testing.T) {
	for _, op := range []string{"write", "sync", "preallocate", "truncate", "rename", "syncdir", "open"} {
		for _, suffix := range []string{segmentSuffix, ".new", checkpointFile, ""} {
			for n := 1; n < 12; n += 3 {
				p := newPowerless(t, 1)
				p.fs.fail = failsAt(op, suffix, n, syscall.EIO)
				p.cfg.FS = p.fs
				if j, err := Open(p.cfg); err == nil {
					for i := range 60 {
						ref, err := j.Append(context.Background(), decision(i), policy.Synced)
						if err != nil {
							if !errors.Is(err, syscall.EIO) {
								t.Fatal(err)
							}
							break
						}
						p.acked = append(p.acked, ref)
					}
					j.Close()
				} else if !errors.Is(err, syscall.EIO) {
					t.Fatal(err)
				}
				p.fs.fail = nil
				p.fs = p.fs.reboot()
				p.cfg.FS = p.fs
				again := p.open()
				if d := again.Report().Damage; len(d) > 0 {
					t.Fatalf("%s of %s no. %d: %v", op, suffix, n, d)
				}
				p.mustHave(again, p.acked)
				again.Close()
			}
		}
	}
}

// TestFailedSyncIsNotBelievedLater has an fsync fail, after which the kernel holds
// pages as clean that are not on the disk. The next start can read them and signs
// that they are there: then they must be, also when power is lost.
func TestFailedSyncIsNotBelievedLater(t *testing.T) {
	for n := 2; n < 30; n++ {
		p := newPowerless(t, uint64(n))
		p.cfg.FS = p.fs
		j := p.open()
		p.fs.mu.Lock()
		p.fs.fail = failsAt("sync", segmentSuffix, n, syscall.EIO)
		p.fs.mu.Unlock()
		var err error
		for i := 0; err == nil; i++ {
			_, err = j.Append(context.Background(), decision(i), policy.Synced)
		}
		j.Close()
		again := p.open()
		signed := again.Boots()[0].Size
		p.crash(again)
		p.fs = p.fs.reboot()
		p.cfg.FS = p.fs
		last := p.open()
		if got := last.Boots()[0]; len(last.Report().Damage) > 0 || got.Size != signed {
			t.Fatalf("fsync %d: %d records were signed; %+v %+v", n, signed, got, last.Report().Damage)
		}
		if _, err := last.ReadBatch(last.Boots()[0].ID, signed, 0, 0); err != nil {
			t.Fatalf("fsync %d: %v", n, err)
		}
		last.Close()
	}
}

// TestReadErrorsAreNotATornTail has one, a few or all reads from the n-th on fail
// while the journal is opened: nothing is cut for it.
func TestReadErrorsAreNotATornTail(t *testing.T) {
	p := newPowerless(t, 1)
	p.cfg.FS = p.fs
	j := p.open()
	refs := p.fill(j, 30)
	p.crash(j)
	p.fs = p.fs.reboot()
	before := p.content()
	failed := 0
	for n := 1; n < 120; n++ {
		fs := p.fs.reboot()
		p.fs.dead = false
		p.cfg.FS = fs
		reads, last := 0, n+[]int{0, 1, 2, 5, 1 << 20}[n%5]
		fs.fail = func(op, path string) error {
			if op == "read" && filepath.Ext(path) == segmentSuffix {
				if reads++; n <= reads && reads <= last {
					return syscall.EIO
				}
			}
			return nil
		}
		j, err := Open(p.cfg)
		fs.mu.Lock()
		fs.fail = nil
		fs.mu.Unlock()
		if err != nil {
			if !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			failed++
		} else {
			if len(j.Report().Damage) > 0 {
				failed++
			} else {
				p.mustHave(j, refs)
			}
			j.Close()
		}
		for path, content := range before {
			if filepath.Ext(path) != segmentSuffix {
				continue
			}
			fs.mu.Lock()
			now := fs.names[path]
			fs.mu.Unlock()
			if now == nil || len(now.data) < len(content) || string(now.data[:len(content)]) != content {
				t.Fatalf("read error %d: %s was cut", n, path)
			}
		}
	}
	if failed < 8 {
		t.Errorf("only %d reads failed", failed)
	}
}

// content is that of every file without the zeros at its end.
func (p *powerless) content() map[string]string {
	out := map[string]string{}
	for path, n := range p.fs.names {
		b := n.data
		for len(b) > 0 && b[len(b)-1] == 0 {
			b = b[:len(b)-1]
		}
		out[path] = string(b)
	}
	return out
}
