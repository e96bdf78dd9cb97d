package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A group is one commit of a journal: a header of GroupHeaderBytes and a
// payload of entries. All integers are little-endian:
//
//	 0  "HFG2"
//	 4  u32 payload length
//	 8  u64 first seq
//	16  u64 durable through: every record up to it was fsynced before this
//	24  u32 number of entries
//	28  u32 CRC32C of the payload
//	32  u32 zero
//	36  u32 CRC32C of the 36 bytes before
//
// Both checksums begin with the journal's salt for the boot, so that no record
// can contain something that passes for a group. An entry is the length of the
// leaf, the leaf, the number of parts and, for each, its length and bytes, the
// key likewise, and the blobs as the parts; numbers are uvarints. Groups that
// begin with "HFG1" have neither key nor blobs.
const (
	GroupHeaderBytes = 40
	// MaxGroupBytes bounds a group's payload.
	MaxGroupBytes = 2 << 20
	maxParts      = 8
	maxBlobs      = maxParts * (MaxSlots + 1)
)

// GroupMagic begins every group, of whatever version: a digit follows.
const (
	GroupMagic = "HFG"
	newMagic   = GroupMagic + "2"
	oldMagic   = GroupMagic + "1"
)

// ErrGroup is returned for bytes that are not a group, or no longer.
var ErrGroup = errors.New("not an intact group")

// A GroupHeader describes the payload behind it.
type GroupHeader struct {
	Length         uint32
	First          uint64
	DurableThrough uint64
	Count          uint32
	payload        uint32
	old            bool
}

func checksum(salt uint32, b []byte) uint32 {
	return crc32.Update(salt, crc32.MakeTable(crc32.Castagnoli), b)
}

// AppendEntry appends an entry to a group's payload.
func AppendEntry(dst []byte, e Entry) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(e.Leaf))), e.Leaf...)
	dst = appendList(dst, e.Parts)
	dst = append(binary.AppendUvarint(dst, uint64(len(e.Key))), e.Key...)
	return appendList(dst, e.Blobs)
}

func appendList(dst []byte, list [][]byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, b := range list {
		dst = append(binary.AppendUvarint(dst, uint64(len(b))), b...)
	}
	return dst
}

// SealGroup writes the header into the first GroupHeaderBytes of group, whose
// rest is the payload.
func SealGroup(group []byte, salt uint32, first, durableThrough uint64, count int) {
	h, payload := group[:GroupHeaderBytes], group[GroupHeaderBytes:]
	copy(h, newMagic)
	le := binary.LittleEndian
	le.PutUint32(h[4:], uint32(len(payload)))
	le.PutUint64(h[8:], first)
	le.PutUint64(h[16:], durableThrough)
	le.PutUint32(h[24:], uint32(count))
	le.PutUint32(h[28:], checksum(salt, payload))
	le.PutUint32(h[32:], 0)
	le.PutUint32(h[36:], checksum(salt, h[:36]))
}

// ParseGroupHeader reads a header, or returns ErrGroup.
func ParseGroupHeader(b []byte, salt uint32) (GroupHeader, error) {
	if len(b) < GroupHeaderBytes || string(b[:4]) != newMagic && string(b[:4]) != oldMagic {
		return GroupHeader{}, ErrGroup
	}
	le := binary.LittleEndian
	if le.Uint32(b[36:]) != checksum(salt, b[:36]) || le.Uint32(b[32:]) != 0 {
		return GroupHeader{}, fmt.Errorf("header checksum: %w", ErrGroup)
	}
	h := GroupHeader{
		Length: le.Uint32(b[4:]), First: le.Uint64(b[8:]), DurableThrough: le.Uint64(b[16:]),
		Count: le.Uint32(b[24:]), payload: le.Uint32(b[28:]), old: string(b[:4]) == oldMagic,
	}
	if h.Length > MaxGroupBytes || h.Count == 0 || h.First == 0 || h.DurableThrough >= h.First || uint64(h.Count)*2 > uint64(h.Length) {
		return GroupHeader{}, fmt.Errorf("header out of bounds: %w", ErrGroup)
	}
	return h, nil
}

// Entries reads the payload, or returns ErrGroup. The entries share its memory.
func (h GroupHeader) Entries(payload []byte, salt uint32) ([]Entry, error) {
	if uint64(len(payload)) != uint64(h.Length) || checksum(salt, payload) != h.payload {
		return nil, fmt.Errorf("payload checksum: %w", ErrGroup)
	}
	entries := make([]Entry, 0, h.Count)
	for range h.Count {
		e, rest, err := cutEntry(payload, h.old)
		if err != nil {
			return nil, err
		}
		entries, payload = append(entries, e), rest
	}
	if len(payload) != 0 {
		return nil, fmt.Errorf("%d bytes behind the last entry: %w", len(payload), ErrGroup)
	}
	return entries, nil
}

func cutEntry(b []byte, old bool) (e Entry, rest []byte, err error) {
	if e.Leaf, b, err = cutBytes(b); err != nil {
		return e, nil, err
	}
	if e.Parts, b, err = cutList(b, maxParts); err != nil || old {
		return e, b, err
	}
	key, b, err := cutBytes(b)
	if err != nil {
		return e, nil, err
	}
	if len(key) > 0 {
		e.Key = key
	}
	e.Blobs, b, err = cutList(b, maxBlobs)
	return e, b, err
}

func cutList(b []byte, most uint64) (list [][]byte, rest []byte, err error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > most {
		return nil, nil, fmt.Errorf("list in an entry: %w", ErrGroup)
	}
	b = b[k:]
	for range n {
		var part []byte
		if part, b, err = cutBytes(b); err != nil {
			return nil, nil, err
		}
		list = append(list, part)
	}
	return list, b, nil
}

func cutBytes(b []byte) (head, rest []byte, err error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, fmt.Errorf("length of an entry: %w", ErrGroup)
	}
	end := k + int(n)
	return b[k:end:end], b[end:], nil
}
