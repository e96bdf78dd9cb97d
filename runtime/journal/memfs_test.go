package journal

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// A memFS is a file system in memory that can lose power at any operation. Then
// each name that was changed since its folder was synced has any of the values
// that it had since, and each sector that was written since its file was synced
// is there or not, whatever came before or after it.
type memFS struct {
	mu    sync.Mutex
	rng   *rand.Rand
	root  string
	names map[string]*memNode
	since map[string][]*memNode // the durable value of a name first, nil for none
	ops   int
	dies  int // at which operation power is lost; 0 for never
	dead  bool
	size  int64 // of the disk; 0 is without end
	// fail is asked before every operation for the error that it has.
	fail func(op, path string) error
}

type memNode struct {
	folder  bool
	data    []byte
	synced  []byte
	pending []memWrite
}

// A memWrite is a write, or where data is nil a change of the size.
type memWrite struct {
	off  int64
	data []byte
}

var errPower = errors.New("the power is gone")

func newMemFS(root string, rng *rand.Rand) *memFS {
	return &memFS{rng: rng, root: root, names: map[string]*memNode{}, since: map[string][]*memNode{}}
}

// begin counts an operation. done: it happens, although its caller may not hear of it.
func (m *memFS) begin(op, path string) (done bool, err error) {
	if m.dead {
		return false, errPower
	}
	if m.fail != nil {
		if err := m.fail(op, path); err != nil {
			return false, &os.PathError{Op: op, Path: path, Err: err}
		}
	}
	m.ops++
	if m.ops == m.dies {
		m.dead = true
		return m.rng.IntN(2) == 0, errPower
	}
	return true, nil
}

func (m *memFS) used() (n int64) {
	for _, f := range m.names {
		n += int64(len(f.data))
	}
	return n
}

func (m *memFS) set(path string, n *memNode) {
	if m.since[path] == nil {
		m.since[path] = []*memNode{m.names[path]}
	}
	m.since[path] = append(m.since[path], n)
	if n == nil {
		delete(m.names, path)
	} else {
		m.names[path] = n
	}
}

func (m *memFS) there(dir string) bool {
	n := m.names[dir]
	return dir == m.root || n != nil && n.folder
}

func (m *memFS) OpenFile(path string, flag int, _ os.FileMode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	done, err := m.begin("open", path)
	n := m.names[path]
	create := flag&os.O_CREATE != 0
	switch {
	case err != nil && !done:
		return nil, err
	case !m.there(filepath.Dir(path)) || n == nil && !create:
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
	case n != nil && flag&os.O_EXCL != 0:
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrExist}
	case n == nil:
		n = &memNode{}
		m.set(path, n)
	case flag&os.O_TRUNC != 0:
		n.resize(0)
	}
	return &memFile{m, n, path}, err
}

func (m *memFS) ReadDir(dir string) (out []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.begin("readdir", dir); err != nil {
		return nil, err
	}
	if !m.there(dir) {
		return nil, &os.PathError{Op: "open", Path: dir, Err: os.ErrNotExist}
	}
	for path := range m.names {
		if filepath.Dir(path) == dir {
			out = append(out, filepath.Base(path))
		}
	}
	return out, nil
}

func (m *memFS) Mkdir(dir string, _ os.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	done, err := m.begin("mkdir", dir)
	if done && m.names[dir] == nil {
		m.set(dir, &memNode{folder: true})
	}
	return err
}

func (m *memFS) Remove(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	done, err := m.begin("remove", path)
	switch {
	case err == nil && m.names[path] == nil:
		return &os.PathError{Op: "remove", Path: path, Err: os.ErrNotExist}
	case done:
		m.set(path, nil)
	}
	return err
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	done, err := m.begin("rename", to)
	if n := m.names[from]; done && n != nil {
		m.set(to, n)
		m.set(from, nil)
	}
	return err
}

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	done, err := m.begin("syncdir", dir)
	if done {
		maps.DeleteFunc(m.since, func(path string, _ []*memNode) bool { return filepath.Dir(path) == dir })
	}
	return err
}

func (m *memFS) Free(string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.size == 0 {
		return 0, errors.ErrUnsupported
	}
	return m.size - m.used(), nil
}

// reboot is the disk as it is found after the loss of power.
func (m *memFS) reboot() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true // what still runs writes nothing any more
	chosen := maps.Clone(m.names)
	for _, path := range slices.Sorted(maps.Keys(m.since)) {
		values := m.since[path]
		chosen[path] = values[m.rng.IntN(len(values))]
	}
	next := newMemFS(m.root, m.rng)
	next.size = m.size
	share := []float64{0, 0.5, 0.9, 1}[m.rng.IntN(4)]
	sector := 512 << m.rng.IntN(4)
	for _, path := range slices.Sorted(maps.Keys(chosen)) {
		n := chosen[path]
		if n == nil || filepath.Dir(path) != m.root && chosen[filepath.Dir(path)] == nil {
			continue
		}
		data := n.synced
		if !n.folder {
			data = n.survives(m.rng, share, sector)
		}
		next.names[path] = &memNode{folder: n.folder, data: data, synced: slices.Clone(data)}
	}
	return next
}

// survives returns what is left of a file: what was synced, and of each write
// since some of its sectors.
func (n *memNode) survives(rng *rand.Rand, share float64, sector int) []byte {
	out := slices.Clone(n.synced)
	for _, w := range n.pending {
		if w.data == nil {
			if share == 1 || rng.Float64() < share {
				out = resized(out, w.off)
			}
			continue
		}
		for at := 0; at < len(w.data); {
			end := min(len(w.data), at+sector-int(w.off+int64(at))%sector)
			if share == 1 || rng.Float64() < share {
				out = put(out, w.data[at:end], w.off+int64(at))
			}
			at = end
		}
	}
	return out
}

func resized(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func put(b, data []byte, off int64) []byte {
	b = resized(b, max(int64(len(b)), off+int64(len(data))))
	copy(b[off:], data)
	return b
}

func (n *memNode) resize(size int64) {
	n.data = resized(n.data, size)
	n.pending = append(n.pending, memWrite{off: size})
}

type memFile struct {
	fs   *memFS
	node *memNode
	path string
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if _, err := f.fs.begin("read", f.path); err != nil {
		return 0, err
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// room reports whether a file may grow to size, and how far it can.
func (f *memFile) room(size int64) (int64, error) {
	if f.fs.size == 0 || size <= int64(len(f.node.data)) {
		return size, nil
	}
	most := int64(len(f.node.data)) + f.fs.size - f.fs.used()
	if size > most {
		return most, &os.PathError{Op: "write", Path: f.path, Err: syscall.ENOSPC}
	}
	return size, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	done, err := f.fs.begin("write", f.path)
	if !done {
		return 0, err
	}
	end, full := f.room(off + int64(len(p)))
	p = p[:max(0, end-off)]
	f.node.data = put(f.node.data, p, off)
	f.node.pending = append(f.node.pending, memWrite{off, slices.Clone(p)})
	return len(p), errors.Join(err, full)
}

func (f *memFile) Preallocate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	done, err := f.fs.begin("preallocate", f.path)
	if _, full := f.room(size); full != nil {
		return full
	}
	if done && size > int64(len(f.node.data)) {
		f.node.resize(size)
	}
	return err
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	done, err := f.fs.begin("truncate", f.path)
	if done {
		f.node.resize(size)
	}
	return err
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), nil
}

// Sync forgets what was not written when it fails, as a kernel does: the pages
// are clean then, and never written again.
func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	done, err := f.fs.begin("sync", f.path)
	switch {
	case done:
		f.node.synced, f.node.pending = f.node.survives(f.fs.rng, 1, 512), nil
	case err != nil && !f.fs.dead:
		f.node.pending = nil
	}
	return err
}

func (f *memFile) Close() error { return nil }

// failsAt fails the operation of that number among those of a kind, on files
// whose name has a suffix.
func failsAt(op, suffix string, n int, err error) func(op, path string) error {
	return func(o, path string) error {
		if o == op && strings.HasSuffix(path, suffix) {
			if n--; n == 0 {
				return err
			}
		}
		return nil
	}
}
