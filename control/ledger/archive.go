package ledger

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// errOther means that a file that is created once exists with other bytes.
var errOther = errors.New("exists with other bytes")

// An archive is the folder of a ledger:
//
//	nodes/NODE/BOOT/FIRST-LAST.batch  frames without blobs, created once; parts can be erased
//	nodes/NODE/BOOT/FIRST-LAST.blobs  the blobs of a frame; they can be erased
//	nodes/NODE/BOOT/receipt           the last counter-signed checkpoint
//	evidence/REASON-DIGEST.batch      what was refused, and .txt: why; .blobs that were damaged
//	documents/DIGEST.document         erasures and holds that were taken; .done: carried out
//	sweeps/SERIAL.sweep               what was deleted because it was old, signed by the region
//	position                          how far the region's stream was read
//
// FIRST and LAST have 20 digits. What is written is fsynced, but for receipts.
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

// compare orders a batch by a record that it may hold.
func (s span) compare(seq uint64) int {
	switch {
	case s.last < seq:
		return -1
	case s.first > seq:
		return 1
	}
	return 0
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

// spans lists a boot's batches in order, without those whose records are all in
// another one.
func (a archive) spans(node, boot string) ([]span, error) {
	all, err := a.files(node, boot)
	end := uint64(0)
	return slices.DeleteFunc(all, func(s span) bool {
		covered := s.last <= end
		end = max(end, s.last)
		return covered
	}), err
}

// files lists a boot's batches by their beginning, the longest first.
func (a archive) files(node, boot string) (spans []span, err error) {
	entries, err := os.ReadDir(a.boot(node, boot))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if s, ok := parseSpan(e.Name()); ok {
			spans = append(spans, s)
		}
	}
	slices.SortFunc(spans, func(x, y span) int { return cmp.Or(cmp.Compare(x.first, y.first), cmp.Compare(y.last, x.last)) })
	return spans, err
}

// tidy lists a boot's batches in order, none of which holds what another does:
// a crash between two steps of repairing or merging leaves such. Those that
// another covers are removed, those that another begins are shortened.
func (a archive) tidy(node, boot string) ([]span, error) {
	spans, err := a.files(node, boot)
	if err != nil {
		return nil, err
	}
	var out []span
	end := uint64(0)
	for _, s := range spans {
		if s.first > end {
			out, end = append(out, s), s.last
			continue
		}
		if s.last > end {
			rest, err := a.shorten(node, boot, s, end+1)
			if err != nil {
				return nil, err
			}
			if rest == nil {
				continue
			}
			out, end = append(out, *rest), s.last
			continue
		}
		if err := a.remove(node, boot, s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// shorten puts what is in a batch from record first on in its place; nil when
// the batch is not what its name says, and was set aside.
func (a archive) shorten(node, boot string, s span, first uint64) (*span, error) {
	b, err := a.read(node, boot, s)
	if err != nil {
		return nil, a.setAside(node, boot, s)
	}
	if side, err := a.side(node, boot, s); err != nil {
		return nil, err
	} else if side != nil {
		if err := b.Join(side); err != nil {
			return nil, err
		}
	}
	rest := tail(b, first)
	if err := a.keep(rest); err != nil {
		return nil, err
	}
	if err := syncDir(a.boot(node, boot)); err != nil {
		return nil, err
	}
	return &span{first, s.last}, a.remove(node, boot, s)
}

// remove takes away a batch whose records are all in others.
func (a archive) remove(node, boot string, s span) error {
	path := filepath.Join(a.boot(node, boot), s.file())
	err := os.Remove(path)
	if blobs := os.Remove(beside(path)); !errors.Is(blobs, fs.ErrNotExist) {
		err = errors.Join(err, blobs)
	}
	return err
}

// beside is the file of the blobs of a batch.
func beside(batch string) string { return strings.TrimSuffix(batch, ".batch") + ".blobs" }

// side returns the blobs of an archived batch; nil when there are none, such as
// when they were erased.
func (a archive) side(node, boot string, s span) (*audit.Side, error) {
	frame, err := os.ReadFile(beside(filepath.Join(a.boot(node, boot), s.file())))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return audit.DecodeSide(frame)
}

// setAside moves a batch that is not what was archived to the evidence.
func (a archive) setAside(node, boot string, s span) error {
	path := filepath.Join(a.boot(node, boot), s.file())
	bytes, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	to := a.evidence(damaged, bytes)
	if err := replace(wordsOf(to), fmt.Appendf(nil, "%s/%s\n%s\n", node, boot, s.file())); err != nil {
		return err
	}
	return os.Rename(path, to)
}

// evidence is the file of a frame that was refused.
func (a archive) evidence(why reason, frame []byte) string {
	return filepath.Join(string(a), evidenceDir, string(why)+"-"+wire.Sum(frame).Hex()+".batch")
}

// wordsOf is the file that says what a file of evidence is.
func wordsOf(evidence string) string { return strings.TrimSuffix(evidence, ".batch") + ".txt" }

// setAsideOf says of which records a damaged batch was that was set aside; ok is
// false when that is not known.
func setAsideOf(evidence string) (at audit.Place, s span, ok bool) {
	text, err := os.ReadFile(wordsOf(evidence))
	lines := strings.Split(string(text), "\n")
	if err != nil || len(lines) < 2 {
		return at, s, false
	}
	at.Node, at.Boot, _ = strings.Cut(lines[0], "/")
	s, ok = parseSpan(lines[1])
	return at, s, ok
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
	i, _ := slices.BinarySearchFunc(spans, size, span.compare)
	if i == len(spans) || spans[i].first > size {
		return tlog.Hash{}, fmt.Errorf("archive %s/%s: record %d is missing", node, boot, size)
	}
	b, err := a.read(node, boot, spans[i])
	if err != nil {
		return tlog.Hash{}, err
	}
	return rootWithin(b, size), nil
}

// before is the root of the tree before the batch that begins at record first.
func (a archive) before(node, boot string, first uint64) (tlog.Hash, error) {
	spans, err := a.spans(node, boot)
	if err != nil {
		return tlog.Hash{}, err
	}
	for _, s := range spans {
		if s.first != first {
			continue
		}
		b, err := a.read(node, boot, s)
		if err != nil {
			return tlog.Hash{}, err
		}
		_, root := b.Before()
		return root, nil
	}
	return tlog.Hash{}, fmt.Errorf("archive %s/%s: no batch from record %d", node, boot, first)
}

// keep is keepFrame for a batch whose frame is not at hand.
func (a archive) keep(b *audit.Batch) error { return a.keepFrame(b, nil) }

// keepFrame stores a batch durably, but for its name: that is when its folder is
// synced. Its blobs are in a file beside it, stored before it. A file of that name
// with other bytes is set aside: nothing proven is in its place.
func (a archive) keepFrame(b *audit.Batch, frame []byte) error {
	if err := makeDir(a.boot(b.Node, b.Boot)); err != nil {
		return err
	}
	bare, side := b.Split()
	if err := a.keepSide(b, side); err != nil {
		return err
	}
	if frame == nil || bare != b {
		var err error
		if frame, err = bare.Encode(); err != nil {
			return err
		}
	}
	s := span{b.First, b.Last()}
	path := filepath.Join(a.boot(b.Node, b.Boot), s.file())
	if err := create(path, frame); !errors.Is(err, errOther) {
		return err
	}
	if err := a.setAside(b.Node, b.Boot, s); err != nil {
		return err
	}
	return create(path, frame)
}

// keepSide stores the blobs of a batch that is not there yet.
func (a archive) keepSide(b *audit.Batch, side *audit.Side) error {
	if side == nil {
		return nil
	}
	frame, err := side.Encode()
	if err != nil {
		return err
	}
	path := beside(filepath.Join(a.boot(b.Node, b.Boot), span{b.First, b.Last()}.file()))
	if err := create(path, frame); !errors.Is(err, errOther) {
		return err
	}
	return replace(path, frame)
}

// settle stores a boot's receipt. It is not synced: the region has it, and what
// it proves is in the archive; a torn one counts as none.
func (a archive) settle(node, boot string, receipt []byte) error {
	path := filepath.Join(a.boot(node, boot), receiptFile)
	if err := os.WriteFile(path+".tmp", receipt, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
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

// isEvidence reports whether an evidence file is what was refused, and why.
func isEvidence(file string) (why reason, ok bool) {
	for _, suffix := range []string{".batch", ".blobs", ".checkpoint"} {
		name, ok := strings.CutSuffix(file, suffix)
		if i := strings.LastIndexByte(name, '-'); ok && i >= 0 {
			return reason(name[:i]), true
		}
	}
	return "", false
}
