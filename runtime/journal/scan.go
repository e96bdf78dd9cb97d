package journal

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A scan is what is intact of a boot, and what is not.
type scan struct {
	// tree is that behind the last intact record.
	tree audit.Frontier
	// durable is the highest seq that any evidence says was synced.
	durable uint64
	// holes are damage with intact records behind it, which a signed checkpoint
	// vouches for; damage is what nothing is given out behind, and strange what
	// took no record.
	holes, strange []*Damage
	damage         *Damage
	// tail is where the intact records end: the offset in the last segment read,
	// and of the last group in it, 0 for none.
	tail      segment
	end, last int64
	// torn is the number of bytes behind end, if a crash explains them.
	torn int64
}

// intact is the number of records up to which they may be given out.
func (s *scan) intact() uint64 {
	if s.damage != nil {
		return s.damage.From - 1
	}
	return s.tree.Size()
}

// found is all damage, what took records first.
func (s *scan) found() []*Damage {
	return append(append(collect(s.damage), s.holes...), s.strange...)
}

// scan reads the groups of a boot behind what was trimmed. Records that any
// evidence - a later group, a later segment, the checkpoint c if there is one -
// says were durable, but that are not intact, are damage; anything else behind
// the intact records is a torn tail.
//
// Of a large boot that has a checkpoint it reads the last Config.ScanBytes only,
// when the headers of all segments fit one another and lead to the root that was
// signed. What is before is the scrub's.
func (cfg *Config) scan(b bootDir, c *audit.Checkpoint, t trimState) (*scan, error) {
	segments, err := b.segments()
	if err != nil {
		return nil, err
	}
	for len(segments) > 0 && segments[0].first <= t.through {
		segments = segments[1:]
	}
	if from, tree := cfg.recent(b, segments, c, t); from > 0 {
		if s := b.scan(segments[from:], c, tree); len(s.found()) == 0 {
			return s, nil
		}
	}
	return b.scan(segments, c, t.tree), nil
}

// recent returns where the part of a large boot begins that has to be read, with
// the tree before it; 0 when it has to be read from its beginning.
func (cfg *Config) recent(b bootDir, segments []segment, c *audit.Checkpoint, t trimState) (int, audit.Frontier) {
	if c == nil || len(segments) == 0 || segments[0].first != t.through+1 {
		return 0, audit.Frontier{}
	}
	var sizes []int64
	var trees []audit.Frontier
	for i, seg := range segments {
		r, err := openSegment(b.fs, seg, b.salt)
		if err != nil {
			return 0, audit.Frontier{}
		}
		err = r.header()
		r.close()
		before := r.before
		if err != nil || i > 0 && before.first > 0 && (before.first != segments[i-1].first || before.size > sizes[i-1]) {
			return 0, audit.Frontier{}
		}
		sizes, trees = append(sizes, r.size), append(trees, r.frontier)
	}
	from, bytes := len(segments), int64(0)
	for from > 0 && (from == len(segments) || trees[from].Size() > c.Size || bytes+sizes[from-1] <= cfg.ScanBytes) {
		from--
		bytes += sizes[from]
	}
	return from, trees[from]
}

// A scanner is a scan under way.
type scanner struct {
	scan
	b     bootDir
	c     *audit.Checkpoint
	begin uint64
	// root is that at the checkpoint's size, once known.
	root  tlog.Hash
	known bool
	// broken is why the records behind tree do not go on, at off of the segment
	// where; worse, that no crash explains it.
	broken error
	where  segment
	off    int64
	worse  bool
}

func (b bootDir) scan(segments []segment, c *audit.Checkpoint, tree audit.Frontier) *scan {
	s := &scanner{b: b, c: c, begin: tree.Size() + 1}
	s.resume(&tree)
	for _, seg := range segments {
		s.segment(seg)
	}
	s.finish()
	return &s.scan
}

// resume goes on behind tree.
func (s *scanner) resume(tree *audit.Frontier) {
	s.tree, s.broken = tree.Clone(), nil
	s.passed()
}

func (s *scanner) passed() {
	if s.c != nil && s.tree.Size() == s.c.Size {
		s.root, s.known = s.tree.Root(), true
	}
}

func (s *scanner) breaks(seg segment, off int64, why error) {
	if s.broken != nil {
		s.worse = true
		return
	}
	s.broken, s.where, s.off = why, seg, off
	s.worse = s.worse || errors.Is(why, errMisplaced) || errors.Is(why, errUnreadable)
}

// segment reads one segment.
func (s *scanner) segment(seg segment) {
	s.durable = max(s.durable, seg.first-1)
	r, err := openSegment(s.b.fs, seg, s.b.salt)
	if err != nil {
		s.tail, s.end, s.last = seg, 0, 0
		s.breaks(seg, 0, err)
		return
	}
	defer r.close()
	if err = r.header(); err == nil {
		err = s.join(seg, r)
	}
	s.tail, s.end, s.last = seg, 0, 0
	for err == nil {
		var entries []audit.Entry
		at := r.off
		var h audit.GroupHeader
		if h, entries, err = r.group(); err == nil {
			s.last = at
			s.durable = max(s.durable, h.DurableThrough)
			for _, e := range entries {
				s.tree.Append(e.Hash())
				s.passed()
			}
		}
	}
	s.end = r.off
	used, durable, restErr := r.rest()
	s.torn, s.durable = used, max(s.durable, durable)
	if restErr != nil {
		err = readError("the end of the segment", restErr)
	}
	if err != io.EOF {
		s.breaks(seg, r.off, err)
	}
}

// join checks that the segment goes on where the one before ended. Where it does
// not, what is missing is a hole: the header has the tree behind it.
func (s *scanner) join(seg segment, r *segmentReader) error {
	ended, to := s.tree.Size(), seg.first-1
	switch {
	case to < ended:
		return fmt.Errorf("%w: segment %d begins before record %d", errMisplaced, seg.first, ended)
	case s.broken != nil && to == ended:
		s.strange = append(s.strange, s.b.damage(s.where.path, s.off, 0, 0, s.broken))
	case s.broken != nil:
		s.holes = append(s.holes, s.b.damage(s.where.path, s.off, ended+1, to, s.broken))
	case to > ended:
		why := fmt.Errorf("%w: the segment behind record %d begins with %d", errBroken, ended, seg.first)
		file := s.tail.path
		if file == "" {
			file = s.b.segment(ended + 1).path
		}
		s.holes = append(s.holes, s.b.damage(file, s.end, ended+1, to, why))
	case r.frontier.Root() == s.tree.Root():
		return nil
	case s.tail.first == 0:
		return fmt.Errorf("%w: segment %d does not continue the tree that was trimmed", errMisplaced, seg.first)
	default: // the records of the segment before, or this header, were rewritten
		why := fmt.Errorf("%w: segment %d does not continue the tree", errBroken, seg.first)
		s.holes = append(s.holes, s.b.damage(s.tail.path, 0, s.tail.first, to, why))
	}
	s.worse = false
	s.resume(&r.frontier)
	return nil
}

// finish judges what was found.
func (s *scanner) finish() {
	if s.c != nil {
		s.durable = max(s.durable, s.c.Size)
	}
	if len(s.holes) > 0 && !s.vouched() {
		first := s.holes[0]
		first.To = max(s.durable, first.To)
		s.damage, s.holes = first, nil
		return
	}
	intact := s.tree.Size()
	switch {
	case intact < s.durable || s.worse:
		if s.broken == nil {
			s.broken, s.where, s.off = fmt.Errorf("%w: the records end at %d, %d were durable", errBroken, intact, s.durable), s.tail, s.end
		}
		if s.where.path == "" {
			s.where = s.b.segment(intact + 1)
		}
		s.damage = s.b.damage(s.where.path, s.off, intact+1, max(s.durable, intact+1), s.broken)
	case s.known && s.c.Size > 0 && s.root != s.c.Root:
		s.damage = s.b.damage(checkpointFile, 0, s.begin, s.c.Size, fmt.Errorf("%w: records %d-%d are not those that were signed", errBroken, s.begin, s.c.Size))
	}
}

// vouched reports whether the signed checkpoint covers every hole, and what
// follows leads to its root: then the headers behind the holes say the truth.
func (s *scanner) vouched() bool {
	for _, h := range s.holes {
		if s.c == nil || h.To > s.c.Size {
			return false
		}
	}
	return s.known && s.root == s.c.Root
}
