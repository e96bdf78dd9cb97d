package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"
)

// newKey makes a key and keeps it in a file that must not be there.
func newKey(path string, create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, error) {
	key, err := create()
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", filepath.Base(path), err)
	}
	seed, err := key.Seed()
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", filepath.Base(path), err)
	}
	return key, writeNew(path, append(seed, '\n'))
}

func readKey(path string) (nkeys.KeyPair, error) {
	seed, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	key, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return key, nil
}

// public is the key's public part; a key that was just made or read has one.
func public(key nkeys.KeyPair) string {
	p, err := key.PublicKey()
	if err != nil {
		panic(err) // our own bug: only wiped keys have none
	}
	return p
}

// writeNew makes a file that only its owner reads; one that is there stays.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// write puts data in the place of a file at once: readers see the old content
// or the new.
func write(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// WriteFile keeps credentials in a file that only its owner reads, in the place
// of one that is there.
func (c Credentials) WriteFile(path string) error { return write(path, c.File) }
