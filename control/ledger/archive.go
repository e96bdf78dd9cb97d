package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// errOther means that a file that is created once exists with other bytes.
var errOther = errors.New("exists with other bytes")

// An archive is the folder of a ledger:
//
//	nodes/NODE/BOOT/FIRST-LAST.batch  frames, created once, never changed
//	nodes/NODE/BOOT/receipt           the last counter-signed checkpoint
//	evidence/REASON-DIGEST.batch      what was refused, and .txt: why
//	position                          how far the region's stream was read
//
// FIRST and LAST have 20 digits. What is written is fsynced.
type archive string

const (
	nodesDir     = "nodes"
	evidenceDir  = "evidence"
	receiptFile  = "receipt"
	positionFile = "position"
)

// A span is the name of an archived batch.
type span struct{ first, last uint64 }

func (s span) file() string { return fmt.Sprintf("%020d-%020d.batch", s.first, s.last) }

func parseSpan(file string) (s span, ok bool) {
	_, err := fmt.Sscanf(file, "%020d-%020d.batch", &s.first, &s.last)
	return s, err == nil && s.file() == file && s.first > 0 && s.last >= s.first
}

func (a archive) boot(node, boot string) string {
	return filepath.Join(string(a), nodesDir, node, boot)
}

// boots lists what is archived, by node and boot.
func (a archive) boots() (map[string][]string, error) {
	out := map[string][]string{}
	nodes, err := folders(filepath.Join(string(a), nodesDir))
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if out[node], err = folders(filepath.Join(string(a), nodesDir, node)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func folders(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() && audit.ValidName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// spans lists a boot's batches in order.
func (a archive) spans(node, boot string) (spans []span, err error) {
	entries, err := os.ReadDir(a.boot(node, boot))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if s, ok := parseSpan(e.Name()); ok {
			spans = append(spans, s)
		}
	}
	return spans, err
}

// head returns the tree of the batches that follow one another from record 1
// on, and whether there is more than them. The last one is verified; one that
// does not verify is set aside.
func (a archive) head(node, boot string, key note.Verifier) (h head, broken bool, err error) {
	spans, err := a.spans(node, boot)
	if err != nil {
		return head{}, false, err
	}
	n, next := 0, uint64(1)
	for n < len(spans) && spans[n].first == next {
		next = spans[n].last + 1
		n++
	}
	broken = n < len(spans)
	for ; n > 0; n-- {
		b, err := a.read(node, boot, spans[n-1])
		if err == nil {
			var c audit.Checkpoint
			if c, _, err = b.Verify(key, nil); err == nil {
				return head{c.Size, c.Root}, broken, nil
			}
		}
		broken = true
		if err := a.setAside(node, boot, spans[n-1]); err != nil {
			return head{}, true, err
		}
	}
	return head{}, broken, nil
}

// setAside moves a batch that is not what was archived to the evidence.
func (a archive) setAside(node, boot string, s span) error {
	path := filepath.Join(a.boot(node, boot), s.file())
	bytes, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.Rename(path, a.evidence(damaged, bytes))
}

// evidence is the file of a frame that was refused.
func (a archive) evidence(why reason, frame []byte) string {
	return filepath.Join(string(a), evidenceDir, string(why)+"-"+wire.Sum(frame).Hex()+".batch")
}

// holds reports whether the frame is archived as it is.
func (a archive) holds(b *audit.Batch, frame []byte) bool {
	there, err := os.ReadFile(filepath.Join(a.boot(b.Node, b.Boot), span{b.First, b.Last()}.file()))
	return err == nil && bytes.Equal(there, frame)
}

// read returns one archived batch, which must be the one its name says.
func (a archive) read(node, boot string, s span) (*audit.Batch, error) {
	frame, err := os.ReadFile(filepath.Join(a.boot(node, boot), s.file()))
	if err != nil {
		return nil, err
	}
	b, err := audit.DecodeBatch(frame)
	if err != nil {
		return nil, err
	}
	if b.Node != node || b.Boot != boot || b.First != s.first || b.Last() != s.last {
		return nil, fmt.Errorf("archive %s/%s: %s holds records %d-%d of %s/%s", node, boot, s.file(), b.First, b.Last(), b.Node, b.Boot)
	}
	return b, nil
}

// rootAt returns the root of a boot's archived tree at an earlier size.
func (a archive) rootAt(node, boot string, size uint64) (tlog.Hash, error) {
	spans, err := a.spans(node, boot)
	if err != nil {
		return tlog.Hash{}, err
	}
	i, _ := slices.BinarySearchFunc(spans, size, func(s span, size uint64) int {
		switch {
		case s.last < size:
			return -1
		case s.first > size:
			return 1
		}
		return 0
	})
	if i == len(spans) || spans[i].first > size {
		return tlog.Hash{}, fmt.Errorf("archive %s/%s: record %d is missing", node, boot, size)
	}
	b, err := a.read(node, boot, spans[i])
	if err != nil {
		return tlog.Hash{}, err
	}
	return rootWithin(b, size), nil
}

// keep stores a batch's frame durably, but for its name: see settle. A file of
// that name with other bytes is set aside: nothing proven is in its place.
func (a archive) keep(b *audit.Batch, frame []byte) error {
	dir := a.boot(b.Node, b.Boot)
	if err := makeDir(dir); err != nil {
		return err
	}
	s := span{b.First, b.Last()}
	err := create(filepath.Join(dir, s.file()), frame)
	if !errors.Is(err, errOther) {
		return err
	}
	if err := a.setAside(b.Node, b.Boot, s); err != nil {
		return err
	}
	return create(filepath.Join(dir, s.file()), frame)
}

// settle stores a boot's receipt; when it returns, the names of everything
// that was kept before are durable too.
func (a archive) settle(node, boot string, receipt []byte) error {
	return replace(filepath.Join(a.boot(node, boot), receiptFile), receipt)
}

// receipt returns a boot's last receipt, or nil.
func (a archive) receipt(node, boot string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(a.boot(node, boot), receiptFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (a archive) position() (string, error) {
	b, err := os.ReadFile(filepath.Join(string(a), positionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

func (a archive) setPosition(p string) error {
	return replace(filepath.Join(string(a), positionFile), []byte(p))
}

// create writes a file that did not exist, or is there with the same bytes.
// Its content is durable on return, its name when the folder is synced.
func create(path string, data []byte) error {
	tmp, err := write(path, data)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	err = os.Link(tmp, path)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(there, data) {
		err = fmt.Errorf("%s: %w", path, errOther)
	}
	return err
}

// replace puts a durable file in the place of what was there.
func replace(path string, data []byte) error {
	tmp, err := write(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

func write(path string, data []byte) (tmp string, err error) {
	tmp = path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return tmp, errors.Join(err, f.Close())
}

// makeDir makes a folder and syncs the name of every folder it made.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// isBatch reports whether an evidence file is a frame, and its reason.
func isBatch(file string) (why reason, ok bool) {
	name, ok := strings.CutSuffix(file, ".batch")
	i := strings.LastIndexByte(name, '-')
	if !ok || i < 0 {
		return "", false
	}
	return reason(name[:i]), true
}
