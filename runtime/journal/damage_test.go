package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// records is what ended has: several segments, each group one record, all under
// the closing checkpoint.
const records = 60

// ended returns a bench whose journal has one boot that ended, and its folder.
func ended(t *testing.T, clean bool) (*bench, bootDir) {
	t.Helper()
	b := newBench(t)
	b.cfg.SegmentBytes, b.cfg.FS = 8<<10, unsyncedFS{}
	j := b.open()
	b.fill(j, records-1)
	if clean {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	} else {
		b.crash(j)
	}
	return b, j.boot
}

// copied returns a bench for a copy of the journal, and the copy of the boot.
func (b *bench) copied(boot bootDir) (*bench, bootDir) {
	b.t.Helper()
	c := *b
	c.cfg.Dir = filepath.Join(b.t.TempDir(), "copy")
	if err := os.CopyFS(c.cfg.Dir, os.DirFS(b.cfg.Dir)); err != nil {
		b.t.Fatal(err)
	}
	boot.path = filepath.Join(c.cfg.Dir, boot.id)
	return &c, boot
}

// A place is a group of a boot.
type place struct {
	path     string
	off, end int64
	first    uint64
}

func groupsOf(t *testing.T, boot bootDir) (all []place) {
	t.Helper()
	segments, err := boot.segments()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		r, err := openSegment(osFS{}, s, boot.salt)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.header(); err != nil {
			t.Fatal(err)
		}
		for {
			off := r.off
			h, _, err := r.group()
			if err != nil {
				break
			}
			all = append(all, place{s.path, off, r.off, h.First})
		}
		r.close()
	}
	return all
}

func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, path string, off int64) {
	t.Helper()
	edit(t, path, func(b []byte) []byte { b[off] ^= 0x10; return b })
}

// lastOf is the last record in the segment of record first.
func lastOf(groups []place, first uint64) (last uint64) {
	for _, g := range groups {
		if g.path == groups[first-1].path {
			last = g.first
		}
	}
	return last
}

// A group of an earlier version behind the damage is evidence too.
func TestFlippedByteBelowAGroupOfAnEarlierVersion(t *testing.T) {
	b, boot := ended(t, false)
	groups := groupsOf(t, boot)
	before, last := groups[records-2], groups[records-1]
	if before.path != last.path {
		t.Fatal("the last segment has one group")
	}
	edit(t, last.path, func(c []byte) []byte {
		h := c[last.off : last.off+audit.GroupHeaderBytes]
		copy(h, "HFG1")
		binary.LittleEndian.PutUint32(h[36:], crc32.Update(boot.salt, castagnoli, h[:36]))
		return c
	})
	flip(t, before.path, before.end-1)
	j := b.open()
	defer j.Close()
	if damage := j.Report().Damage; len(damage) != 1 || damage[0].From != before.first || damage[0].To != records-1 {
		t.Fatalf("%+v", j.Report())
	}
}

// mustDamage opens the journal and checks that exactly the records from to to are
// reported lost: by Open, by the new boot's record, by ReadBatch, by Export and by
// the verification of what is left; and again after two more starts.
func (b *bench) mustDamage(boot bootDir, from, to uint64) {
	b.t.Helper()
	size := uint64(records)
	if to == records {
		size = from - 1
	}
	j := b.open()
	for range 3 {
		damage := j.Report().Damage
		if len(damage) != 1 || damage[0].From != from || damage[0].To != to || damage[0].Boot != boot.id {
			b.t.Fatalf("damage %d-%d reported as %+v", from, to, damage)
		}
		if got := j.Boots()[0]; got.Size != size || got.Damage == nil {
			b.t.Fatalf("damage %d-%d: %+v", from, to, got)
		}
		var d *Damage
		for _, seq := range []uint64{from, to} {
			if _, err := j.ReadBatch(boot.id, seq, 0, 0); !errors.As(err, &d) {
				b.t.Fatalf("damage %d-%d: ReadBatch there: %v", from, to, err)
			}
		}
		for _, seq := range []uint64{from - 1, to + 1} {
			if seq == 0 || seq > size {
				continue
			}
			if _, err := j.ReadBatch(boot.id, seq, 0, 0); err != nil {
				b.t.Fatalf("damage %d-%d: ReadBatch of %d: %v", from, to, seq, err)
			}
		}
		r, err := b.verify(j)
		if !errors.As(err, &d) {
			b.t.Fatalf("damage %d-%d: Export: %v", from, to, err)
		}
		got := r.Nodes[0].Boots[0]
		if r.Verdict != audit.VerdictGap || len(got.Gaps) != 1 || got.Gaps[0] != (audit.Range{From: from, To: to}) {
			b.t.Fatalf("damage %d-%d verified as %s %+v", from, to, r.Verdict, r)
		}
		if err := j.Close(); err != nil {
			b.t.Fatal(err)
		}
		j = b.open()
	}
	j.Close()
}

func TestFlippedByteIsReportedNeverCut(t *testing.T) {
	b, boot := ended(t, true)
	groups := groupsOf(t, boot)
	if len(groups) != records {
		t.Fatalf("%d groups", len(groups))
	}
	type spot struct {
		path string
		off  int64
		from uint64
	}
	var spots []spot
	for i, g := range groups {
		if i == 0 || groups[i-1].path != g.path { // the segment's header
			for _, off := range []int64{0, 6, 8, 16, 700, segmentHeaderBytes - 1} {
				spots = append(spots, spot{g.path, off, g.first})
			}
		}
		if i == 0 || i == 30 || i == records-1 {
			for off := g.off + int64(i%5); off < g.off+audit.GroupHeaderBytes+8; off += 5 {
				spots = append(spots, spot{g.path, off, g.first})
			}
			spots = append(spots, spot{g.path, g.end - 1, g.first}, spot{g.path, (g.off + g.end) / 2, g.first})
		}
	}
	for _, s := range spots {
		c, copied := b.copied(boot)
		flip(t, filepath.Join(copied.path, filepath.Base(s.path)), s.off)
		c.mustDamage(copied, s.from, lastOf(groups, s.from))
	}
}

func TestFlippedByteBelowTheLastGroupAfterACrash(t *testing.T) {
	b, boot := ended(t, false)
	for i, g := range groupsOf(t, boot)[:records-1] {
		if i%6 != 1 {
			continue
		}
		c, copied := b.copied(boot)
		flip(t, filepath.Join(copied.path, filepath.Base(g.path)), g.end-1)
		j := c.open()
		damage := j.Report().Damage
		if len(damage) != 1 || damage[0].From != g.first || damage[0].To != records-1 {
			t.Fatalf("group of record %d: %+v", g.first, damage)
		}
		j.Close()
	}
}

func TestTornTailAtEveryByteOfTheLastGroup(t *testing.T) {
	b := newBench(t)
	b.cfg.SegmentBytes, b.cfg.FS = 8<<10, unsyncedFS{}
	first := b.open()
	b.fill(first, 3)
	b.crash(first)
	groups := groupsOf(t, first.boot)
	last := groups[len(groups)-1]
	checkpoint := filepath.Join(first.boot.path, checkpointFile)
	segmentBytes, err1 := os.ReadFile(last.path)
	checkpointBytes, err2 := os.ReadFile(checkpoint)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for cut := last.off; cut <= last.end; cut++ {
		torn := segmentBytes[:cut]
		if cut%4 == 0 { // as a crash leaves space that was reserved
			torn = append(bytes.Clone(torn), make([]byte, len(segmentBytes)-int(cut))...)
		}
		err1 := os.WriteFile(last.path, torn, 0o644)
		err2 := os.WriteFile(checkpoint, checkpointBytes, 0o644)
		j, err := Open(b.cfg)
		if err := errors.Join(err1, err2, err); err != nil {
			t.Fatal(err)
		}
		want := uint64(len(groups) - 1)
		if cut == last.end {
			want++
		}
		r := j.Report()
		if got := j.Boots()[0]; got.Size != want || len(r.Damage) != 0 {
			t.Fatalf("after %d of %d bytes: %+v, %+v", cut-last.off, last.end-last.off, got, r)
		}
		if n := int64(r.TornBytes); (n > 0) != (last.off < cut && cut < last.end) || n > cut-last.off {
			t.Fatalf("after %d of %d bytes: %d torn", cut-last.off, last.end-last.off, n)
		}
		if info, err := os.Stat(last.path); err != nil || cut < last.end && info.Size() != last.off {
			t.Fatalf("%v: the tail was not cut", err)
		}
		if cut%16 == 0 {
			b.mustComplete(j)
		}
		if err := errors.Join(j.Close(), os.RemoveAll(j.boot.path)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTornFirstGroupMeansTheBootNeverBegan(t *testing.T) {
	b := newBench(t)
	first := b.open()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := b.open()
	b.crash(second)
	os.Remove(filepath.Join(second.boot.path, checkpointFile))
	for _, size := range []int64{segmentHeaderBytes + 20, 100, 0, -1} {
		c, boot := b.copied(second.boot)
		path := boot.segment(1).path
		if size < 0 {
			os.Remove(path)
		} else {
			os.Truncate(path, size)
		}
		j := c.open()
		if r := j.Report(); r.Previous != first.Boot() || len(r.Damage) != 0 {
			t.Fatalf("cut to %d: %+v", size, r)
		}
		c.mustComplete(j)
		j.Close()
	}
}

func TestRemovedAndReplacedFiles(t *testing.T) {
	b, boot := ended(t, true)
	segments, err := boot.segments()
	if err != nil || len(segments) < 3 {
		t.Fatalf("%v %v", segments, err)
	}
	groups := groupsOf(t, boot)
	for i, s := range segments {
		c, copied := b.copied(boot)
		os.Remove(copied.segment(s.first).path)
		c.mustDamage(copied, s.first, lastOf(groups, s.first))
		if i == 0 {
			continue
		}
		c, copied = b.copied(boot) // one segment under the name of another
		edit(t, copied.segment(s.first).path, func([]byte) []byte {
			other, _ := os.ReadFile(segments[0].path)
			return other
		})
		c.mustDamage(copied, s.first, lastOf(groups, s.first))
	}
	last := groups[records-1]
	t.Run("zeroed tail block", func(t *testing.T) {
		c, copied := b.copied(boot)
		var from uint64
		edit(t, copied.segment(segments[len(segments)-1].first).path, func(c []byte) []byte {
			clear(c[max(segmentHeaderBytes, len(c)-4096):])
			return c
		})
		for _, g := range groups {
			if g.path == last.path && g.end > last.end-4096 && from == 0 {
				from = g.first
			}
		}
		c.mustDamage(copied, from, records)
	})
	t.Run("zeroed middle group", func(t *testing.T) {
		c, copied := b.copied(boot)
		g := groups[25]
		edit(t, filepath.Join(copied.path, filepath.Base(g.path)), func(c []byte) []byte { clear(c[g.off:g.end]); return c })
		c.mustDamage(copied, g.first, lastOf(groups, g.first))
	})
	t.Run("removed group", func(t *testing.T) {
		c, copied := b.copied(boot)
		g := groups[25]
		edit(t, filepath.Join(copied.path, filepath.Base(g.path)), func(c []byte) []byte { return append(c[:g.off:g.off], c[g.end:]...) })
		c.mustDamage(copied, g.first, lastOf(groups, g.first))
	})
	t.Run("half of the file", func(t *testing.T) {
		c, copied := b.copied(boot)
		g := groups[25]
		edit(t, filepath.Join(copied.path, filepath.Base(g.path)), func(c []byte) []byte { return c[:g.off+3] })
		c.mustDamage(copied, g.first, lastOf(groups, g.first))
	})
}

// Of a large boot Open reads the end only; what is deleted or cut before it is
// missed all the same, with its exact range, and a rewritten end is never signed.
func TestDeletedSegmentsOfALargeBoot(t *testing.T) {
	b, boot := ended(t, true)
	b.cfg.ScanBytes, b.cfg.ScrubBytes = 1, -1
	groups := groupsOf(t, boot)
	segments := segmentsOf(t, boot)
	for i, s := range segments {
		c, copied := b.copied(boot)
		os.Remove(copied.segment(s.first).path)
		c.mustDamage(copied, s.first, lastOf(groups, s.first))
		if i+1 == len(segments) {
			continue
		}
		c, copied = b.copied(boot)
		var last place
		for _, g := range groups {
			if g.path == s.path {
				last = g
			}
		}
		os.Truncate(copied.segment(s.first).path, last.end-1)
		c.mustDamage(copied, last.first, last.first)
		c, copied = b.copied(boot)
		flip(t, copied.segment(s.first).path, 100)
		c.mustDamage(copied, s.first, lastOf(groups, s.first))
	}
	c, copied := b.copied(boot)
	g := groups[records-1]
	g.path = filepath.Join(copied.path, filepath.Base(g.path))
	rewrite(t, copied, g)
	j := c.open()
	if d := j.Report().Damage; len(d) != 1 || d[0].To != records {
		t.Fatalf("%+v", d)
	}
}

// TestANewSegmentVouchesForTheOneBefore crashes right after a segment was begun.
func TestANewSegmentVouchesForTheOneBefore(t *testing.T) {
	b, boot := ended(t, false)
	groups := groupsOf(t, boot)
	last := groups[records-1]
	edit(t, last.path, func(c []byte) []byte { clear(c[segmentHeaderBytes:]); return c })
	for i, g := range groups {
		if groups[i+1].path == last.path {
			flip(t, g.path, g.end-1)
			j := b.open()
			if d := j.Report().Damage; len(d) != 1 || d[0].From != g.first || d[0].To != g.first {
				t.Fatalf("%+v", j.Report())
			}
			return
		}
	}
}

func TestDuplicatedGroupIsDamage(t *testing.T) {
	b, boot := ended(t, false)
	groups := groupsOf(t, boot)
	last := groups[records-1]
	c, copied := b.copied(boot)
	edit(t, filepath.Join(copied.path, filepath.Base(last.path)), func(c []byte) []byte {
		copy(c[last.end:], c[last.off:last.end])
		return c
	})
	j := c.open()
	if d := j.Report().Damage; len(d) != 1 || d[0].From != records+1 || j.Boots()[0].Size != records {
		t.Fatalf("%+v", j.Report())
	}
}

func TestRemovedBootIsSeen(t *testing.T) {
	b := newBench(t)
	var ids []string
	for range 3 {
		j := b.open()
		b.fill(j, 4)
		ids = append(ids, j.Boot())
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range ids[:2] {
		c, _ := b.copied(bootDir{id: id})
		os.RemoveAll(filepath.Join(c.cfg.Dir, id))
		dir := filepath.Join(t.TempDir(), "export")
		if err := exportTo(dir, func(w *audit.ExportWriter) error { return Export(c.cfg, w) }); err != nil {
			t.Fatal(err)
		}
		r, err := audit.Verify(os.DirFS(dir), b.keys)
		if err != nil || r.Verdict != audit.VerdictGap {
			t.Fatalf("%v %+v", err, r)
		}
		if got := r.Nodes[0].Boots[i]; got.Boot != id || len(got.Gaps) != 1 || got.Gaps[0] != (audit.Range{From: 1, To: 5}) {
			t.Fatalf("%+v", r)
		}
	}
}

// rewrite changes a record and makes every checksum fit again, as somebody with
// the code can.
func rewrite(t *testing.T, boot bootDir, g place) {
	t.Helper()
	edit(t, g.path, func(c []byte) []byte {
		group := c[g.off:g.end]
		i := bytes.Index(group, []byte("alice"))
		copy(group[i:], "malle")
		audit.SealGroup(group, boot.salt, g.first, g.first-1, 1)
		return c
	})
}

func TestRewrittenHistoryIsNotSigned(t *testing.T) {
	b, boot := ended(t, true)
	groups := groupsOf(t, boot)
	g := groups[3]
	rewrite(t, boot, g)
	j := b.open()
	if d := j.Report().Damage; len(d) != 1 || d[0].From != 1 || d[0].To != lastOf(groups, 1) {
		t.Fatalf("%+v", j.Report())
	}
	if _, err := j.ReadBatch(boot.id, g.first, 0, 0); err == nil {
		t.Fatal("a rewritten record was given out under a new signature")
	}
	r, _ := b.verify(j)
	if r.Verdict == audit.VerdictComplete {
		t.Fatalf("%+v", r)
	}
}

// What is behind a flipped bit is given out only when it leads to the root that was
// signed.
func TestRewrittenHistoryBehindAHole(t *testing.T) {
	b, boot := ended(t, true)
	groups := groupsOf(t, boot)
	flip(t, groups[3].path, groups[3].end-1)
	rewrite(t, boot, groups[records-1])
	j := b.open()
	if d := j.Report().Damage; len(d) != 1 || d[0].From != 4 || d[0].To != records || j.Boots()[0].Size != 3 {
		t.Fatalf("%+v", j.Report())
	}
}

func TestRewrittenHistoryInOneSegment(t *testing.T) {
	b := newBench(t)
	j := b.open()
	b.fill(j, 9)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	rewrite(t, j.boot, groupsOf(t, j.boot)[3])
	again := b.open()
	if d := again.Report().Damage; len(d) != 1 || d[0].From != 1 || d[0].To != 10 || again.Boots()[0].Size != 0 {
		t.Fatalf("%+v", again.Report())
	}
}

func TestRewrittenHistoryOfAnOlderBoot(t *testing.T) {
	b, boot := ended(t, true)
	if err := b.open().Close(); err != nil {
		t.Fatal(err)
	}
	rewrite(t, boot, groupsOf(t, boot)[3])
	j := b.open()
	var damage *Damage
	for next := uint64(1); next <= records; {
		batch, err := j.ReadBatch(boot.id, next, 7, 0)
		if err != nil {
			if !errors.As(err, &damage) {
				t.Fatal(err)
			}
			return
		}
		next = batch.Last() + 1
	}
	t.Fatal("read to the end")
}

func TestForgedCheckpoint(t *testing.T) {
	b, boot := ended(t, true)
	path := filepath.Join(boot.path, checkpointFile)
	msg, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := audit.OpenCheckpoint(msg, b.node)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := LoadOrCreateKey(filepath.Join(t.TempDir(), "k"), audit.NodeKeyName(tenant, nodeName))
	if err != nil {
		t.Fatal(err)
	}
	forge := func(change func(*audit.Checkpoint), key note.Signer) []byte {
		f := c
		change(&f)
		out, err := f.Sign(key)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, content := range map[string][]byte{
		"another key of the same name": forge(func(*audit.Checkpoint) {}, other),
		"shorter, by another key":      forge(func(f *audit.Checkpoint) { f.Size = 10 }, other),
		"of another boot":              forge(func(f *audit.Checkpoint) { f.Boot = audit.BootID(7, 7) }, b.cfg.Key),
		"of another node":              forge(func(f *audit.Checkpoint) { f.Node = "edge-2" }, b.cfg.Key),
		"flipped":                      append(bytes.Clone(msg[:len(msg)-9]), append([]byte{msg[len(msg)-9] ^ 1}, msg[len(msg)-8:]...)...),
		"empty":                        {},
	} {
		t.Run(name, func(t *testing.T) {
			d, copied := b.copied(boot)
			if err := os.WriteFile(filepath.Join(copied.path, checkpointFile), content, 0o644); err != nil {
				t.Fatal(err)
			}
			j := d.open()
			if r := j.Report(); len(r.Damage) != 1 || r.Damage[0].File != checkpointFile || j.Boots()[0].Size != records {
				t.Fatalf("%+v", j.Report())
			}
			r, _ := d.verify(j) // the records themselves are all there, under a new checkpoint
			if r.Verdict != audit.VerdictComplete {
				t.Fatalf("%+v", r)
			}
			j.Close()
		})
	}
}

func FuzzSegmentHeader(f *testing.F) {
	const salt, sum = 5, segmentHeaderBytes - 4
	var tree audit.Frontier
	for range 5 {
		tree.Append(tree.Root())
	}
	f.Add(segmentHeader(salt, &tree, predecessor{2, 4096}))
	f.Fuzz(func(t *testing.T, h []byte) {
		if len(h) >= segmentHeaderBytes { // so that more than the checksum is reached
			binary.LittleEndian.PutUint32(h[sum:], crc32.Update(salt, castagnoli, h[:sum]))
		}
		if got, _, err := parseSegmentHeader(h, salt); err == nil {
			got.Root()
		}
	})
}
