package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// ErrFull: there is no room for the record of a decision. Nothing is poisoned;
// administrative records still have room, and decisions when space returns.
var ErrFull = errors.New("no space for records of decisions")

// reserveFile takes the room for administrative records and closing checkpoints
// on a disk that is full otherwise: it is removed then.
const reserveFile = "reserve"

// A SpaceLevel says how much room there is.
type SpaceLevel uint8

// The levels of Space.
const (
	SpaceEnough SpaceLevel = iota
	// SpaceLow: less than Config.LowBytes is free, or more than 80 % of the quota
	// is used.
	SpaceLow
	// SpaceFull: decisions are refused with ErrFull.
	SpaceFull
)

func (l SpaceLevel) String() string {
	return [...]string{"enough", "low", "full"}[min(l, SpaceFull)]
}

// Space is the room that a journal has, in bytes.
type Space struct {
	Level SpaceLevel
	// Free is that of the file system, -1 when it is not known. Used is what the
	// journal's files take, Quota what they may; 0 is no quota.
	Free, Used, Quota int64
}

// Space returns how much room there is now.
func (j *Journal) Space() Space {
	s := j.cfg.space()
	s.Level = j.level(s, SpaceEnough)
	return s
}

// Full reports whether decisions are refused for want of room.
func (j *Journal) Full() bool { return j.out.full.Load() }

func (cfg *Config) space() Space {
	s := Space{Free: -1, Quota: cfg.QuotaBytes}
	if free, err := cfg.FS.Free(cfg.Dir); err == nil {
		s.Free = free
	}
	if used, err := cfg.diskBytes(); err == nil {
		s.Used = used
	}
	return s
}

// level judges s. What was low must have a quarter more room to be enough again,
// so that a level is not told of again and again.
func (j *Journal) level(s Space, was SpaceLevel) SpaceLevel {
	low, most := j.cfg.LowBytes, s.Quota/100*80
	if was != SpaceEnough {
		low, most = low/4*5, s.Quota/100*75
	}
	switch {
	case j.Full():
		return SpaceFull
	case s.Free >= 0 && s.Free < low || s.Quota > 0 && s.Used > most:
		return SpaceLow
	}
	return SpaceEnough
}

// room reports whether more bytes fit.
func (s Space) room(more int64) bool {
	return (s.Free < 0 || s.Free >= more) && (s.Quota == 0 || s.Used+more <= s.Quota)
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, ErrFull)
}

// reserve takes the reserve, if there is room for it beside another segment.
func (cfg *Config) reserve() error {
	path := filepath.Join(cfg.Dir, reserveFile)
	size, err := sizeOf(cfg.FS, path)
	if cfg.ReserveBytes < 0 || err == nil && size >= cfg.ReserveBytes {
		return nil
	}
	f, err := cfg.FS.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("journal reserve: %w", err)
	}
	if err := errors.Join(f.Preallocate(cfg.ReserveBytes), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("journal reserve: %w", err), cfg.FS.Remove(path))
	}
	return nil
}

// release gives the reserve up.
func (cfg *Config) release() error {
	if err := cfg.FS.Remove(filepath.Join(cfg.Dir, reserveFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("journal reserve: %w", err)
	}
	return nil
}

// smallSegment is the size of segments while there is no room for more.
func (cfg *Config) smallSegment() int64 {
	return min(cfg.SegmentBytes, max(cfg.ReserveBytes/4, segmentHeaderBytes+4096))
}

// watchSpace tells of changes of the level, and takes decisions again when there
// is room for two segments and the reserve.
func (j *Journal) watchSpace() {
	defer close(j.watcher)
	tick := time.NewTicker(j.cfg.SpaceInterval)
	defer tick.Stop()
	told := SpaceEnough
	for {
		full := j.Full() // before the room is looked at: afterwards it may be about to be taken
		s := j.cfg.space()
		if full && s.room(2*j.cfg.SegmentBytes+max(0, j.cfg.ReserveBytes)) {
			if err := j.cfg.reserve(); err == nil {
				j.out.full.Store(false)
			}
		}
		for now := j.level(s, told); told != now; {
			if told = min(told+1, now); told < now { // low is told of before full, however fast it filled up
				s.Level = told
			} else {
				s.Level, told = now, now
			}
			j.cfg.Log.Warn("journal space", "level", s.Level.String(), "free", s.Free, "used", s.Used, "quota", s.Quota)
			if j.cfg.OnSpace != nil {
				j.cfg.OnSpace(s)
			}
		}
		select {
		case <-j.stop:
			return
		case <-tick.C:
		case <-j.out.filled:
		}
	}
}

// roomy creates the segment behind the tree at its full size, or where there is
// no room gives up the reserve for a small one, and decisions with it.
func (o *output) roomy(tree *audit.Frontier, before predecessor) error {
	defer signal(o.filled)
	if !o.full.Load() {
		err := o.createWhole(tree, before)
		if err == nil || !isFull(err) {
			return err
		}
		o.cfg.Log.Error("journal has no room for another segment", "boot", o.boot.id, "error", err)
		o.full.Store(true)
	}
	if err := o.cfg.release(); err != nil {
		return err
	}
	return o.create(tree, before, o.cfg.smallSegment())
}

func (o *output) createWhole(tree *audit.Frontier, before predecessor) error {
	s := Space{Free: -1}
	if free, err := o.cfg.FS.Free(o.cfg.Dir); err == nil {
		s.Free = free
	}
	if o.cfg.QuotaBytes > 0 {
		s = o.cfg.space()
	}
	if !s.room(o.cfg.SegmentBytes) {
		return fmt.Errorf("%w: %d bytes are free, %d of %d used", ErrFull, s.Free, s.Used, s.Quota)
	}
	return o.create(tree, before, o.cfg.SegmentBytes)
}
