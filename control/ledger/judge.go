package ledger

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-policy/holdfast/sdk/audit"
)

// A head is the tree of what is archived of one boot.
type head struct {
	size uint64
	root tlog.Hash
}

// A reason says why a batch was refused. It is part of a file name.
type reason string

// The reasons.
const (
	malformed   reason = "malformed"    // is no batch, or not of the boot its subject names
	oversize    reason = "oversize"     // beyond the bounds of a batch
	wrongTenant reason = "wrong-tenant" // of another tenant than the stream
	wrongNode   reason = "wrong-node"   // of another node than its subject names
	unknownNode reason = "unknown-node" // no key of the node is known
	forged      reason = "forged"       // does not verify under the node's key
	gap         reason = "gap"          // records before it are missing
	fork        reason = "fork"         // contradicts what the node signed before
	futureBoot  reason = "future-boot"  // its boot does not follow what is known of the node
	quarantined reason = "quarantined"  // its boot has forked before
	damaged     reason = "damaged"      // a file of the archive that is not what was archived

	underHold     reason = "under-hold"     // an erasure of records that a hold keeps
	documentsFull reason = "documents-full" // no room for another document
)

// A refusal is a batch that is kept as evidence instead of in the archive.
type refusal struct {
	reason reason
	text   string
}

func (r *refusal) Error() string { return string(r.reason) + ": " + r.text }

func refuse(why reason, format string, v ...any) error {
	return &refusal{why, fmt.Sprintf(format, v...)}
}

// judge says what a verified batch adds to the archived tree of its boot: the
// batch itself; what of it goes beyond the archive, when a node ships again
// with other boundaries; or nil when all of it is archived. rootAt returns the
// archived tree's root at a smaller size, and false when the archive cannot say.
func judge(h head, b *audit.Batch, c audit.Checkpoint, rootAt func(size uint64) (tlog.Hash, bool)) (*audit.Batch, error) {
	switch {
	case b.First > h.size+1:
		return nil, refuse(gap, "records %d-%d are missing", h.size+1, b.First-1)
	case b.Last() <= h.size:
		if root, ok := rootAt(b.Last()); ok && root != c.Root {
			return nil, refuse(fork, "two signed trees of size %d", c.Size)
		}
		return nil, nil
	}
	tree, _ := audit.NewFrontier(b.First-1, append([]tlog.Hash(nil), b.Frontier...))
	known := int(h.size + 1 - b.First)
	for _, e := range b.Entries[:known] {
		tree.Append(e.Hash())
	}
	if h.size > 0 && tree.Root() != h.root {
		return nil, refuse(fork, "records up to %d are not those which the node signed before", h.size)
	}
	if known == 0 {
		return b, nil
	}
	return tail(b, h.size+1), nil
}

// tail returns what is in a batch from record first on.
func tail(b *audit.Batch, first uint64) *audit.Batch {
	if first <= b.First {
		return b
	}
	tree, _ := audit.NewFrontier(b.First-1, append([]tlog.Hash(nil), b.Frontier...))
	known := first - b.First
	for _, e := range b.Entries[:known] {
		tree.Append(e.Hash())
	}
	rest := *b
	rest.First, rest.Frontier, rest.Entries = first, tree.Roots(), b.Entries[known:]
	return &rest
}

// rootWithin returns the root of the tree of the given size, which must be at
// least b.First-1 and at most b.Last.
func rootWithin(b *audit.Batch, size uint64) tlog.Hash {
	tree, _ := audit.NewFrontier(b.First-1, append([]tlog.Hash(nil), b.Frontier...))
	for _, e := range b.Entries[:size+1-b.First] {
		tree.Append(e.Hash())
	}
	return tree.Root()
}
