package release

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Blobs returns the digests of the release's packages, sorted, each once.
func Blobs(r *bundle.Release) []wire.Digest {
	seen := map[wire.Digest]bool{}
	for _, p := range r.Points {
		for _, ref := range p.Packages {
			seen[ref.Digest] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b wire.Digest) int { return strings.Compare(a.Hex(), b.Hex()) })
}

// ErrNotNext is returned by Follows.
var ErrNotNext = errors.New("release does not follow the newest one")

// Follows returns ErrNotNext, with what to do, unless next replaces newest, the
// newest release of its region; nil is a region without one. Only publishing asks:
// a node takes any higher epoch, so that one that was away is not stuck.
func Follows(next, newest *bundle.SignedRelease) error {
	switch {
	case newest == nil && next.Previous.IsZero():
		return nil
	case newest == nil:
		return fmt.Errorf("%w: it replaces %s, and nothing is published here yet: publish that one first", ErrNotNext, next.Previous)
	case next.Digest == newest.Digest:
		return nil // again
	case next.Previous != newest.Digest:
		return fmt.Errorf("%w: it replaces %s, but the newest is epoch %d, %s: somebody published in between. Make it again with "+
			"holdfast release new --previous that release, look at the diff, and have both sign", ErrNotNext, previousText(next), newest.Epoch, newest.Digest)
	case next.Epoch <= newest.Epoch:
		return fmt.Errorf("%w: epoch %d after %d; epochs only rise", ErrNotNext, next.Epoch, newest.Epoch)
	}
	return nil
}

func previousText(s *bundle.SignedRelease) string {
	if s.Previous.IsZero() {
		return "nothing"
	}
	return s.Previous.String()
}

// Rollback returns the release that brings back the content of old as a new
// epoch after newest. Its rings and their thresholds are left out: what was in
// force before is taken by every node at once.
func Rollback(old *bundle.Release, newest *bundle.SignedRelease, note string, created time.Time) (*bundle.Release, error) {
	next := *old
	next.Epoch, next.Previous, next.Fallback = newest.Epoch+1, newest.Digest, bundle.FallbackPrevious
	next.Created, next.NotBefore, next.Expires, next.Note = created.Unix(), 0, 0, note
	next.Rings, next.Halt = nil, bundle.Halt{}
	if old.Tenant != newest.Tenant {
		return nil, fmt.Errorf("roll back: the release is of tenant %s, the newest of %s", old.Tenant, newest.Tenant)
	}
	if err := next.Validate(); err != nil {
		return nil, fmt.Errorf("roll back: %w", err)
	}
	return &next, nil
}
