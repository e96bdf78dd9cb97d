package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// LoadOrCreateKey returns the ed25519 note key in the file path, and its public
// form for a public.keys file. When there is no file it creates one with mode
// 0600 and a new key of that name. A file that others may read, or that holds a
// key of another name, is an error.
func LoadOrCreateKey(path, name string) (key note.Signer, vkey string, err error) {
	key, vkey, err = LoadKey(path, name)
	if errors.Is(err, os.ErrNotExist) {
		return createKey(path, name)
	}
	return key, vkey, err
}

// LoadKey is LoadOrCreateKey for a file that must be there.
func LoadKey(path, name string) (key note.Signer, vkey string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, "", fmt.Errorf("log key: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", fmt.Errorf("log key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, "", fmt.Errorf("log key %s: mode %#o lets others read it; make it 0600", path, info.Mode().Perm())
	}
	secret, vkey, ok := strings.Cut(strings.TrimSuffix(string(text), "\n"), "\n")
	if !ok {
		return nil, "", fmt.Errorf("log key %s: not two lines, a note signer key and its verifier key", path)
	}
	return parseKey(path, name, secret, vkey)
}

func parseKey(path, name, secret, vkey string) (note.Signer, string, error) {
	key, err := note.NewSigner(secret)
	if err != nil {
		return nil, "", fmt.Errorf("log key %s: %w", path, err)
	}
	public, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, "", fmt.Errorf("log key %s: %w", path, err)
	}
	if key.Name() != name || public.Name() != name || key.KeyHash() != public.KeyHash() {
		return nil, "", fmt.Errorf("log key %s: holds the key %q, not %q", path, key.Name(), name)
	}
	return key, vkey, nil
}

func createKey(path, name string) (note.Signer, string, error) {
	secret, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return nil, "", fmt.Errorf("log key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("log key: %w", err)
	}
	_, err = f.WriteString(secret + "\n" + vkey + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close(), osFS{}.SyncDir(filepath.Dir(path))); err != nil {
		return nil, "", fmt.Errorf("log key %s: %w", path, err)
	}
	return parseKey(path, name, secret, vkey)
}
