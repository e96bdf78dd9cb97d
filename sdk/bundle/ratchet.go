package bundle

import (
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// The reasons for which a well-signed release does not come into force.
var (
	ErrInForce     = errors.New("this release is in force already")
	ErrFellBack    = errors.New("this node has stepped back from this release")
	ErrNoFallback  = errors.New("there is nothing to step back to")
	ErrOlder       = errors.New("epoch is older than the one in force")
	ErrEpochJump   = errors.New("epoch rises too far at once")
	ErrOlderRoot   = errors.New("trust root is older than one already used")
	ErrNotYetValid = errors.New("release is not valid yet")
	ErrExpired     = errors.New("release has expired")
)

// An EquivocationError reports two different releases that were both validly
// signed for one epoch: evidence against their signers.
type EquivocationError struct {
	Epoch          uint64
	InForce, Other wire.Digest
}

func (e *EquivocationError) Error() string {
	return fmt.Sprintf("equivocation: two releases signed for epoch %d: %s is in force, %s came", e.Epoch, e.InForce, e.Other)
}

// A Ratchet is what a node may never forget: how far it has come. Its zero
// value is that of a node which never activated anything.
type Ratchet struct {
	// RootVersion is the highest version of the trust root that the node has used.
	RootVersion uint64      `cbor:"root_version"`
	Epoch       uint64      `cbor:"epoch"`
	Release     wire.Digest `cbor:"release"`
	Fallback    bool        `cbor:"fallback"` // stepped back from (Epoch, active)
	// Back is the release that decides after a step back; zero when there is no way back.
	Back wire.Digest `cbor:"back,omitzero"`
	// HighestTime is the latest signed time seen that was not ahead of the
	// node's own clock, in seconds since 1970.
	HighestTime int64 `cbor:"highest_time"`
	// ReleaseRoot is the version of the trust root that verified Release: a later
	// one may have revoked its signers, and it stays in force all the same.
	ReleaseRoot uint64 `cbor:"release_root,omitempty"`
	// MinEpoch is the lowest epoch that a node without a release may begin with.
	MinEpoch uint64 `cbor:"min_epoch,omitempty"`
}

// Admit returns the ratchet with which s would be in force, or the reason why
// it may not be: ErrInForce, ErrFellBack, ErrOlder, *EquivocationError,
// ErrEpochJump, ErrOlderRoot, ErrNotYetValid or ErrExpired. Validity is judged by
// the later of now and HighestTime.
func (r Ratchet) Admit(s *SignedRelease, now time.Time) (Ratchet, error) {
	if err := r.admitEpoch(s); err != nil {
		return r, err
	}
	t := max(now.Unix(), r.HighestTime)
	switch {
	case s.RootVersion < r.RootVersion:
		return r, fmt.Errorf("%w: version %d after %d", ErrOlderRoot, s.RootVersion, r.RootVersion)
	case t < s.NotBefore:
		return r, fmt.Errorf("%w: epoch %d, before %s", ErrNotYetValid, s.Epoch, text(s.NotBefore))
	case s.Expires != 0 && t >= s.Expires:
		return r, fmt.Errorf("%w: epoch %d, on %s", ErrExpired, s.Epoch, text(s.Expires))
	}
	return Ratchet{
		RootVersion: s.RootVersion, Epoch: s.Epoch, Release: s.Digest, ReleaseRoot: s.RootVersion, Back: r.back(s),
		HighestTime: max(r.HighestTime, min(s.Created, now.Unix())), MinEpoch: r.MinEpoch,
	}, nil
}

// back is the way back from s: its predecessor, or what was stepped back to from
// that, unless the release says that there is none.
func (r Ratchet) back(s *SignedRelease) wire.Digest {
	switch {
	case s.Fallback != FallbackPrevious:
		return wire.Digest{}
	case r.Fallback && s.Previous == r.Release:
		return r.Back
	}
	return s.Previous
}

// StepBack returns the ratchet of a node that goes from s, which it has in force,
// to Back: once and one way. Only a higher epoch leads out of it. The reason why
// not is ErrFellBack or ErrNoFallback.
func (r Ratchet) StepBack(s *SignedRelease) (Ratchet, error) {
	switch {
	case s.Epoch != r.Epoch || s.Digest != r.Release:
		return r, fmt.Errorf("%w: epoch %d is not in force, epoch %d is", ErrNoFallback, s.Epoch, r.Epoch)
	case r.Fallback:
		return r, fmt.Errorf("%w: epoch %d", ErrFellBack, r.Epoch)
	case r.Back.IsZero(), s.Fallback != FallbackPrevious, s.Previous.IsZero():
		return r, fmt.Errorf("%w: release of epoch %d names none", ErrNoFallback, s.Epoch)
	}
	r.Fallback = true
	return r, nil
}

// InForce is the digest of the release that decides.
func (r Ratchet) InForce() wire.Digest {
	if r.Fallback {
		return r.Back
	}
	return r.Release
}

// UseRoot returns the ratchet of a node that uses root from now on, or
// ErrOlderRoot when it has used a later one.
func (r Ratchet) UseRoot(root *TrustRoot) (Ratchet, error) {
	if root.Version < r.RootVersion {
		return r, fmt.Errorf("%w: version %d after %d", ErrOlderRoot, root.Version, r.RootVersion)
	}
	r.RootVersion = root.Version
	return r, nil
}

// See returns the ratchet of a node that was told a time under a signature. A
// time ahead of the node's own clock counts as that clock's, so that neither a
// wrong signer nor a wrong clock alone can move it.
func (r Ratchet) See(signed, now time.Time) Ratchet {
	r.HighestTime = max(r.HighestTime, min(signed.Unix(), now.Unix()))
	return r
}

// Pin returns the ratchet of a node whose enrolment says with which epoch it may
// begin. It is never lowered.
func (r Ratchet) Pin(minEpoch uint64) Ratchet {
	r.MinEpoch = max(r.MinEpoch, minEpoch)
	return r
}

func (r Ratchet) admitEpoch(s *SignedRelease) error {
	switch from := max(r.Epoch, r.MinEpoch); {
	case s.Epoch < r.Epoch:
		return fmt.Errorf("%w: %d after %d", ErrOlder, s.Epoch, r.Epoch)
	case s.Epoch == r.Epoch && s.Digest == r.Release && r.Fallback:
		return fmt.Errorf("%w: epoch %d", ErrFellBack, s.Epoch)
	case s.Epoch == r.Epoch && s.Digest == r.Release:
		return fmt.Errorf("%w: epoch %d", ErrInForce, s.Epoch)
	case s.Epoch == r.Epoch:
		return &EquivocationError{Epoch: s.Epoch, InForce: r.Release, Other: s.Digest}
	case s.Epoch < r.MinEpoch:
		return fmt.Errorf("%w: %d; the node's enrolment lets it begin with %d", ErrOlder, s.Epoch, r.MinEpoch)
	case s.Epoch-from > MaxEpochJump:
		return fmt.Errorf("%w: %d after %d; at most %d", ErrEpochJump, s.Epoch, from, MaxEpochJump)
	}
	return nil
}

// ClockBehind returns how far now is before HighestTime, 0 when it is not: a
// wall clock that shows a time which has already passed cannot be trusted.
func (r Ratchet) ClockBehind(now time.Time) time.Duration {
	return max(0, time.Unix(r.HighestTime, 0).Sub(now))
}

// ratchetFile guards the ratchet's bytes against a disk that changes them.
type ratchetFile struct {
	Ratchet []byte      `cbor:"ratchet"`
	Sum     wire.Digest `cbor:"sum"` // of Ratchet
}

// Encode returns the ratchet as the node keeps it on disk.
func (r Ratchet) Encode() ([]byte, error) {
	body, err := wire.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode ratchet: %w", err)
	}
	return wire.Marshal(ratchetFile{Ratchet: body, Sum: wire.Sum(body)})
}

// DecodeRatchet reads what Encode wrote. A changed byte is an error that wraps
// ErrRatchetState.
func DecodeRatchet(b []byte) (Ratchet, error) {
	var f ratchetFile
	if err := wire.Unmarshal(b, &f); err != nil {
		return Ratchet{}, fmt.Errorf("%w: %w", ErrRatchetState, err)
	}
	if wire.Sum(f.Ratchet) != f.Sum {
		return Ratchet{}, fmt.Errorf("%w: its digest does not match", ErrRatchetState)
	}
	var r Ratchet
	if err := wire.Unmarshal(f.Ratchet, &r); err != nil {
		return Ratchet{}, fmt.Errorf("%w: %w", ErrRatchetState, err)
	}
	return r, nil
}

func text(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }
