package audit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// EventErased is the event of the admin record with which a node answers an
// erasure. It empties the node's window: no record after it refers to a blob that
// a record before it introduced, so that a ledger which has seen it knows who
// uses the blobs of what it erases.
const EventErased = "erased"

func (r *Record) forgets() bool { return r.Admin != nil && r.Admin.Event == EventErased }

var erasedWord = []byte(EventErased)

// forgets is that of the entry's record, which few entries have to be read for.
func (e *Entry) forgets() bool {
	var r Record
	return bytes.Contains(e.Leaf, erasedWord) && wire.Unmarshal(e.Leaf, &r) == nil && r.forgets()
}

// Records names records of one boot of a node.
type Records struct {
	Node, Boot string
	Ranges     []Range // rising, apart
}

// A Removal says which records' parts were taken away by right. Whoever makes
// one has verified what says so.
type Removal struct {
	// By is what says so: the digest of an erasure, or of a sweep.
	By      wire.Digest
	Records []Records
	// Until is the latest time of a record that it can name, in nanoseconds since
	// 1970: nobody names what is yet to come. 0 is no bound.
	Until int64
}

// A Place is a boot of a node.
type Place struct{ Node, Boot string }

// A Removed is a set of records whose parts were taken away by right. The zero
// Removed is empty. It is not safe for concurrent use.
type Removed struct {
	ranges map[Place][]Range
	each   map[Place][]until
}

type until struct {
	ranges []Range // rising, apart
	time   int64
}

// Add adds the records of a removal.
func (s *Removed) Add(r Removal) {
	if s.ranges == nil {
		s.ranges, s.each = map[Place][]Range{}, map[Place][]until{}
	}
	for _, named := range r.Records {
		at := Place{named.Node, named.Boot}
		s.ranges[at] = Union(append(slices.Clone(s.ranges[at]), named.Ranges...))
		s.each[at] = append(s.each[at], until{Union(slices.Clone(named.Ranges)), r.Until})
	}
}

// Covers reports whether a record of that time is in the set: Has is true of
// records as well that were not there yet when they were named.
func (s *Removed) Covers(at Place, seq uint64, time int64) bool {
	return s.Has(at, seq) && slices.ContainsFunc(s.each[at], func(u until) bool {
		return Contains(u.ranges, seq) && (u.time == 0 || time <= u.time)
	})
}

// Has reports whether a record is in the set.
func (s *Removed) Has(at Place, seq uint64) bool { return Contains(s.ranges[at], seq) }

// Ranges are the records of a boot that are in the set. They must not be changed.
func (s *Removed) Ranges(at Place) []Range { return s.ranges[at] }

// Union sorts ranges and joins those that overlap or touch. It reuses them.
func Union(ranges []Range) []Range {
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.From, b.From) })
	out := ranges[:0]
	for _, r := range ranges {
		out = extend(out, r)
	}
	return out
}

// Contains reports whether one of the ranges, which rise and do not overlap,
// holds seq.
func Contains(ranges []Range, seq uint64) bool {
	i, found := slices.BinarySearchFunc(ranges, seq, func(r Range, seq uint64) int { return cmp.Compare(r.From, seq) })
	return found || i > 0 && seq <= ranges[i-1].To
}

// Overlaps reports whether one of the ranges has a record from first to last.
func Overlaps(ranges []Range, first, last uint64) bool {
	i, found := slices.BinarySearchFunc(ranges, first, func(r Range, seq uint64) int { return cmp.Compare(r.From, seq) })
	return found || i > 0 && first <= ranges[i-1].To || i < len(ranges) && ranges[i].From <= last
}

// split divides a range into what is in ranges, which rise and do not overlap,
// and the rest.
func (r Range) split(ranges []Range) (in, rest []Range) {
	from := r.From
	for _, x := range ranges {
		if x.To < from || x.From > r.To {
			continue
		}
		if x.From > from {
			rest = append(rest, Range{from, x.From - 1})
		}
		in = append(in, Range{max(x.From, from), min(x.To, r.To)})
		if from = x.To + 1; from > r.To {
			return in, rest
		}
	}
	return in, append(rest, Range{from, r.To})
}

// The folders of an export with what explains what is not in it.
const (
	documentsFolder = "documents"
	sweepsFolder    = "sweeps"
	documentSuffix  = ".dsse"
	sweepSuffix     = ".sweep"
)

// MaxDocumentBytes bounds a signed document of an export.
const MaxDocumentBytes = 2 << 20

// Document adds a signed document, such as an erasure or a hold. Who verifies the
// export opens it with the keys that he trusts; see Keys.Believe.
func (w *ExportWriter) Document(envelope []byte) error {
	if len(envelope) > MaxDocumentBytes {
		return fmt.Errorf("export: document of %d bytes; at most %d", len(envelope), MaxDocumentBytes)
	}
	return w.add(path.Join(documentsFolder, wire.Sum(envelope).Hex()+documentSuffix), envelope)
}

// Sweep adds a region's signed statement of what it deleted because it was old.
func (w *ExportWriter) Sweep(note []byte) error {
	return w.add(path.Join(sweepsFolder, wire.Sum(note).Hex()+sweepSuffix), note)
}

// A Document is what a signed document of an export says, to whom trusts it.
type Document struct {
	Tenant string
	Kind   string // erasure, hold, or what else there is
	// Removal is what it takes away by right; empty for none.
	Removal Removal
}

// Believe has verification read signed documents with open, which returns an
// error for what it does not trust.
func (k *Keys) Believe(open func(envelope []byte) (Document, error)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open = open
}

func (k *Keys) openDocument(envelope []byte) (Document, error) {
	k.mu.RLock()
	open := k.open
	k.mu.RUnlock()
	if open == nil {
		return Document{}, errNoRoot
	}
	return open(envelope)
}

var errNoRoot = errors.New("no trust root was given that could vouch for it")

// An ExplainedBy is a document or sweep that explains what is not there.
type ExplainedBy struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	By   string `json:"by"` // its digest, or the region and serial of a sweep
}

// explain reads a file that explains what is not there, and reports whether name
// is one. What nobody vouches for explains nothing.
func (v *verifier) explain(name string) bool {
	folder, base, _ := strings.Cut(name, "/")
	switch {
	case folder == documentsFolder && path.Ext(base) == documentSuffix && !strings.Contains(base, "/"):
		v.document(name)
	case folder == sweepsFolder && path.Ext(base) == sweepSuffix && !strings.Contains(base, "/"):
		v.sweep(name)
	default:
		return false
	}
	return true
}

// removals are what a tenant's documents and sweeps explain: those of another one
// say nothing of its records, though nodes have the same names.
type removals struct{ erased, swept, expired Removed }

func (v *verifier) removals(tenant string) *removals {
	if v.removed[tenant] == nil {
		v.removed[tenant] = &removals{}
	}
	return v.removed[tenant]
}

func (v *verifier) document(name string) {
	envelope, err := readFile(v.fsys, name, MaxDocumentBytes)
	var d Document
	if err == nil {
		d, err = v.keys.openDocument(envelope)
	}
	if err != nil {
		v.problem(name, "explains nothing: %v", err)
		return
	}
	v.removals(d.Tenant).erased.Add(d.Removal)
	v.report.Explained = append(v.report.Explained, ExplainedBy{name, d.Kind, d.Removal.By.String()})
}

func (v *verifier) sweep(name string) {
	msg, err := readFile(v.fsys, name, MaxSweepBytes)
	var s *Sweep
	if err == nil {
		s, err = v.openSweep(msg)
	}
	if err != nil {
		v.problem(name, "explains nothing: %v", err)
		return
	}
	v.removals(s.Tenant).swept.Add(Removal{Records: s.Parts})
	v.removals(s.Tenant).expired.Add(Removal{Records: s.Records})
	v.report.Explained = append(v.report.Explained, ExplainedBy{name, "sweep", fmt.Sprintf("%s %d", s.Region, s.Serial)})
}

func (v *verifier) openSweep(msg []byte) (*Sweep, error) {
	s, err := PeekSweep(msg)
	if err != nil {
		return nil, err
	}
	key := v.keys.Region(s.Tenant, s.Region)
	if key == nil {
		return nil, fmt.Errorf("no public key for %s", RegionKeyName(s.Tenant, s.Region))
	}
	return OpenSweep(msg, key)
}

// absent notes a proven record of which a part is not there: erased, deleted
// because it was old, or missing.
func (b *bootVerifier) absent(seq uint64, e Entry) {
	at, r := Place{b.node, b.boot}, Range{seq, seq}
	switch {
	case b.erases(seq, e):
		b.out.Erased = extend(b.out.Erased, r)
	case b.removals(b.tenant).swept.Has(at, seq):
		b.out.PartsExpired = extend(b.out.PartsExpired, r)
	default:
		b.out.Missing = extend(b.out.Missing, r)
	}
}

// present notes a proven record that an erasure names and that has parts.
func (b *bootVerifier) present(seq uint64, e Entry) {
	if len(e.Parts) > 0 && b.erases(seq, e) {
		b.out.NotErased = extend(b.out.NotErased, Range{seq, seq})
	}
}

// erases reports whether an erasure names a proven record, and could.
func (b *bootVerifier) erases(seq uint64, e Entry) bool {
	erased, at := &b.removals(b.tenant).erased, Place{b.node, b.boot}
	if !erased.Has(at, seq) {
		return false
	}
	var r Record
	return wire.Unmarshal(e.Leaf, &r) == nil && erased.Covers(at, seq, r.Time)
}

// missing notes records that a signed statement claims and that are not there: a
// gap, but for those of which a sweep says that they were deleted: nobody but the
// region says so, and nothing here shows what they were.
func (b *bootVerifier) missing(r Range) (gap bool) {
	expired, gaps := r.split(b.removals(b.tenant).expired.Ranges(Place{b.node, b.boot}))
	for _, x := range expired {
		b.out.Expired = extend(b.out.Expired, x)
	}
	for _, x := range gaps {
		b.out.Gaps = extend(b.out.Gaps, x)
	}
	return len(gaps) > 0
}
