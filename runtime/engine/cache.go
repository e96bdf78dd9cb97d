package engine

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// A cache keeps what workers made in a folder, one file for each identity. An
// entry is native code that this process will run, so that one without a MAC
// under the engine's own key is never looked at. Processes may share a folder.
type cache struct {
	dir   string
	key   [sha256.Size]byte
	max   int64 // bytes of all entries
	inUse func(identity) bool

	evicting sync.Mutex
}

// An entry is the magic, its identity, the artefact and the MAC of all of them.
const (
	entryMagic = "holdfast code 1\n"
	entryHead  = len(entryMagic) + len(identity{})
	macBytes   = sha256.Size
	tempPrefix = ".tmp-"
	keySuffix  = ".key"

	defaultCacheBytes = 512 << 20
	// abandoned is the age at which a temporary file's writer is taken for dead.
	abandoned = time.Hour
)

// Why an entry is discarded.
var (
	errEntry   = errors.New("not an entry")
	errForeign = errors.New("entry of another module, version or platform")
	errMAC     = errors.New("MAC does not verify: damaged, or made under another key")
)

func openCache(dir string, max int64, inUse func(identity) bool) (*cache, error) {
	if max == 0 {
		max = defaultCacheBytes
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() || !ownedByUs(info) || info.Mode().Perm()&0o022 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s: not a folder that only this user can write to", dir)
	}
	key, err := openKey(filepath.Clean(dir) + keySuffix)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return &cache{dir: dir, key: key, max: max, inUse: inUse}, nil
}

func (c *cache) path(id identity) string { return filepath.Join(c.dir, hex.EncodeToString(id[:])) }

// load returns the artefact with this identity, its code in a file in dir that
// holds exactly the bytes that were verified. It is fs.ErrNotExist when there is
// no entry, and one of the reasons above when there is none that can be believed.
func (c *cache) load(id identity, dir string) (*artefact, error) {
	f, err := openPlain(c.path(id))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := c.read(f, id, dir)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(f.Name(), now, now) // only the order of eviction suffers
	return a, nil
}

// read verifies an entry while it is copied, so that nothing can change between.
func (c *cache) read(f *os.File, id identity, dir string) (*artefact, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() < int64(entryHead+headBytes+macBytes) {
		return nil, errEntry
	}
	mac := hmac.New(sha256.New, c.key[:])
	body := io.TeeReader(io.LimitReader(f, info.Size()-macBytes), mac)
	var head [entryHead]byte
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return nil, err
	}
	switch {
	case string(head[:len(entryMagic)]) != entryMagic:
		return nil, errEntry
	case identity(head[len(entryMagic):]) != id:
		return nil, errForeign
	}
	largest := job{class: wasm.LanguageRuntime}
	a, err := readArtefact(body, dir, min(info.Size(), largest.maxRewritten()), min(info.Size(), largest.maxCode()))
	if isAny(err, errGarbage, errCut) {
		return nil, errEntry
	} else if err != nil {
		return nil, err
	}
	if err := verify(f, body, mac.Sum); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// verify compares the MAC of body, which must be at its end, with the one behind it.
func verify(f, body io.Reader, sum func([]byte) []byte) error {
	if n, err := body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return errEntry
	}
	var want [macBytes]byte
	if _, err := io.ReadFull(f, want[:]); err != nil {
		return err
	}
	if !hmac.Equal(sum(nil), want[:]) {
		return errMAC
	}
	return nil
}

// store writes an entry. It appears whole or not at all to other processes. It
// is not synced: what a power cut leaves of it does not verify.
func (c *cache) store(id identity, a *artefact) (err error) {
	f, err := os.CreateTemp(c.dir, tempPrefix)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, c.key[:])
	err = writeEntry(io.MultiWriter(f, mac), id, a)
	if err == nil {
		_, err = f.Write(mac.Sum(nil))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), c.path(id))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return c.evict()
}

func writeEntry(w io.Writer, id identity, a *artefact) error {
	if _, err := io.WriteString(w, entryMagic); err != nil {
		return err
	}
	if _, err := w.Write(id[:]); err != nil {
		return err
	}
	return writeArtefact(w, a, io.NewSectionReader(a.code, 0, a.size))
}

func (c *cache) discard(id identity) error {
	return ignoreMissing(os.Remove(c.path(id)))
}

// evict removes entries that this engine does not use, the longest unused first,
// until the folder is within its bound, and what killed writers left behind.
func (c *cache) evict() error {
	c.evicting.Lock()
	defer c.evicting.Unlock()
	files, err := c.files()
	if err != nil {
		return err
	}
	var total int64
	for _, f := range files {
		total += f.Size()
	}
	for _, f := range files {
		if !c.removable(f, total) {
			continue
		}
		if removed := ignoreMissing(os.Remove(filepath.Join(c.dir, f.Name()))); removed != nil {
			err = errors.Join(err, removed)
			continue
		}
		total -= f.Size()
	}
	return err
}

func (c *cache) removable(f fs.FileInfo, total int64) bool {
	if strings.HasPrefix(f.Name(), tempPrefix) {
		return time.Since(f.ModTime()) > abandoned
	}
	id, err := hex.DecodeString(f.Name())
	if err != nil || len(id) != len(identity{}) {
		return false // not ours
	}
	return total > c.max && !c.inUse(identity(id))
}

// files returns what is in the folder, the longest unused first.
func (c *cache) files() (files []fs.FileInfo, err error) {
	entries, err := os.ReadDir(c.dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // else another process has removed it
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	return files, err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// errKey is that a key could have been read or written by others, or is none.
var errKey = errors.New("not a key that only this user could have read or written")

// openKey reads the key at path, or makes one. One that could be somebody else's
// is replaced: all entries are made again.
func openKey(path string) (key [sha256.Size]byte, err error) {
	err = readKey(path, &key)
	switch {
	case err == nil || errors.Is(err, fs.ErrPermission):
		return key, err
	case errors.Is(err, fs.ErrNotExist):
		err = makeKey(path, os.Link)
	default:
		err = makeKey(path, os.Rename)
	}
	if err == nil {
		err = readKey(path, &key)
	}
	return key, err
}

func readKey(path string, key *[sha256.Size]byte) error {
	f, err := openPlain(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	private := runtime.GOOS == "windows" || info.Mode().Perm()&0o077 == 0
	if !info.Mode().IsRegular() || !private || !ownedByUs(info) || info.Size() != int64(len(key)) {
		return fmt.Errorf("%s: %w", path, errKey)
	}
	_, err = io.ReadFull(f, key[:])
	return err
}

// makeKey writes a new key and puts it into place; of processes that link at the
// same time the first wins.
func makeKey(path string, place func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix)
	if err != nil {
		return err
	}
	key := make([]byte, sha256.Size)
	rand.Read(key) // never fails
	_, err = f.Write(key)
	if err = errors.Join(err, f.Close()); err == nil {
		err = place(f.Name(), path)
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return errors.Join(err, ignoreMissing(os.Remove(f.Name())))
}

// buildIdentity names the build of a program by the linker's note, which is a
// digest of all that went in, or else by all its bytes.
func buildIdentity(program string) (id [sha256.Size]byte, err error) {
	f, err := os.Open(program)
	if err != nil {
		return id, err
	}
	defer f.Close()
	if note := buildNote(f); len(note) > 0 {
		return sha256.Sum256(note), nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return id, err
	}
	h.Sum(id[:0])
	return id, nil
}

func buildNote(f *os.File) []byte {
	if runtime.GOOS != "linux" {
		return nil
	}
	file, err := elf.NewFile(f)
	if err != nil {
		return nil
	}
	section := file.Section(".note.go.buildid")
	if section == nil {
		return nil
	}
	note, err := section.Data()
	if err != nil {
		return nil
	}
	return note
}
