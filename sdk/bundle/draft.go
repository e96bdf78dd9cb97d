package bundle

import (
	"fmt"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// What is in this file is for people who are asked to sign: it reads what nobody
// vouches for yet. A node uses none of it.

// PeekRelease reads the release of an envelope without asking who signed it. The
// release itself is valid; Author, Approver and RootVersion are empty.
func PeekRelease(env []byte) (*SignedRelease, error) {
	_, payload, err := parseEnvelope(env, ReleaseType)
	if err != nil {
		return nil, fmt.Errorf("read release: %w", err)
	}
	s := &SignedRelease{Digest: wire.Sum(payload), Envelope: slices.Clone(env)}
	if err := wire.Unmarshal(payload, &s.Release); err != nil {
		return nil, fmt.Errorf("read release: %w: %w", ErrRelease, err)
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("read release: %w", err)
	}
	return s, nil
}

// PeekTrustRoot reads the trust root of an envelope without asking who signed it.
// The trust root itself is valid.
func PeekTrustRoot(env []byte) (*TrustRoot, error) {
	_, payload, err := parseEnvelope(env, TrustRootType)
	if err != nil {
		return nil, fmt.Errorf("read trust root: %w", err)
	}
	r := &TrustRoot{}
	if err := wire.Unmarshal(payload, r); err != nil {
		return nil, fmt.Errorf("read trust root: %w: %w", ErrTrustRoot, err)
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("read trust root: %w", err)
	}
	return r, nil
}

// Signers returns which of keys signed an envelope of the type, each once, and
// the ids of signatures by keys that are none of them. A signature that names one
// of keys and does not verify is an error.
func Signers(env []byte, payloadType string, keys []Key) (signers []Key, unknown []string, err error) {
	e, payload, err := parseEnvelope(env, payloadType)
	if err != nil {
		return nil, nil, err
	}
	known := map[string]bool{}
	for _, k := range keys {
		known[k.ID] = true
	}
	for _, s := range e.Signatures {
		if !known[s.KeyID] && !slices.Contains(unknown, s.KeyID) {
			unknown = append(unknown, s.KeyID)
		}
	}
	if len(unknown) == len(e.Signatures) {
		return nil, unknown, nil
	}
	all, err := e.signers(payload, keys)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range all {
		if !slices.ContainsFunc(signers, func(s Key) bool { return s.ID == k.ID }) {
			signers = append(signers, k)
		}
	}
	return signers, unknown, nil
}

// Missing says how many persons of each role have yet to sign before the roles
// reach their thresholds; roles that did are left out.
func (r *TrustRoot) Missing(signers []Key, roles ...Role) map[Role]int {
	missing := map[Role]int{}
	for _, role := range roles {
		if n := r.Thresholds[role] - len(persons(signers, role)); n > 0 {
			missing[role] = n
		}
	}
	return missing
}
