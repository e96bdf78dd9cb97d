package edge

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/holdfast-policy/holdfast/runtime/loader"
	"github.com/holdfast-policy/holdfast/runtime/mask"
	"github.com/holdfast-policy/holdfast/sdk/audit"
)

const secretBytes = 32

// A Secret is a tenant's: with it values are masked and keys of parts are made.
// It never leaves its file and the process; its ID may be known.
type Secret struct {
	id    string
	masks *mask.Keys

	macs  sync.Pool // of hash.Hash: HMACs under the secret
	salt  [16]byte  // of this process, never written
	count atomic.Uint64
}

// SecretFile is where a node whose folder is dir keeps the secret that it made
// itself.
func SecretFile(dir string) string { return filepath.Join(dir, "tenant.secret") }

func openSecret(cfg *Config) (*Secret, error) {
	if cfg.Secret != "" {
		return LoadSecret(cfg.Secret)
	}
	return LoadOrCreateSecret(SecretFile(cfg.Dir))
}

// LoadOrCreateSecret returns the secret in the file path: 64 hexadecimal digits
// and the end of a line. When there is no file it creates one with mode 0600. A
// file that others may read is an error.
func LoadOrCreateSecret(path string) (*Secret, error) {
	s, err := LoadSecret(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	var b [secretBytes]byte
	rand.Read(b[:])
	if err := loader.Replace(path, []byte(hex.EncodeToString(b[:])+"\n")); err != nil {
		return nil, fmt.Errorf("tenant secret: %w", err)
	}
	return newSecret(b[:]), nil
}

// LoadSecret is LoadOrCreateSecret for a file that must be there.
func LoadSecret(path string) (*Secret, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tenant secret: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("tenant secret: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("tenant secret %s: mode %#o lets others read it; make it 0600", path, info.Mode().Perm())
	}
	b := make([]byte, secretBytes)
	text = bytes.TrimSpace(text)
	if len(text) != 2*secretBytes {
		return nil, fmt.Errorf("tenant secret %s: not %d hexadecimal digits", path, 2*secretBytes)
	}
	if _, err := hex.Decode(b, text); err != nil { // the error would have the digit in it
		return nil, fmt.Errorf("tenant secret %s: not %d hexadecimal digits", path, 2*secretBytes)
	}
	return newSecret(b), nil
}

func newSecret(b []byte) *Secret {
	sum := sha256.Sum256(b)
	s := &Secret{id: hex.EncodeToString(sum[:8]), masks: mask.NewKeys(b)}
	mac := hmac.New(sha256.New, b)
	mac.Write([]byte("holdfast part keys v1"))
	key := mac.Sum(nil)
	s.macs.New = func() any { return hmac.New(sha256.New, key) }
	rand.Read(s.salt[:])
	return s
}

// ID names the secret and says nothing of it: the first 8 bytes of its SHA-256,
// in hexadecimal digits.
func (s *Secret) ID() string { return s.id }

// String keeps the secret out of whatever prints it.
func (s *Secret) String() string { return "tenant secret " + s.id }

// GoString is String.
func (s *Secret) GoString() string { return s.String() }

// partKey returns the key of one record's parts. With the process's salt, which
// is written nowhere, nobody can make it again, not even who has the secret: when
// the key is erased with the parts, it is gone.
func (s *Secret) partKey(node string) audit.PartKey {
	var b [24]byte
	copy(b[:16], s.salt[:])
	binary.BigEndian.PutUint64(b[16:], s.count.Add(1))
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	mac.Write(b[:])
	mac.Write([]byte(node))
	return audit.PartKey(mac.Sum(nil)[:audit.PartKeyBytes])
}
