package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// The files of a boot beside its segments.
const (
	checkpointFile = "checkpoint"
	damageFile     = "damage"
)

// A bootDir is the folder of one boot.
type bootDir struct {
	fs      FS
	id      string
	path    string
	counter uint64
	salt    uint32
}

func newBootDir(fs FS, journal, id string) (bootDir, error) {
	counter, random, err := audit.ParseBootID(id)
	return bootDir{fs: fs, id: id, path: filepath.Join(journal, id), counter: counter, salt: uint32(random)}, err
}

// listBoots returns the boots of a journal, oldest first.
func listBoots(fs FS, journal string) ([]bootDir, error) {
	names, err := fs.ReadDir(journal)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var boots []bootDir
	for _, n := range names {
		if b, err := newBootDir(fs, journal, n); err == nil {
			boots = append(boots, b)
		}
	}
	sort.Slice(boots, func(i, k int) bool { return boots[i].id < boots[k].id })
	return boots, nil
}

func (b bootDir) segment(first uint64) segment {
	return segment{first, filepath.Join(b.path, fmt.Sprintf("%020d%s", first, segmentSuffix))}
}

// segments lists the boot's segments by first seq.
func (b bootDir) segments() ([]segment, error) {
	names, err := b.fs.ReadDir(b.path)
	if err != nil {
		return nil, fmt.Errorf("journal boot %s: %w", b.id, err)
	}
	var out []segment
	for _, n := range names {
		digits, ok := strings.CutSuffix(n, segmentSuffix)
		if first, err := strconv.ParseUint(digits, 10, 64); ok && err == nil && first > 0 && len(digits) == 20 {
			out = append(out, b.segment(first))
		}
	}
	sort.Slice(out, func(i, k int) bool { return out[i].first < out[k].first })
	return out, nil
}

// checkpoint returns the boot's stored checkpoint with its note, or nothing
// when there is none. One that none of the node's keys signed is damage.
func (b bootDir) checkpoint(cfg *Config) (*audit.Checkpoint, []byte, *Damage) {
	msg, err := readFile(b.fs, filepath.Join(b.path, checkpointFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	var c audit.Checkpoint
	if err == nil {
		c, err = cfg.openCheckpoint(msg)
	}
	if err == nil && c.Boot != b.id {
		err = fmt.Errorf("the checkpoint of boot %s", c.Boot)
	}
	if err != nil {
		return nil, nil, b.damage(checkpointFile, 0, 0, 0, err)
	}
	return &c, msg, nil
}

// openCheckpoint verifies that this node signed the checkpoint, with its key or
// one that it had before.
func (cfg *Config) openCheckpoint(msg []byte) (audit.Checkpoint, error) {
	c, err := audit.PeekCheckpoint(msg)
	if err != nil {
		return c, err
	}
	if again, err := c.Sign(cfg.Key); err == nil && bytes.Equal(again, msg) && c.Tenant == cfg.Tenant && c.Node == cfg.Node {
		return c, nil // ed25519 signs the same in the same way
	}
	if cfg.Signed != nil {
		if c, err := audit.OpenCheckpoint(msg, cfg.Signed); err == nil && c.Tenant == cfg.Tenant && c.Node == cfg.Node {
			return c, nil
		}
	}
	return c, errors.New("not a checkpoint that this node signed")
}

// marked returns the damage that was found in the boot before.
func (b bootDir) marked() []*Damage {
	doc, err := readFile(b.fs, filepath.Join(b.path, damageFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var found []audit.Damage
	if err == nil {
		err = wire.Unmarshal(doc, &found)
	}
	if err != nil {
		var one audit.Damage // as it was written before there were several
		if wire.Unmarshal(doc, &one) == nil {
			return []*Damage{{one}}
		}
		return []*Damage{b.damage(damageFile, 0, 0, 0, err)}
	}
	out := make([]*Damage, len(found))
	for i, d := range found {
		out[i] = &Damage{d}
	}
	return out
}

// mark stores the damage of a boot, so that later starts know it.
func (b bootDir) mark(found []*Damage) error {
	docs := make([]audit.Damage, len(found))
	for i, d := range found {
		docs[i] = d.Damage
	}
	doc, err := wire.Marshal(docs)
	if err != nil {
		return err
	}
	return replaceFile(b.fs, filepath.Join(b.path, damageFile), doc)
}

func (b bootDir) damage(file string, offset int64, from, to uint64, reason error) *Damage {
	return &Damage{audit.Damage{Boot: b.id, File: filepath.Base(file), Offset: uint64(offset), From: from, To: to, Reason: reason.Error()}}
}
