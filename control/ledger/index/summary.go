package index

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A summary is what the index keeps of one batch.
type summary struct {
	// Name, First, Size and Modified are those of the batch's file, as it was.
	Name     string `cbor:"1,keyasint"`
	First    uint64 `cbor:"2,keyasint"`
	Size     int64  `cbor:"3,keyasint"`
	Modified int64  `cbor:"4,keyasint"`
	// Damage is why the batch could not be read; then it may hold anything.
	Damage string `cbor:"5,keyasint,omitempty"`

	Last     uint64 `cbor:"6,keyasint,omitempty"`
	From     int64  `cbor:"7,keyasint,omitempty"` // of the records' times
	To       int64  `cbor:"8,keyasint,omitempty"`
	Kinds    uint64 `cbor:"9,keyasint,omitempty"`  // bits by audit.Kind
	Verdicts uint64 `cbor:"10,keyasint,omitempty"` // bits by policy.Verdict
	// Points and Codes are nil when there are more than maxNames.
	Points []string `cbor:"11,keyasint,omitempty"`
	Codes  []string `cbor:"12,keyasint,omitempty"`
	// Terms are sorted hashes of 4 bytes: of subjects and of what correlates.
	Terms []byte `cbor:"13,keyasint,omitempty"`
	// Uses are the activations that its decisions name, Activations those it holds.
	Uses        []uint64    `cbor:"14,keyasint,omitempty"`
	Activations []activated `cbor:"15,keyasint,omitempty"`
}

type activated struct {
	Seq    uint64                 `cbor:"1,keyasint"`
	Record audit.ActivationRecord `cbor:"2,keyasint"`
}

// Bounds of a summary. A batch holds at most 1,000 records, each of which is good
// for a handful of terms.
const (
	maxNames        = 64
	maxSummaryBytes = audit.MaxBatchBytes
)

const termBytes = 4

// term is the hash of a name of some kind.
func term(kind, name string) uint32 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(kind)) // never an error
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(name))
	sum := h.Sum64()
	return uint32(sum ^ sum>>32)
}

// The kinds of terms.
const (
	termSubject = "subject" // its id
	termRequest = "request"
	termTrace   = "trace"
)

// a builder collects what is in a batch.
type builder struct {
	points, codes map[string]bool
	terms         []uint32
	uses          map[uint64]bool
}

// summarise describes a batch by its file and its records.
func summarise(f audit.BatchFile, b *audit.Batch, err error) *summary {
	s := &summary{Name: f.Name, First: f.First, Size: f.Size, Modified: f.Modified}
	if err != nil {
		s.Damage = err.Error()
		return s
	}
	s.Last, s.From, s.To = b.Last(), math.MaxInt64, math.MinInt64
	c := builder{points: map[string]bool{}, codes: map[string]bool{}, uses: map[uint64]bool{}}
	for i := range b.Entries {
		r, err := b.Entries[i].Record(nil)
		if err != nil {
			s.Damage = err.Error()
			return s
		}
		s.take(&c, r)
	}
	s.Points, s.Codes = names(c.points), names(c.codes)
	for seq := range c.uses {
		s.Uses = append(s.Uses, seq)
	}
	slices.Sort(s.Uses)
	slices.Sort(c.terms)
	for _, t := range slices.Compact(c.terms) {
		s.Terms = binary.BigEndian.AppendUint32(s.Terms, t)
	}
	return s
}

func (s *summary) take(c *builder, r *audit.Record) {
	s.From, s.To = min(s.From, r.Time), max(s.To, r.Time)
	s.Kinds |= 1 << r.Kind
	if r.Activation != nil {
		s.Activations = append(s.Activations, activated{r.Seq, *r.Activation})
	}
	d := r.Decision
	if d == nil {
		return
	}
	s.Verdicts |= 1 << d.Verdict
	c.points[d.Point] = true
	for _, reason := range d.Reasons {
		c.codes[reason.Code] = true
	}
	c.uses[d.Activation] = true
	c.terms = append(c.terms, term(termSubject, d.Subject.ID))
	if d.RequestID != "" {
		c.terms = append(c.terms, term(termRequest, d.RequestID))
	}
	if len(d.Trace) > 0 {
		c.terms = append(c.terms, term(termTrace, string(d.Trace)))
	}
}

func names(set map[string]bool) []string {
	if len(set) > maxNames {
		return nil
	}
	out := make([]string, 0, len(set))
	for name := range set {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// holds reports whether the batch may hold a term.
func (s *summary) holds(t uint32) bool {
	n := len(s.Terms) / termBytes
	lo, hi := 0, n
	for lo < hi {
		mid := (lo + hi) / 2
		if binary.BigEndian.Uint32(s.Terms[mid*termBytes:]) < t {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < n && binary.BigEndian.Uint32(s.Terms[lo*termBytes:]) == t
}

// decodeSummary reads what was written, and nothing else.
func decodeSummary(doc []byte) (*summary, error) {
	var s summary
	if err := wire.Unmarshal(doc, &s); err != nil {
		return nil, err
	}
	if len(s.Terms)%termBytes != 0 {
		return nil, errDamaged
	}
	return &s, nil
}

// of reports whether the summary is of the file as it is now.
func (s *summary) of(f *audit.BatchFile) bool {
	return s.Name == f.Name && s.First == f.First && s.Size == f.Size && s.Modified == f.Modified
}
