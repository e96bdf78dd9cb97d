package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A segment file begins with a header of segmentHeaderBytes: "HFSEG1", u16
// number of frontier roots, u64 first seq (little-endian), the roots, zeros, u64
// first seq and u64 length of the segment before, both 0 when there was none, and
// a salted CRC32C of all before it. The frontier is that of the tree before the
// first record, so that reading can begin at any segment; the segment before is
// named so that one that was deleted or cut is missed without reading it.
const (
	segmentMagic       = "HFSEG1"
	maxRoots           = 62
	segmentHeaderBytes = 16 + 64*tlog.HashSize + 4
	segmentSuffix      = ".seg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A predecessor is what a segment's header says of the segment before it.
type predecessor struct {
	first uint64 // 0: the header names none
	size  int64
}

func segmentHeader(salt uint32, f *audit.Frontier, before predecessor) []byte {
	h := make([]byte, segmentHeaderBytes)
	copy(h, segmentMagic)
	roots := f.Roots()
	binary.LittleEndian.PutUint16(h[6:], uint16(len(roots)))
	binary.LittleEndian.PutUint64(h[8:], f.Size()+1)
	for i, r := range roots {
		copy(h[16+i*tlog.HashSize:], r[:])
	}
	sum := segmentHeaderBytes - 4
	binary.LittleEndian.PutUint64(h[sum-16:], before.first)
	binary.LittleEndian.PutUint64(h[sum-8:], uint64(before.size))
	binary.LittleEndian.PutUint32(h[sum:], crc32.Update(salt, castagnoli, h[:sum]))
	return h
}

func parseSegmentHeader(h []byte, salt uint32) (audit.Frontier, predecessor, error) {
	sum := segmentHeaderBytes - 4
	if len(h) < segmentHeaderBytes || binary.LittleEndian.Uint32(h[sum:]) != crc32.Update(salt, castagnoli, h[:sum]) {
		return audit.Frontier{}, predecessor{}, errors.New("segment header checksum")
	}
	n, first := int(binary.LittleEndian.Uint16(h[6:])), binary.LittleEndian.Uint64(h[8:])
	if string(h[:6]) != segmentMagic || n > maxRoots || first == 0 {
		return audit.Frontier{}, predecessor{}, errors.New("not a segment header")
	}
	roots := make([]tlog.Hash, n)
	for i := range roots {
		copy(roots[i][:], h[16+i*tlog.HashSize:])
	}
	f, ok := audit.NewFrontier(first-1, roots)
	if !ok {
		return audit.Frontier{}, predecessor{}, errors.New("segment header with a wrong number of roots")
	}
	before := predecessor{binary.LittleEndian.Uint64(h[sum-16:]), int64(binary.LittleEndian.Uint64(h[sum-8:]))}
	if before.first >= first || before.size < 0 {
		before = predecessor{}
	}
	return f, before, nil
}

// A segment is one file of a boot.
type segment struct {
	first uint64
	path  string
}

// A segmentReader reads the groups of one open segment, in order.
type segmentReader struct {
	f    File
	salt uint32
	size int64 // of the file
	off  int64 // of the next group
	next uint64
	// frontier is that of the tree before the first record, once the header was read.
	frontier audit.Frontier
	before   predecessor
}

// Errors about a segment's content. A crash can leave a broken group at the
// end; it cannot leave an intact one at a wrong place.
var (
	errBroken    = errors.New("broken")
	errMisplaced = errors.New("misplaced")
	// errUnreadable is the disk's own word: no crash is behind it, and nothing may
	// be cut for it.
	errUnreadable = errors.New("cannot be read")
)

// readError says whether what failed to be read is not there or cannot be read.
func readError(what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s: %w", errBroken, what, err)
	}
	return fmt.Errorf("%w: %s: %w", errUnreadable, what, err)
}

func openSegment(fs FS, s segment, salt uint32) (*segmentReader, error) {
	f, err := fs.OpenFile(s.path, os.O_RDONLY, 0)
	if err != nil {
		return nil, readError("segment", err)
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(readError("segment", err), f.Close())
	}
	return &segmentReader{f: f, salt: salt, size: size, next: s.first}, nil
}

// header reads the segment's header; the groups follow.
func (r *segmentReader) header() error {
	h := make([]byte, segmentHeaderBytes)
	if _, err := r.f.ReadAt(h, 0); err != nil {
		return readError("segment header", err)
	}
	f, before, err := parseSegmentHeader(h, r.salt)
	if err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	if f.Size()+1 != r.next {
		return fmt.Errorf("%w: the segment begins with record %d, its name says %d", errBroken, f.Size()+1, r.next)
	}
	r.frontier, r.before, r.off = f, before, segmentHeaderBytes
	return nil
}

// group returns the next group: io.EOF at the end of the file or where only
// unused space can follow, errBroken or errMisplaced for anything but the group
// that has to be there.
func (r *segmentReader) group() (audit.GroupHeader, []audit.Entry, error) {
	head := make([]byte, audit.GroupHeaderBytes)
	n, err := r.f.ReadAt(head, r.off)
	if (n == len(head) || errors.Is(err, io.EOF)) && allZero(head[:n]) {
		return audit.GroupHeader{}, nil, io.EOF
	}
	if n < len(head) {
		return audit.GroupHeader{}, nil, readError("group header", err)
	}
	h, err := audit.ParseGroupHeader(head, r.salt)
	if err != nil {
		return h, nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	if h.First != r.next {
		return h, nil, fmt.Errorf("%w: a group begins with record %d, not %d", errMisplaced, h.First, r.next)
	}
	if r.off+audit.GroupHeaderBytes+int64(h.Length) > r.size {
		return h, nil, fmt.Errorf("%w: the file ends within a group", errBroken)
	}
	payload := make([]byte, h.Length)
	if _, err := r.f.ReadAt(payload, r.off+audit.GroupHeaderBytes); err != nil {
		return h, nil, readError("group payload", err)
	}
	entries, err := h.Entries(payload, r.salt)
	if err != nil {
		return h, nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	r.off += audit.GroupHeaderBytes + int64(h.Length)
	r.next += uint64(h.Count)
	return h, entries, nil
}

// rest looks at everything from off on: how many bytes there are up to the last
// one that is not zero, and the highest seq that an intact group header among
// them says was durable.
func (r *segmentReader) rest() (used int64, durable uint64, err error) {
	const chunk = 1 << 20
	buf := make([]byte, chunk+audit.GroupHeaderBytes)
	for at := r.off; at < r.size; at += chunk {
		n, err := r.f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return used, durable, err
		}
		if b := bytes.TrimRight(buf[:n], "\x00"); len(b) > 0 {
			used = at + int64(len(b)) - r.off
		}
		for b := buf[:n]; ; b = b[1:] {
			i := bytes.Index(b, []byte(audit.GroupMagic))
			if i < 0 {
				break
			}
			b = b[i:]
			if h, err := audit.ParseGroupHeader(b, r.salt); err == nil {
				durable = max(durable, h.DurableThrough)
			}
		}
	}
	return used, durable, nil
}

func (r *segmentReader) close() { _ = r.f.Close() } // it was only read

func allZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
