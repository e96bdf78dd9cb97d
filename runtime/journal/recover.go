package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A bootState is what may be read of a boot.
type bootState struct {
	size    uint64 // up to it records are given out
	trimmed uint64 // and behind it
	// lost is the places that cannot be read: holes within size, and what made
	// size less than it was.
	lost []*Damage
}

// A pastBoot is a boot that ended.
type pastBoot struct {
	bootDir
	bootState
	// head and note are its last checkpoint; nil when it never had a record that
	// is still intact.
	head *audit.Checkpoint
	note []byte
	torn uint64
}

// cut reports whether what was behind size is lost.
func (s *bootState) cut() bool {
	return slices.ContainsFunc(s.lost, func(d *Damage) bool { return d.From > s.size })
}

// reach returns up to where records can be read without a break from seq from on.
func (s *bootState) reach(boot string, from uint64) (limit uint64, err error) {
	limit = s.size
	for _, d := range s.lost {
		switch {
		case d.From == 0 || d.To < from && d.From <= s.size:
		case d.From <= from:
			return 0, d
		default:
			limit = min(limit, d.From-1)
		}
	}
	switch {
	case from > 0 && from <= s.trimmed:
		return 0, fmt.Errorf("%s from %d: %w; it begins with %d", boot, from, ErrTrimmed, s.trimmed+1)
	case from == 0 || from > limit:
		return 0, fmt.Errorf("%s from %d: %w", boot, from, ErrNoRecords)
	}
	return limit, nil
}

// first is the first damage among the records, else any.
func (s *bootState) first() *Damage {
	var first *Damage
	for _, d := range s.lost {
		if first == nil || d.From > 0 && (first.From == 0 || d.From < first.From) {
			first = d
		}
	}
	return first
}

// recover brings the last boot to an end: it cuts a torn tail, makes the rest
// durable and signs the closing checkpoint that a crash left out. Damage is left
// as it is, and marked. void reports a boot whose first group never was durable:
// it never began, and is removed.
func (cfg *Config) recover(b bootDir) (p pastBoot, void bool, err error) {
	p = pastBoot{bootDir: b}
	var badHead *Damage
	p.head, p.note, badHead = b.checkpoint(cfg)
	t, badTrim := b.trimState()
	if err := b.removeTrimmed(t); err != nil {
		return p, false, err
	}
	s, err := cfg.scan(b, p.head, t)
	if err != nil {
		return p, false, err
	}
	if badHead != nil && s.damage == nil && s.tree.Size() == 0 {
		badHead.From, s.damage, badHead = 1, badHead, nil // there is a checkpoint, so there was a record
	}
	marked := b.marked()
	p.size = s.intact()
	p.trimmed = cfg.trimmed(t, p.size)
	p.lost = within(t.through, merge(s.found(), append(marked, collect(badHead, badTrim)...)))
	if s.damage == nil {
		p.torn = uint64(s.torn)
		if s.tree.Size() == 0 && len(p.lost) == 0 {
			return p, true, removeTree(cfg.FS, b.path)
		}
		if err := cfg.settle(s); err != nil {
			return p, false, fmt.Errorf("recover boot %s: %w", b.id, err)
		}
	}
	if len(s.found()) > 0 {
		if err := b.mark(p.lost); err != nil {
			return p, false, err
		}
	}
	if p.head == nil || s.damage == nil && p.head.Size < p.size {
		err = cfg.closeBoot(&p, s)
	}
	return p, false, err
}

func collect(found ...*Damage) (out []*Damage) {
	for _, d := range found {
		if d != nil {
			out = append(out, d)
		}
	}
	return out
}

// merge adds what of more is not within found.
func merge(found, more []*Damage) []*Damage {
	for _, d := range more {
		known := false
		for _, f := range found {
			known = known || f.File == d.File && f.From == d.From || d.From > 0 && f.From > 0 && f.From <= d.From && d.To <= f.To
		}
		if !known {
			found = append(found, d)
		}
	}
	return found
}

// within drops damage among what was trimmed since.
func within(trimmed uint64, found []*Damage) (out []*Damage) {
	for _, d := range found {
		if d.From == 0 || max(d.From, d.To) > trimmed {
			out = append(out, d)
		}
	}
	return out
}

// settle cuts the torn tail and writes the last group once more before the
// sync: after a failed fsync the kernel may hold pages as clean that never
// reached the disk.
func (cfg *Config) settle(s *scan) error {
	if s.tail.path == "" {
		return nil // everything was trimmed
	}
	if s.end == 0 {
		return errors.Join(cfg.FS.Remove(s.tail.path), cfg.FS.SyncDir(filepath.Dir(s.tail.path)))
	}
	f, err := cfg.FS.OpenFile(s.tail.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	group := make([]byte, s.end-s.last)
	if _, err = f.ReadAt(group, s.last); err == nil {
		err = f.Truncate(s.end)
	}
	if err == nil {
		err = writeAll(f, group, s.last)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// closeBoot signs and stores the closing checkpoint of a boot's intact records.
func (cfg *Config) closeBoot(p *pastBoot, s *scan) error {
	if p.size != s.tree.Size() || p.size == 0 {
		return nil
	}
	msg, err := cfg.checkpoint(p.id, &s.tree)
	if err != nil {
		return err
	}
	head, err := audit.PeekCheckpoint(msg)
	if err != nil {
		return err
	}
	p.head, p.note = &head, msg
	return replaceFile(cfg.FS, filepath.Join(p.path, checkpointFile), msg)
}

// past returns what is known of the boots that ended, oldest first. Only the
// last one is read: those before it were when the one after them began.
func (cfg *Config) past() ([]pastBoot, error) {
	dirs, err := listBoots(cfg.FS, cfg.Dir)
	if err != nil {
		return nil, err
	}
	for len(dirs) > 0 {
		last, void, err := cfg.recover(dirs[len(dirs)-1])
		if err != nil {
			return nil, err
		}
		dirs = dirs[:len(dirs)-1]
		if void {
			continue
		}
		older, err := cfg.settled(dirs)
		if err != nil {
			return nil, err
		}
		return cfg.vanish(append(older, last))
	}
	return nil, nil
}

func (cfg *Config) settled(dirs []bootDir) ([]pastBoot, error) {
	var out []pastBoot
	for _, b := range dirs {
		names, err := cfg.FS.ReadDir(b.path)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 { // it was vanishing
			if err := cfg.FS.Remove(b.path); err != nil {
				return nil, err
			}
			continue
		}
		p, err := cfg.known(b)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// known is what is known of a boot that ended without reading its records.
func (cfg *Config) known(b bootDir) (pastBoot, error) {
	p := pastBoot{bootDir: b}
	var badHead *Damage
	p.head, p.note, badHead = b.checkpoint(cfg)
	if p.head != nil {
		p.size = p.head.Size
	}
	for _, d := range b.marked() {
		if d.From > 0 && (p.head == nil || d.To >= p.head.Size) {
			p.size = d.From - 1
		}
		p.lost = append(p.lost, d)
	}
	t, badTrim := b.trimState()
	p.size = max(p.size, t.through)
	p.trimmed = cfg.trimmed(t, p.size)
	p.lost = within(t.through, append(p.lost, collect(badHead, badTrim)...))
	if err := b.removeTrimmed(t); err != nil {
		return p, err
	}
	segments, err := b.segments()
	if err != nil {
		return p, err
	}
	begins := p.size + 1
	if len(segments) > 0 {
		begins = segments[0].first
	}
	if begins > t.through+1 {
		missing := b.damage(b.segment(t.through+1).path, 0, t.through+1, begins-1, errors.New("the first segments are missing, and nothing says that they were trimmed"))
		p.lost = merge(p.lost, collect(missing))
	}
	return p, nil
}

// bootRecord is the first leaf of the boot after those.
func (cfg *Config) bootRecord(boot string, past []pastBoot) *audit.Record {
	r := &audit.BootRecord{Tenant: cfg.Tenant, Node: cfg.Node, Boot: boot, Schema: audit.SchemaVersion, Secret: cfg.Secret}
	if len(past) > 0 {
		last := past[len(past)-1]
		r.Previous, r.TornBytes = last.id, last.torn
		if last.head != nil && last.head.Size > 0 {
			r.PreviousSize, r.PreviousRoot = last.head.Size, &last.head.Root
		}
		for _, d := range last.lost {
			r.Damage = append(r.Damage, d.Damage)
		}
	}
	return &audit.Record{Kind: audit.KindBoot, Time: cfg.Now().UnixNano(), Boot: r}
}
