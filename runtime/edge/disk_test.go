package edge_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/edge"
	"github.com/holdfast-policy/holdfast/runtime/journal"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// fullDisk has room for so many bytes more.
type fullDisk struct {
	journal.FS
	free *atomic.Int64
}

func (d fullDisk) Free(string) (int64, error) { return d.free.Load(), nil }

func (d fullDisk) OpenFile(name string, flag int, perm os.FileMode) (journal.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	return fullFile{f, d}, err
}

func (d fullDisk) Remove(name string) error {
	if filepath.Base(name) == "reserve" {
		if info, err := os.Stat(name); err == nil {
			d.free.Add(info.Size())
		}
	}
	return d.FS.Remove(name)
}

type fullFile struct {
	journal.File
	disk fullDisk
}

func (f fullFile) Preallocate(size int64) error {
	if f.disk.free.Add(-size) < 0 {
		f.disk.free.Add(size)
		return syscall.ENOSPC
	}
	return f.File.Preallocate(size)
}

func smallDisk(free *atomic.Int64) func(*edge.Config) {
	return func(c *edge.Config) {
		c.JournalFS = fullDisk{journal.OS(), free}
		c.Journal = func(j *journal.Config) {
			j.SegmentBytes, j.ReserveBytes, j.LowBytes, j.SpaceInterval = 16<<10, 64<<10, 60<<10, time.Millisecond
		}
	}
}

// A full disk is announced, in an alarm and a record, before it is full; then
// decisions are answered by on_log_failure, the journal is not poisoned and takes
// administrative records; and the first record when there is room counts what has
// none, once.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	free := &atomic.Int64{}
	free.Store(400 << 10)
	r := w.release(1, w.publish(says(policy.Allow, 1)))
	for i := range r.Points {
		r.Points[i].OnLogFailure, r.Points[i].Durability = policy.FailAllowFlagged, policy.Synced
	}
	w.put(r)
	n := w.start(smallDisk(free))
	n.waitEpoch(1)
	boot := n.Journal().Boot()
	n.fillUp()
	n.wait("the alarm", func() bool { return w.alarmed("journal_space") >= 2 })
	unrecorded := uint64(1) // by fillUp
	for range 4 {
		if a := n.ask(); a.Recorded || a.Verdict != policy.Allow || a.Reasons[len(a.Reasons)-1].Code != edge.CodeLogFailure {
			t.Fatalf("%+v", a)
		}
		unrecorded++
	}
	if got := n.admin("journal_space"); len(got) < 2 || got[0].Text != "low" || got[1].Text != "full" {
		t.Fatalf("%+v", got)
	}
	if n.Journal().Poisoned() != nil || n.Journal().Boot() != boot || len(n.admin("unrecorded_answers")) != 0 {
		t.Fatal("a full disk is no reason for another boot, nor to count yet")
	}
	full := n.records()
	free.Store(10 << 20)
	n.wait("a record", func() bool {
		a := n.ask()
		if !a.Recorded {
			unrecorded++
		}
		return a.Recorded
	})
	counted := n.admin("unrecorded_answers")
	if len(counted) != 1 || counted[0].Count != unrecorded || counted[0].From == 0 || counted[0].To <= counted[0].From {
		t.Fatalf("%d answers have no record: %+v", unrecorded, counted)
	}
	for _, rec := range n.records()[len(full):] {
		if rec.Kind == audit.KindDecision {
			t.Fatal("a decision was recorded before the count")
		}
		if rec.Kind == audit.KindAdmin && rec.Admin.Event == "unrecorded_answers" {
			break
		}
	}
}

// fillUp asks until an answer has no record.
func (n *node) fillUp() {
	n.w.t.Helper()
	for i := 0; n.ask().Recorded; i++ {
		if i > 100_000 {
			n.w.t.Fatal("the disk does not fill up")
		}
	}
}

// A node that is stopped while its disk is full has said how many answers have no
// record, and starts again.
func TestStopOnAFullDisk(t *testing.T) {
	w := newWorld(t)
	free := &atomic.Int64{}
	free.Store(300 << 10)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(smallDisk(free))
	n.waitEpoch(1)
	n.fillUp()
	before := n.Journal().Boot()
	n.stop()
	n = w.start(smallDisk(free))
	n.wait("the release", func() bool { return n.Status().Epoch == 1 })
	if n.ask().Recorded {
		t.Error("a decision was recorded in the reserve")
	}
	j, found := n.Journal(), false
	for from := uint64(1); !found; from++ {
		b, err := j.ReadBatch(before, from, 1, 0)
		if errors.Is(err, journal.ErrNoRecords) {
			break
		}
		w.must(err)
		rec, err := b.Entries[0].Record(nil)
		w.must(err)
		found = rec.Kind == audit.KindAdmin && rec.Admin.Event == "unrecorded_answers" && rec.Admin.Count == 1
	}
	if !found {
		t.Error("nobody counted the answer without a record")
	}
}

// Checkpoints carry the digest of the last heartbeat.
func TestCheckpointsCarryTheHeartbeat(t *testing.T) {
	w := newWorld(t)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(nil)
	n.waitEpoch(1)
	for range 2 {
		beat := w.beat("eu")
		n.Deliver(beat)
		msg, err := n.Journal().Checkpoint()
		w.must(err)
		c, err := audit.PeekCheckpoint(msg)
		w.must(err)
		if c.Heartbeat != wire.Sum(beat) {
			t.Fatalf("%+v", c)
		}
		w.advance(time.Second)
	}
}

// What the scrub finds is told: an alarm and a record.
func TestScrubTellsOfDamage(t *testing.T) {
	w := newWorld(t)
	w.put(w.release(1, w.publish(says(policy.Allow, 1))))
	n := w.start(nil)
	n.waitEpoch(1)
	n.ask()
	boot := n.Journal().Boot()
	n.stop()
	n = w.start(func(c *edge.Config) {
		c.Journal = func(j *journal.Config) { j.ScrubPause = time.Millisecond }
	})
	path := filepath.Join(edge.JournalDir(w.dir), boot, "00000000000000000001.seg")
	content, err := os.ReadFile(path)
	w.must(err)
	content[len(content)-3] ^= 1
	w.must(os.WriteFile(path, content, 0o600))
	n.wait("the alarm", func() bool { return w.alarmed("journal_damage") == 1 })
	n.wait("the record", func() bool { return len(n.admin("journal_damage")) == 1 })
	if got := n.admin("journal_damage")[0]; got.Detail["boot"] != boot || got.Detail["from"] == int64(0) {
		t.Errorf("%+v", got)
	}
}
