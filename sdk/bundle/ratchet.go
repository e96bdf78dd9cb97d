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
	RootVersion uint64      `cbor:"root_version"`
	Epoch       uint64      `cbor:"epoch"`
	Release     wire.Digest `cbor:"release"`
	Fallback    bool        `cbor:"fallback"` // stepped back from (Epoch, active)
	// HighestTime is the latest signed time seen that was not ahead of the
	// node's own clock, in seconds since 1970.
	HighestTime int64 `cbor:"highest_time"`
}

// Admit returns the ratchet with which s would be in force, or the reason why
// it may not be: ErrInForce, ErrOlder, *EquivocationError, ErrEpochJump,
// ErrOlderRoot, ErrNotYetValid or ErrExpired. Validity is judged by the later
// of now and HighestTime.
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
		RootVersion: s.RootVersion, Epoch: s.Epoch, Release: s.Digest,
		HighestTime: max(r.HighestTime, min(s.Created, now.Unix())),
	}, nil
}

func (r Ratchet) admitEpoch(s *SignedRelease) error {
	switch {
	case s.Epoch < r.Epoch:
		return fmt.Errorf("%w: %d after %d", ErrOlder, s.Epoch, r.Epoch)
	case s.Epoch == r.Epoch && s.Digest == r.Release:
		return fmt.Errorf("%w: epoch %d", ErrInForce, s.Epoch)
	case s.Epoch == r.Epoch:
		return &EquivocationError{Epoch: s.Epoch, InForce: r.Release, Other: s.Digest}
	case s.Epoch-r.Epoch > MaxEpochJump:
		return fmt.Errorf("%w: %d after %d; at most %d", ErrEpochJump, s.Epoch, r.Epoch, MaxEpochJump)
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
