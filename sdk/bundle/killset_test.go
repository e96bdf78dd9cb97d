package bundle_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func (f *fleet) signedKill(t testing.TB, scope bundle.Scope, reason string) *bundle.SignedKill {
	t.Helper()
	k := kill(scope)
	k.Reason = reason
	s, err := f.trust.OpenKill(sign(t, bundle.KillType, marshal(t, k), f.kim))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fleet) signedLift(t testing.TB, kills ...wire.Digest) *bundle.SignedLift {
	t.Helper()
	s, err := f.trust.OpenLift(sign(t, bundle.LiftType, marshal(t, lift(kills...)), f.kim, f.kay))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t testing.TB, s *bundle.KillSet, docs ...any) (fresh int) {
	t.Helper()
	for _, d := range docs {
		var isNew bool
		var err error
		switch d := d.(type) {
		case *bundle.SignedKill:
			isNew, err = s.AddKill(d)
		case *bundle.SignedLift:
			isNew, err = s.AddLift(d)
		}
		if err != nil {
			t.Fatal(err)
		}
		if isNew {
			fresh++
		}
	}
	return fresh
}

func scopes(s *bundle.KillSet) (out []bundle.Scope) {
	for _, k := range s.Active() {
		out = append(out, k.Scope)
	}
	slices.Sort(out)
	return out
}

// Two sets that were extended apart become the same set, whatever the order and
// however often what came.
func TestKillSetMerges(t *testing.T) {
	f := newFleet(t)
	a, b, c := f.signedKill(t, "point:input", "a"), f.signedKill(t, "subject:alice", "b"), f.signedKill(t, "resource:r", "c")
	docs := []any{a, b, c, f.signedLift(t, a.Digest), f.signedLift(t, b.Digest, wire.Sum([]byte("never seen")))}
	var want bundle.KillSet
	add(t, &want, docs...)
	if got := scopes(&want); !slices.Equal(got, []bundle.Scope{"resource:r"}) {
		t.Fatalf("active: %v", got)
	}
	for range 100 {
		rand.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
		cut := rand.IntN(len(docs))
		var here, there bundle.KillSet
		add(t, &here, docs[:cut]...)
		add(t, &there, docs[cut:]...)
		for _, env := range there.Envelopes() { // carried over, verified again
			switch bundle.Type(env) {
			case bundle.KillType:
				k, err := f.trust.OpenKill(env)
				if err != nil {
					t.Fatal(err)
				}
				add(t, &here, k)
			case bundle.LiftType:
				l, err := f.trust.OpenLift(env)
				if err != nil {
					t.Fatal(err)
				}
				add(t, &here, l)
			}
		}
		if fresh := add(t, &here, docs...); fresh != 0 {
			t.Fatalf("%d are new, though the sets were merged", fresh)
		}
		if here.Digest() != want.Digest() || here.Len() != len(docs) || !slices.Equal(scopes(&here), scopes(&want)) {
			t.Fatalf("%d in %v, digest %s", here.Len(), scopes(&here), here.Digest())
		}
	}
}

func TestKillSetDigest(t *testing.T) {
	f := newFleet(t)
	var s bundle.KillSet
	if s.Digest() != wire.Sum(nil) || s.Len() != 0 || s.Active() != nil || s.Envelopes() != nil {
		t.Error("the empty set")
	}
	k := f.signedKill(t, "all", "x")
	add(t, &s, k)
	if s.Digest() != wire.Sum(k.Digest[:]) {
		t.Error("digest of one")
	}
	before := s.Digest()
	add(t, &s, f.signedLift(t, k.Digest))
	if s.Digest() == before {
		t.Error("a lift does not change the digest: it would never be asked for")
	}
}

// A full set takes no more, but for the stop of everything and for lifts.
func TestKillSetIsBounded(t *testing.T) {
	var s bundle.KillSet
	n := byte(0)
	fill := func(scope bundle.Scope) (taken int) {
		n++
		for i := range bundle.MaxKills + 1 { // digests as they come: signing so many takes seconds
			k := &bundle.SignedKill{Kill: *kill(scope), Signed: bundle.Signed{Digest: wire.Digest{n, byte(i >> 8), byte(i)}}}
			if _, err := s.AddKill(k); errors.Is(err, bundle.ErrKillsFull) {
				return taken
			}
			taken++
		}
		return taken
	}
	trifles := fill("subject:nobody")
	stops := fill("all")
	if trifles == 0 || stops == 0 || trifles+stops != bundle.MaxKills || s.Len() != bundle.MaxKills {
		t.Errorf("%d trifles, then %d stops, %d in all", trifles, stops, s.Len())
	}
	if _, err := s.AddLift(&bundle.SignedLift{Signed: bundle.Signed{Digest: wire.Digest{9}}}); !errors.Is(err, bundle.ErrKillsFull) {
		t.Errorf("lift into a full set: %v", err)
	}
}

func TestKillSetConcurrently(t *testing.T) {
	var s bundle.KillSet
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				k := &bundle.SignedKill{Kill: *kill("all"), Signed: bundle.Signed{Digest: wire.Sum(fmt.Append(nil, i))}}
				if _, err := s.AddKill(k); err != nil {
					t.Error(err)
				}
				s.Active()
				s.Digest()
				_ = w
			}
		})
	}
	wg.Wait()
	if s.Len() != 50 {
		t.Errorf("%d kills", s.Len())
	}
}
