package journal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// files counts the segments of a boot.
func segmentsOf(t *testing.T, boot bootDir) []segment {
	t.Helper()
	s, err := boot.segments()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTrimTheRunningBoot(t *testing.T) {
	b := newBench(t)
	b.cfg.SegmentBytes, b.cfg.FS, b.cfg.window, b.cfg.ReserveBytes = 8<<10, unsyncedFS{}, 16, -1
	j := b.open()
	refs := b.fill(j, 119)
	before, used := segmentsOf(t, j.boot), mustUse(t, j)
	if err := j.Trim(j.Boot(), 200); !errors.Is(err, ErrNoRecords) {
		t.Fatal(err)
	}
	if err := j.Trim("00000009-0000000000000009", 1); err == nil {
		t.Fatal("a boot that does not exist was trimmed")
	}
	if err := j.Trim(j.Boot(), 100); err != nil {
		t.Fatal(err)
	}
	after := segmentsOf(t, j.boot)
	trimmed := j.Boots()[0].TrimmedThrough
	if trimmed > 100 || trimmed%16 != 0 || after[0].first-1 > trimmed || trimmed < 80 || len(after) >= len(before)-1 {
		t.Fatalf("trimmed through %d; %v, then %v", trimmed, before, after)
	}
	if now := mustUse(t, j); now >= used/2 {
		t.Errorf("%d bytes, then %d", used, now)
	}
	b.mustReadBehind(j, j.Boot(), refs, trimmed)
	more := append(refs, b.fill(j, 20)...)
	id := j.Boot()
	b.crash(j)
	again := b.open()
	if r := again.Report(); len(r.Damage) > 0 || again.Boots()[0].TrimmedThrough != trimmed {
		t.Fatalf("%+v %+v", r, again.Boots())
	}
	b.mustReadBehind(again, id, more, trimmed)
	r, err := b.verify(again)
	got := r.Nodes[0].Boots
	if err != nil || len(got[0].Altered)+len(got[0].Forks) > 0 || got[0].Gaps[0] != (audit.Range{From: 1, To: trimmed}) || got[0].To != 140 || !got[1].Complete {
		t.Fatalf("%v %+v", err, r)
	}
}

func mustUse(t *testing.T, j *Journal) int64 {
	t.Helper()
	used, err := j.DiskBytes()
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// mustReadBehind checks that all of refs behind trimmed are there with their
// proofs, and that nothing else is.
func (b *bench) mustReadBehind(j *Journal, boot string, refs []audit.Ref, trimmed uint64) {
	b.t.Helper()
	for _, seq := range []uint64{1, trimmed} {
		var d *Damage
		if _, err := j.ReadBatch(boot, seq, 0, 0); !errors.Is(err, ErrTrimmed) || errors.As(err, &d) {
			b.t.Fatalf("reading %d, which was trimmed: %v", seq, err)
		}
		if _, err := j.Prove(boot, seq); !errors.Is(err, ErrTrimmed) {
			b.t.Fatalf("proving %d, which was trimmed: %v", seq, err)
		}
	}
	var behind []audit.Ref
	for _, r := range refs {
		if r.Boot == boot && r.Seq > trimmed {
			behind = append(behind, r)
		}
	}
	b.mustHave(j, behind)
	for _, ref := range behind {
		p, err := j.Prove(ref.Boot, ref.Seq)
		if err != nil {
			b.t.Fatal(err)
		}
		if _, _, err := p.Verify(b.node); err != nil {
			b.t.Fatalf("proof of %d: %v", ref.Seq, err)
		}
	}
}

func TestTrimABootThatEnded(t *testing.T) {
	b, boot := ended(t, true)
	j := b.open()
	if err := j.Trim(boot.id, records); err != nil {
		t.Fatal(err)
	}
	if left := segmentsOf(t, boot); len(left) != 0 {
		t.Fatalf("%v is left", left)
	}
	if _, err := j.LastCheckpoint(boot.id); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		got := j.Boots()[0]
		if len(j.Report().Damage) > 0 || got.ID != boot.id || got.Size != records || got.TrimmedThrough != records {
			t.Fatalf("%+v %+v", j.Report(), got)
		}
		if _, err := j.ReadBatch(boot.id, records, 0, 0); !errors.Is(err, ErrTrimmed) {
			t.Fatal(err)
		}
		if _, err := j.ReadBatch(boot.id, records+1, 0, 0); !errors.Is(err, ErrNoRecords) {
			t.Fatal(err)
		}
		j.Close()
		j = b.open()
	}
}

// The last boot may be trimmed as a whole: the next one names its end all the same.
func TestTheNextBootNamesATrimmedOne(t *testing.T) {
	b, boot := ended(t, true)
	head, _, _ := boot.checkpoint(&b.cfg)
	j := b.open()
	if err := j.Trim(boot.id, records); err != nil {
		t.Fatal(err)
	}
	b.crash(j)
	if err := j.boot.remove(); err != nil { // as if it never began
		t.Fatal(err)
	}
	j = b.open()
	batch, err := j.ReadBatch(j.Boot(), 1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, rs, err := batch.Verify(b.node, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := rs[0].Boot; r.Previous != boot.id || r.PreviousSize != records || *r.PreviousRoot != head.Root || len(r.Damage) > 0 {
		t.Fatalf("%+v", r)
	}
}

// Boots of which nothing is left vanish, but for the youngest ones.
func TestTrimmedBootsVanish(t *testing.T) {
	b := newBench(t)
	b.cfg.FS = unsyncedFS{}
	for range keptTrimmed + 8 {
		j := b.open()
		boots := j.Boots()
		if n := len(boots); n > 1 {
			if err := j.Trim(boots[n-2].ID, boots[n-2].Size); err != nil {
				t.Fatal(err)
			}
		}
		j.Close()
	}
	j := b.open()
	if got := len(j.Boots()); got != keptTrimmed+1 || len(j.Report().Damage) > 0 {
		t.Fatalf("%d boots, %v", got, j.Report().Damage)
	}
	if names, _ := os.ReadDir(b.cfg.Dir); len(names) > keptTrimmed+4 {
		t.Fatalf("%d names are left", len(names))
	}
}

// A boot whose removal was interrupted anywhere is no damage, and vanishes later.
func TestVanishingInterrupted(t *testing.T) {
	for n := range 12 {
		p := newPowerless(t, uint64(n))
		p.cfg.FS = p.fs
		for i := range 3 {
			j := p.open()
			p.fill(j, 5)
			if i == 2 {
				if err := j.Trim(j.Boots()[0].ID, 6); err != nil {
					t.Fatal(err)
				}
			}
			j.Close()
		}
		p.fs.fail = failsAt("remove", "", n%4+1, errors.New("interrupted"))
		if j, err := Open(p.cfg); err == nil {
			j.Close()
		}
		p.fs.fail = nil
		j := p.open()
		if d := j.Report().Damage; len(d) > 0 {
			t.Fatalf("%d: %+v", n, d[0].Damage)
		}
		j.Close()
	}
}

// A trim state that is damaged or gone is damage that says which records cannot
// be read; those that stayed still can.
func TestDamagedTrimState(t *testing.T) {
	b, boot := ended(t, true)
	b.cfg.window = 1
	j := b.open()
	if err := j.Trim(boot.id, 40); err != nil {
		t.Fatal(err)
	}
	trimmed := j.Boots()[0].TrimmedThrough
	j.Close()
	if err := j.boot.remove(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(path string){
		"deleted": func(path string) { os.Remove(path) },
		"flipped": func(path string) { flip(t, path, 40) },
		"cut":     func(path string) { os.Truncate(path, 30) },
		"empty":   func(path string) { os.Truncate(path, 0) },
		"of another boot": func(path string) {
			other := boot
			other.id, other.path = audit.BootID(9, 9), t.TempDir()
			if err := other.setTrimState(trimState{}); err != nil {
				t.Fatal(err)
			}
			os.Rename(filepath.Join(other.path, trimFile), path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, copied := b.copied(boot)
			c.t = t
			change(filepath.Join(copied.path, trimFile))
			for range 2 {
				j := c.open()
				found := j.Report().Damage
				if len(found) == 0 || found[0].From != 1 || found[0].To != trimmed {
					t.Fatalf("%+v", found)
				}
				if got := j.Boots()[0]; got.Size != records {
					t.Fatalf("%+v", got)
				}
				if _, err := j.ReadBatch(boot.id, trimmed+1, 0, 0); err != nil {
					t.Fatal(err)
				}
				var d *Damage
				if _, err := j.ReadBatch(boot.id, trimmed, 0, 0); !errors.As(err, &d) {
					t.Fatal(err)
				}
				j.Close()
			}
		})
	}
}

// What is damaged among records that are trimmed later is no damage any more.
func TestTrimBehindAHole(t *testing.T) {
	b, boot := ended(t, true)
	b.cfg.window = 1
	groups := groupsOf(t, boot)
	flip(t, groups[3].path, groups[3].end-1)
	j := b.open()
	if d := j.Boots()[0].Damage; d == nil || d.From != 4 {
		t.Fatalf("%+v", d)
	}
	if err := j.Trim(boot.id, records); err != nil {
		t.Fatal(err)
	}
	j.Close()
	j = b.open()
	if d := j.Report().Damage; len(d) > 0 {
		t.Fatalf("%+v", d)
	}
}

// Damage at the end of a boot stays as evidence.
func TestTrimLeavesDamageAtTheEnd(t *testing.T) {
	b, boot := ended(t, true)
	b.cfg.window = 1
	groups := groupsOf(t, boot)
	last := groups[records-1]
	flip(t, last.path, last.end-1)
	j := b.open()
	if err := j.Trim(boot.id, records-1); err != nil {
		t.Fatal(err)
	}
	if left := segmentsOf(t, boot); len(left) != 1 {
		t.Fatalf("%v", left)
	}
	if err := j.Trim(boot.id, records); !errors.Is(err, ErrNoRecords) {
		t.Fatal(err)
	}
}
