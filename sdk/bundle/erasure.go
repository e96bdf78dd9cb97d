package bundle

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Bounds of an erasure. Larger ones are several documents.
const (
	MaxErasedBoots  = 1024
	MaxErasedRanges = 16384 // of all boots together
)

// dataPersons is how many persons must sign what ends a hold or a region,
// whatever the trust root's threshold is: one may keep things, two let them go.
const dataPersons = 2

// An Erasure takes the parts of records - requests, values, logs - out of every
// ledger. It names the records one by one, so that what is erased is known to
// those who sign; their leaves stay. It is signed in the role data.
type Erasure struct {
	Tenant  string          `cbor:"tenant"`
	Records []ErasedRecords `cbor:"records"`
	Reason  string          `cbor:"reason"`
	// RequestedBy is who asked for it, such as the number of a request; not a
	// person's name: the document stays.
	RequestedBy string `cbor:"requested_by,omitempty"`
	// Created is in nanoseconds since 1970.
	Created int64 `cbor:"created"`
}

// ErasedRecords are records of one boot of a node.
type ErasedRecords struct {
	Node string `cbor:"node"`
	Boot string `cbor:"boot"`
	// Ranges are inclusive, rising, and do not touch one another.
	Ranges [][2]uint64 `cbor:"ranges"`
}

// Count is the number of records that the erasure names.
func (e *Erasure) Count() (n uint64) {
	for _, r := range e.Records {
		n += r.Count()
	}
	return n
}

// Count is the number of records.
func (r ErasedRecords) Count() (n uint64) {
	for _, x := range r.Ranges {
		n += x[1] - x[0] + 1
	}
	return n
}

// A SignedErasure is an erasure whose signatures were verified.
type SignedErasure struct {
	Erasure
	Signed
}

// SignErasure validates e and returns its envelope.
func SignErasure(e *Erasure, keys ...*PrivateKey) ([]byte, error) {
	return signDocument(ErasureType, e, keys)
}

// OpenErasure verifies an erasure's envelope and reads it.
func (r *TrustRoot) OpenErasure(env []byte) (*SignedErasure, error) {
	e := &SignedErasure{}
	var err error
	if e.Signed, err = r.open(env, ErasureType, RoleData, 1, &e.Erasure); err != nil {
		return nil, fmt.Errorf("open erasure: %w", err)
	}
	return e, nil
}

func (e *Erasure) check() error {
	if err := first(CheckTenant(e.Tenant), checkText("reason", e.Reason), checkText("requested_by", e.RequestedBy), checkTime("created", e.Created)); err != nil {
		return err
	}
	switch {
	case e.Reason == "":
		return errors.New("an erasure has a reason")
	case len(e.Records) == 0 || len(e.Records) > MaxErasedBoots:
		return fmt.Errorf("records of %d boots; 1 to %d", len(e.Records), MaxErasedBoots)
	}
	ranges := 0
	for i, r := range e.Records {
		if err := r.check(); err != nil {
			return fmt.Errorf("records of %s/%s: %w", r.Node, r.Boot, err)
		}
		if i > 0 && !e.Records[i-1].before(r) {
			return fmt.Errorf("records of %s/%s: boots are in order, each once", r.Node, r.Boot)
		}
		ranges += len(r.Ranges)
	}
	if ranges > MaxErasedRanges {
		return fmt.Errorf("%d ranges; at most %d", ranges, MaxErasedRanges)
	}
	return nil
}

func (r ErasedRecords) before(o ErasedRecords) bool {
	if r.Node != o.Node {
		return r.Node < o.Node
	}
	return r.Boot < o.Boot
}

var bootName = regexp.MustCompile(`^[0-9]{8,20}-[0-9a-f]{16}$`)

func (r ErasedRecords) check() error {
	if err := checkToken("node", r.Node, "-_"); err != nil {
		return err
	}
	if !bootName.MatchString(r.Boot) {
		return fmt.Errorf("boot %.80q", r.Boot)
	}
	if len(r.Ranges) == 0 {
		return errors.New("no ranges")
	}
	var end uint64 // of the range before
	for i, x := range r.Ranges {
		if x[0] == 0 || x[1] < x[0] || x[1] > 1<<62 || i > 0 && x[0] <= end+1 {
			return fmt.Errorf("range [%d,%d]: ranges begin at 1 or later, rise, and do not touch", x[0], x[1])
		}
		end = x[1]
	}
	return nil
}

// A Hold keeps records: while it is in force, nothing that it covers is erased or
// deleted because it is old. It is signed in the role data.
type Hold struct {
	Tenant string `cbor:"tenant"`
	// ID is the hold's name for people, such as the number of a case.
	ID      string    `cbor:"id"`
	Scope   HoldScope `cbor:"scope,omitzero"`
	Reason  string    `cbor:"reason"`
	Created int64     `cbor:"created"`
}

// A HoldScope says which records a hold covers: those for which every member
// that is set is true. The zero HoldScope covers everything.
type HoldScope struct {
	Node  string `cbor:"node,omitempty"`
	Point string `cbor:"point,omitempty"`
	// Subject is the SHA-256 of the subject's id as it is recorded, or of its
	// type, a colon and its id.
	Subject wire.Digest `cbor:"subject,omitzero"`
	// From and To bound the records' times, inclusive, in nanoseconds since 1970;
	// 0 is no bound.
	From int64 `cbor:"from,omitempty"`
	To   int64 `cbor:"to,omitempty"`
}

// String is the scope for people.
func (s HoldScope) String() string {
	var parts []string
	if s.Node != "" {
		parts = append(parts, "node:"+s.Node)
	}
	if s.Point != "" {
		parts = append(parts, "point:"+s.Point)
	}
	if !s.Subject.IsZero() {
		parts = append(parts, "subject:"+s.Subject.Hex())
	}
	if s.From != 0 || s.To != 0 {
		parts = append(parts, fmt.Sprintf("time:%s..%s", instantText(s.From), instantText(s.To)))
	}
	if len(parts) == 0 {
		return ScopeAll
	}
	return strings.Join(parts, " ")
}

func instantText(ns int64) string {
	if ns == 0 {
		return ""
	}
	return time.Unix(0, ns).UTC().Format(time.RFC3339Nano)
}

// A HoldRelease ends holds, which it names by digest. Two persons of role data
// sign it.
type HoldRelease struct {
	Tenant  string        `cbor:"tenant"`
	Holds   []wire.Digest `cbor:"holds"`
	Reason  string        `cbor:"reason"`
	Created int64         `cbor:"created"`
}

// A SignedHold is a hold whose signatures were verified.
type SignedHold struct {
	Hold
	Signed
}

// A SignedHoldRelease is a release of holds that two persons signed.
type SignedHoldRelease struct {
	HoldRelease
	Signed
}

// SignHold validates h and returns its envelope.
func SignHold(h *Hold, keys ...*PrivateKey) ([]byte, error) { return signDocument(HoldType, h, keys) }

// SignHoldRelease validates h and returns its envelope. AddSignature adds the
// second person's signature.
func SignHoldRelease(h *HoldRelease, keys ...*PrivateKey) ([]byte, error) {
	return signDocument(HoldReleaseType, h, keys)
}

// OpenHold verifies a hold's envelope and reads it.
func (r *TrustRoot) OpenHold(env []byte) (*SignedHold, error) {
	h := &SignedHold{}
	var err error
	if h.Signed, err = r.open(env, HoldType, RoleData, 1, &h.Hold); err != nil {
		return nil, fmt.Errorf("open hold: %w", err)
	}
	return h, nil
}

// OpenHoldRelease verifies the envelope, which two persons must have signed, and
// reads it.
func (r *TrustRoot) OpenHoldRelease(env []byte) (*SignedHoldRelease, error) {
	h := &SignedHoldRelease{}
	var err error
	if h.Signed, err = r.open(env, HoldReleaseType, RoleData, dataPersons, &h.HoldRelease); err != nil {
		return nil, fmt.Errorf("open release of holds: %w", err)
	}
	return h, nil
}

func (h *Hold) check() error {
	if err := first(CheckTenant(h.Tenant), checkPerson(h.ID), checkText("reason", h.Reason), checkTime("created", h.Created)); err != nil {
		return err
	}
	s := h.Scope
	switch {
	case h.Reason == "":
		return errors.New("a hold has a reason")
	case s.From < 0 || s.To < 0 || s.To != 0 && s.To < s.From:
		return fmt.Errorf("times from %d to %d", s.From, s.To)
	case s.Node != "" && CheckNode(s.Node) != nil:
		return CheckNode(s.Node)
	case s.Point != "":
		return CheckPoint(s.Point)
	}
	return nil
}

func (h *HoldRelease) check() error {
	if n := len(h.Holds); n == 0 || n > MaxLifted {
		return fmt.Errorf("%d holds to end; 1 to %d", n, MaxLifted)
	}
	if h.Reason == "" {
		return errors.New("the end of a hold has a reason")
	}
	return first(CheckTenant(h.Tenant), checkText("reason", h.Reason), checkTime("created", h.Created))
}

// A Retirement says that a region is gone: it counts no longer for receipts, for
// durability or in alarms. Two persons sign it, of role data or of role root.
type Retirement struct {
	Tenant  string `cbor:"tenant"`
	Region  string `cbor:"region"`
	Reason  string `cbor:"reason"`
	Created int64  `cbor:"created"`
}

// A SignedRetirement is a retirement that two persons signed.
type SignedRetirement struct {
	Retirement
	Signed
}

// SignRetirement validates t and returns its envelope.
func SignRetirement(t *Retirement, keys ...*PrivateKey) ([]byte, error) {
	return signDocument(RetirementType, t, keys)
}

// OpenRetirement verifies the envelope, which two persons must have signed in one
// of the two roles, and reads it.
func (r *TrustRoot) OpenRetirement(env []byte) (*SignedRetirement, error) {
	t := &SignedRetirement{}
	var err error
	if t.Signed, err = r.open(env, RetirementType, RoleData, dataPersons, &t.Retirement); errors.Is(err, ErrThreshold) {
		t.Signed, err = r.open(env, RetirementType, RoleRoot, dataPersons, &t.Retirement)
	}
	if err != nil {
		return nil, fmt.Errorf("open retirement: %w", err)
	}
	return t, nil
}

func (t *Retirement) check() error {
	if t.Reason == "" {
		return errors.New("a retirement has a reason")
	}
	return first(CheckTenant(t.Tenant), checkToken("region", t.Region, "-_"), checkText("reason", t.Reason), checkTime("created", t.Created))
}

func (e *Erasure) of() string     { return e.Tenant }
func (h *Hold) of() string        { return h.Tenant }
func (h *HoldRelease) of() string { return h.Tenant }
func (t *Retirement) of() string  { return t.Tenant }
