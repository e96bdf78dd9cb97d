package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// ErrTrimmed: the record was given up by Trim; the regions have it.
var ErrTrimmed = errors.New("record was trimmed")

const (
	trimFile = "trimmed"
	// keptTrimmed is how many boots that ended are kept after everything of them
	// was trimmed, for their checkpoints. Older ones vanish when the journal is opened.
	keptTrimmed = 16
)

// A trimState is how far a boot was trimmed.
type trimState struct {
	through uint64
	tree    audit.Frontier // of the records that were trimmed
}

type trimDocument struct {
	Boot    string      `cbor:"1,keyasint"`
	Through uint64      `cbor:"2,keyasint"`
	Roots   []tlog.Hash `cbor:"3,keyasint"`
}

type trimSum struct {
	Body []byte      `cbor:"1,keyasint"`
	Sum  wire.Digest `cbor:"2,keyasint"`
}

// trimState returns how far the boot was trimmed. A state that cannot be read is
// damage, and what is missing then is damage too.
func (b bootDir) trimState() (trimState, *Damage) {
	file, err := readFile(b.fs, filepath.Join(b.path, trimFile))
	if errors.Is(err, os.ErrNotExist) {
		return trimState{}, nil
	}
	var sum trimSum
	var doc trimDocument
	if err == nil {
		err = wire.Unmarshal(file, &sum)
	}
	if err == nil && wire.Sum(sum.Body) != sum.Sum {
		err = errors.New("its digest does not match")
	}
	if err == nil {
		err = wire.Unmarshal(sum.Body, &doc)
	}
	tree, ok := audit.NewFrontier(doc.Through, doc.Roots)
	if err == nil && (!ok || doc.Boot != b.id) {
		err = errors.New("not the trim state of this boot")
	}
	if err != nil {
		return trimState{}, b.damage(trimFile, 0, 0, 0, err)
	}
	return trimState{doc.Through, tree}, nil
}

func (b bootDir) setTrimState(t trimState) error {
	body, err := wire.Marshal(trimDocument{Boot: b.id, Through: t.through, Roots: t.tree.Roots()})
	if err != nil {
		return err
	}
	file, err := wire.Marshal(trimSum{Body: body, Sum: wire.Sum(body)})
	if err != nil {
		return err
	}
	return replaceFile(b.fs, filepath.Join(b.path, trimFile), file)
}

// removeTrimmed removes the segments that the trim state says are gone.
func (b bootDir) removeTrimmed(t trimState) error {
	segments, err := b.segments()
	if err != nil {
		return err
	}
	removed := false
	for _, seg := range segments {
		if seg.first > t.through {
			break
		}
		if err := b.fs.Remove(seg.path); err != nil {
			return fmt.Errorf("trim boot %s: %w", b.id, err)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return b.fs.SyncDir(b.path)
}

// Trim gives up records of a boot up to through: whole segments, never the one
// that is being written, and none of a window (see audit.Window) of which records
// stay, because they may share its blobs. Less may go than is asked for; see
// Boot.TrimmedThrough. Whether the regions have them is the caller's business.
// What remains of the boot - its checkpoint, and the tree of what was trimmed -
// still proves itself. After an error, as after a crash, calling it again or
// opening the journal completes it.
func (j *Journal) Trim(boot string, through uint64) error {
	j.trimming.Lock()
	defer j.trimming.Unlock()
	b, state, err := j.state(boot)
	if err != nil {
		return err
	}
	if through > state.size {
		return fmt.Errorf("trim %s through %d: %w: it has %d", boot, through, ErrNoRecords, state.size)
	}
	t, bad := b.trimState()
	if bad != nil {
		return bad
	}
	if through < state.size || boot == j.boot.id {
		through -= through % j.cfg.window
	}
	next, err := b.trimPoint(through, state.size, boot == j.boot.id || state.cut(), t)
	if err != nil {
		return fmt.Errorf("trim %s: %w", boot, err)
	}
	if next.through > t.through {
		if err := b.setTrimState(next); err != nil {
			return fmt.Errorf("trim %s: %w", boot, err)
		}
		j.setTrimmed(boot, j.cfg.trimmed(next, state.size))
	}
	return b.removeTrimmed(next)
}

// trimmed is the last record that counts as trimmed: a window of which some
// records are gone is of no use.
func (cfg *Config) trimmed(t trimState, size uint64) uint64 {
	return min((t.through+cfg.window-1)/cfg.window*cfg.window, max(size, t.through))
}

// trimPoint returns the state after whole segments of records up to through are
// given up. stays: the last segment is being written, or holds damage.
func (b bootDir) trimPoint(through, size uint64, stays bool, t trimState) (trimState, error) {
	segments, err := b.segments()
	if err != nil {
		return t, err
	}
	for i, seg := range segments {
		last := i == len(segments)-1
		switch {
		case seg.first <= t.through:
			continue
		case seg.first-1 > through || last && (stays || through < size):
			return t, nil
		case last:
			return b.trimWhole(seg, size)
		}
		if next := segments[i+1]; next.first-1 <= through {
			if t, err = b.headerState(next); err != nil {
				return t, err
			}
		}
	}
	return t, nil
}

// headerState is the trim state when everything before a segment is given up.
func (b bootDir) headerState(seg segment) (trimState, error) {
	r, err := openSegment(b.fs, seg, b.salt)
	if err != nil {
		return trimState{}, err
	}
	defer r.close()
	if err := r.header(); err != nil {
		return trimState{}, err
	}
	return trimState{seg.first - 1, r.frontier}, nil
}

// trimWhole is the trim state when the last segment of a boot that ended is given
// up as well.
func (b bootDir) trimWhole(last segment, size uint64) (trimState, error) {
	if last.first > size { // begun, and never written
		return b.headerState(last)
	}
	c := &cursor{boot: b, seg: last, first: last.first}
	if err := c.each(size, func(uint64, audit.Entry) bool { return true }); err != nil {
		return trimState{}, err
	}
	return trimState{size, c.tree}, nil
}

// setTrimmed has readers learn what was trimmed, before it is gone.
func (j *Journal) setTrimmed(boot string, through uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	state := j.kept(boot)
	state.trimmed, state.lost = through, within(through, state.lost)
}

// A Segment is one file of a boot.
type Segment struct {
	// First and Last are its records; Last is 0 for the segment that is being
	// written and for what is behind damage.
	First, Last uint64
	// Bytes is its size on disk, with what is reserved.
	Bytes int64
}

// Segments returns the segments of a boot, oldest first: what Trim can give up.
func (j *Journal) Segments(boot string) ([]Segment, error) {
	b, state, err := j.state(boot)
	if err != nil {
		return nil, err
	}
	segments, err := b.segments()
	if err != nil {
		return nil, err
	}
	var out []Segment
	for i, seg := range segments {
		s := Segment{First: seg.first}
		if s.Bytes, err = sizeOf(b.fs, seg.path); errors.Is(err, os.ErrNotExist) {
			continue // trimmed in between
		} else if err != nil {
			return nil, err
		}
		if i+1 < len(segments) {
			s.Last = segments[i+1].first - 1
		} else if boot != j.boot.id && state.size >= seg.first {
			s.Last = state.size
		}
		out = append(out, s)
	}
	return out, nil
}

func sizeOf(fs FS, path string) (int64, error) {
	f, err := fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	size, err := f.Size()
	return size, errors.Join(err, f.Close())
}

// DiskBytes is the size of all files of the journal, with what is reserved.
func (j *Journal) DiskBytes() (used int64, err error) { return j.cfg.diskBytes() }

func (cfg *Config) diskBytes() (used int64, err error) {
	boots, err := listBoots(cfg.FS, cfg.Dir)
	if err != nil {
		return 0, err
	}
	paths := []string{filepath.Join(cfg.Dir, reserveFile)}
	for _, b := range boots {
		names, err := cfg.FS.ReadDir(b.path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return 0, err
		}
		for _, n := range names {
			paths = append(paths, filepath.Join(b.path, n))
		}
	}
	for _, p := range paths {
		size, err := sizeOf(cfg.FS, p)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		used += size
	}
	return used, nil
}

// vanish removes what is left of boots of which everything was trimmed, but for
// the youngest ones. The boot behind each names its end.
func (cfg *Config) vanish(past []pastBoot) ([]pastBoot, error) {
	var out []pastBoot
	for i, p := range past {
		empty := p.trimmed > 0 && p.trimmed == p.size && len(p.lost) == 0
		if !empty || i+cfg.kept >= len(past) {
			out = append(out, p)
			continue
		}
		if err := p.remove(); err != nil {
			return nil, fmt.Errorf("remove boot %s, which was trimmed: %w", p.id, err)
		}
	}
	return out, nil
}

// remove removes a boot that was trimmed as a whole, the trim state last: without
// it what is left would look like damage.
func (b bootDir) remove() error {
	names, err := b.fs.ReadDir(b.path)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == trimFile {
			continue
		}
		if err := b.fs.Remove(filepath.Join(b.path, n)); err != nil {
			return err
		}
	}
	if err := b.fs.SyncDir(b.path); err != nil {
		return err
	}
	return removeTree(b.fs, b.path)
}
