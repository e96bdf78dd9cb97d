package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// A Digest is a SHA-256 digest. In CBOR it is a byte string of 32 bytes, as
// text "sha256:" and 64 lower-case hexadecimal digits, as in OCI.
type Digest [sha256.Size]byte

const digestPrefix = "sha256:"

// Sum returns the digest of data.
func Sum(data []byte) Digest { return sha256.Sum256(data) }

// ParseDigest reads the text form of a digest.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	digits, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || len(digits) != 2*len(d) || strings.ToLower(digits) != digits {
		return d, fmt.Errorf("digest %.80q is not sha256: and 64 lower-case hexadecimal digits", s)
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return Digest{}, fmt.Errorf("digest %.80q: %w", s, err)
	}
	return d, nil
}

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// Hex returns the 64 digits without the prefix: a file name, a subject token.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 digits, for people.
func (d Digest) Short() string { return d.Hex()[:12] }

func (d Digest) String() string { return digestPrefix + d.Hex() }

// MarshalText writes the text form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the text form.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}

// MarshalCBOR writes the 32 bytes.
func (d Digest) MarshalCBOR() ([]byte, error) { return Marshal(d[:]) }

// UnmarshalCBOR reads exactly 32 bytes.
func (d *Digest) UnmarshalCBOR(b []byte) error {
	var raw []byte
	if err := UnmarshalLoose(b, &raw); err != nil {
		return err
	}
	if len(raw) != len(d) {
		return fmt.Errorf("digest of %d bytes, not %d", len(raw), len(d))
	}
	copy(d[:], raw)
	return nil
}
