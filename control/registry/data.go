package registry

import (
	"cmp"
	"errors"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// dataDocuments are the documents about records and regions. The zero value is
// empty.
type dataDocuments struct {
	holds    map[wire.Digest]*bundle.SignedHold
	released map[wire.Digest]bool
	erasures map[wire.Digest]Erasure
	retired  map[string]*bundle.SignedRetirement
}

// An Erasure is an erasure without the records that it names.
type Erasure struct {
	Digest      wire.Digest
	Records     uint64
	Reason      string
	RequestedBy string
	By          []string
	Created     int64 // nanoseconds since 1970
}

// maxData bounds the documents of each kind that are remembered.
const maxData = 1 << 16

var errDataFull = errors.New("too many documents about records")

func (d *dataDocuments) add(root *bundle.TrustRoot, envelope []byte) error {
	if d.holds == nil {
		d.holds, d.released = map[wire.Digest]*bundle.SignedHold{}, map[wire.Digest]bool{}
		d.erasures, d.retired = map[wire.Digest]Erasure{}, map[string]*bundle.SignedRetirement{}
	}
	if max(len(d.holds), len(d.released), len(d.erasures), len(d.retired)) >= maxData {
		return errDataFull
	}
	switch bundle.Type(envelope) {
	case bundle.HoldType:
		h, err := root.OpenHold(envelope)
		if err == nil {
			d.holds[h.Digest] = h
		}
		return err
	case bundle.HoldReleaseType:
		h, err := root.OpenHoldRelease(envelope)
		if err == nil {
			for _, digest := range h.Holds {
				d.released[digest] = true
			}
		}
		return err
	case bundle.ErasureType:
		e, err := root.OpenErasure(envelope)
		if err == nil {
			d.erasures[e.Digest] = Erasure{e.Digest, e.Count(), e.Reason, e.RequestedBy, e.Persons, e.Created}
		}
		return err
	case bundle.RetirementType:
		r, err := root.OpenRetirement(envelope)
		if err == nil {
			d.retired[r.Region] = r
		}
		return err
	}
	return bundle.ErrPayloadType
}

// Holds returns the holds in force, oldest first.
func (f *Fleet) Holds() (out []*bundle.SignedHold) {
	for digest, h := range f.data.holds {
		if !f.data.released[digest] {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b *bundle.SignedHold) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Erasures returns every erasure, oldest first.
func (f *Fleet) Erasures() (out []Erasure) {
	for _, e := range f.data.erasures {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Erasure) int { return cmp.Compare(a.Created, b.Created) })
	return out
}

// Retired returns the regions that two persons have retired, by name.
func (f *Fleet) Retired() (out []*bundle.SignedRetirement) {
	for _, r := range f.data.retired {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *bundle.SignedRetirement) int { return cmp.Compare(a.Region, b.Region) })
	return out
}
