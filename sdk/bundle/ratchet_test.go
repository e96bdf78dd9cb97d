package bundle_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func signed(epoch uint64, change func(*bundle.SignedRelease)) *bundle.SignedRelease {
	s := &bundle.SignedRelease{Release: *release(epoch), Digest: wire.Sum([]byte{byte(epoch)}), RootVersion: 3}
	if change != nil {
		change(s)
	}
	return s
}

func TestAdmit(t *testing.T) {
	at := bundle.Ratchet{RootVersion: 3, Epoch: 5, Release: wire.Sum([]byte{5}), HighestTime: now.Unix() - 100}
	sec := now.Unix()
	for _, c := range []struct {
		name string
		s    *bundle.SignedRelease
		want error
	}{
		{"next", signed(6, nil), nil},
		{"later", signed(900, nil), nil},
		{"as far as it may", signed(5+bundle.MaxEpochJump, nil), nil},
		{"too far", signed(6+bundle.MaxEpochJump, nil), bundle.ErrEpochJump},
		{"a billion", signed(1_000_000_000, nil), bundle.ErrEpochJump},
		{"the last", signed(math.MaxUint64, nil), bundle.ErrEpochJump},
		{"older", signed(4, nil), bundle.ErrOlder},
		{"the first", signed(1, nil), bundle.ErrOlder},
		{"same", signed(5, nil), bundle.ErrInForce},
		{"older root", signed(6, func(s *bundle.SignedRelease) { s.RootVersion = 2 }), bundle.ErrOlderRoot},
		{"newer root", signed(6, func(s *bundle.SignedRelease) { s.RootVersion = 4 }), nil},
		{"not yet", signed(6, func(s *bundle.SignedRelease) { s.NotBefore = sec + 1 }), bundle.ErrNotYetValid},
		{"just now", signed(6, func(s *bundle.SignedRelease) { s.NotBefore = sec }), nil},
		{"expired", signed(6, func(s *bundle.SignedRelease) { s.Expires = sec }), bundle.ErrExpired},
		{"about to expire", signed(6, func(s *bundle.SignedRelease) { s.Expires = sec + 1 }), nil},
	} {
		next, err := at.Admit(c.s, now)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: want %v, got %v", c.name, c.want, err)
		}
		if err != nil && next != at {
			t.Errorf("%s: refused, but the ratchet moved to %+v", c.name, next)
		}
		if err == nil && (next.Epoch != c.s.Epoch || next.Release != c.s.Digest || next.RootVersion != c.s.RootVersion || next.Fallback) {
			t.Errorf("%s: %+v", c.name, next)
		}
	}
}

func TestEquivocation(t *testing.T) {
	at := bundle.Ratchet{Epoch: 5, Release: wire.Sum([]byte{5})}
	_, err := at.Admit(signed(5, func(s *bundle.SignedRelease) { s.Digest = wire.Sum([]byte("other")) }), now)
	var e *bundle.EquivocationError
	if !errors.As(err, &e) || e.Epoch != 5 || e.InForce != at.Release || e.Other != wire.Sum([]byte("other")) {
		t.Errorf("%v", err)
	}
}

// Turning the clock back does not make an expired release valid, and a clock or
// a signer in the future does not make the ratchet believe it.
func TestHighestTime(t *testing.T) {
	sec := now.Unix()
	at, err := bundle.Ratchet{}.Admit(signed(1, nil), now)
	if err != nil || at.HighestTime != sec {
		t.Fatalf("%+v, %v", at, err)
	}
	past := now.Add(-time.Hour)
	expired := signed(2, func(s *bundle.SignedRelease) { s.Created, s.Expires = 0, sec-10 })
	if _, err := at.Admit(expired, past); !errors.Is(err, bundle.ErrExpired) {
		t.Errorf("clock turned back: %v", err)
	}
	if d := at.ClockBehind(past); d != time.Hour {
		t.Errorf("behind by %v", d)
	}
	if d := at.ClockBehind(now.Add(time.Hour)); d != 0 {
		t.Errorf("behind by %v", d)
	}
	if next, err := at.Admit(signed(2, nil), past); err != nil || next.HighestTime != sec {
		t.Errorf("went back to %+v, %v", next, err)
	}
	signer := signed(2, func(s *bundle.SignedRelease) { s.Created = now.AddDate(50, 0, 0).Unix() })
	if next, err := at.Admit(signer, now); err != nil || next.HighestTime != sec {
		t.Errorf("believed the signer: %+v, %v", next, err)
	}
	if next, err := at.Admit(signed(2, nil), now.AddDate(50, 0, 0)); err != nil || next.HighestTime != sec {
		t.Errorf("believed the clock: %+v, %v", next, err)
	}
}

// A node steps back from what it has in force, once, and never returns to it.
func TestStepBack(t *testing.T) {
	previous := func(s *bundle.SignedRelease) { s.Previous = wire.Sum([]byte("before")) }
	s := signed(5, previous)
	at, err := bundle.Ratchet{RootVersion: 3, Epoch: 4}.Admit(s, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		s    *bundle.SignedRelease
		want error
	}{
		"another epoch":        {signed(4, previous), bundle.ErrNoFallback},
		"another release":      {signed(5, func(s *bundle.SignedRelease) { previous(s); s.Digest = wire.Sum(nil) }), bundle.ErrNoFallback},
		"release that forbids": {signed(5, func(s *bundle.SignedRelease) { previous(s); s.Fallback = bundle.FallbackNone }), bundle.ErrNoFallback},
		"the first release":    {signed(5, nil), bundle.ErrNoFallback},
	} {
		if next, err := at.StepBack(c.s); !errors.Is(err, c.want) || next != at {
			t.Errorf("%s: %+v, %v", name, next, err)
		}
	}
	back, err := at.StepBack(s)
	if err != nil || !back.Fallback || back.Epoch != 5 || back.Release != s.Digest {
		t.Fatalf("%+v, %v", back, err)
	}
	if _, err := back.StepBack(s); !errors.Is(err, bundle.ErrFellBack) {
		t.Errorf("twice: %v", err)
	}
	if next, err := back.Admit(s, now); !errors.Is(err, bundle.ErrFellBack) || next != back {
		t.Errorf("back to what failed: %+v, %v", next, err)
	}
	if _, err := back.Admit(signed(4, nil), now); !errors.Is(err, bundle.ErrOlder) {
		t.Errorf("further back: %v", err)
	}
	if next, err := back.Admit(signed(6, nil), now); err != nil || next.Fallback {
		t.Errorf("the next release: %+v, %v", next, err)
	}
}

func TestUseRoot(t *testing.T) {
	at, err := bundle.Ratchet{}.Admit(signed(5, nil), now)
	if err != nil {
		t.Fatal(err)
	}
	root := cast(t).trust
	for _, v := range []uint64{3, 4} {
		root.Version = v
		if at, err = at.UseRoot(root); err != nil || at.RootVersion != v || at.ReleaseRoot != 3 {
			t.Errorf("version %d: %+v, %v", v, at, err)
		}
	}
	root.Version = 3
	if next, err := at.UseRoot(root); !errors.Is(err, bundle.ErrOlderRoot) || next != at {
		t.Errorf("%+v, %v", next, err)
	}
}

func TestSee(t *testing.T) {
	at := bundle.Ratchet{HighestTime: now.Unix()}
	for name, c := range map[string]struct{ signed, now, want time.Time }{
		"news":            {now.Add(time.Hour), now.Add(time.Hour), now.Add(time.Hour)},
		"old news":        {now.Add(-time.Hour), now.Add(time.Hour), now},
		"signer's future": {now.AddDate(9, 0, 0), now.Add(time.Hour), now.Add(time.Hour)},
		"clock's future":  {now.Add(time.Hour), now.AddDate(9, 0, 0), now.Add(time.Hour)},
		"clock behind":    {now.Add(time.Hour), now.AddDate(-9, 0, 0), now},
	} {
		if got := at.See(c.signed, c.now).HighestTime; got != c.want.Unix() {
			t.Errorf("%s: %v", name, time.Unix(got, 0))
		}
	}
}

// A node that lost its disk begins where its enrolment says, not where an
// attacker does.
func TestPin(t *testing.T) {
	at := bundle.Ratchet{}.Pin(2_000_000).Pin(7)
	if _, err := at.Admit(signed(1_999_999, nil), now); !errors.Is(err, bundle.ErrOlder) {
		t.Errorf("below: %v", err)
	}
	for _, epoch := range []uint64{2_000_000, 2_000_000 + bundle.MaxEpochJump} {
		if next, err := at.Admit(signed(epoch, nil), now); err != nil || next.Epoch != epoch || next.MinEpoch != 2_000_000 {
			t.Errorf("%d: %+v, %v", epoch, next, err)
		}
	}
	if _, err := at.Admit(signed(2_000_001+bundle.MaxEpochJump, nil), now); !errors.Is(err, bundle.ErrEpochJump) {
		t.Errorf("too far: %v", err)
	}
}

func TestRatchetFile(t *testing.T) {
	want := bundle.Ratchet{RootVersion: 1, Epoch: 1 << 40, Release: wire.Sum([]byte("r")), Fallback: true, HighestTime: now.Unix(), ReleaseRoot: 1, MinEpoch: 3}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := bundle.DecodeRatchet(b); err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range b {
		if _, err := bundle.DecodeRatchet(b[:i]); !errors.Is(err, bundle.ErrRatchetState) {
			t.Errorf("cut at %d: %v", i, err)
		}
		for bit := range 8 {
			c := append([]byte(nil), b...)
			c[i] ^= 1 << bit
			if _, err := bundle.DecodeRatchet(c); !errors.Is(err, bundle.ErrRatchetState) {
				t.Errorf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
}
