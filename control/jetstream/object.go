package jetstream

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Kinds of objects under pol.
const (
	kindRelease   = "rel"
	kindRoot      = "root"
	kindOrder     = "order"
	kindKill      = "kill"
	kindLift      = "lift"
	kindEnrolment = "enrol"
	kindAccount   = "account"
	kindLead      = "lead"

	kindErasure     = "erase"
	kindHold        = "hold"
	kindHoldRelease = "unhold"
	kindRetirement  = "retire"
)

// An Object is what a region holds under a name, such as rel.7: an envelope,
// which nobody has verified.
type Object struct {
	// Name is what follows pol. in the subject.
	Name string
	Seq  uint64 // in the region's stream
	At   time.Time
	Data []byte
}

func (o Object) part(i int) string {
	parts := strings.Split(o.Name, ".")
	if i >= len(parts) {
		return ""
	}
	return parts[i]
}

// signed reports whether the object is an envelope that nodes and hubs verify.
func (o Object) signed() bool {
	switch o.part(0) {
	case kindRelease, kindRoot, kindOrder, kindKill, kindLift, kindEnrolment, kindErasure, kindHold, kindHoldRelease, kindRetirement:
		return true
	}
	return false
}

// concerns reports whether a node needs the object.
func (o Object) concerns(node string) bool {
	switch o.part(0) {
	case kindEnrolment:
		return o.part(1) == node
	case kindHold, kindHoldRelease: // ledgers hold
		return false
	}
	return o.signed()
}

// inOrder puts what must be believed first before what depends on it: trust
// roots, kills, enrolments, releases by epoch, orders.
func inOrder(objects []Object) {
	rank := []string{kindRoot, kindKill, kindLift, kindEnrolment, kindRelease, kindOrder, kindHold, kindHoldRelease, kindErasure, kindRetirement}
	slices.SortStableFunc(objects, func(a, b Object) int {
		if c := cmp.Compare(slices.Index(rank, a.part(0)), slices.Index(rank, b.part(0))); c != 0 || a.part(0) == kindKill || a.part(0) == kindLift {
			return c
		}
		x, _ := number(a.part(1))
		y, _ := number(b.part(1))
		return cmp.Compare(x, y)
	})
}
