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
		"author is approver":   func(r *bundle.TrustRoot) { r.Keys[2].Person = "ann" },
		"author is Approver":   func(r *bundle.TrustRoot) { r.Keys[2].Person = "Ann" },
		"author in Turkish":    func(r *bundle.TrustRoot) { r.Keys[1].Person, r.Keys[2].Person = "ivan", "\u0130van" },
		"person with a Kelvin": func(r *bundle.TrustRoot) { r.Keys[1].Person = "\u212Aim" },
		"two must stop": func(r *bundle.TrustRoot) {
			r.Keys = append(r.Keys, key(t, bundle.RoleKill, "kim", 6).Key, key(t, bundle.RoleKill, "kay", 7).Key)
			r.Thresholds[bundle.RoleKill] = 2
		},
		"two regions must beat": func(r *bundle.TrustRoot) {
			r.Keys = append(r.Keys, key(t, bundle.RoleHeartbeat, "eu", 6).Key, key(t, bundle.RoleHeartbeat, "us", 7).Key)
			r.Thresholds[bundle.RoleHeartbeat] = 2
		},
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
	got, err := old.trust.OpenNext(next(nil, old.root, newRoot))
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
		if _, err := old.trust.OpenNext(c.env); !errors.Is(err, c.want) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
	for _, threshold := range []int{0, -1} { // broken in memory: it must not wave everything through
		old.trust.Thresholds[bundle.RoleRoot] = threshold
		if _, err := old.trust.OpenNext(next(nil, newRoot, old.author)); !errors.Is(err, bundle.ErrThreshold) {
			t.Errorf("root threshold %d: %v", threshold, err)
		}
	}
}

// succession is a chain of trust roots, version 2 and up, each signed by the root
// before it and by its own: the root key changes at every step.
func succession(t testing.TB, p people, steps int) (envelopes [][]byte) {
	t.Helper()
	before := p.root
	for v := 2; v < 2+steps; v++ {
		mine := key(t, bundle.RoleRoot, "rosa", byte(100+v))
		r := bundle.NewTrustRoot("acme", now.AddDate(v, 0, 0), mine.Key, p.author.Key, p.approver.Key)
		r.Version = uint64(v)
		env, err := bundle.SignTrustRoot(r, before, mine)
		if err != nil {
			t.Fatal(err)
		}
		envelopes, before = append(envelopes, env), mine
	}
	return envelopes
}

// A node that was away gets the roots in any order, again, and with gaps.
func TestOpenChain(t *testing.T) {
	p := cast(t)
	first, err := bundle.SignTrustRoot(p.trust, p.root)
	if err != nil {
		t.Fatal(err)
	}
	e := succession(t, p, 4) // versions 2 to 5
	forged := tamper(t, e[2], func(d *dsse) { d.Signatures[0].Sig = flip(t, d.Signatures[0].Sig) })
	for name, c := range map[string]struct {
		envelopes [][]byte
		last      uint64
		want      error
	}{
		"none":                  {nil, 1, nil},
		"only itself":           {[][]byte{first}, 1, nil},
		"in order":              {[][]byte{first, e[0], e[1], e[2], e[3]}, 5, nil},
		"backwards":             {[][]byte{e[3], e[2], e[1], e[0]}, 5, nil},
		"again":                 {[][]byte{e[0], e[1], e[0], e[1]}, 3, nil},
		"what is not a root":    {[][]byte{[]byte("x"), e[0]}, 2, nil},
		"the second is missing": {[][]byte{e[0], e[2], e[3]}, 2, bundle.ErrTrustRoot},
		"the first is missing":  {[][]byte{e[1]}, 1, bundle.ErrTrustRoot},
		"one is forged":         {[][]byte{e[0], e[1], forged, e[3]}, 3, bundle.ErrSignature},
	} {
		chain, err := p.trust.OpenChain(c.envelopes)
		if got := p.trust.Version + uint64(len(chain)); !errors.Is(err, c.want) || got != c.last {
			t.Errorf("%s: version %d, %v", name, got, err)
		}
		for i, r := range chain {
			if r.Version != uint64(i+2) {
				t.Errorf("%s: version %d at %d", name, r.Version, i)
			}
		}
	}
	if bundle.UnverifiedRootVersion(e[3]) != 5 || bundle.UnverifiedRootVersion([]byte("x")) != 0 || bundle.UnverifiedRootVersion(sign(t, bundle.TrustRootType, []byte("x"))) != 0 {
		t.Error("unverified version")
	}
}

// A successor that has expired still takes keys away, and opens nothing new; a
// node does not go on believing what it revoked.
func TestExpiredSuccessor(t *testing.T) {
	p := cast(t)
	other := key(t, bundle.RoleApprover, "dora", 7)
	r := bundle.NewTrustRoot("acme", now.AddDate(0, 0, -1), p.root.Key, p.author.Key, other.Key) // bob is gone
	r.Version = 2
	env, err := bundle.SignTrustRoot(r, p.root)
	if err != nil {
		t.Fatal(err)
	}
	next, err := p.trust.OpenNext(env)
	if err != nil {
		t.Fatal(err)
	}
	old := sign(t, bundle.ReleaseType, payload(t, release(7)), p.author, p.approver)
	if _, err := p.trust.OpenRelease(old, now); err != nil {
		t.Fatal(err)
	}
	if _, err := next.OpenRelease(old, now); !errors.Is(err, bundle.ErrThreshold) {
		t.Errorf("by who was revoked: %v", err)
	}
	if _, err := next.OpenRelease(sign(t, bundle.ReleaseType, payload(t, release(7)), p.author, other), now); !errors.Is(err, bundle.ErrRootExpired) {
		t.Errorf("under an expired root: %v", err)
	}
	if _, err := bundle.OpenTrustRoot(env, now); !errors.Is(err, bundle.ErrRootExpired) {
		t.Errorf("opened anew: %v", err)
	}
	if got, err := bundle.ReopenTrustRoot(env); err != nil || got.Version != 2 {
		t.Errorf("reopened: %v", err)
	}
}

// The old threshold and the new one must both be met, each by its own persons.
func TestNextThresholds(t *testing.T) {
	p := cast(t)
	a, b, c, d := key(t, bundle.RoleRoot, "rosa", 31), key(t, bundle.RoleRoot, "rui", 32), key(t, bundle.RoleRoot, "rex", 33), key(t, bundle.RoleRoot, "rae", 34)
	old := bundle.NewTrustRoot("acme", now.AddDate(1, 0, 0), a.Key, b.Key, p.author.Key, p.approver.Key)
	old.Thresholds[bundle.RoleRoot] = 2
	next := bundle.NewTrustRoot("acme", now.AddDate(1, 0, 0), c.Key, d.Key, p.author.Key, p.approver.Key)
	next.Version, next.Thresholds[bundle.RoleRoot] = 2, 2
	for name, x := range map[string]struct {
		keys []*bundle.PrivateKey
		want error
	}{
		"both of both":           {[]*bundle.PrivateKey{a, b, c, d}, nil},
		"one of the old":         {[]*bundle.PrivateKey{a, c, d}, bundle.ErrThreshold},
		"one of the old, twice":  {[]*bundle.PrivateKey{a, a, c, d}, bundle.ErrThreshold},
		"one of the new":         {[]*bundle.PrivateKey{a, b, d}, bundle.ErrThreshold},
		"only the old":           {[]*bundle.PrivateKey{a, b}, bundle.ErrUnknownKey},
		"author in the old role": {[]*bundle.PrivateKey{a, p.author, c, d}, bundle.ErrThreshold},
	} {
		env, err := bundle.SignTrustRoot(next, x.keys...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := old.OpenNext(env); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", name, err)
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
