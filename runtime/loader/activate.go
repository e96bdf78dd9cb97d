package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/engine"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// The reasons of this package for which a release does not come into force.
var (
	// ErrDurability: a point demands more than this build of the node waits for.
	ErrDurability = errors.New("durability class is not available on this node")
	// ErrDigest: a package is not the one that the release names.
	ErrDigest = errors.New("digest does not match")
	// ErrVectors: a package's golden vectors did not pass here.
	ErrVectors = errors.New("golden vectors failed")
)

// coldStart reads the ratchet and puts its release into force again.
func (l *Loader) coldStart(ctx context.Context) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	if err := l.readRatchet(); err != nil || l.ratchet.Epoch == 0 {
		return err
	}
	env, err := l.store.release(l.ratchet.Release)
	if err != nil {
		l.refuse(l.ratchet.Release, l.ratchet.Release, fmt.Errorf("release in force: %w", err))
		return nil
	}
	l.offer(ctx, env, nil) // it has told its own error
	return ctx.Err()
}

func (l *Loader) readRatchet() (err error) {
	l.ratchet, err = l.store.ratchet()
	switch {
	case errors.Is(err, bundle.ErrRatchetState), errors.Is(err, fs.ErrNotExist):
		why := err
		if l.ratchet, err = l.newestStored(); l.ratchet.Epoch != 0 {
			l.config.Log.Error("ratchet is lost; rebuilt from the newest release stored", "error", why, "epoch", l.ratchet.Epoch)
		}
	}
	if err != nil {
		return fmt.Errorf("loader: read ratchet: %w", err)
	}
	l.setRatchet(l.ratchet)
	if behind := l.ratchet.ClockBehind(l.config.Now()); behind > 0 {
		l.config.Log.Warn("wall clock is before a time that has passed", "behind", behind)
	}
	return nil
}

// newestStored rebuilds a lost ratchet. Releases are stored before the ratchet
// names them and are not removed, so that the newest is never older than it was.
func (l *Loader) newestStored() (r bundle.Ratchet, err error) {
	envelopes, err := l.store.releases()
	for _, env := range envelopes {
		s, err := l.config.Root.ReopenRelease(env)
		if err == nil && s.Epoch > r.Epoch {
			r = bundle.Ratchet{RootVersion: s.RootVersion, Epoch: s.Epoch, Release: s.Digest}
		}
	}
	return r, err
}

// offer is Offer for the holder of the turn; source may be nil.
func (l *Loader) offer(ctx context.Context, env []byte, source Source) error {
	id := wire.Sum(env)
	s, err := l.config.Root.OpenRelease(env, l.config.Now())
	if errors.Is(err, bundle.ErrRootExpired) {
		// What has been admitted before stays admitted.
		if again, e := l.config.Root.ReopenRelease(env); e == nil && again.Digest == l.ratchet.Release {
			s, err = again, nil
		}
	}
	name := id
	if err == nil {
		name = s.Digest
		err = l.activate(ctx, s, source)
	}
	switch {
	case err == nil:
		delete(l.told, id)
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if errors.As(err, &temporary{}) {
		l.keep(env)
	}
	l.refuse(id, name, err)
	return err
}

// keep has an envelope tried again; the oldest makes room.
func (l *Loader) keep(env []byte) {
	if len(l.pending) == maxPending {
		l.pending = l.pending[1:]
	}
	if !slices.ContainsFunc(l.pending, func(p []byte) bool { return string(p) == string(env) }) {
		l.pending = append(l.pending, slices.Clone(env))
	}
}

// refuse tells once for each cause why the envelope with digest id is not in force.
func (l *Loader) refuse(id, name wire.Digest, err error) {
	if l.told[id] == err.Error() {
		return
	}
	if len(l.told) >= maxTold {
		clear(l.told)
	}
	l.told[id] = err.Error()
	l.mu.Lock()
	l.status.Refusal = &Refusal{Digest: name, Reason: err.Error(), At: l.config.Now()}
	epoch := l.status.Epoch
	l.mu.Unlock()
	l.config.Log.Warn("release refused", "release", name.String(), "reason", err.Error(), "epoch_in_force", epoch)
	if l.config.Refused != nil {
		l.config.Refused(name, err)
	}
}

// activate brings s into force. Until the ratchet is on disk a crash leaves the
// old release in force; from then on the new one, whole: everything that it needs
// is in the folder already.
func (l *Loader) activate(ctx context.Context, s *bundle.SignedRelease, source Source) error {
	if set := l.set.Load(); set != nil && set.Release == s.Digest {
		return nil
	}
	next, err := l.admit(s)
	if err != nil {
		return err
	}
	packages, err := l.packages(ctx, s, source)
	if err != nil {
		return err
	}
	b := builder{engine: l.config.Engine, packages: packages, opened: modules{}}
	set, err := b.build(ctx, s)
	if err != nil {
		if compile, ok := errors.AsType[*engine.CompileError](err); ok && compile.Passing {
			err = temporary{err}
		}
		return errors.Join(err, b.opened.close(ctx))
	}
	if err := l.commit(ctx, s, next, set); err != nil {
		return errors.Join(temporary{err}, b.opened.close(ctx))
	}
	l.swap(set, b.opened)
	return nil
}

// admit returns the ratchet for s. A release that the ratchet names already was
// admitted before and is on its way back into force, whatever the time is now.
func (l *Loader) admit(s *bundle.SignedRelease) (bundle.Ratchet, error) {
	for _, p := range s.Points {
		if p.Durability == policy.Region || p.Durability == policy.Regions {
			return bundle.Ratchet{}, fmt.Errorf("%w: point %s wants %s; receipts of regions are not awaited yet", ErrDurability, p.Name, p.Durability)
		}
	}
	next, err := l.ratchet.Admit(s, l.config.Now())
	switch {
	case errors.Is(err, bundle.ErrInForce):
		return l.ratchet, nil
	case errors.Is(err, bundle.ErrNotYetValid):
		return next, temporary{err}
	}
	return next, err
}

// packages returns the release's packages, each from the own folder or else from
// the source, and then stored.
func (l *Loader) packages(ctx context.Context, s *bundle.SignedRelease, source Source) (map[wire.Digest]*bundle.Package, error) {
	refs := distinct(s)
	out := make(map[wire.Digest]*bundle.Package, len(refs))
	stored := make([]*bundle.Package, len(refs))
	missing := make([]error, len(refs))
	_ = each(len(refs), func(i int) error { // what is missing stops nothing
		stored[i], missing[i] = l.stored(refs[i])
		return nil
	})
	for i, ref := range refs {
		if missing[i] != nil {
			var err error
			if stored[i], err = l.fetch(ctx, ref, source, missing[i]); err != nil {
				return nil, temporary{fmt.Errorf("package %s %s: %w", ref.Name, ref.Digest, err)}
			}
		}
		out[ref.Digest] = stored[i]
	}
	return out, nil
}

// distinct returns the first reference to each package of the release.
func distinct(s *bundle.SignedRelease) (refs []*bundle.PackageRef) {
	seen := map[wire.Digest]bool{}
	for _, p := range s.Points {
		for i := range p.Packages {
			if ref := &p.Packages[i]; !seen[ref.Digest] {
				seen[ref.Digest] = true
				refs = append(refs, ref)
			}
		}
	}
	return refs
}

// stored returns a package from the own folder.
func (l *Loader) stored(ref *bundle.PackageRef) (*bundle.Package, error) {
	file, err := l.store.pkg(ref.Digest, ref.Size)
	if err != nil {
		return nil, err
	}
	pkg, err := openPackage(file, ref)
	if err != nil {
		l.config.Log.Error("stored package is damaged", "package", ref.Digest.String(), "error", err)
	}
	return pkg, err
}

// fetch returns a package from the source; without one there is only the reason
// why it is not in the own folder.
func (l *Loader) fetch(ctx context.Context, ref *bundle.PackageRef, source Source, missing error) (*bundle.Package, error) {
	if source == nil {
		return nil, missing
	}
	file, err := source.Package(ctx, ref.Digest, ref.Size)
	if err != nil {
		return nil, err
	}
	pkg, err := openPackage(file, ref)
	if err != nil {
		return nil, err
	}
	return pkg, l.store.putPackage(ref.Digest, file)
}

func openPackage(file []byte, ref *bundle.PackageRef) (*bundle.Package, error) {
	pkg, digest, err := bundle.OpenPackage(file, int(ref.Size))
	if err != nil {
		return nil, err
	}
	if digest != ref.Digest {
		return nil, fmt.Errorf("%w: the file holds %s", ErrDigest, digest)
	}
	return pkg, nil
}

// commit makes the release durable, then has its activation recorded.
func (l *Loader) commit(ctx context.Context, s *bundle.SignedRelease, next bundle.Ratchet, set *decide.Set) error {
	if err := l.store.putRelease(s.Digest, s.Envelope); err != nil {
		return err
	}
	if err := l.store.putRatchet(next); err != nil {
		return err
	}
	l.setRatchet(next)
	if err := l.config.Activate(ctx, set, s); err != nil {
		return fmt.Errorf("record the activation: %w", err)
	}
	return nil
}

func (l *Loader) setRatchet(r bundle.Ratchet) {
	l.ratchet = r
	l.mu.Lock()
	l.passed = r
	l.mu.Unlock()
}

// swap puts the set in force and retires the modules of the one before.
func (l *Loader) swap(set *decide.Set, open modules) {
	l.set.Store(set)
	now := l.config.Now()
	if l.open != nil {
		l.retired = append(l.retired, retired{modules: l.open, at: now.Add(l.config.Grace)})
	}
	l.open = open
	l.mu.Lock()
	l.status.Epoch, l.status.Release, l.status.Since = set.Epoch, set.Release, now
	l.mu.Unlock()
	l.config.Log.Info("release in force", "epoch", set.Epoch, "release", set.Release.String(), "points", len(set.Points))
}
