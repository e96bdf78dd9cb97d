package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// The names of an export's files.
const (
	manifestName     = "manifest"
	manifestTitle    = "holdfast export 1"
	nodesFolder      = "nodes"
	batchSuffix      = ".batch"
	checkpointSuffix = ".checkpoint"
	sideSuffix       = ".blobs"
)

// An ExportWriter writes the layout that Verify reads:
//
//	manifest                         every other file with SHA-256 and size
//	nodes/NODE/BOOT/FIRST.batch      frames as DecodeBatch reads them
//	nodes/NODE/BOOT/FIRST.blobs      blobs beside a batch, as DecodeSide reads them
//	nodes/NODE/BOOT/SIZE.checkpoint  signed checkpoints and receipts
//	documents/DIGEST.dsse            erasures and holds, as they were signed
//	sweeps/DIGEST.sweep              what a region deleted because it was old, signed
//
// FIRST and SIZE have 20 digits. It is not safe for concurrent use.
type ExportWriter struct {
	dir   string
	lines []string
}

// NewExportWriter begins an export in dir, which must be empty or not exist.
func NewExportWriter(dir string) (*ExportWriter, error) {
	there, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("export to %s: %w", dir, err)
	}
	if len(there) > 0 {
		return nil, fmt.Errorf("export to %s: the folder is not empty", dir)
	}
	return &ExportWriter{dir: dir}, os.MkdirAll(dir, 0o700)
}

// Batch adds one frame. It decodes the frame to learn its name, but does not
// verify it: an export hands over evidence as it is.
func (w *ExportWriter) Batch(frame []byte) error {
	b, err := DecodeBatch(frame)
	if err != nil {
		return err
	}
	return w.add(exportPath(b.Node, b.Boot, b.First, batchSuffix), frame)
}

// Side adds the blobs beside a batch.
func (w *ExportWriter) Side(frame []byte) error {
	s, err := DecodeSide(frame)
	if err != nil {
		return err
	}
	if _, _, err := ParseBootID(s.Boot); err != nil || !ValidName(s.Node) {
		return fmt.Errorf("export blobs of %.80q/%.80q: not names", s.Node, s.Boot)
	}
	return w.add(exportPath(s.Node, s.Boot, s.First, sideSuffix), frame)
}

// Checkpoint adds a signed checkpoint, with or without counter-signatures. A
// further one of the same boot and size gets a name of its own.
func (w *ExportWriter) Checkpoint(msg []byte) error {
	c, err := PeekCheckpoint(msg)
	if err != nil {
		return err
	}
	name := exportPath(c.Node, c.Boot, c.Size, checkpointSuffix)
	if _, err := os.Stat(filepath.Join(w.dir, filepath.FromSlash(name))); err == nil {
		name = exportPath(c.Node, c.Boot, c.Size, "-"+wire.Sum(msg).Short()+checkpointSuffix)
	}
	return w.add(name, msg)
}

func (w *ExportWriter) add(name string, content []byte) error {
	file := filepath.Join(w.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	w.lines = append(w.lines, fmt.Sprintf("%s %d %s\n", wire.Sum(content).Hex(), len(content), name))
	return nil
}

// Close writes the manifest. Without it the export is damaged.
func (w *ExportWriter) Close() error {
	text := manifestTitle + "\n" + strings.Join(w.lines, "")
	if err := os.WriteFile(filepath.Join(w.dir, manifestName), []byte(text), 0o600); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

func exportPath(node, boot string, n uint64, suffix string) string {
	return path.Join(nodesFolder, node, boot, fmt.Sprintf("%020d%s", n, suffix))
}

// An exportFile is what the manifest says of a file.
type exportFile struct {
	digest string // 64 hexadecimal digits
	size   int64
}

// readManifest returns the files of an export by path.
func readManifest(fsys fs.FS) (map[string]exportFile, error) {
	f, err := fsys.Open(manifestName)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	if !lines.Scan() || lines.Text() != manifestTitle {
		return nil, fmt.Errorf("the first line is not %q", manifestTitle)
	}
	files := map[string]exportFile{}
	for n := 2; lines.Scan(); n++ {
		digest, rest, _ := strings.Cut(lines.Text(), " ")
		size, name, _ := strings.Cut(rest, " ")
		length, err := strconv.ParseInt(size, 10, 64)
		if _, twice := files[name]; err != nil || twice || len(digest) != 64 || !fs.ValidPath(name) {
			return nil, fmt.Errorf("line %d is not a digest, a size and a new path", n)
		}
		files[name] = exportFile{digest, length}
	}
	return files, lines.Err()
}
