package loader

import (
	"cmp"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// keepNewest is how many releases the folder keeps besides those in use.
const keepNewest = 4

// collect removes what no release needs any more: not the one in force, the way
// back, the candidate, or one of the newest. The caller holds building, so that
// nothing is fetched meanwhile.
func (l *Loader) collect() {
	l.swapping.Lock()
	ratchet := l.ratchet
	needed := map[wire.Digest]bool{} // packages
	for _, h := range []*held{l.active, l.back, l.candidate} {
		if h != nil {
			need(needed, &h.rel.Release)
		}
	}
	l.swapping.Unlock()
	stored, err := l.store.releases()
	if err != nil {
		l.config.Log.Warn("stored releases are not collected", "error", err)
		return
	}
	releases := make([]*bundle.SignedRelease, 0, len(stored))
	for _, env := range stored {
		s, err := l.reopen(env)
		if err != nil {
			return // nothing is removed from a folder that is not understood
		}
		releases = append(releases, s)
	}
	slices.SortFunc(releases, func(a, b *bundle.SignedRelease) int { return cmp.Compare(b.Epoch, a.Epoch) })
	var gone []wire.Digest
	for i, s := range releases {
		if i < keepNewest || s.Digest == ratchet.Release || s.Digest == ratchet.Back {
			need(needed, &s.Release)
		} else {
			gone = append(gone, s.Digest)
		}
	}
	l.config.Step("collect")
	if err := l.store.remove(gone, needed, ratchet.Epoch); err != nil {
		l.config.Log.Warn("stored releases are not collected", "error", err)
	}
}

func need(packages map[wire.Digest]bool, r *bundle.Release) {
	for _, p := range r.Points {
		for _, ref := range p.Packages {
			packages[ref.Digest] = true
		}
	}
}
