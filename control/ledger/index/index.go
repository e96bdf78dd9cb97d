// Package index finds records in an export or in a ledger's archive without
// reading all of it. It keeps a summary of each batch in files of its own beside
// them. An index is never evidence: what it says is only where to look, what is
// found is read from the batches, and an index that is damaged or does not fit
// the batches any more is made again.
package index

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/audit"
	"github.com/holdfast-policy/holdfast/sdk/inorder"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// An Index is the index of one folder of batches. One value serves one goroutine;
// several processes may use the same files.
type Index struct {
	// Folder holds the batches, Dir is where the index lies; it may not exist.
	Folder audit.Folder
	Dir    string
	// Progress is told now and then how many batches out of how many were looked
	// at, and whether they are being read or only found. nil means nobody is.
	Progress func(done, of int, reading bool)
	// Workers read at once; 0 means as many as there are processors.
	Workers int
}

// Updated says what it took to bring an index up to date.
type Updated struct {
	Batches int // in the folder
	Read    int // of them, because the index did not know them
	Damaged int // files of the index that were made again
	// Unsaved is why what was read could not be kept; the index serves all the same.
	Unsaved error

	unsaved map[string][]*summary // by file of the index
}

// A frame is the length and the CRC32C of a summary, and its bytes. A file is a
// title and frames in the order of the batches; one batch may be there twice, when
// two processes wrote at once.
const (
	fileTitle   = "holdfast index 1\n"
	frameHeader = 8
	fileSuffix  = ".index"
)

var errDamaged = errors.New("the index is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Beside is where the index of a folder lies when nobody says otherwise.
func Beside(dir string) string { return filepath.Clean(dir) + ".index" }

func (x *Index) workers() int {
	if x.Workers > 0 {
		return x.Workers
	}
	return runtime.GOMAXPROCS(0)
}

// Rebuild deletes the index.
func (x *Index) Rebuild() error {
	nodes, err := os.ReadDir(x.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	for _, n := range nodes {
		files, err := filepath.Glob(filepath.Join(x.Dir, n.Name(), "*"+fileSuffix))
		if err != nil {
			return fmt.Errorf("index: %w", err)
		}
		for _, file := range files {
			if err := os.Remove(file); err != nil {
				return fmt.Errorf("index: %w", err)
			}
		}
	}
	return nil
}

// A boot is one boot with its batches.
type boot struct {
	node, name string
	batches    []audit.BatchFile
}

func (x *Index) file(b *boot) string { return filepath.Join(x.Dir, b.node, b.name+fileSuffix) }

// boots yields the boots of the nodes, each node's oldest first.
func (x *Index) boots(only func(node, boot string) bool) iter.Seq2[*boot, error] {
	return func(yield func(*boot, error) bool) {
		all, err := x.Folder.Boots()
		if err != nil {
			yield(nil, err)
			return
		}
		nodes := make([]string, 0, len(all))
		for node := range all {
			nodes = append(nodes, node)
		}
		slices.Sort(nodes)
		for _, node := range nodes {
			for _, name := range all[node] {
				if only != nil && !only(node, name) {
					continue
				}
				b := &boot{node: node, name: name}
				if b.batches, err = x.Folder.Batches(node, name); !yield(b, err) || err != nil {
					return
				}
			}
		}
	}
}

// Update brings the index up to date with the folder: it checks that it is whole
// and fits the files, and reads the batches that it does not know.
func (x *Index) Update(ctx context.Context) (*Updated, error) {
	u := &Updated{unsaved: map[string][]*summary{}}
	for b, err := range x.boots(nil) {
		if err == nil {
			err = x.update(ctx, b, u)
		}
		if err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
	}
	return u, nil
}

func (x *Index) update(ctx context.Context, b *boot, u *Updated) error {
	known, end, whole := 0, int64(0), true
	for s, at := range x.stored(b, &whole) {
		if known < len(b.batches) && s.of(&b.batches[known]) {
			known, end = known+1, at
		} else if known == 0 || s.First > b.batches[known-1].First {
			whole = false
			break
		}
	}
	u.Batches += len(b.batches)
	if !whole {
		u.Damaged++
	}
	if known == len(b.batches) && whole {
		return nil
	}
	fresh := b.batches[known:]
	save, err := x.reopen(b, end)
	var kept []*summary
	for s := range inorder.Map(x.workers(), slices.Values(fresh), func(f audit.BatchFile) *summary {
		batch, err := x.Folder.Read(f)
		return summarise(f, batch, err)
	}) {
		if err := ctx.Err(); err != nil {
			_ = save.close()
			return err
		}
		if u.Read++; x.Progress != nil {
			x.Progress(u.Read, u.Batches, true)
		}
		if err == nil {
			err = save.write(s)
		}
		if err != nil {
			kept = append(kept, s)
		}
	}
	if err = errors.Join(err, save.close()); err != nil {
		u.Unsaved, u.unsaved[x.file(b)] = err, kept
	}
	return nil
}

// stored yields the summaries of a boot's file, each with where its frame ends.
// whole becomes false when something in it is damaged; what comes behind that is
// not yielded. A file that is not there is whole and empty.
func (x *Index) stored(b *boot, whole *bool) iter.Seq2[*summary, int64] {
	return func(yield func(*summary, int64) bool) {
		path := x.file(b)
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if *whole = err == nil && info.Mode().IsRegular(); !*whole {
			return
		}
		f, err := os.Open(path)
		if err != nil {
			*whole = false
			return
		}
		defer f.Close()
		r := bufio.NewReaderSize(f, 256<<10)
		at := int64(len(fileTitle))
		title := make([]byte, len(fileTitle))
		if _, err := io.ReadFull(r, title); err != nil || string(title) != fileTitle {
			*whole = false
			return
		}
		for {
			s, n, err := readFrame(r)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				*whole = false
				return
			}
			if at += n; !yield(s, at) {
				return
			}
		}
	}
}

// readFrame reads one frame; io.EOF is the end behind a whole one.
func readFrame(r io.Reader) (*summary, int64, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errDamaged
		}
		return nil, 0, err
	}
	length := binary.LittleEndian.Uint32(head[:])
	if length > maxSummaryBytes {
		return nil, 0, errDamaged
	}
	// What is read is not more than what is there, whatever the header says.
	doc, err := io.ReadAll(io.LimitReader(r, int64(length)))
	if err != nil {
		return nil, 0, err
	}
	if len(doc) != int(length) || crc32.Checksum(doc, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, 0, errDamaged
	}
	s, err := decodeSummary(doc)
	if err != nil {
		return nil, 0, errDamaged
	}
	return s, int64(frameHeader) + int64(length), nil
}

func appendFrame(dst []byte, s *summary) ([]byte, error) {
	doc, err := wire.Marshal(s)
	if err != nil {
		return nil, err
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(doc)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(doc, castagnoli))
	return append(dst, doc...), nil
}

// A saver appends to a file of the index.
type saver struct{ f *os.File }

// reopen keeps the first end bytes of a boot's file, 0 for none, and opens it for
// more. A file from which something must go is replaced by a copy, so that who
// reads it meanwhile reads on.
func (x *Index) reopen(b *boot, end int64) (*saver, error) {
	path := x.file(b)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.Mode().IsRegular() && info.Size() == end && end > 0:
	case err == nil || errors.Is(err, fs.ErrNotExist):
		if err := x.copyHead(path, end); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &saver{f}, nil
}

func (x *Index) copyHead(path string, end int64) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if end == 0 {
		_, err = tmp.WriteString(fileTitle)
	} else {
		var old *os.File
		if old, err = os.Open(path); err == nil {
			_, err = io.CopyN(tmp, old, end)
			err = errors.Join(err, old.Close())
		}
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// write appends one frame with one call, so that those of two processes do not mix.
func (s *saver) write(sum *summary) error {
	frame, err := appendFrame(nil, sum)
	if err != nil {
		return err
	}
	_, err = s.f.Write(frame)
	return err
}

func (s *saver) close() error {
	if s == nil || s.f == nil {
		return nil
	}
	return s.f.Close()
}
