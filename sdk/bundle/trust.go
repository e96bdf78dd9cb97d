package bundle

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Role is what a key may be used for.
type Role string

// The roles.
const (
	RoleRoot       Role = "root"
	RoleAuthor     Role = "author"
	RoleApprover   Role = "approver"
	RoleHeartbeat  Role = "heartbeat"
	RoleEnrol      Role = "enrol"
	RoleKill       Role = "kill"
	RoleData       Role = "data"
	RoleBreakglass Role = "breakglass"
	RoleLog        Role = "log"
	RoleWitness    Role = "witness"
)

// A Key is a public key with its one role and the person who holds it.
type Key struct {
	ID     string            `cbor:"id"` // KeyID(Public)
	Public ed25519.PublicKey `cbor:"public"`
	Role   Role              `cbor:"role"`
	Person string            `cbor:"person"`
}

// A TrustRoot says whose signatures a tenant's nodes believe.
type TrustRoot struct {
	Tenant  string `cbor:"tenant"`
	Version uint64 `cbor:"version"`
	// Expires is in seconds since 1970 and required.
	Expires int64 `cbor:"expires"`
	Keys    []Key `cbor:"keys"`
	// Thresholds gives for each role that has keys how many different persons
	// must sign: at least one.
	Thresholds map[Role]int `cbor:"thresholds"`
}

// NewTrustRoot returns version 1 of a tenant's trust root, with the threshold
// one for every role that has keys.
func NewTrustRoot(tenant string, expires time.Time, keys ...Key) *TrustRoot {
	r := &TrustRoot{Tenant: tenant, Version: 1, Expires: expires.Unix(), Keys: keys, Thresholds: map[Role]int{}}
	for _, k := range keys {
		r.Thresholds[k.Role] = 1
	}
	return r
}

// Validate returns an error that wraps ErrTrustRoot, or nil: every key has one
// role, authors and approvers are different persons, and each role with keys
// has a threshold of at least one that its persons can meet.
func (r *TrustRoot) Validate() error {
	if err := r.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrTrustRoot, err)
	}
	return nil
}

func (r *TrustRoot) check() error {
	if err := CheckTenant(r.Tenant); err != nil {
		return err
	}
	switch {
	case r.Version == 0:
		return fmt.Errorf("versions begin at 1")
	case r.Expires <= 0:
		return fmt.Errorf("it does not say when it expires")
	case len(r.Keys) > MaxKeys:
		return fmt.Errorf("%d keys; at most %d", len(r.Keys), MaxKeys)
	}
	seen := map[string]Role{}
	for i := range r.Keys {
		k := &r.Keys[i]
		if err := k.check(); err != nil {
			return fmt.Errorf("key %d: %w", i+1, err)
		}
		if role, twice := seen[k.ID]; twice {
			return fmt.Errorf("key %s is listed twice (%s, %s)", k.ID, role, k.Role)
		}
		seen[k.ID] = k.Role
	}
	if p := common(persons(r.Keys, RoleAuthor), persons(r.Keys, RoleApprover)); p != "" {
		return fmt.Errorf("%w: %s", ErrSamePerson, p)
	}
	return r.checkThresholds()
}

func (r *TrustRoot) checkThresholds() error {
	for role, n := range r.Thresholds {
		if _, err := ParseRole(string(role)); err != nil {
			return fmt.Errorf("thresholds: %w", err)
		}
		if have := len(persons(r.Keys, role)); n < 1 || n > have {
			return fmt.Errorf("threshold %d for role %s with keys of %d persons", n, role, have)
		}
	}
	// Every region speaks for itself, and a stop must not wait for a second person.
	for _, role := range []Role{RoleHeartbeat, RoleKill} {
		if n := r.Thresholds[role]; n > 1 {
			return fmt.Errorf("threshold %d for role %s; it is always 1", n, role)
		}
	}
	for _, role := range []Role{RoleRoot, RoleAuthor, RoleApprover} {
		if r.Thresholds[role] < 1 {
			return fmt.Errorf("no threshold for role %s", role)
		}
	}
	for _, k := range r.Keys {
		if r.Thresholds[k.Role] < 1 {
			return fmt.Errorf("no threshold for role %s, which has keys", k.Role)
		}
	}
	return nil
}

// SignTrustRoot validates r and returns its envelope, signed by keys.
func SignTrustRoot(r *TrustRoot, keys ...*PrivateKey) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	payload, err := wire.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrustRoot, err)
	}
	return Sign(TrustRootType, payload, keys...)
}

// OpenTrustRoot reads a trust root that its own root keys signed, as many
// persons as it demands itself. Whoever calls it vouches for the bytes: they
// come from the node's own configuration. An expired one is ErrRootExpired.
func OpenTrustRoot(env []byte, now time.Time) (*TrustRoot, error) {
	r, err := ReopenTrustRoot(env)
	if err != nil {
		return nil, err
	}
	if err := r.Current(now); err != nil {
		return nil, fmt.Errorf("open trust root: %w", err)
	}
	return r, nil
}

// ReopenTrustRoot is OpenTrustRoot for a trust root that the node already uses:
// it may have expired since. What it then still opens is what was admitted before.
func ReopenTrustRoot(env []byte) (*TrustRoot, error) {
	e, payload, err := parseEnvelope(env, TrustRootType)
	if err != nil {
		return nil, fmt.Errorf("open trust root: %w", err)
	}
	// The keys are inside, so this is the one document that is parsed first.
	var r TrustRoot
	if err := wire.Unmarshal(payload, &r); err != nil {
		return nil, fmt.Errorf("open trust root: %w: %w", ErrTrustRoot, err)
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("open trust root: %w", err)
	}
	if err := r.signedBy(e, payload); err != nil {
		return nil, fmt.Errorf("open trust root: %w", err)
	}
	return &r, nil
}

// OpenNext reads the trust root that replaces r: the next version for the same
// tenant, signed as r demands and as the new one demands itself. Neither has to
// be current: a successor that has expired still takes the keys away that it
// revokes, and opens nothing new.
func (r *TrustRoot) OpenNext(env []byte) (*TrustRoot, error) {
	e, payload, err := parseEnvelope(env, TrustRootType)
	if err != nil {
		return nil, fmt.Errorf("open next trust root: %w", err)
	}
	if err := r.signedBy(e, payload); err != nil {
		return nil, fmt.Errorf("open next trust root: %w", err)
	}
	next, err := ReopenTrustRoot(env)
	if err != nil {
		return nil, fmt.Errorf("open next trust root: %w", err)
	}
	if next.Tenant != r.Tenant || next.Version != r.Version+1 {
		return nil, fmt.Errorf("open next trust root: %w: version %d of %s does not follow version %d of %s",
			ErrTrustRoot, next.Version, next.Tenant, r.Version, r.Tenant)
	}
	return next, nil
}

// OpenChain follows the trust roots that came after r, which a node that was away
// gets in any order: each must be the successor of the one before. It returns
// those that hold, oldest first, and the error of the first that does not or is
// missing; what held before it still holds. Versions that r has passed are left out.
func (r *TrustRoot) OpenChain(envelopes [][]byte) ([]*TrustRoot, error) {
	byVersion := map[uint64][]byte{}
	last := r.Version
	for _, env := range envelopes {
		if v := UnverifiedRootVersion(env); v > r.Version {
			byVersion[v], last = env, max(last, v)
		}
	}
	var chain []*TrustRoot
	for at := r; at.Version < last; at = chain[len(chain)-1] {
		env, ok := byVersion[at.Version+1]
		if !ok {
			return chain, fmt.Errorf("open trust roots: %w: version %d is missing, version %d is there", ErrTrustRoot, at.Version+1, last)
		}
		next, err := at.OpenNext(env)
		if err != nil {
			return chain, err
		}
		chain = append(chain, next)
	}
	return chain, nil
}

// UnverifiedRootVersion returns the version that an envelope claims, 0 when it
// cannot be read as a trust root. Nobody vouches for it: it may put envelopes in
// an order, nothing else.
func UnverifiedRootVersion(env []byte) uint64 {
	_, payload, err := parseEnvelope(env, TrustRootType)
	if err != nil {
		return 0
	}
	var r TrustRoot
	if err := wire.Unmarshal(payload, &r); err != nil {
		return 0
	}
	return r.Version
}

func (r *TrustRoot) signedBy(e *envelope, payload []byte) error {
	signers, err := e.signers(payload, r.Keys)
	if err != nil {
		return err
	}
	return r.threshold(signers, RoleRoot)
}

// Current returns ErrRootExpired when the trust root opens nothing new any more.
func (r *TrustRoot) Current(now time.Time) error {
	if now.Unix() >= r.Expires {
		return fmt.Errorf("%w: version %d, on %s", ErrRootExpired, r.Version, text(r.Expires))
	}
	return nil
}

// threshold returns an error unless enough persons among signers hold role.
func (r *TrustRoot) threshold(signers []Key, role Role) error {
	have, need := len(persons(signers, role)), r.Thresholds[role]
	if need < 1 || have < need {
		return fmt.Errorf("%w: %d of %d persons with role %s", ErrThreshold, have, need, role)
	}
	return nil
}

// A SignedRelease is a release whose signatures were verified.
type SignedRelease struct {
	Release
	Digest      wire.Digest // of the payload: the name of the release
	Envelope    []byte      // as it came
	Author      string      // the person who signed first as author
	Approver    string      // another person, who signed first as approver
	RootVersion uint64      // of the trust root that verified it
}

// SignRelease validates r and returns its envelope, signed by keys.
func SignRelease(r *Release, keys ...*PrivateKey) ([]byte, error) {
	payload, err := r.Encode()
	if err != nil {
		return nil, err
	}
	return Sign(ReleaseType, payload, keys...)
}

// OpenRelease verifies a release's envelope against the trust root and only
// then parses it. An author and an approver must have signed, as many persons
// as the thresholds say. An expired trust root opens nothing new: ErrRootExpired.
// Whether the release may come into force is for Ratchet.Admit to say.
func (r *TrustRoot) OpenRelease(env []byte, now time.Time) (*SignedRelease, error) {
	s, err := r.ReopenRelease(env)
	if err != nil {
		return nil, err
	}
	if err := r.Current(now); err != nil {
		return nil, fmt.Errorf("open release: %w", err)
	}
	return s, nil
}

// ReopenRelease is OpenRelease for a release that the node has already
// activated: the trust root may have expired since.
func (r *TrustRoot) ReopenRelease(env []byte) (*SignedRelease, error) {
	s, err := r.openRelease(env)
	if err != nil {
		return nil, fmt.Errorf("open release: %w", err)
	}
	return s, nil
}

func (r *TrustRoot) openRelease(env []byte) (*SignedRelease, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	e, payload, err := parseEnvelope(env, ReleaseType)
	if err != nil {
		return nil, err
	}
	signers, err := e.signers(payload, r.Keys)
	if err != nil {
		return nil, err
	}
	for _, role := range []Role{RoleAuthor, RoleApprover} {
		if err := r.threshold(signers, role); err != nil {
			return nil, err
		}
	}
	s := &SignedRelease{
		Digest: wire.Sum(payload), Envelope: slices.Clone(env), RootVersion: r.Version,
		Author: persons(signers, RoleAuthor)[0], Approver: persons(signers, RoleApprover)[0],
	}
	if err := wire.Unmarshal(payload, &s.Release); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRelease, err)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Tenant != r.Tenant {
		return nil, fmt.Errorf("%w: %q, not %q", ErrTenant, s.Tenant, r.Tenant)
	}
	return s, nil
}

// persons returns the different persons who hold role among keys, in order.
func persons(keys []Key, role Role) []string {
	var names []string
	for _, k := range keys {
		same := func(name string) bool { return strings.EqualFold(name, k.Person) }
		if k.Role == role && !slices.ContainsFunc(names, same) {
			names = append(names, k.Person)
		}
	}
	return names
}

// common returns a person who is in both lists, or "".
func common(a, b []string) string {
	for _, p := range a {
		if slices.ContainsFunc(b, func(q string) bool { return strings.EqualFold(p, q) }) {
			return p
		}
	}
	return ""
}
