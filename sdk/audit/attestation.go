package audit

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// MaxAttestation bounds a signed attestation, in bytes.
const MaxAttestation = 32 << 10

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
	// release while it is not in force, Shadow and Live what was observed of the
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

// SignAttestation returns the attestation as it travels, signed by the node's log key.
func SignAttestation(a *Attestation, key note.Signer) ([]byte, error) {
	body, err := wire.Marshal(a)
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
	if node.Name() != NodeKeyName(a.Tenant, a.Node) {
		return nil, fmt.Errorf("attestation of %s/%s signed by %s", a.Tenant, a.Node, node.Name())
	}
	return &a, nil
}
