package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/audit"
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

// NodeKey returns what opens everything that a node signed: with the log key in
// use, vkey, and with those before it, from the file that NoteKey keeps. Without
// the file there were none.
func NodeKey(path, vkey string) (note.Verifier, error) {
	lines, err := readKeys(path)
	if err != nil {
		return nil, err
	}
	public, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	keys := &audit.Keys{}
	for _, line := range append(lines, vkey) {
		if v, err := note.NewVerifier(line); err != nil || v.Name() != public.Name() {
			return nil, fmt.Errorf("former log keys %s: %.100q is not a key of %s", path, line, public.Name())
		}
		if err := keys.AddNode(line); err != nil {
			return nil, fmt.Errorf("former log keys %s: %w", path, err)
		}
	}
	_, name, _ := strings.Cut(public.Name(), "/")
	tenant, node, _ := strings.Cut(name, "/")
	return keys.Node(tenant, node), nil
}

// NoteKey adds the public form of a node's log key to the file path, one a line,
// if it is not there: what a key signed stays the node's, see NodeKey, after it was replaced.
func NoteKey(path, vkey string) error {
	lines, err := readKeys(path)
	if err != nil || slices.Contains(lines, vkey) {
		return err
	}
	if err := replaceFile(osFS{}, path, []byte(strings.Join(append(lines, vkey), "\n")+"\n")); err != nil {
		return fmt.Errorf("former log keys: %w", err)
	}
	return nil
}

func readKeys(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("former log keys: %w", err)
	}
	return strings.Fields(string(text)), nil
}

// ReplaceKey makes a new log key of that name in the file path, in the place of
// the one that is there, which it notes in the file former. It returns the public
// form of the new one, which the node signs with from its next start on.
func ReplaceKey(path, former, name string) (vkey string, err error) {
	_, old, err := LoadKey(path, name)
	if err == nil {
		err = NoteKey(former, old)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("log key: %w", err)
	}
	if _, vkey, err = createKey(next, name); err != nil {
		return "", err
	}
	if err := errors.Join(os.Rename(next, path), osFS{}.SyncDir(filepath.Dir(path))); err != nil {
		return "", fmt.Errorf("log key: %w", err)
	}
	return vkey, nil
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
