package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

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
	id      string
	path    string
	counter uint64
	salt    uint32
}

func newBootDir(journal, id string) (bootDir, error) {
	counter, random, err := audit.ParseBootID(id)
	return bootDir{id: id, path: filepath.Join(journal, id), counter: counter, salt: uint32(random)}, err
}

// listBoots returns the boots of a journal, oldest first.
func listBoots(journal string) ([]bootDir, error) {
	names, err := os.ReadDir(journal)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var boots []bootDir
	for _, n := range names {
		if b, err := newBootDir(journal, n.Name()); err == nil && n.IsDir() {
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
	names, err := os.ReadDir(b.path)
	if err != nil {
		return nil, fmt.Errorf("journal boot %s: %w", b.id, err)
	}
	var out []segment
	for _, n := range names {
		digits, ok := strings.CutSuffix(n.Name(), segmentSuffix)
		if first, err := strconv.ParseUint(digits, 10, 64); ok && err == nil && first > 0 && len(digits) == 20 {
			out = append(out, b.segment(first))
		}
	}
	sort.Slice(out, func(i, k int) bool { return out[i].first < out[k].first })
	return out, nil
}

// checkpoint returns the boot's stored checkpoint with its note, or nothing
// when there is none. One that the key would not sign in the same way is damage.
func (b bootDir) checkpoint(key note.Signer) (*audit.Checkpoint, []byte, *Damage) {
	msg, err := os.ReadFile(filepath.Join(b.path, checkpointFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	var c audit.Checkpoint
	if err == nil {
		c, err = audit.PeekCheckpoint(msg)
	}
	if err == nil {
		var again []byte
		if again, err = c.Sign(key); err == nil && (!bytes.Equal(again, msg) || c.Boot != b.id || audit.NodeKeyName(c.Tenant, c.Node) != key.Name()) {
			err = errors.New("not the checkpoint that this node signed for this boot")
		}
	}
	if err != nil {
		return nil, nil, b.damage(checkpointFile, 0, 0, 0, err)
	}
	return &c, msg, nil
}

// marked returns the damage that an earlier start found in the boot, or nil.
func (b bootDir) marked() *Damage {
	doc, err := os.ReadFile(filepath.Join(b.path, damageFile))
	if err != nil {
		return nil
	}
	var d Damage
	if err := wire.Unmarshal(doc, &d.Damage); err != nil {
		return b.damage(damageFile, 0, 1, 0, err)
	}
	return &d
}

func (b bootDir) damage(file string, offset int64, from, to uint64, reason error) *Damage {
	return &Damage{audit.Damage{Boot: b.id, File: filepath.Base(file), Offset: uint64(offset), From: from, To: to, Reason: reason.Error()}}
}

// A scan is what is intact of a boot, and what is not.
type scan struct {
	// tree is that of the intact records, from 1 without a gap.
	tree audit.Frontier
	// durable is the highest seq that a later group of the boot says was synced.
	durable uint64
	damage  *Damage
	// tail is where the intact records end: the offset in the last segment read,
	// and of the last group in it, 0 for none.
	tail      segment
	end, last int64
	// torn is the number of bytes behind end, if a crash explains them.
	torn int64
	// suspect is the segment after which the next one's header names another
	// tree: its records, or that header, were rewritten.
	suspect segment
}

// intact is the number of records that may be given out.
func (s *scan) intact() uint64 {
	if s.damage != nil {
		return s.damage.From - 1
	}
	return s.tree.Size()
}

// scan reads every group of the boot. Records that any evidence - a later
// group, a later segment, the checkpoint c if there is one - says were durable,
// but that are not intact, are damage; anything else behind the intact records
// is a torn tail.
func (b bootDir) scan(c *audit.Checkpoint) (*scan, error) {
	segments, err := b.segments()
	if err != nil {
		return nil, err
	}
	s := &scan{}
	var root tlog.Hash
	leaf := func(e audit.Entry) {
		if s.tree.Append(e.Hash()); c != nil && s.tree.Size() == c.Size {
			root = s.tree.Root()
		}
	}
	var broken error
	for _, seg := range segments {
		s.durable = max(s.durable, seg.first-1)
		if broken == nil {
			broken = b.scanSegment(s, seg, leaf)
		} else if r, err := openSegment(seg, b.salt); err == nil {
			_, durable, _ := r.rest()
			s.durable = max(s.durable, durable)
			r.close()
		}
	}
	if c != nil {
		s.durable = max(s.durable, c.Size)
	}
	intact := s.tree.Size()
	switch {
	case s.suspect.first > 0:
		s.damage = b.damage(s.suspect.path, 0, s.suspect.first, s.durable, broken)
	case intact < s.durable || errors.Is(broken, errMisplaced):
		if broken == nil {
			broken = fmt.Errorf("%w: the records end at %d, %d were durable", errBroken, intact, s.durable)
		}
		s.damage = b.damage(s.tail.path, s.end, intact+1, max(s.durable, intact+1), broken)
	case c != nil && c.Size > 0 && root != c.Root:
		s.damage = b.damage(checkpointFile, 0, 1, c.Size, fmt.Errorf("%w: records 1-%d are not those that were signed", errBroken, c.Size))
	}
	return s, nil
}

func (b bootDir) scanSegment(s *scan, seg segment, leaf func(audit.Entry)) error {
	if seg.first != s.tree.Size()+1 {
		return fmt.Errorf("%w: the segment behind record %d begins with %d", errBroken, s.tree.Size(), seg.first)
	}
	before := s.tail
	s.tail, s.end, s.last = seg, 0, 0
	r, err := openSegment(seg, b.salt)
	if err != nil {
		return err
	}
	defer r.close()
	if err = r.header(); err == nil && r.frontier.Root() != s.tree.Root() {
		err = fmt.Errorf("%w: segment %d does not continue the tree", errBroken, seg.first)
		s.suspect, r.off = before, 0
	}
	for err == nil {
		var entries []audit.Entry
		at := r.off
		var h audit.GroupHeader
		if h, entries, err = r.group(); err == nil {
			s.last = at
			s.durable = max(s.durable, h.DurableThrough)
			for _, e := range entries {
				leaf(e)
			}
		}
	}
	s.end = r.off
	used, durable, restErr := r.rest()
	s.torn, s.durable = used, max(s.durable, durable)
	if restErr != nil {
		return fmt.Errorf("%w: %w", errBroken, restErr)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
