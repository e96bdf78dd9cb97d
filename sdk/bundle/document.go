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
	types := []string{ReleaseType, HeartbeatType, KillType, LiftType, OrderType, EnrolmentType, TrustRootType}
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

// open verifies an envelope: at least need persons who hold role must have
// signed it, and no fewer than the trust root's threshold. Then it parses the
// payload into doc. It does not ask whether the trust root has expired.
func (r *TrustRoot) open(env []byte, payloadType string, role Role, need int, doc any) (Signed, error) {
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
	return Signed{Digest: wire.Sum(payload), Envelope: slices.Clone(env), Persons: who}, nil
}

// ours returns an error unless a document is of the trust root's tenant.
func (r *TrustRoot) ours(tenant string) error {
	if tenant != r.Tenant {
		return fmt.Errorf("%w: %q, not %q", ErrTenant, tenant, r.Tenant)
	}
	return nil
}

// HasRole reports whether anybody holds the role. A trust root without
// heartbeat keys grants no lease: its nodes are not expected to hear anything.
func (r *TrustRoot) HasRole(role Role) bool { return r.Thresholds[role] > 0 }

// signDocument checks a document, encodes it and signs it.
func signDocument(payloadType string, check func() error, doc any, keys []*PrivateKey) ([]byte, error) {
	if err := check(); err != nil {
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
