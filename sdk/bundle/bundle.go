// Package bundle holds what travels from the authors of policies to the nodes:
// packages, releases, the trust root and the keys that sign them, together with
// the pure rules of what a node may accept. Documents are deterministic CBOR
// (schema.cddl beside this file); signed ones travel in DSSE envelopes, are
// verified before they are parsed, and only by keys of the trust root.
package bundle

import (
	"errors"
	"fmt"
	"strings"
)

// Payload types of signed documents. They are part of the signed bytes.
const (
	ReleaseType   = "application/vnd.holdfast.release.v1+cbor"
	TrustRootType = "application/vnd.holdfast.trust-root.v1+cbor"
	HeartbeatType = "application/vnd.holdfast.heartbeat.v1+cbor"
	KillType      = "application/vnd.holdfast.kill.v1+cbor"
	LiftType      = "application/vnd.holdfast.lift.v1+cbor"
	OrderType     = "application/vnd.holdfast.order.v1+cbor"
	EnrolmentType = "application/vnd.holdfast.enrolment.v1+cbor"

	ErasureType     = "application/vnd.holdfast.erasure.v1+cbor"
	HoldType        = "application/vnd.holdfast.hold.v1+cbor"
	HoldReleaseType = "application/vnd.holdfast.hold-release.v1+cbor"
	RetirementType  = "application/vnd.holdfast.retirement.v1+cbor"
)

// Bounds of the documents. What is larger is refused before it is parsed.
const (
	MaxEnvelope      = 2 << 20  // bytes of a DSSE envelope
	MaxPayload       = 1 << 20  // bytes of a signed document
	MaxSignatures    = 32       // in one envelope
	MaxKeys          = 256      // in one trust root
	MaxPackage       = 32 << 20 // uncompressed bytes of a package
	MaxPackageFile   = 33 << 20 // bytes of a package file
	MaxVectors       = 1024     // in one package
	MaxPatterns      = 256      // in one package
	MaxPattern       = 4 << 10  // bytes of one pattern
	MaxParamsSchema  = 64 << 10 // bytes of the JSON Schema of a package's parameters
	MaxText          = 4 << 10  // bytes of a name, description or note
	MaxPoints        = 256      // in one release
	MaxPointPackages = 16       // at one point
	MaxLease         = 366 * 24 * 3600
	MaxEpochJump     = 1_000_000 // by which one release may raise the epoch
	maxToken         = 64        // bytes of a tenant, person or point name
)

// The reasons for which a signed document is not believed.
var (
	ErrEnvelope     = errors.New("not a DSSE envelope")
	ErrPayloadType  = errors.New("signed as another kind of document")
	ErrSignature    = errors.New("signature does not verify")
	ErrUnknownKey   = errors.New("signed by a key that is not in the trust root")
	ErrThreshold    = errors.New("not enough signatures")
	ErrSamePerson   = errors.New("author and approver are the same person")
	ErrTrustRoot    = errors.New("trust root is not valid")
	ErrRootExpired  = errors.New("trust root has expired")
	ErrTenant       = errors.New("document is for another tenant")
	ErrAudience     = errors.New("release is for other nodes")
	ErrDocument     = errors.New("document is not valid")
	ErrRelease      = errors.New("release is not valid")
	ErrPackage      = errors.New("package is not valid")
	ErrKeyFile      = errors.New("not a private key file")
	ErrKeyFileMode  = errors.New("private key file is open to others")
	ErrPublicKey    = errors.New("not a public key line")
	ErrRatchetState = errors.New("ratchet is not readable")
)

// CheckNode returns an error unless s can name a node or a region: 1 to 64
// lower-case letters, digits, '-' and '_'.
func CheckNode(s string) error { return checkToken("name", s, "-_") }

// CheckTenant returns an error unless s can name a tenant: 1 to 64 lower-case
// letters, digits, '-' and '_'.
func CheckTenant(s string) error { return checkToken("tenant", s, "-_") }

// CheckPoint returns an error unless s can name a decision point: 1 to 64
// lower-case letters, digits, '_' and '.', no dot at either end and no two in a row.
func CheckPoint(s string) error {
	if strings.HasPrefix(s, ".") || strings.HasSuffix(s, ".") || strings.Contains(s, "..") {
		return fmt.Errorf("point %.80q has an empty part", s)
	}
	return checkToken("point", s, "_.")
}

// checkPerson lets a person be named by letters, digits and "._@-". Only ASCII:
// a letter whose lower case is ASCII (U+0130, U+212A) would make two persons of one.
func checkPerson(s string) error { return checkToken("person", s, "._@-ABCDEFGHIJKLMNOPQRSTUVWXYZ") }

func checkToken(what, s, extra string) error {
	if s == "" || len(s) > maxToken {
		return fmt.Errorf("%s %.80q: 1 to %d characters", what, s, maxToken)
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune(extra, c) {
			return fmt.Errorf("%s %.80q: character %q; letters, digits and %q only", what, s, c, extra)
		}
	}
	return nil
}
