package assembly

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-policy/holdfast/control/jetstream"
	"github.com/holdfast-policy/holdfast/control/ledger"
	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
)

// openData verifies a document about records or regions. A retirement has only its
// digest.
func openData(root *bundle.TrustRoot, envelope []byte) (d ledger.Document, err error) {
	d.Envelope = envelope
	switch bundle.Type(envelope) {
	case bundle.ErasureType:
		e, err := root.OpenErasure(envelope)
		if err != nil {
			return d, err
		}
		d.Digest, d.Erase, d.Until = e.Digest, erased(&e.Erasure), e.Created+clockSlack.Nanoseconds()
	case bundle.HoldType:
		h, err := root.OpenHold(envelope)
		if err != nil {
			return d, err
		}
		hold := HoldOf(h)
		d.Digest, d.Hold = h.Digest, &hold
	case bundle.HoldReleaseType:
		h, err := root.OpenHoldRelease(envelope)
		if err != nil {
			return d, err
		}
		d.Digest, d.Release = h.Digest, h.Holds
	case bundle.RetirementType:
		r, err := root.OpenRetirement(envelope)
		if err != nil {
			return d, err
		}
		d.Digest = r.Digest
	default:
		return d, bundle.ErrPayloadType
	}
	return d, nil
}

// clockSlack is how far a node's clock may be ahead of that of who signs an
// erasure: records after it are not those that were named.
const clockSlack = time.Minute

// erased are the records that an erasure names.
func erased(e *bundle.Erasure) []audit.Records {
	out := make([]audit.Records, len(e.Records))
	for i, r := range e.Records {
		out[i] = audit.Records{Node: r.Node, Boot: r.Boot}
		for _, x := range r.Ranges {
			out[i].Ranges = append(out[i].Ranges, audit.Range{From: x[0], To: x[1]})
		}
	}
	return out
}

// HoldOf is a hold as ledgers apply it.
func HoldOf(h *bundle.SignedHold) audit.Hold {
	return audit.Hold{ID: h.ID, Node: h.Scope.Node, Point: h.Scope.Point, Subject: h.Scope.Subject, From: h.Scope.From, To: h.Scope.To}
}

// Believe has verification of an export believe the erasures that one of the trust
// roots opens. The root that was in force when an erasure was signed opens it; one
// that came after may no longer name its signer.
func Believe(keys *audit.Keys, roots ...*bundle.TrustRoot) {
	keys.Believe(func(envelope []byte) (audit.Document, error) {
		errs := make([]error, 0, len(roots))
		for _, root := range roots {
			d, err := openData(root, envelope)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			kind := "release of holds"
			switch {
			case d.Erase != nil:
				kind = "erasure"
			case d.Hold != nil:
				kind = "hold"
			}
			return audit.Document{Tenant: root.Tenant, Kind: kind, Removal: audit.Removal{By: d.Digest, Records: d.Erase, Until: d.Until}}, nil
		}
		if len(errs) == 0 {
			return audit.Document{}, errors.New("no trust root was given")
		}
		return audit.Document{}, errors.Join(errs...)
	})
}

// documents gives the ledger what is signed about its records, in the region's
// order, each judged by the trust root that is in force when it comes.
func (t *tenant) documents(ctx context.Context) error {
	root := t.cfg.Root
	return t.region.FollowPolicies(ctx, func(objects []jetstream.Object) error {
		for _, o := range objects {
			switch bundle.Type(o.Data) {
			case bundle.TrustRootType:
				if next, err := root.OpenNext(o.Data); err == nil {
					root = next
				}
			case bundle.ErasureType, bundle.HoldType, bundle.HoldReleaseType:
				d, err := openData(root, o.Data)
				if err != nil {
					t.log.Warn("document about records is not believed", "type", bundle.Type(o.Data), "err", err)
					continue
				}
				if err := t.ledger.Take(d); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
