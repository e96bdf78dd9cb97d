package bundle

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Type returns the payload type that an envelope claims, "" when it is none of
// ours. Nobody vouches for it: it says which function may open the envelope, and
// that function verifies it.
func Type(env []byte) string {
	e, _, err := readEnvelope(env)
	types := []string{ReleaseType, HeartbeatType, KillType, LiftType, OrderType, EnrolmentType, TrustRootType,
		ErasureType, HoldType, HoldReleaseType, RetirementType}
	if err != nil || !slices.Contains(types, e.PayloadType) {
		return ""
	}
	return e.PayloadType
}

// Signed is what is known of a document whose signatures were verified.
type Signed struct {
	Digest   wire.Digest // of the payload: the document's name
	Envelope []byte      // as it came
	Persons  []string    // who signed in the role that counts, in order
}

// A document is what a payload may hold.
type document interface {
	check() error
	of() string // whose it is: a tenant
}

func (h *Heartbeat) of() string { return h.Tenant }
func (k *Kill) of() string      { return k.Tenant }
func (l *Lift) of() string      { return l.Tenant }
func (o *Order) of() string     { return o.Tenant }
func (e *Enrolment) of() string { return e.Tenant }

// open verifies an envelope: at least need persons who hold role must have
// signed it, and no fewer than the trust root's threshold. Then it parses the
// payload into doc, which must hold its own rules and be of the trust root's
// tenant. It does not ask whether the trust root has expired.
func (r *TrustRoot) open(env []byte, payloadType string, role Role, need int, doc document) (Signed, error) {
	if err := r.Validate(); err != nil {
		return Signed{}, err
	}
	e, payload, err := parseEnvelope(env, payloadType)
	if err != nil {
		return Signed{}, err
	}
	signers, err := e.signers(payload, r.Keys)
	if err != nil {
		return Signed{}, err
	}
	if err := r.threshold(signers, role); err != nil {
		return Signed{}, err
	}
	who := persons(signers, role)
	if len(who) < need {
		return Signed{}, fmt.Errorf("%w: %d of %d persons with role %s", ErrThreshold, len(who), need, role)
	}
	if err := wire.Unmarshal(payload, doc); err != nil {
		return Signed{}, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	if err := doc.check(); err != nil {
		return Signed{}, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	if t := doc.of(); t != r.Tenant {
		return Signed{}, fmt.Errorf("%w: %q, not %q", ErrTenant, t, r.Tenant)
	}
	return Signed{Digest: wire.Sum(payload), Envelope: slices.Clone(env), Persons: who}, nil
}

// byRegion returns an error unless the region's own key, and no other's, signed.
func (s *Signed) byRegion(region string) error {
	if len(s.Persons) != 1 || s.Persons[0] != region {
		return fmt.Errorf("%w: it is of region %s and signed by %v", ErrSignature, region, s.Persons)
	}
	return nil
}

// first returns the first error that is not nil.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// HasRole reports whether anybody holds the role. A trust root without
// heartbeat keys grants no lease: its nodes are not expected to hear anything.
func (r *TrustRoot) HasRole(role Role) bool { return r.Thresholds[role] > 0 }

// signDocument checks a document, encodes it and signs it.
func signDocument(payloadType string, doc document, keys []*PrivateKey) ([]byte, error) {
	if err := doc.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	payload, err := wire.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	return Sign(payloadType, payload, keys...)
}

// earliest is in 2001, in nanoseconds since 1970: seconds, milliseconds and
// microseconds of our days are below it.
const earliest = int64(1e18)

// checkTime refuses an instant that is not in nanoseconds of this era.
func checkTime(what string, ns int64) error {
	if ns < earliest {
		return fmt.Errorf("%s %d is not a time in nanoseconds since 1970", what, ns)
	}
	return nil
}

// checkText lets a text for people be one line: what is printed on an operator's
// terminal must not move its cursor.
func checkText(what, s string) error {
	switch {
	case len(s) > MaxText:
		return fmt.Errorf("%s of %d bytes; at most %d", what, len(s), MaxText)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("%s: one line of text, without control characters", what)
	}
	return nil
}
