// Package release turns the file in which people write a release into the
// release that they sign, and says in words what changes between two releases.
// It reads no disk and no clock: package files come through a function.
package release

import (
	_ "embed"
	"strings"
	"time"

	"github.com/holdfast-policy/holdfast/internal/yamlfile"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Example is a release file with every key.
//
//go:embed example.yaml
var Example string

// Options are what a release file does not say itself.
type Options struct {
	// Previous is the release that the new one replaces; nil for the first one.
	// Its epoch, digest and tenant are the defaults of the file's, and packages
	// that the file names by digest alone are looked up in it.
	Previous *bundle.SignedRelease
	// Package returns the file of a package that the release file names by path.
	Package func(path string) ([]byte, error)
	// Created is when the release is made.
	Created time.Time
}

// A Draft is a release that nobody has signed yet.
type Draft struct {
	Release *bundle.Release
	// Packages are the package files that the release file named by path.
	Packages map[wire.Digest][]byte
}

// Parse reads a release file. What is wrong with it is a *yamlfile.Error with its
// place; the release that comes out is valid.
func Parse(name string, raw []byte, o Options) (*Draft, error) {
	r := &reader{file: &yamlfile.File{Name: name}, options: o, draft: &Draft{
		Release: &bundle.Release{Created: o.Created.Unix()}, Packages: map[wire.Digest][]byte{},
	}}
	root, err := r.file.Parse(raw)
	if err != nil {
		return nil, err
	}
	if root == nil {
		return nil, &yamlfile.Error{File: name, Reason: "empty; a release has at least one of points"}
	}
	if err := r.read(root); err != nil {
		return nil, err
	}
	return r.draft, nil
}

type reader struct {
	file    *yamlfile.File
	options Options
	draft   *Draft
	keys    map[string]*yamlfile.Node // of the root, and where they stand
}

func (r *reader) read(root *yamlfile.Node) error {
	r.keys = map[string]*yamlfile.Node{}
	err := r.file.Members(root, func(key, n *yamlfile.Node) error {
		r.keys[key.Value] = key
		return r.member(key, n)
	})
	if err != nil {
		return err
	}
	if err := r.follow(root); err != nil {
		return err
	}
	if err := r.draft.Release.Validate(); err != nil {
		return r.file.Fail(root, "%s", strings.TrimPrefix(err.Error(), bundle.ErrRelease.Error()+": "))
	}
	return nil
}

func (r *reader) member(key, n *yamlfile.Node) error {
	f, rel := r.file, r.draft.Release
	switch key.Value {
	case "tenant":
		return r.checked(n, &rel.Tenant, bundle.CheckTenant)
	case "epoch":
		return f.Uint(n, &rel.Epoch, 1, 1<<63)
	case "previous":
		return r.digest(n, &rel.Previous)
	case "fallback":
		return r.word(n, &rel.Fallback, bundle.FallbackPrevious, bundle.FallbackNone)
	case "not_before":
		return r.instant(n, &rel.NotBefore)
	case "expires":
		return r.expiry(n)
	case "note":
		return f.Text(n, &rel.Note)
	case "audience":
		return f.Words(n, &rel.Audience)
	case "live_share":
		return f.Share(n, &rel.LivePerMillion)
	case "trim_on_one_receipt":
		return r.truth(n, &rel.TrimOnOneReceipt)
	case "staleness":
		return r.staleness(n)
	case "limits":
		return r.limits(n, &rel.Limits)
	case "rings":
		return r.rings(n)
	case "halt":
		return r.halt(n)
	case "points":
		return r.points(n)
	}
	return f.Fail(key, "unknown key %q: want tenant, epoch, previous, fallback, not_before, expires, note, audience, live_share, trim_on_one_receipt, staleness, limits, rings, halt or points", key.Value)
}

// follow fills in what the previous release gives, and refuses what contradicts it.
func (r *reader) follow(root *yamlfile.Node) error {
	rel, last := r.draft.Release, r.options.Previous
	at := func(key string) *yamlfile.Node {
		if n := r.keys[key]; n != nil {
			return n
		}
		return root
	}
	if last == nil {
		switch {
		case r.keys["tenant"] == nil:
			return r.file.Fail(root, "no tenant; a first release says whose it is")
		case rel.Fallback == bundle.FallbackPrevious && rel.Previous.IsZero():
			return r.file.Fail(at("fallback"), "fallback previous, and there is no previous release: give it with --previous, or write none")
		}
		rel.Epoch = max(rel.Epoch, 1)
		rel.Fallback = either(rel.Fallback, fallbackFor(rel.Previous))
		return nil
	}
	rel.Tenant = either(rel.Tenant, last.Tenant)
	switch {
	case rel.Tenant != last.Tenant:
		return r.file.Fail(at("tenant"), "tenant %s, but the previous release is of %s", rel.Tenant, last.Tenant)
	case r.keys["previous"] != nil && rel.Previous != last.Digest:
		return r.file.Fail(at("previous"), "previous %s, but the release before is %s", rel.Previous, last.Digest)
	case r.keys["epoch"] != nil && rel.Epoch <= last.Epoch:
		return r.file.Fail(at("epoch"), "epoch %d, but the previous release has %d; epochs only rise", rel.Epoch, last.Epoch)
	case r.keys["epoch"] != nil && rel.Epoch-last.Epoch > bundle.MaxEpochJump:
		return r.file.Fail(at("epoch"), "epoch %d, but the previous release has %d; nodes take a step of at most %d", rel.Epoch, last.Epoch, bundle.MaxEpochJump)
	case r.keys["epoch"] == nil:
		rel.Epoch = last.Epoch + 1
	}
	rel.Previous = last.Digest
	rel.Fallback = either(rel.Fallback, bundle.FallbackPrevious)
	return nil
}

func fallbackFor(previous wire.Digest) string {
	if previous.IsZero() {
		return bundle.FallbackNone
	}
	return bundle.FallbackPrevious
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
