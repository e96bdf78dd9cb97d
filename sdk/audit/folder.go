package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
)

// A Folder reads the batches of an export or of a ledger's archive, which have
// the same folders. It believes nothing and proves nothing: see Batch.Verify. A
// file that is not regular is not there.
type Folder struct{ FS fs.FS }

// A BatchFile is a batch by what its name says.
type BatchFile struct {
	Node, Boot string
	// Name is the path of the file, Beside that of its blobs, "" for none.
	Name, Beside string
	First        uint64
	// Size is the length of both files in bytes, Modified the time of the later
	// one, in nanoseconds since 1970.
	Size, Modified int64
}

// Boots lists the boots of every node, sorted.
func (f Folder) Boots() (map[string][]string, error) {
	out := map[string][]string{}
	nodes, err := f.folders(nodesFolder)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if !ValidName(node) {
			continue
		}
		boots, err := f.folders(path.Join(nodesFolder, node))
		if err != nil {
			return nil, err
		}
		out[node] = slices.DeleteFunc(boots, func(boot string) bool {
			_, _, err := ParseBootID(boot)
			return err != nil
		})
	}
	return out, nil
}

func (f Folder) folders(dir string) (names []string, err error) {
	entries, err := fs.ReadDir(f.FS, dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Batches lists the batches of a boot in the order of their first records.
func (f Folder) Batches(node, boot string) ([]BatchFile, error) {
	dir := path.Join(nodesFolder, node, boot)
	entries, err := fs.ReadDir(f.FS, dir)
	if err != nil {
		return nil, err
	}
	var out []BatchFile
	sides := map[string]fs.FileInfo{}
	for _, e := range entries {
		first, ok := leadingNumber(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken away meanwhile
		}
		if err != nil {
			return nil, err
		}
		switch path.Ext(e.Name()) {
		case sideSuffix:
			sides[path.Join(dir, e.Name())] = info
		case batchSuffix:
			out = append(out, BatchFile{
				Node: node, Boot: boot, Name: path.Join(dir, e.Name()), First: first, Size: info.Size(), Modified: info.ModTime().UnixNano(),
			})
		}
	}
	for i := range out {
		if info := sides[besideOf(out[i].Name)]; info != nil {
			out[i].Beside = besideOf(out[i].Name)
			out[i].Size += info.Size()
			out[i].Modified = max(out[i].Modified, info.ModTime().UnixNano())
		}
	}
	return out, nil
}

// Read returns a batch with the blobs that lie beside it. It is of the node, the
// boot and the first record that its name says.
func (f Folder) Read(b BatchFile) (*Batch, error) {
	frame, err := readFile(f.FS, b.Name, MaxFrameBytes)
	if err != nil {
		return nil, err
	}
	batch, err := DecodeBatch(frame)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name, err)
	}
	if batch.Node != b.Node || batch.Boot != b.Boot || batch.First != b.First {
		return nil, fmt.Errorf("%s: the batch of %s/%s from %d", b.Name, batch.Node, batch.Boot, batch.First)
	}
	if b.Beside == "" {
		return batch, nil
	}
	if frame, err = readFile(f.FS, b.Beside, MaxBatchBytes); err != nil {
		return nil, err
	}
	side, err := DecodeSide(frame)
	if err == nil {
		err = batch.Join(side)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Beside, err)
	}
	return batch, nil
}

// ReadAll yields the batches from the one that holds record seq on; the last pair
// may hold an error.
func (f Folder) ReadAll(files []BatchFile, seq uint64) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		from := 0
		for i, b := range files {
			if b.First <= seq {
				from = i
			}
		}
		for _, file := range files[min(from, len(files)):] {
			b, err := f.Read(file)
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

// Checkpoints returns the signed checkpoints and receipts of a boot that lie
// beside its batches.
func (f Folder) Checkpoints(node, boot string) (notes [][]byte, err error) {
	const archived = "receipt" // of a ledger's archive
	dir := path.Join(nodesFolder, node, boot)
	entries, err := fs.ReadDir(f.FS, dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || e.Name() != archived && !strings.HasSuffix(e.Name(), checkpointSuffix) {
			continue
		}
		msg, err := readFile(f.FS, path.Join(dir, e.Name()), MaxNoteBytes)
		if err != nil {
			return nil, err
		}
		notes = append(notes, msg)
	}
	return notes, nil
}
