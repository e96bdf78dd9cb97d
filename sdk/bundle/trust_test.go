package bundle_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func brokenRoots(t testing.TB) map[string]func(*bundle.TrustRoot) {
	return map[string]func(*bundle.TrustRoot){
		"no tenant":              func(r *bundle.TrustRoot) { r.Tenant = "" },
		"version 0":              func(r *bundle.TrustRoot) { r.Version = 0 },
		"no expiry":              func(r *bundle.TrustRoot) { r.Expires = 0 },
		"threshold 0":            func(r *bundle.TrustRoot) { r.Thresholds[bundle.RoleApprover] = 0 },
		"threshold negative":     func(r *bundle.TrustRoot) { r.Thresholds[bundle.RoleAuthor] = -1 },
		"threshold out of reach": func(r *bundle.TrustRoot) { r.Thresholds[bundle.RoleApprover] = 2 },
		"no thresholds":          func(r *bundle.TrustRoot) { r.Thresholds = nil },
		"threshold without key":  func(r *bundle.TrustRoot) { r.Thresholds[bundle.RoleKill] = 1 },
		"threshold 0, no key":    func(r *bundle.TrustRoot) { r.Thresholds[bundle.RoleKill] = 0 },
		"threshold unknown role": func(r *bundle.TrustRoot) { r.Thresholds["king"] = 1 },
		"keys without threshold": func(r *bundle.TrustRoot) { r.Keys = append(r.Keys, key(t, bundle.RoleKill, "kim", 6).Key) },
		"no keys":                func(r *bundle.TrustRoot) { r.Keys = nil },
		"too many keys":          func(r *bundle.TrustRoot) { r.Keys = make([]bundle.Key, bundle.MaxKeys+1) },
		"key twice":              func(r *bundle.TrustRoot) { r.Keys = append(r.Keys, r.Keys[0]) },
		"one key, two roles": func(r *bundle.TrustRoot) {
			k := r.Keys[1]
			k.Role, k.Person = bundle.RoleApprover, "dora"
			r.Keys = append(r.Keys, k)
		},
		"author is approver":       func(r *bundle.TrustRoot) { r.Keys[2].Person = "ann" },
		"author is Approver":       func(r *bundle.TrustRoot) { r.Keys[2].Person = "Ann" },
		"key id of another":        func(r *bundle.TrustRoot) { r.Keys[1].ID = r.Keys[2].ID },
		"short key":                func(r *bundle.TrustRoot) { r.Keys[1].Public = r.Keys[1].Public[:31] },
		"empty key":                func(r *bundle.TrustRoot) { r.Keys[1].Public = nil },
		"unknown role":             func(r *bundle.TrustRoot) { r.Keys[1].Role = "king" },
		"no person":                func(r *bundle.TrustRoot) { r.Keys[1].Person = "" },
		"person with a line break": func(r *bundle.TrustRoot) { r.Keys[1].Person = "ann\nrole: root" },
	}
}

func TestTrustRoot(t *testing.T) {
	p := cast(t)
	env, err := bundle.SignTrustRoot(p.trust, p.root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := bundle.OpenTrustRoot(env, now)
	if err != nil || !reflect.DeepEqual(got, p.trust) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := bundle.OpenTrustRoot(env, now.AddDate(1, 0, 0)); !errors.Is(err, bundle.ErrRootExpired) {
		t.Errorf("expired: %v", err)
	}
}

func TestTrustRootRefuses(t *testing.T) {
	for name, breakIt := range brokenRoots(t) {
		p := cast(t)
		breakIt(p.trust)
		if _, err := bundle.SignTrustRoot(p.trust, p.root); !errors.Is(err, bundle.ErrTrustRoot) {
			t.Errorf("%s: signed (%v)", name, err)
		}
		body, err := wire.Marshal(p.trust)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.OpenTrustRoot(sign(t, bundle.TrustRootType, body, p.root), now); !errors.Is(err, bundle.ErrTrustRoot) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := cast(t)
	body, err := wire.Marshal(p.trust)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  []byte
		want error
	}{
		"unsigned":            {sign(t, bundle.TrustRootType, body), bundle.ErrThreshold},
		"signed by an author": {sign(t, bundle.TrustRootType, body, p.author), bundle.ErrThreshold},
		"signed by a foreign": {sign(t, bundle.TrustRootType, body, key(t, bundle.RoleRoot, "rosa", 9)), bundle.ErrUnknownKey},
		"as a release":        {sign(t, bundle.ReleaseType, body, p.root), bundle.ErrPayloadType},
		"trailing byte":       {sign(t, bundle.TrustRootType, append(body, 0), p.root), bundle.ErrTrustRoot},
	} {
		if _, err := bundle.OpenTrustRoot(c.env, now); !errors.Is(err, c.want) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
}

// With m of n root keys, m different persons must sign.
func TestTrustRootThreshold(t *testing.T) {
	p := cast(t)
	second, third := key(t, bundle.RoleRoot, "rui", 7), key(t, bundle.RoleRoot, "rosa", 8)
	p.trust.Keys = append(p.trust.Keys, second.Key, third.Key)
	p.trust.Thresholds[bundle.RoleRoot] = 2
	for name, c := range map[string]struct {
		keys []*bundle.PrivateKey
		want error
	}{
		"one":             {[]*bundle.PrivateKey{p.root}, bundle.ErrThreshold},
		"one twice":       {[]*bundle.PrivateKey{p.root, p.root}, bundle.ErrThreshold},
		"two of a person": {[]*bundle.PrivateKey{p.root, third}, bundle.ErrThreshold},
		"two":             {[]*bundle.PrivateKey{p.root, second}, nil},
	} {
		env, err := bundle.SignTrustRoot(p.trust, c.keys...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.OpenTrustRoot(env, now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A new root is signed by the old one's keys and by its own.
func TestOpenNext(t *testing.T) {
	old := cast(t)
	newRoot := key(t, bundle.RoleRoot, "rui", 7)
	next := func(change func(*bundle.TrustRoot), keys ...*bundle.PrivateKey) []byte {
		r := bundle.NewTrustRoot("acme", now.AddDate(2, 0, 0), newRoot.Key, old.author.Key, old.approver.Key)
		r.Version = 2
		if change != nil {
			change(r)
		}
		env, err := bundle.SignTrustRoot(r, keys...)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	got, err := old.trust.OpenNext(next(nil, old.root, newRoot), now)
	if err != nil || got.Version != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		env  []byte
		want error
	}{
		"not by the old": {next(nil, newRoot), bundle.ErrUnknownKey},
		"not by the new": {next(nil, old.root), bundle.ErrUnknownKey},
		"same version":   {next(func(r *bundle.TrustRoot) { r.Version = 1 }, old.root, newRoot), bundle.ErrTrustRoot},
		"a version left": {next(func(r *bundle.TrustRoot) { r.Version = 3 }, old.root, newRoot), bundle.ErrTrustRoot},
		"other tenant":   {next(func(r *bundle.TrustRoot) { r.Tenant = "umbrella" }, old.root, newRoot), bundle.ErrTrustRoot},
	} {
		if _, err := old.trust.OpenNext(c.env, now); !errors.Is(err, c.want) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
	for _, threshold := range []int{0, -1} { // broken in memory: it must not wave everything through
		old.trust.Thresholds[bundle.RoleRoot] = threshold
		if _, err := old.trust.OpenNext(next(nil, newRoot, old.author), now); !errors.Is(err, bundle.ErrThreshold) {
			t.Errorf("root threshold %d: %v", threshold, err)
		}
	}
}

func TestPublicKeyLine(t *testing.T) {
	want := cast(t).author.Key
	got, err := bundle.ParseKey(want.String())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, line := range []string{
		"", "x", want.String() + " x", strings.Replace(want.String(), "author", "king", 1),
		strings.Replace(want.String(), want.ID, strings.Repeat("0", 16), 1), strings.TrimSuffix(want.String(), "="),
	} {
		if _, err := bundle.ParseKey(line); !errors.Is(err, bundle.ErrPublicKey) {
			t.Errorf("%q: %v", line, err)
		}
	}
}
