package ledger

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A bootState is what is known of one boot. Its lane changes it, holding the
// ledger's mutex; whoever else reads it holds the mutex.
type bootState struct {
	head head
	// checkpoint is that of head, as the node signed it; durable is what may be
	// signed: its batches are on disk under their names.
	checkpoint []byte
	durable    head
	signable   []byte // the checkpoint of durable
	touched    bool   // batches were added since durable
	// holes are records up to head that are not here: the region had them, or its
	// receipt proves that what follows continues them.
	holes []audit.Range
	// loose are archived batches behind a gap that nothing vouches for.
	loose []span
	// want is the largest size that a signed statement claims.
	want   uint64
	claims map[string]claim // the newest of each region
	end    *claim           // what the next boot says of this one's end
	origin *audit.BootRecord
	roots  []head // of some earlier sizes, rising
	recent recent // of the lane alone
	// stuck is when something began to be missing; tried is set when every server
	// was asked for it in vain.
	stuck time.Time
	tried bool
	// cosigned is the size that the stored receipt proves; published the one that
	// the region's stream was seen to hold. receipt is to be stored.
	cosigned, published uint64
	receipt             []byte
	forked              bool
	// bare are archived batches of which blobs are being asked for.
	bare map[span]bool
}

// A claim is a size and root that somebody signed for.
type claim struct {
	head
	by      string
	msg     []byte
	ours    bool // the region's own key signed it
	proven  bool // another region's known key did
	checked bool // against the archive
}

// keptRoots bounds the roots that are remembered of a boot.
const keptRoots = 64

// state is what is known of a boot; it is made when it is asked for first.
func (l *Ledger) state(key bootKey) *bootState {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.boots[key]
	if s == nil {
		s = &bootState{claims: map[string]claim{}}
		l.boots[key] = s
	}
	return s
}

// lacks reports whether records that somebody signed for are not here.
func (s *bootState) lacks() bool { return s.want > s.head.size || len(s.holes) > 0 }

// missing is what lacks is about, in order.
func (s *bootState) missing() []audit.Range {
	out := slices.Clone(s.holes)
	from := s.head.size + 1
	for _, loose := range s.loose {
		if loose.first > from {
			out = append(out, audit.Range{From: from, To: loose.first - 1})
		}
		from = max(from, loose.last+1)
	}
	if s.want >= from {
		out = append(out, audit.Range{From: from, To: s.want})
	}
	return out
}

// advance takes a new head. The lane calls it.
func (l *Ledger) advance(s *bootState, c audit.Checkpoint, checkpoint []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.head.size > 0 {
		if s.roots = append(s.roots, s.head); len(s.roots) > keptRoots {
			s.roots = slices.Delete(s.roots, 0, keptRoots/2)
		}
	}
	s.head, s.checkpoint, s.touched = head{c.Size, c.Root}, checkpoint, true
	s.want = max(s.want, c.Size)
	if len(s.holes) == 0 { // what comes tells nothing of holes: the node may never rest
		s.tried, s.stuck = false, time.Time{}
	}
	if s.lacks() && s.stuck.IsZero() {
		s.stuck = time.Now()
	}
}

// needs remembers that a boot has at least so many records.
func (l *Ledger) needs(s *bootState, size uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.want = max(s.want, size)
	if s.lacks() && s.stuck.IsZero() {
		s.stuck = time.Now()
		wake(l.look)
	}
}

// rootAt is the root of a boot's archived tree at a size up to its head; false
// when it cannot be told. The lane calls it.
func (l *Ledger) rootAt(key bootKey, s *bootState, size uint64) (tlog.Hash, bool) {
	if size == s.head.size {
		return s.head.root, true
	}
	i, found := slices.BinarySearchFunc(s.roots, size, func(h head, size uint64) int {
		switch {
		case h.size < size:
			return -1
		case h.size > size:
			return 1
		}
		return 0
	})
	if found {
		return s.roots[i].root, true
	}
	root, err := l.archive.rootAt(key.node, key.boot, size)
	return root, err == nil
}

// load finds what the archive proves of a boot.
func (l *Ledger) load(key bootKey, s *bootState, verifier note.Verifier) error {
	receipt, err := l.archive.receipt(key.node, key.boot)
	if err != nil {
		return err
	}
	c, ours := l.openReceipt(key, receipt, verifier)
	if receipt != nil && !ours {
		l.cfg.Log.Error("receipt is damaged", "node", key.node, "boot", key.boot)
	}
	for {
		again, err := l.arrange(key, s, head{c.Size, c.Root}, verifier)
		if err != nil {
			return err
		}
		if !again {
			break
		}
	}
	if ours {
		s.claims[l.cfg.Region] = claim{head: head{c.Size, c.Root}, by: "region " + l.cfg.Region, msg: receipt, ours: true}
		s.want, s.cosigned = max(s.want, c.Size), c.Size
	}
	s.want = max(s.want, s.head.size)
	if n := len(s.loose); n > 0 {
		s.want = max(s.want, s.loose[n-1].last)
	}
	s.durable, s.signable = s.head, s.checkpoint
	if s.lacks() {
		l.cfg.Log.Error("archive is damaged", "node", key.node, "boot", key.boot, "missing", fmt.Sprint(s.missing()))
		s.stuck = time.Now().Add(-patience)
	}
	return l.loadOrigin(key, s)
}

// arrange finds the run of batches that a boot's head is in: the first one, or
// the one that the region's own receipt vouches for. Again is set when a damaged
// batch was set aside.
func (l *Ledger) arrange(key bootKey, s *bootState, vouched head, verifier note.Verifier) (again bool, err error) {
	spans, err := l.archive.tidy(key.node, key.boot)
	if err != nil {
		return false, err
	}
	s.head, s.checkpoint, s.holes, s.loose = head{}, nil, nil, nil
	end := 0 // of the run that the head is in
	for i := 0; i < len(spans); {
		n := i + 1
		for n < len(spans) && spans[n].first == spans[n-1].last+1 {
			n++
		}
		if spans[i].first == 1 || l.vouches(key, vouched, spans[i].first, spans[n-1].last) {
			end = n
		}
		i = n
	}
	s.loose = spans[end:]
	if end == 0 {
		return false, nil
	}
	next := uint64(1)
	for _, have := range spans[:end] {
		if have.first > next {
			s.holes = append(s.holes, audit.Range{From: next, To: have.first - 1})
		}
		next = have.last + 1
	}
	last := spans[end-1]
	b, err := l.archive.read(key.node, key.boot, last)
	if err == nil {
		var c audit.Checkpoint
		if c, _, err = b.VerifyFirst(verifier); err == nil {
			s.head, s.checkpoint = head{c.Size, c.Root}, b.Checkpoint
			return false, nil
		}
	}
	return true, l.archive.setAside(key.node, key.boot, last)
}

// vouches reports whether the region counter-signed a tree that ends within a
// run of batches from first to last.
func (l *Ledger) vouches(key bootKey, vouched head, first, last uint64) bool {
	if vouched.size == 0 || vouched.size < first-1 || vouched.size > last {
		return false
	}
	root, err := l.archive.rootAt(key.node, key.boot, vouched.size)
	return err == nil && root == vouched.root
}

// loadOrigin reads what the boot's first record says of the boot before.
func (l *Ledger) loadOrigin(key bootKey, s *bootState) error {
	spans, err := l.archive.spans(key.node, key.boot)
	if err != nil || len(spans) == 0 || spans[0].first != 1 {
		return err
	}
	b, err := l.archive.read(key.node, key.boot, spans[0])
	if err != nil {
		return nil // damage, which the scrub finds
	}
	if r, err := b.Entries[0].Record(nil); err == nil && r.Boot != nil {
		l.follows(key, s, r.Boot)
	}
	return nil
}

// follows remembers what a boot says of the one before it.
func (l *Ledger) follows(key bootKey, s *bootState, r *audit.BootRecord) {
	l.mu.Lock()
	s.origin = r
	l.mu.Unlock()
	if r.Previous == "" || r.PreviousRoot == nil {
		return
	}
	before := l.state(bootKey{key.node, r.Previous})
	l.mu.Lock()
	before.end = &claim{head: head{r.PreviousSize, *r.PreviousRoot}, by: "boot " + key.boot}
	if damagedBefore(r) {
		before.end = nil // it had more, which is lost
	}
	l.mu.Unlock()
	l.needs(before, r.PreviousSize)
}

func damagedBefore(r *audit.BootRecord) bool {
	return slices.ContainsFunc(r.Damage, func(d audit.Damage) bool { return d.Boot == r.Previous })
}

var errFuture = errors.New("does not follow what is known")

// fits checks what a boot's first record says of the boot before against what is
// known of the node.
func (l *Ledger) fits(key bootKey, r *audit.BootRecord) error {
	counter, _, err := audit.ParseBootID(key.boot)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for other, s := range l.boots {
		if other.node == key.node && other != key && s.origin != nil && s.origin.Previous == r.Previous {
			return fmt.Errorf("%w: boots %s and %s both follow %q", errFuture, other.boot, key.boot, r.Previous)
		}
	}
	if r.Previous == "" {
		return nil
	}
	before, _, err := audit.ParseBootID(r.Previous)
	if err != nil || before >= counter {
		return fmt.Errorf("%w: boot %s after boot %.80q", errFuture, key.boot, r.Previous)
	}
	s := l.boots[bootKey{key.node, r.Previous}]
	if s == nil || damagedBefore(r) {
		return nil
	}
	switch {
	case s.head.size > r.PreviousSize:
		return fmt.Errorf("%w: boot %s ended at %d, it says, and %d records of that are here", errFuture, r.Previous, r.PreviousSize, s.head.size)
	case s.head.size == r.PreviousSize && r.PreviousRoot != nil && s.head.size > 0 && s.head.root != *r.PreviousRoot:
		return fmt.Errorf("%w: boot %s ended with another tree, it says", errFuture, r.Previous)
	}
	return nil
}

// Status tells what the ledger holds.
func (l *Ledger) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Region: l.cfg.Region, Cosigned: map[string]map[string]uint64{}, Evidence: l.evidence, Err: l.err}
	for key, state := range l.boots {
		if s.Cosigned[key.node] == nil {
			s.Cosigned[key.node] = map[string]uint64{}
		}
		n := min(state.cosigned, state.head.size)
		s.Cosigned[key.node][key.boot] = n
		s.Records += n
		s.Boots = append(s.Boots, state.status(key))
	}
	slices.SortFunc(s.Boots, func(a, b BootStatus) int {
		return compare(bootKey{a.Node, a.Boot}, bootKey{b.Node, b.Boot})
	})
	return s
}

func (s *bootState) status(key bootKey) BootStatus {
	b := BootStatus{Node: key.node, Boot: key.boot, Held: s.head.size, Claimed: s.want, Cosigned: min(s.cosigned, s.head.size), Missing: s.missing(), Forked: s.forked, Regions: map[string]uint64{}}
	for region, c := range s.claims {
		b.Regions[region] = c.size
	}
	b.Ended = s.end != nil && s.end.size == s.head.size
	b.Nowhere = s.tried && len(b.Missing) > 0
	return b
}

// Status is what a ledger holds.
type Status struct {
	Region string
	// Cosigned is the number of records of each node and boot that are archived
	// and counter-signed.
	Cosigned map[string]map[string]uint64
	// Records is their sum.
	Records uint64
	// Evidence is the number of batches that were refused.
	Evidence int
	// Boots is every boot that is known, by node and name.
	Boots []BootStatus
	// Err is why the ledger stands still; nil while it works.
	Err error
}

// BootStatus is what a ledger holds of one boot.
type BootStatus struct {
	Node, Boot string
	// Held is the size of the tree that is archived, but for Missing; Cosigned is
	// how much of it the region has counter-signed; Claimed is the largest size
	// that anybody has signed for.
	Held, Cosigned, Claimed uint64
	// Missing are records that somebody signed for and that are not here. Nowhere
	// is set when every server was asked for them in vain.
	Missing []audit.Range
	Nowhere bool
	// Ended is set when a later boot says that this one ended at Held.
	Ended  bool
	Forked bool
	// Regions is the newest counter-signed size of each region.
	Regions map[string]uint64
}

// String says how far the boot is complete: never more than what is signed for.
func (b BootStatus) String() string {
	to := b.Held
	if len(b.Missing) > 0 {
		to = b.Missing[0].From - 1
	}
	text := fmt.Sprintf("complete to %d", to)
	switch {
	case len(b.Missing) > 0 && b.Nowhere:
		text += fmt.Sprintf("; missing %v, which no server has", b.Missing)
	case len(b.Missing) > 0:
		text += fmt.Sprintf("; missing %v", b.Missing)
	}
	if b.Forked {
		text += "; forked"
	}
	if !b.Ended {
		text += fmt.Sprintf("; after %d unknown", max(b.Held, b.Claimed))
	}
	return text
}

// sortedKeys are the boots that are known, in order.
func (l *Ledger) sortedKeys() []bootKey {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Keys(l.boots), compare)
}

func compare(a, b bootKey) int {
	switch {
	case a.node < b.node || a.node == b.node && a.boot < b.boot:
		return -1
	case a == b:
		return 0
	}
	return 1
}
