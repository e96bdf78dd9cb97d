package bundle

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Roles returns every role.
func Roles() []Role {
	return []Role{RoleRoot, RoleAuthor, RoleApprover, RoleHeartbeat, RoleEnrol, RoleKill, RoleData, RoleBreakglass, RoleLog, RoleWitness}
}

// ParseRole returns the role named s.
func ParseRole(s string) (Role, error) {
	if !slices.Contains(Roles(), Role(s)) {
		return "", fmt.Errorf("unknown role %.80q; one of %q", s, Roles())
	}
	return Role(s), nil
}

// KeyID returns the name of a public key: the first 16 hexadecimal digits of
// its SHA-256 digest.
func KeyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:8])
}

const publicKeyWord = "holdfast-public-key-v1"

// String returns the key as one line of text, which ParseKey reads.
func (k Key) String() string {
	return strings.Join([]string{publicKeyWord, string(k.Role), k.Person, k.ID, base64.StdEncoding.EncodeToString(k.Public)}, " ")
}

// ParseKey reads the line that Key.String writes; errors wrap ErrPublicKey.
func ParseKey(line string) (Key, error) {
	f := strings.Fields(line)
	if len(f) != 5 || f[0] != publicKeyWord {
		return Key{}, fmt.Errorf("%w: not five words that begin with %s", ErrPublicKey, publicKeyWord)
	}
	public, err := decodeBase64(f[4])
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrPublicKey, err)
	}
	k := Key{ID: f[3], Public: public, Role: Role(f[1]), Person: f[2]}
	if err := k.check(); err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrPublicKey, err)
	}
	return k, nil
}

func (k *Key) check() error {
	if len(k.Public) != ed25519.PublicKeySize {
		return fmt.Errorf("public key of %d bytes, not %d", len(k.Public), ed25519.PublicKeySize)
	}
	if id := KeyID(k.Public); k.ID != id {
		return fmt.Errorf("key id %.80q, but the key's is %s", k.ID, id)
	}
	if _, err := ParseRole(string(k.Role)); err != nil {
		return err
	}
	return checkPerson(k.Person)
}

// A PrivateKey signs in one role for one person.
type PrivateKey struct {
	Key
	private ed25519.PrivateKey
}

// GenerateKey makes a new key from the system's randomness.
func GenerateKey(role Role, person string) (*PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return NewPrivateKey(role, person, private)
}

// NewPrivateKey gives a secret its role and person. An unknown role, or a name
// that is not 1 to 64 letters, digits and "._@-", is an error.
func NewPrivateKey(role Role, person string, private ed25519.PrivateKey) (*PrivateKey, error) {
	public := private.Public().(ed25519.PublicKey)
	k := &PrivateKey{Key: Key{ID: KeyID(public), Public: public, Role: role, Person: person}, private: private}
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return k, nil
}

// Ed25519 returns the secret itself, for signed notes (role log and witness).
func (k *PrivateKey) Ed25519() ed25519.PrivateKey { return k.private }

const privateKeyHead = "holdfast private key v1"

// WriteFile creates path with mode 0600 and writes the key into it, fsynced. A
// path that exists already is an error: no key is ever overwritten.
func (k *PrivateKey) WriteFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s\nrole: %s\nperson: %s\nid: %s\nseed: %s\n", privateKeyHead, k.Role, k.Person, k.ID,
		base64.StdEncoding.EncodeToString(k.private.Seed()))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write key %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// ReadPrivateKey reads what WriteFile wrote. A file that its group or others
// may read or write is refused with ErrKeyFileMode; other errors of content
// wrap ErrKeyFile.
func ReadPrivateKey(path string) (*PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; chmod 600 it", ErrKeyFileMode, path, perm)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxText))
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	k, err := parsePrivateKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeyFile, path, err)
	}
	return k, nil
}

func parsePrivateKey(text string) (*PrivateKey, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 6 || lines[0] != privateKeyHead || lines[5] != "" {
		return nil, fmt.Errorf("not five lines that begin with %q", privateKeyHead)
	}
	var value [4]string
	for i, name := range []string{"role", "person", "id", "seed"} {
		var ok bool
		if value[i], ok = strings.CutPrefix(lines[i+1], name+": "); !ok {
			return nil, fmt.Errorf("line %d does not give the %s", i+2, name)
		}
	}
	seed, err := decodeBase64(value[3])
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the seed is not the base64 of %d bytes", ed25519.SeedSize)
	}
	k, err := NewPrivateKey(Role(value[0]), value[1], ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, err
	}
	if k.ID != value[2] {
		return nil, fmt.Errorf("key id %.80q, but the seed's is %s", value[2], k.ID)
	}
	return k, nil
}

// decodeBase64 reads standard, padded base64 and nothing that only resembles it.
func decodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || base64.StdEncoding.EncodeToString(b) != s {
		return nil, errors.New("not standard base64 with padding")
	}
	return b, nil
}
