package audit

import "github.com/holdfast-policy/holdfast/sdk/wire"

// A Hold keeps the records that it covers: those for which every member that is
// set is true.
type Hold struct {
	ID          string
	Node, Point string
	// Subject is the SHA-256 of the subject's id, or of its type, a colon and its id.
	Subject wire.Digest
	// From and To are in nanoseconds since 1970, inclusive; 0 is no bound.
	From, To int64
}

// Covers reports whether the hold keeps a record of a node.
func (h Hold) Covers(node string, r *Record) bool {
	switch {
	case h.Node != "" && h.Node != node,
		h.From != 0 && r.Time < h.From,
		h.To != 0 && r.Time > h.To:
		return false
	case h.Point == "" && h.Subject.IsZero():
		return true
	case r.Decision == nil:
		return false
	}
	d := r.Decision
	return (h.Point == "" || h.Point == d.Point) &&
		(h.Subject.IsZero() || h.Subject == wire.Sum([]byte(d.Subject.ID)) || h.Subject == wire.Sum([]byte(d.Subject.Type+":"+d.Subject.ID)))
}
