// Package audit is the evidence: what a decision leaves behind, how it is
// bound into a Merkle tree (RFC 6962) that its node signs and regions
// counter-sign, and how anybody with the public keys proves offline that none
// of it is missing or altered.
//
// A record's name is (node, boot, seq). Each boot of a node is one tree; the
// leaf of seq n has index n-1. The first leaf of a boot is its boot record,
// which names the end of the boot before it.
package audit

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Bounds of what is written and of what is accepted.
const (
	// MaxEntryBytes bounds one record together with its parts.
	MaxEntryBytes = 640 << 10
	// MaxBatchRecords bounds the records of one batch.
	MaxBatchRecords = 1000
	// MaxBatchBytes bounds a batch before compression.
	MaxBatchBytes = 8 << 20
	// MaxFrameBytes bounds a batch's frame, so that it fits one message.
	MaxFrameBytes = 768 << 10
	// MaxNoteBytes bounds a checkpoint or receipt with all its signatures.
	MaxNoteBytes = 16 << 10
)

// A Ref is the name of a record in its node's journal, with its leaf hash.
type Ref struct {
	Boot string
	Seq  uint64
	Leaf tlog.Hash
}

// A Range is an inclusive range of sequence numbers; in JSON it is [from, to].
type Range struct{ From, To uint64 }

// MarshalJSON writes [from, to].
func (r Range) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "[%d,%d]", r.From, r.To), nil }

// UnmarshalJSON reads [from, to].
func (r *Range) UnmarshalJSON(b []byte) error {
	var pair [2]uint64
	if err := json.Unmarshal(b, &pair); err != nil {
		return fmt.Errorf("range: %w", err)
	}
	r.From, r.To = pair[0], pair[1]
	return nil
}

func (r Range) String() string { return fmt.Sprintf("[%d,%d]", r.From, r.To) }

var name = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// ValidName reports whether s can name a tenant, a node or a region: 1 to 64
// letters, digits, dashes and underscores, so that it fits a file name, a NATS
// subject token and a key name.
func ValidName(s string) bool { return name.MatchString(s) }

// BootID returns the name of the counter's boot: the counter, so that names
// sort by time, and 64 random bits, so that no two boots share one.
func BootID(counter, random uint64) string { return fmt.Sprintf("%08d-%016x", counter, random) }

// ParseBootID reads what BootID wrote, and nothing else.
func ParseBootID(id string) (counter, random uint64, err error) {
	c, r, ok := strings.Cut(id, "-")
	if ok {
		counter, err = strconv.ParseUint(c, 10, 64)
	}
	if ok && err == nil {
		random, err = strconv.ParseUint(r, 16, 64)
	}
	if !ok || err != nil || BootID(counter, random) != id {
		return 0, 0, fmt.Errorf("boot %.40q is not a counter, a dash and 16 hexadecimal digits", id)
	}
	return counter, random, nil
}

// NodeKeyName is the note key name of a node's log key.
func NodeKeyName(tenant, node string) string { return "holdfast/" + tenant + "/" + node }

// RegionKeyName is the note key name of a region's ledger key.
func RegionKeyName(tenant, region string) string { return "holdfast/" + tenant + "/region/" + region }
