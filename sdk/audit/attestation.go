package audit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Bounds of an attestation.
const (
	// MaxAttestation bounds a signed attestation, in bytes.
	MaxAttestation = 256 << 10
	// MaxAttestedPackages is how many packages a release can put in force.
	MaxAttestedPackages = 4096
	// MaxRefused bounds Attestation.Refused, in bytes; what is longer is cut.
	MaxRefused = 1 << 10
)

// An Attestation is what a node says of itself, signed with its log key. A hub
// stores it and counts it only while it verifies against the node's enrolment.
type Attestation struct {
	Tenant string `cbor:"tenant"`
	Node   string `cbor:"node"`
	Boot   string `cbor:"boot"`
	// Serial rises within the boot.
	Serial uint64 `cbor:"serial"`
	// Time is the node's clock, in nanoseconds since 1970.
	Time int64 `cbor:"time"`
	// Epoch and Release are in force; 0 and zero for none. Fallback says that the
	// node stepped back from (Epoch, active) to what that release names; Enforced
	// is then the digest of the release that decides.
	Epoch    uint64      `cbor:"epoch"`
	Release  wire.Digest `cbor:"release"`
	Fallback bool        `cbor:"fallback,omitempty"`
	Enforced wire.Digest `cbor:"enforced"`
	// Activated is when that came into force, by the node's clock.
	Activated int64 `cbor:"activated,omitempty"`
	// Packages are the digests that are in force, sorted.
	Packages []wire.Digest `cbor:"packages,omitempty"`
	// Timing splits how the release came into force.
	Timing ActivationTiming `cbor:"timing,omitzero"`
	// RootVersion is that of the node's trust root.
	RootVersion uint64 `cbor:"root_version"`
	// Ring is the node's ring of the newest release that it knows, Candidate that
	// release while it is evaluated beside or refused, Shadow and Live what was observed of the
	// candidate and of what is in force since it came into force.
	Ring      string      `cbor:"ring,omitempty"`
	Candidate wire.Digest `cbor:"candidate,omitzero"`
	Shadow    Observed    `cbor:"shadow,omitzero"`
	Live      Observed    `cbor:"live,omitzero"`
	// Order is the serial of the newest rollout order taken, of epoch OrderEpoch.
	Order      uint64 `cbor:"order,omitempty"`
	OrderEpoch uint64 `cbor:"order_epoch,omitempty"`
	// Vectors is the last run of the golden vectors, Second the second engine's
	// share of live decisions since the activation.
	Vectors VectorRun `cbor:"vectors,omitzero"`
	Second  SecondRun `cbor:"second,omitzero"`
	// Kills is the digest of the node's kill set, KillCount its length.
	Kills     wire.Digest `cbor:"kills"`
	KillCount uint64      `cbor:"kill_count,omitempty"`
	// Staleness is fresh, aging or stale; HeartbeatAge is that of the youngest
	// heartbeat in nanoseconds, -1 when none was ever heard.
	Staleness    string `cbor:"staleness"`
	HeartbeatAge int64  `cbor:"heartbeat_age"`
	// Journal is the boot's number of records that are durable.
	Journal uint64 `cbor:"journal,omitempty"`
	// Binary is the digest of the program that the node runs.
	Binary wire.Digest `cbor:"binary,omitzero"`
	// Refused is why the newest release that was offered is not in force.
	Refused string `cbor:"refused,omitempty"`
}

// ActivationTiming says how long each step took on the node, in nanoseconds.
type ActivationTiming struct {
	Received int64 `cbor:"received,omitempty"` // when the envelope arrived, ns since 1970
	Fetch    int64 `cbor:"fetch,omitempty"`    // packages
	Admit    int64 `cbor:"admit,omitempty"`    // scan, compile, initialise, vectors
	Swap     int64 `cbor:"swap,omitempty"`     // ratchet, activation leaf, pointer
}

// Observed counts decisions of one release on one node.
type Observed struct {
	Decisions uint64 `cbor:"decisions,omitempty"`
	Denied    uint64 `cbor:"denied,omitempty"`
	Traps     uint64 `cbor:"traps,omitempty"` // calls that ended without an answer
	Differ    uint64 `cbor:"differ,omitempty"`
	P99       int64  `cbor:"p99,omitempty"` // of deciding, nanoseconds
}

// A VectorRun is one run of every golden vector of what is in force.
type VectorRun struct {
	Passed uint64 `cbor:"passed,omitempty"`
	Failed uint64 `cbor:"failed,omitempty"`
	At     int64  `cbor:"at,omitempty"` // ns since 1970
}

// A SecondRun counts decisions that were run again on the second engine.
type SecondRun struct {
	Samples   uint64 `cbor:"samples,omitempty"`
	Disagreed uint64 `cbor:"disagreed,omitempty"`
}

// signedAttestation is an attestation as it travels.
type signedAttestation struct {
	Body []byte `cbor:"body"`
	Sig  []byte `cbor:"sig"`
}

// attestationContext keeps a signature of an attestation from being one of a
// checkpoint: no note begins with it.
const attestationContext = "holdfast attestation v1\n"

// SignAttestation returns the attestation as it travels, signed by the node's log
// key. One that no node can truly say is an error; Refused is cut.
func SignAttestation(a *Attestation, key note.Signer) ([]byte, error) {
	clipped := *a
	clipped.Refused = clip(a.Refused, MaxRefused)
	if err := clipped.check(); err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	body, err := wire.Marshal(&clipped)
	if err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	sig, err := key.Sign(append([]byte(attestationContext), body...))
	if err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	return wire.Marshal(signedAttestation{body, sig})
}

// OpenAttestation verifies that the node whose key is given signed the
// attestation, and that it speaks of that node; only then it is read.
func OpenAttestation(msg []byte, node note.Verifier) (*Attestation, error) {
	if len(msg) > MaxAttestation {
		return nil, fmt.Errorf("attestation of %d bytes; at most %d", len(msg), MaxAttestation)
	}
	var s signedAttestation
	if err := wire.Unmarshal(msg, &s); err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	if !node.Verify(append([]byte(attestationContext), s.Body...), s.Sig) {
		return nil, errors.New("attestation is not signed by its node's log key")
	}
	var a Attestation
	if err := wire.Unmarshal(s.Body, &a); err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	if node.Name() != NodeKeyName(a.Tenant, a.Node) {
		return nil, fmt.Errorf("attestation of %s/%s signed by %s", a.Tenant, a.Node, node.Name())
	}
	return &a, nil
}

// check returns an error unless a is what a node can truly say.
func (a *Attestation) check() error {
	if _, _, err := ParseBootID(a.Boot); err != nil {
		return err
	}
	switch {
	case !ValidName(a.Tenant) || !ValidName(a.Node):
		return fmt.Errorf("tenant %.80q, node %.80q", a.Tenant, a.Node)
	case a.Serial == 0 || a.Time <= 0:
		return fmt.Errorf("serial %d at %d; both begin at 1", a.Serial, a.Time)
	case (a.Epoch == 0) != a.Release.IsZero() || (a.Epoch == 0) != a.Enforced.IsZero():
		return fmt.Errorf("epoch %d with release %s, enforced %s", a.Epoch, a.Release, a.Enforced)
	case a.Epoch != 0 && a.Fallback == (a.Release == a.Enforced):
		return fmt.Errorf("fallback %t with release %s, enforced %s", a.Fallback, a.Release, a.Enforced)
	case len(a.Packages) > MaxAttestedPackages || !slices.IsSortedFunc(a.Packages, compareDigests):
		return fmt.Errorf("%d packages, at most %d and sorted", len(a.Packages), MaxAttestedPackages)
	case !slices.Contains([]string{Fresh, Aging, Stale}, a.Staleness):
		return fmt.Errorf("staleness %.80q; %s, %s or %s", a.Staleness, Fresh, Aging, Stale)
	case a.HeartbeatAge < -1:
		return fmt.Errorf("heartbeat age %d", a.HeartbeatAge)
	case a.Ring != "" && !ValidName(a.Ring):
		return fmt.Errorf("ring %.80q", a.Ring)
	case len(a.Refused) > MaxRefused:
		return fmt.Errorf("refusal of %d bytes; at most %d", len(a.Refused), MaxRefused)
	}
	return nil
}

// Words of Attestation.Staleness.
const (
	Fresh = "fresh"
	Aging = "aging"
	Stale = "stale"
)

func compareDigests(a, b wire.Digest) int { return bytes.Compare(a[:], b[:]) }

// clip cuts s to at most n bytes, at the end of a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
