package bundle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// MaxKills bounds a kill set: kills and lifts together. A set that is full takes
// no more, whoever signs: one holder of a kill key must not fill a node's memory.
const MaxKills = 4096

// killReserve is the part of a kill set that only lifts and kills of everything
// may use: who fills the rest with trifles cannot keep out the stop of everything.
const killReserve = 512

// MaxLifted is how many kills one lift may end.
const MaxLifted = 64

// liftPersons is how many persons of role kill must sign a lift, whatever the
// trust root's threshold for kills is: one may make things stricter, two looser.
const liftPersons = 2

// ErrKillsFull is returned by KillSet.AddKill and AddLift when the set takes no more.
var ErrKillsFull = errors.New("kill set is full")

// A Scope says what a kill stops: "all", "point:P", "subject:S", "resource:R" or
// "policy:D". S and R are the id of a subject or resource, or its type, a colon
// and its id; D is the digest of a package, in hexadecimal, with or without sha256:.
type Scope string

// The kinds of scopes.
const (
	ScopeAll      = "all"
	ScopePoint    = "point"
	ScopeSubject  = "subject"
	ScopeResource = "resource"
	ScopePolicy   = "policy"
)

// maxScope bounds the name in a scope, in bytes.
const maxScope = 512

// Split returns the kind and the name of a scope; errors say what a scope is.
func (s Scope) Split() (kind, name string, err error) {
	kind, name, named := strings.Cut(string(s), ":")
	switch kind {
	case ScopeAll:
		if named {
			return "", "", fmt.Errorf("scope %.80q: all takes no name", string(s))
		}
		return kind, "", nil
	case ScopePoint:
		return kind, name, CheckPoint(name)
	case ScopePolicy:
		d, err := wire.ParseDigest("sha256:" + strings.TrimPrefix(name, "sha256:"))
		return kind, d.Hex(), err
	case ScopeSubject, ScopeResource:
		if name == "" || len(name) > maxScope {
			return "", "", fmt.Errorf("scope %.80q: a name of 1 to %d bytes", string(s), maxScope)
		}
		return kind, name, checkText("scope", name)
	}
	return "", "", fmt.Errorf("scope %.80q; all, point:P, subject:S, resource:R or policy:DIGEST", string(s))
}

// A Kill stops what its scope names, on every node, until it is lifted. It can
// only make things stricter; the point agent.stop is exempt from all of them.
type Kill struct {
	Tenant string `cbor:"tenant"`
	Scope  Scope  `cbor:"scope"`
	Reason string `cbor:"reason"`
	// Created is in nanoseconds since 1970: two kills of one scope differ.
	Created int64 `cbor:"created"`
}

// A Lift ends kills, which it names by digest.
type Lift struct {
	Tenant  string        `cbor:"tenant"`
	Kills   []wire.Digest `cbor:"kills"`
	Reason  string        `cbor:"reason"`
	Created int64         `cbor:"created"`
}

// SignKill validates k and returns its envelope.
func SignKill(k *Kill, keys ...*PrivateKey) ([]byte, error) {
	return signDocument(KillType, k, keys)
}

// SignLift validates l and returns its envelope. AddSignature adds the second
// person's signature.
func SignLift(l *Lift, keys ...*PrivateKey) ([]byte, error) {
	return signDocument(LiftType, l, keys)
}

func (k *Kill) check() error {
	if err := CheckTenant(k.Tenant); err != nil {
		return err
	}
	if _, _, err := k.Scope.Split(); err != nil {
		return err
	}
	if k.Reason == "" {
		return errors.New("a kill has a reason")
	}
	return first(checkText("reason", k.Reason), checkTime("created", k.Created))
}

func (l *Lift) check() error {
	if err := CheckTenant(l.Tenant); err != nil {
		return err
	}
	if n := len(l.Kills); n == 0 || n > MaxLifted {
		return fmt.Errorf("%d kills to lift; 1 to %d", n, MaxLifted)
	}
	if l.Reason == "" {
		return errors.New("a lift has a reason")
	}
	return first(checkText("reason", l.Reason), checkTime("created", l.Created))
}

// A SignedKill is a kill whose signatures were verified.
type SignedKill struct {
	Kill
	Signed
}

// A SignedLift is a lift that two persons signed.
type SignedLift struct {
	Lift
	Signed
}

// OpenKill verifies a kill's envelope and reads it.
func (r *TrustRoot) OpenKill(env []byte) (*SignedKill, error) {
	k := &SignedKill{}
	var err error
	if k.Signed, err = r.open(env, KillType, RoleKill, 1, &k.Kill); err != nil {
		return nil, fmt.Errorf("open kill: %w", err)
	}
	return k, nil
}

// UnverifiedKill reads a kill whose signatures were verified before, and whose
// signer's key may be in no trust root any more. What comes from outside is for
// OpenKill.
func UnverifiedKill(env []byte) (*SignedKill, error) {
	_, payload, err := parseEnvelope(env, KillType)
	if err != nil {
		return nil, fmt.Errorf("kept kill: %w", err)
	}
	k := &SignedKill{Signed: Signed{Digest: wire.Sum(payload), Envelope: slices.Clone(env)}}
	if err = wire.Unmarshal(payload, &k.Kill); err == nil {
		err = k.check()
	}
	if err != nil {
		return nil, fmt.Errorf("kept kill: %w", err)
	}
	return k, nil
}

// OpenLift verifies a lift's envelope, which two persons must have signed, and reads it.
func (r *TrustRoot) OpenLift(env []byte) (*SignedLift, error) {
	l := &SignedLift{}
	var err error
	if l.Signed, err = r.open(env, LiftType, RoleKill, liftPersons, &l.Lift); err != nil {
		return nil, fmt.Errorf("open lift: %w", err)
	}
	return l, nil
}

// A KillSet is a grow-only set of kills and lifts: two sets that were extended
// apart merge into their union, whatever the order. It is safe for concurrent
// use. The zero value is empty.
type KillSet struct {
	mu    sync.Mutex
	kills map[wire.Digest]*SignedKill
	lifts map[wire.Digest]*SignedLift
}

// AddKill adds a kill and reports whether it was new; ErrKillsFull when there is
// no room.
func (s *KillSet) AddKill(k *SignedKill) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kills[k.Digest] != nil {
		return false, nil
	}
	room := MaxKills
	if k.Scope != ScopeAll {
		room -= killReserve
	}
	if s.len() >= room {
		return false, fmt.Errorf("%w: %d", ErrKillsFull, room)
	}
	if s.kills == nil {
		s.kills = map[wire.Digest]*SignedKill{}
	}
	s.kills[k.Digest] = k
	return true, nil
}

// AddLift adds a lift and reports whether it was new. A lift may come before
// the kill that it ends.
func (s *KillSet) AddLift(l *SignedLift) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lifts[l.Digest] != nil {
		return false, nil
	}
	if s.len() >= MaxKills {
		return false, fmt.Errorf("%w: %d", ErrKillsFull, MaxKills)
	}
	if s.lifts == nil {
		s.lifts = map[wire.Digest]*SignedLift{}
	}
	s.lifts[l.Digest] = l
	return true, nil
}

func (s *KillSet) len() int { return len(s.kills) + len(s.lifts) }

// HasKill reports whether a kill is in the set, lifted or not.
func (s *KillSet) HasKill(d wire.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kills[d] != nil
}

// Len is the number of kills and lifts.
func (s *KillSet) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.len()
}

// Active returns the kills that are not lifted, oldest first.
func (s *KillSet) Active() []*SignedKill {
	s.mu.Lock()
	defer s.mu.Unlock()
	lifted := map[wire.Digest]bool{}
	for _, l := range s.lifts {
		for _, d := range l.Kills {
			lifted[d] = true
		}
	}
	var active []*SignedKill
	for d, k := range s.kills {
		if !lifted[d] {
			active = append(active, k)
		}
	}
	slices.SortFunc(active, func(a, b *SignedKill) int {
		if a.Created != b.Created {
			return int(min(max(a.Created-b.Created, -1), 1))
		}
		return strings.Compare(a.Digest.Hex(), b.Digest.Hex())
	})
	return active
}

// Digest names the set: the SHA-256 of the sorted digests of all that is in it.
// The empty set's is that of no bytes.
func (s *KillSet) Digest() wire.Digest { return s.DigestWith() }

// DigestWith is what Digest would be with more kills and lifts in the set.
func (s *KillSet) DigestWith(more ...wire.Digest) wire.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Concat(slices.Collect(maps.Keys(s.kills)), slices.Collect(maps.Keys(s.lifts)))
	for _, d := range more {
		if s.kills[d] == nil && s.lifts[d] == nil {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b wire.Digest) int { return strings.Compare(a.Hex(), b.Hex()) })
	h := sha256.New()
	for _, d := range all {
		h.Write(d[:])
	}
	return wire.Digest(h.Sum(nil))
}

// Envelopes returns every kill and lift as it was signed, in the order of their
// digests, for files and for other regions.
func (s *KillSet) Envelopes() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	byName := map[string][]byte{}
	for d, k := range s.kills {
		byName[d.Hex()] = k.Envelope
	}
	for d, l := range s.lifts {
		byName[d.Hex()] = l.Envelope
	}
	var out [][]byte
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}
