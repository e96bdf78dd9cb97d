package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A pastBoot is a boot that ended.
type pastBoot struct {
	bootDir
	size uint64 // records that are given out
	// head and note are its last checkpoint; nil when it never had a record that
	// is still intact.
	head   *audit.Checkpoint
	note   []byte
	torn   uint64
	damage []*Damage // the first is the first among its records
}

// recover brings the last boot to an end: it cuts a torn tail, makes the rest
// durable and signs the closing checkpoint that a crash left out. A damaged
// boot is left as it is, and marked. void reports a boot whose first group
// never was durable: it never began, and is removed.
func (cfg *Config) recover(b bootDir) (p pastBoot, void bool, err error) {
	p = pastBoot{bootDir: b}
	var bad *Damage
	p.head, p.note, bad = b.checkpoint(cfg.Key)
	s, err := b.scan(p.head)
	if err != nil {
		return p, false, err
	}
	if bad != nil && s.damage == nil && s.tree.Size() == 0 {
		bad.From, s.damage, bad = 1, bad, nil // there is a checkpoint, so there was a record
	}
	p.size, p.damage = s.intact(), collect(s.damage, bad)
	if s.damage != nil {
		if err := cfg.mark(b, s.damage); err != nil {
			return p, false, err
		}
	} else {
		p.torn = uint64(s.torn)
		if s.tree.Size() == 0 {
			return p, true, os.RemoveAll(b.path)
		}
		if err := cfg.settle(s); err != nil {
			return p, false, fmt.Errorf("recover boot %s: %w", b.id, err)
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

// settle cuts the torn tail and writes the last group once more before the
// sync: after a failed fsync the kernel may hold pages as clean that never
// reached the disk.
func (cfg *Config) settle(s *scan) error {
	if s.end == 0 {
		return errors.Join(os.Remove(s.tail.path), cfg.FS.SyncDir(filepath.Dir(s.tail.path)))
	}
	group := make([]byte, s.end-s.last)
	in, err := os.Open(s.tail.path)
	if err != nil {
		return err
	}
	_, err = in.ReadAt(group, s.last)
	if err := errors.Join(err, in.Close()); err != nil {
		return err
	}
	f, err := cfg.FS.OpenFile(s.tail.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err = f.Truncate(s.end); err == nil {
		_, err = f.WriteAt(group, s.last)
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

func (cfg *Config) mark(b bootDir, d *Damage) error {
	doc, err := wire.Marshal(d.Damage)
	if err != nil {
		return err
	}
	return replaceFile(cfg.FS, filepath.Join(b.path, damageFile), doc)
}

// past returns what is known of the boots that ended, oldest first. Only the
// last one is read: those before it were when the one after them began.
func (cfg *Config) past() ([]pastBoot, error) {
	dirs, err := listBoots(cfg.Dir)
	if err != nil {
		return nil, err
	}
	for len(dirs) > 0 {
		last, void, err := cfg.recover(dirs[len(dirs)-1])
		if err != nil {
			return nil, err
		}
		dirs = dirs[:len(dirs)-1]
		if !void {
			return append(cfg.settled(dirs), last), nil
		}
	}
	return nil, nil
}

func (cfg *Config) settled(dirs []bootDir) []pastBoot {
	var out []pastBoot
	for _, b := range dirs {
		p := pastBoot{bootDir: b}
		var bad *Damage
		p.head, p.note, bad = b.checkpoint(cfg.Key)
		if p.head != nil {
			p.size = p.head.Size
		}
		marked := b.marked()
		if marked != nil {
			p.size = marked.From - 1
		}
		p.damage = collect(marked, bad)
		out = append(out, p)
	}
	return out
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
		for _, d := range last.damage {
			r.Damage = append(r.Damage, d.Damage)
		}
	}
	return &audit.Record{Kind: audit.KindBoot, Time: cfg.Now().UnixNano(), Boot: r}
}
