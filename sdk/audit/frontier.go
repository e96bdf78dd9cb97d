package audit

import (
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// A Frontier is a tree to which leaves are appended, reduced to the roots of
// its complete subtrees, largest first: at most 64 hashes. The zero value is
// the empty tree.
type Frontier struct {
	size  uint64
	roots []tlog.Hash
}

// NewFrontier returns the frontier of a tree with size leaves. The number of
// roots must be the number of ones in size; otherwise ok is false.
func NewFrontier(size uint64, roots []tlog.Hash) (f Frontier, ok bool) {
	return Frontier{size, roots}, len(roots) == bits.OnesCount64(size)
}

// Size is the number of leaves.
func (f *Frontier) Size() uint64 { return f.size }

// Roots returns the roots of the complete subtrees, largest first. The slice
// is the caller's.
func (f *Frontier) Roots() []tlog.Hash { return append([]tlog.Hash(nil), f.roots...) }

// Append adds one leaf.
func (f *Frontier) Append(leaf tlog.Hash) {
	for n := f.size; n&1 == 1; n >>= 1 {
		last := len(f.roots) - 1
		leaf = tlog.NodeHash(f.roots[last], leaf)
		f.roots = f.roots[:last]
	}
	f.roots = append(f.roots, leaf)
	f.size++
}

// Root is the RFC 6962 tree hash.
func (f *Frontier) Root() tlog.Hash {
	if f.size == 0 {
		root, _ := tlog.TreeHash(0, nil)
		return root
	}
	root := f.roots[len(f.roots)-1]
	for i := len(f.roots) - 2; i >= 0; i-- {
		root = tlog.NodeHash(f.roots[i], root)
	}
	return root
}

// Clone returns a copy that shares nothing with f.
func (f *Frontier) Clone() Frontier { return Frontier{f.size, f.Roots()} }
