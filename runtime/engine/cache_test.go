package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/abi"
)

// shop is an engine with workers and a cache, and what it logs.
type shop struct {
	*Engine
	*workshop
	lines *lines
}

type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

func newShop(tb testing.TB, folder string) shop {
	tb.Helper()
	l := &lines{}
	e, err := New(context.Background(), Config{Worker: Self(), Cache: folder, Log: slog.New(slog.NewTextHandler(l, nil))})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return shop{e, e.compiler.(*workshop), l}
}

// say is the spec of a module that answers a number; numbers alone tell them apart.
func say(number byte) Spec {
	return Spec{Name: fmt.Sprintf("say-%d", number), ABI: abi.HoldfastV1, Wasm: sayModule(number), Pool: 1}
}

// sayModule stores a number at address 16 and answers the 4 bytes there.
func sayModule(number byte) []byte { return storeModule("\x41" + string([]byte{number & 0x3f})) }

// storeModule stores what code puts on the stack at address 16, of one page of
// memory that may not grow, and answers the 4 bytes there.
func storeModule(value string) []byte {
	var out bytes.Buffer
	out.WriteString("\x00asm\x01\x00\x00\x00")
	section := func(id byte, content string) {
		out.WriteByte(id)
		out.WriteByte(byte(len(content)))
		out.WriteString(content)
	}
	decide := "\x00\x41\x10" + value + "\x36\x02\x00\x42\x84\x80\x80\x80\x80\x02\x0b"
	section(1, "\x03\x60\x00\x01\x7f\x60\x01\x7f\x01\x7f\x60\x02\x7f\x7f\x01\x7e")
	section(3, "\x03\x00\x01\x02")
	section(5, "\x01\x01\x01\x01")
	section(7, "\x04\x06memory\x02\x00\x0fholdfast_abi_v1\x00\x00\x0eholdfast_alloc\x00\x01\x0fholdfast_decide\x00\x02")
	section(10, "\x03\x04\x00\x41\x00\x0b\x04\x00\x41\x08\x0b"+string([]byte{byte(len(decide))})+decide)
	return out.Bytes()
}

// check loads a module and has it answer its number.
func (s shop) check(tb testing.TB, number byte) {
	tb.Helper()
	ctx := context.Background()
	m, err := s.Load(ctx, say(number))
	if err != nil {
		tb.Error(err)
		return
	}
	defer m.Close(ctx)
	if r, err := m.Call(abi.Call{Input: []byte("x")}); err != nil || !bytes.Equal(r.Output, []byte{number & 0x3f, 0, 0, 0}) {
		tb.Errorf("module %d answers %v, %v", number, r.Output, err)
	}
}

// entry returns the file of a module in the cache.
func (s shop) entry(number byte) string { return s.cache.path(s.workshop.identify(say(number))) }

func TestCacheIsUsed(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "compiled")
	newShop(t, folder).check(t, 1)
	s := newShop(t, folder)
	s.worker = "/does/not/exist"
	s.check(t, 1)
	if _, err := s.Load(context.Background(), say(2)); err == nil {
		t.Error("a module that nobody compiled was loaded")
	}
}

// Modules with one outline are not one module: both live in one engine.
func TestSameOutline(t *testing.T) {
	ctx := context.Background()
	folder := filepath.Join(t.TempDir(), "compiled")
	for _, start := range []string{"cold", "warm"} {
		s := newShop(t, folder)
		for n := byte(1); n <= 3; n++ {
			m, err := s.Load(ctx, say(n))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close(ctx)
			if r, err := m.Call(abi.Call{Input: []byte("x")}); err != nil || r.Output[0] != n {
				t.Errorf("%s: module %d answers %v, %v", start, n, r.Output, err)
			}
		}
	}
}

// Every 97th byte damaged, and every 97th length: never believed, and no two reasons.
func TestDamagedEntry(t *testing.T) {
	s := newShop(t, filepath.Join(t.TempDir(), "compiled"))
	s.check(t, 1)
	id := s.workshop.identify(say(1))
	whole, err := os.ReadFile(s.entry(1))
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, entry []byte) {
		if err := os.WriteFile(s.entry(1), entry, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := s.cache.load(id, s.dir)
		if err == nil {
			a.close()
		}
		if !isAny(err, errEntry, errForeign, errMAC) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for at := 0; at < len(whole); at += 97 {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x10
		try(fmt.Sprintf("byte %d of %d", at, len(whole)), damaged)
		try(fmt.Sprintf("%d of %d bytes", at, len(whole)), whole[:at])
	}
	for at := len(whole) - macBytes; at < len(whole); at++ {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1
		try(fmt.Sprintf("byte %d of the MAC", at), damaged)
	}
	try("a byte more", append(bytes.Clone(whole), 0))
	try("twice", append(bytes.Clone(whole), whole...))
}

// An entry that is given another module's name and identity does not verify.
func TestRenamedEntry(t *testing.T) {
	s := newShop(t, filepath.Join(t.TempDir(), "compiled"))
	s.check(t, 1)
	entry, err := os.ReadFile(s.entry(1))
	if err != nil {
		t.Fatal(err)
	}
	id := s.workshop.identify(say(2))
	copy(entry[len(entryMagic):], id[:])
	if err := os.WriteFile(s.entry(2), entry, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.cache.load(id, s.dir); !errors.Is(err, errMAC) {
		t.Errorf("%v", err)
	}
	s.check(t, 2)
}

// What is discarded is compiled again, kept again, and told once.
func TestDiscarded(t *testing.T) {
	for reason, spoil := range map[string]func(s shop) error{
		"MAC does not verify": func(s shop) error { return flip(s.entry(1), -macBytes-1) },
		"entry of another":    func(s shop) error { return os.Rename(s.entry(2), s.entry(1)) },
		"not an entry":        func(s shop) error { return os.Truncate(s.entry(1), 7) },
		"made under another key": func(s shop) error { // the next engine reads it
			return os.WriteFile(s.cache.dir+keySuffix, make([]byte, sha256.Size), 0o600)
		},
		"wazero does not take": func(s shop) error { // as on another CPU: signed, under another of wazero's names
			id := s.workshop.identify(say(1))
			a, err := s.cache.load(id, s.dir)
			if err != nil {
				return err
			}
			defer a.close()
			a.name = strings.Repeat("0", nameBytes)
			return s.cache.store(id, a)
		},
	} {
		folder := filepath.Join(t.TempDir(), "compiled")
		s := newShop(t, folder)
		s.check(t, 1)
		s.check(t, 2)
		if err := spoil(s); err != nil {
			t.Fatal(err)
		}
		s = newShop(t, folder)
		s.check(t, 1)
		if n := s.lines.count("compiled module discarded"); n != 1 || s.lines.count(reason) != 1 {
			t.Errorf("%s: %d lines: %s", reason, n, s.lines.text.String())
		}
		s.worker = "/does/not/exist"
		s.check(t, 1)
	}
}

func flip(path string, at int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[(at+len(b))%len(b)] ^= 1
	return os.WriteFile(path, b, 0o600)
}

// Another build or another wazero does not even look at the same file.
func TestOtherVersion(t *testing.T) {
	s := newShop(t, filepath.Join(t.TempDir(), "compiled"))
	s.check(t, 1)
	was := s.entry(1)
	s.with += "."
	if _, err := os.Stat(s.entry(1)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("two versions share an entry")
	}
	if err := os.Rename(was, s.entry(1)); err != nil {
		t.Fatal(err)
	}
	s.check(t, 1)
	if s.lines.count("entry of another") != 1 {
		t.Error(s.lines.text.String())
	}
}

// This process never compiles: without code wazero gives up at once.
func TestParentNeverCompiles(t *testing.T) {
	s := newShop(t, filepath.Join(t.TempDir(), "compiled"))
	s.check(t, 1)
	a, err := s.cache.load(s.workshop.identify(say(1)), s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	a.name = strings.Repeat("f", nameBytes)
	if _, err := s.hand(context.Background(), s.Engine.runtime, a); !errors.Is(err, errNotTaken) {
		t.Errorf("a module without code: %v", err)
	}
	if left, err := os.ReadDir(s.doorDir); err != nil || len(left) != 0 {
		t.Errorf("left in the private folder: %v, %v", left, err)
	}
}

func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	var wait sync.WaitGroup
	keys := make([][sha256.Size]byte, 8)
	for i := range keys {
		wait.Go(func() {
			var err error
			if keys[i], err = openKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, key := range keys {
		if key != keys[0] || key == [sha256.Size]byte{} {
			t.Fatal("two keys for one folder")
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for what, spoil := range map[string]func() error{
		"readable by others": func() error { return os.Chmod(path, 0o640) },
		"short":              func() error { return os.Truncate(path, 31) },
		"a link":             func() error { return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)) },
	} {
		before, err := openKey(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		after, err := openKey(path)
		if err != nil || after == before {
			t.Errorf("%s: the same key, %v", what, err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", what, info.Mode(), err)
		}
	}
}

// A folder that cannot be had, or goes away, costs persistence and nothing else.
func TestUnusableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newShop(t, filepath.Join(file, "compiled"))
	s.check(t, 1)
	if s.cache != nil || s.lines.count("not kept") != 1 {
		t.Error(s.lines.text.String())
	}
	folder := filepath.Join(t.TempDir(), "compiled")
	s = newShop(t, folder)
	if err := errors.Join(os.Remove(folder), os.WriteFile(folder, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s.check(t, 1)
	if s.lines.count("compiled module is not kept") != 1 {
		t.Error(s.lines.text.String())
	}
}

// The folder stays within its bound, without what is in use; what a killed
// writer left goes when it is old.
func TestEviction(t *testing.T) {
	ctx := context.Background()
	s := newShop(t, filepath.Join(t.TempDir(), "compiled"))
	used, err := s.Load(ctx, say(1))
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close(ctx)
	info, err := os.Stat(s.entry(1))
	if err != nil {
		t.Fatal(err)
	}
	old, young := filepath.Join(s.cache.dir, tempPrefix+"old"), filepath.Join(s.cache.dir, tempPrefix+"young")
	long := time.Now().Add(-2 * abandoned)
	if err := errors.Join(os.WriteFile(old, []byte("half"), 0o600), os.WriteFile(young, []byte("half"), 0o600), os.Chtimes(old, long, long)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(s.entry(1), long, long); err != nil { // it would be the first to go
		t.Fatal(err)
	}
	s.cache.max = info.Size()*3 + 100
	for n := byte(2); n < 6; n++ {
		s.check(t, n)
		stamp := long.Add(time.Duration(n) * time.Minute)
		if err := os.Chtimes(s.entry(n), stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]bool{
		s.entry(1): true, s.entry(2): false, s.entry(3): false, s.entry(4): true, s.entry(5): true, old: false, young: true,
	} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// hammer loads modules in any order, many at once, with entries that vanish.
func hammer(t *testing.T, folder string) {
	s := newShop(t, folder)
	s.cache.max = 12 << 10 // some of them
	var wait sync.WaitGroup
	for g := range 4 {
		wait.Go(func() {
			for n := range 12 {
				s.check(t, byte((n*5+g)%6))
			}
		})
	}
	wait.Wait()
	if s.lines.count("discarded") != 0 {
		t.Error(s.lines.text.String())
	}
}

const sharedFolder = "HOLDFAST_SHARED_FOLDER"

// Two processes, and two engines in each, share one folder and its key.
func TestSharedFolder(t *testing.T) {
	folder := os.Getenv(sharedFolder)
	if folder == "" {
		folder = filepath.Join(t.TempDir(), "compiled")
		other := exec.Command(os.Args[0], "-test.run=^TestSharedFolder$")
		other.Env = append(os.Environ(), sharedFolder+"="+folder)
		var out bytes.Buffer
		other.Stdout, other.Stderr = &out, &out
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := other.Wait(); err != nil {
				t.Errorf("the other process: %v\n%s", err, out.String())
			}
		}()
	}
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() { hammer(t, folder) })
	}
	wait.Wait()
}

func FuzzEntry(f *testing.F) {
	dir := f.TempDir()
	c := &cache{dir: dir, key: [sha256.Size]byte{1}}
	var entry bytes.Buffer
	a := &artefact{name: strings.Repeat("a", nameBytes), outline: []byte("outline"), size: 4}
	entry.WriteString(entryMagic + string(make([]byte, len(identity{}))))
	if err := writeArtefact(&entry, a, strings.NewReader("code")); err != nil {
		f.Fatal(err)
	}
	f.Add(append(entry.Bytes(), make([]byte, macBytes)...))
	f.Add([]byte(entryMagic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		defer os.Remove(file.Name())
		if _, err := file.WriteAt(raw, 0); err != nil {
			t.Fatal(err)
		}
		if a, err := c.read(file, identity{}, dir); err == nil {
			a.close()
			t.Error("believed")
		}
	})
}

func FuzzAnswer(f *testing.F) {
	var code bytes.Buffer
	a := &artefact{name: strings.Repeat("a", nameBytes), outline: []byte("outline"), size: 4}
	if err := writeArtefact(&code, a, strings.NewReader("code")); err != nil {
		f.Fatal(err)
	}
	f.Add(append([]byte{answerCode}, code.Bytes()...))
	f.Add([]byte("r\x00\x00\x00\x02{}"))
	f.Add([]byte("e\x00\x00\x00\x05error"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := readAnswer(bytes.NewReader(raw), job{keep: dir})
		if (a == nil) == (err == nil) {
			t.Errorf("%v, %v", a, err)
		}
		if err == nil {
			if len(a.outline)+int(a.size) > len(raw) {
				t.Errorf("%d bytes of outline and %d of code from %d", len(a.outline), a.size, len(raw))
			}
			a.close()
		}
	})
}
