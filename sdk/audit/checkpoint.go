package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// A Checkpoint is the head of one boot's tree. As text it is a C2SP
// tlog-checkpoint with origin holdfast/TENANT/NODE/BOOT and extension lines:
// "time" and nanoseconds and, when there is one, "heartbeat" and a digest;
// signed, it is a C2SP signed note.
type Checkpoint struct {
	Tenant, Node, Boot string
	Size               uint64
	Root               tlog.Hash
	// Time is the node's wall clock when it signed, in nanoseconds since 1970.
	Time int64
	// Heartbeat is the digest of the envelope of the last heartbeat that the node
	// had heard: it signed no earlier than the region which sent that. Zero when
	// there was none.
	Heartbeat wire.Digest
}

// Origin is the checkpoint's first line.
func (c Checkpoint) Origin() string { return NodeKeyName(c.Tenant, c.Node) + "/" + c.Boot }

// Text is the checkpoint without signatures.
func (c Checkpoint) Text() string {
	text := fmt.Sprintf("%s\n%d\n%s\ntime %d\n", c.Origin(), c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), c.Time)
	if !c.Heartbeat.IsZero() {
		text += heartbeatLine + base64.StdEncoding.EncodeToString(c.Heartbeat[:]) + "\n"
	}
	return text
}

const heartbeatLine = "heartbeat "

// ParseCheckpoint reads what Text wrote, and nothing else.
func ParseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 5 && len(lines) != 6 {
		return Checkpoint{}, fmt.Errorf("checkpoint of %d lines, not 4 or 5", len(lines)-1)
	}
	var c Checkpoint
	origin := strings.Split(lines[0], "/")
	if len(origin) != 4 || !ValidName(origin[1]) || !ValidName(origin[2]) {
		return Checkpoint{}, fmt.Errorf("checkpoint origin %.200q is not holdfast/TENANT/NODE/BOOT", lines[0])
	}
	c.Tenant, c.Node, c.Boot = origin[1], origin[2], origin[3]
	if _, _, err := ParseBootID(c.Boot); err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	root, rootErr := base64.StdEncoding.DecodeString(lines[2])
	copy(c.Root[:], root)
	var sizeErr, timeErr error
	c.Size, sizeErr = strconv.ParseUint(lines[1], 10, 63)
	c.Time, timeErr = strconv.ParseInt(strings.TrimPrefix(lines[3], "time "), 10, 64)
	var heartErr error
	if len(lines) == 6 {
		var heard []byte
		heard, heartErr = base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[4], heartbeatLine))
		copy(c.Heartbeat[:], heard)
	}
	if err := errors.Join(sizeErr, rootErr, timeErr, heartErr); err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint %s: %w", c.Origin(), err)
	}
	if c.Text() != text {
		return Checkpoint{}, fmt.Errorf("checkpoint %s is not in its one form", c.Origin())
	}
	return c, nil
}

// Sign returns the checkpoint as a note signed by the node's log key.
func (c Checkpoint) Sign(key note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.Text()}, key)
}

// OpenCheckpoint verifies the signature of the node whose key is given, and
// that the key is the one which the origin names. Other signatures are ignored.
func OpenCheckpoint(msg []byte, node note.Verifier) (Checkpoint, error) {
	c, _, err := openNote(msg, node)
	return c, err
}

func openNote(msg []byte, node note.Verifier, regions ...note.Verifier) (Checkpoint, *note.Note, error) {
	if len(msg) > MaxNoteBytes {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint of %d bytes; at most %d", len(msg), MaxNoteBytes)
	}
	keys := keysOf(node)
	known := slices.Clone(regions)
	for _, k := range keys {
		known = append(known, k)
	}
	n, err := note.Open(msg, note.VerifierList(known...))
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint: %w", err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if node.Name() != NodeKeyName(c.Tenant, c.Node) || !slices.ContainsFunc(keys, func(k nodeKey) bool { return k.counts(c.Boot) && signedBy(n, k) }) {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint %s is not signed by its node", c.Origin())
	}
	return c, n, nil
}

func signedBy(n *note.Note, v note.Verifier) bool {
	for _, s := range n.Sigs {
		if s.Name == v.Name() && s.Hash == v.KeyHash() {
			return true
		}
	}
	return false
}

// PeekCheckpoint parses a signed checkpoint without verifying it, to find out
// whose key is needed.
func PeekCheckpoint(msg []byte) (Checkpoint, error) {
	if len(msg) > MaxNoteBytes {
		return Checkpoint{}, fmt.Errorf("checkpoint of %d bytes; at most %d", len(msg), MaxNoteBytes)
	}
	i := strings.Index(string(msg), "\n\n")
	if i < 0 {
		return Checkpoint{}, errors.New("checkpoint without signatures")
	}
	return ParseCheckpoint(string(msg[:i+1]))
}

// Cosign verifies the node's signature and adds the region's. The result is a
// receipt: one note with these two signatures and no other.
func Cosign(msg []byte, node note.Verifier, region note.Signer) ([]byte, error) {
	_, n, err := openNote(msg, node)
	if err != nil {
		return nil, err
	}
	n.UnverifiedSigs = nil
	return note.Sign(n, region)
}

// A Receipt is a checkpoint that a region's ledger holds and counter-signed.
type Receipt struct {
	Checkpoint
	Region string
}

// OpenReceipt verifies the signatures of both the node and the region.
func OpenReceipt(msg []byte, node, region note.Verifier) (Receipt, error) {
	c, n, err := openNote(msg, node, region)
	if err != nil {
		return Receipt{}, err
	}
	name, ok := strings.CutPrefix(region.Name(), RegionKeyName(c.Tenant, ""))
	if !ok || !signedBy(n, region) {
		return Receipt{}, fmt.Errorf("checkpoint %s is not counter-signed by %s", c.Origin(), region.Name())
	}
	return Receipt{c, name}, nil
}
