package bundle_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func TestOpenRelease(t *testing.T) {
	p := cast(t)
	want := release(7)
	first := sign(t, bundle.ReleaseType, payload(t, want), p.author)
	env, err := bundle.AddSignature(first, bundle.ReleaseType, p.approver)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.trust.OpenRelease(env, now)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Release, *want) {
		t.Errorf("\ngot  %+v\nwant %+v", got.Release, *want)
	}
	if got.Author != "ann" || got.Approver != "bob" || got.RootVersion != 1 ||
		got.Digest != wire.Sum(payload(t, want)) || !bytes.Equal(got.Envelope, env) {
		t.Errorf("%+v", got)
	}
	if bundle.UnverifiedEpoch(env) != 7 || bundle.UnverifiedEpoch([]byte("{}")) != 0 {
		t.Error("unverified epoch")
	}
}

// Each of these envelopes must be refused, with the error that says why.
func TestOpenReleaseRefuses(t *testing.T) {
	p := cast(t)
	stranger := key(t, bundle.RoleApprover, "mallory", 9)
	body := payload(t, release(7))
	good := sign(t, bundle.ReleaseType, body, p.author, p.approver)
	posing := *p.author // the approver's key under the author's key id
	posing.ID = p.approver.ID

	other := release(7)
	other.Tenant = "umbrella"
	loose := append(bytes.Clone(body), 0)
	for name, c := range map[string]struct {
		env  []byte
		want error
	}{
		"empty":                  {nil, bundle.ErrEnvelope},
		"not JSON":               {[]byte("x"), bundle.ErrEnvelope},
		"empty object":           {[]byte("{}"), bundle.ErrPayloadType},
		"null":                   {[]byte("null"), bundle.ErrPayloadType},
		"no signatures member":   {bytes.Replace(good, []byte(`"signatures"`), []byte(`"signature"`), 1), bundle.ErrEnvelope},
		"no signature":           {tamper(t, good, func(d *dsse) { d.Signatures = nil }), bundle.ErrThreshold},
		"empty signature":        {tamper(t, good, func(d *dsse) { d.Signatures[0].Sig = "" }), bundle.ErrSignature},
		"empty key id":           {tamper(t, good, func(d *dsse) { d.Signatures[1].KeyID = "" }), bundle.ErrThreshold},
		"author only":            {sign(t, bundle.ReleaseType, body, p.author), bundle.ErrThreshold},
		"approver only":          {sign(t, bundle.ReleaseType, body, p.approver), bundle.ErrThreshold},
		"author twice":           {sign(t, bundle.ReleaseType, body, p.author, p.author), bundle.ErrThreshold},
		"root key":               {sign(t, bundle.ReleaseType, body, p.author, p.root), bundle.ErrThreshold},
		"unknown key":            {sign(t, bundle.ReleaseType, body, stranger), bundle.ErrUnknownKey},
		"unknown approver":       {sign(t, bundle.ReleaseType, body, p.author, stranger), bundle.ErrThreshold},
		"key id of A, key of B":  {sign(t, bundle.ReleaseType, body, p.author, &posing), bundle.ErrSignature},
		"swapped key ids":        {tamper(t, good, func(d *dsse) { swapIDs(d) }), bundle.ErrSignature},
		"other payload type":     {sign(t, bundle.TrustRootType, body, p.author, p.approver), bundle.ErrPayloadType},
		"type changed afterward": {tamper(t, sign(t, bundle.TrustRootType, body, p.author, p.approver), func(d *dsse) { d.PayloadType = bundle.ReleaseType }), bundle.ErrSignature},
		"payload altered":        {tamper(t, good, func(d *dsse) { d.Payload = flip(t, d.Payload) }), bundle.ErrSignature},
		"signature altered":      {tamper(t, good, func(d *dsse) { d.Signatures[1].Sig = flip(t, d.Signatures[1].Sig) }), bundle.ErrSignature},
		"signature cut":          {tamper(t, good, func(d *dsse) { d.Signatures[1].Sig = d.Signatures[1].Sig[:84] }), bundle.ErrSignature},
		"unpadded signature":     {tamper(t, good, func(d *dsse) { d.Signatures[0].Sig = strings.TrimRight(d.Signatures[0].Sig, "=") }), bundle.ErrEnvelope},
		"newline in base64":      {tamper(t, good, func(d *dsse) { d.Payload = d.Payload[:8] + "\n" + d.Payload[8:] }), bundle.ErrEnvelope},
		"trailing bytes":         {append(bytes.Clone(good), "{}"...), bundle.ErrEnvelope},
		"trailing payload byte":  {sign(t, bundle.ReleaseType, loose, p.author, p.approver), bundle.ErrRelease},
		"payload not CBOR":       {sign(t, bundle.ReleaseType, []byte("release"), p.author, p.approver), bundle.ErrRelease},
		"duplicate member":       {bytes.Replace(good, []byte(`{"payloadType"`), []byte(`{"payload":"","payloadType"`), 1), bundle.ErrEnvelope},
		"unknown member":         {bytes.Replace(good, []byte(`{"payloadType"`), []byte(`{"keys":[],"payloadType"`), 1), bundle.ErrEnvelope},
		"member in other case":   {bytes.Replace(good, []byte(`{"payloadType"`), []byte(`{"PayloadType"`), 1), bundle.ErrEnvelope},
		"wrong tenant":           {sign(t, bundle.ReleaseType, payload(t, other), p.author, p.approver), bundle.ErrTenant},
		"too large":              {append(bytes.Clone(good), bytes.Repeat([]byte(" "), bundle.MaxEnvelope)...), bundle.ErrEnvelope},
		"too many signatures":    {tamper(t, good, func(d *dsse) { d.Signatures = make([]dsseSign, bundle.MaxSignatures+1) }), bundle.ErrEnvelope},
	} {
		if got, err := p.trust.OpenRelease(c.env, now); got != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
}

// The signed bytes are those of DSSE's protocol, with the payload's type.
func TestSignedBytes(t *testing.T) {
	p := cast(t)
	var d dsse
	if err := json.Unmarshal(sign(t, bundle.ReleaseType, []byte("body"), p.author), &d); err != nil {
		t.Fatal(err)
	}
	message := []byte("DSSEv1 40 application/vnd.holdfast.release.v1+cbor 4 body")
	if !ed25519.Verify(p.author.Public, message, unbase64(t, d.Signatures[0].Sig)) {
		t.Errorf("the signature is not over %q", message)
	}
}

// A payload whose base64 has '+' or '/' differs in base64url.
func TestBase64URLIsRefused(t *testing.T) {
	p := cast(t)
	for note := range 100 {
		r := release(7)
		r.Note = strings.Repeat("?>", note)
		env := sign(t, bundle.ReleaseType, payload(t, r), p.author, p.approver)
		url := tamper(t, env, func(d *dsse) { d.Payload = base64.URLEncoding.EncodeToString(unbase64(t, d.Payload)) })
		if bytes.Equal(url, bytes.TrimSpace(env)) {
			continue
		}
		if _, err := p.trust.OpenRelease(url, now); !errors.Is(err, bundle.ErrEnvelope) {
			t.Errorf("note of %d: %v", note, err)
		}
		return
	}
	t.Fatal("no payload with a character that differs in base64url")
}

// A signature of somebody unknown, as after a rotation, hides nothing.
func TestExtraUnknownSignature(t *testing.T) {
	p := cast(t)
	stranger := key(t, bundle.RoleApprover, "mallory", 9)
	env := sign(t, bundle.ReleaseType, payload(t, release(7)), stranger, p.author, p.approver)
	if _, err := p.trust.OpenRelease(env, now); err != nil {
		t.Error(err)
	}
}

// Two keys of one person are one person.
func TestThresholdCountsPersons(t *testing.T) {
	p := cast(t)
	second := key(t, bundle.RoleApprover, "bob", 4)
	third := key(t, bundle.RoleApprover, "carol", 5)
	p.trust.Keys = append(p.trust.Keys, second.Key, third.Key)
	p.trust.Thresholds[bundle.RoleApprover] = 2
	body := payload(t, release(7))
	if _, err := p.trust.OpenRelease(sign(t, bundle.ReleaseType, body, p.author, p.approver, second), now); !errors.Is(err, bundle.ErrThreshold) {
		t.Errorf("two keys of bob: %v", err)
	}
	if _, err := p.trust.OpenRelease(sign(t, bundle.ReleaseType, body, p.author, p.approver, third), now); err != nil {
		t.Errorf("bob and carol: %v", err)
	}
}

// A trust root that is broken in memory opens nothing.
func TestBrokenTrustRootOpensNothing(t *testing.T) {
	for name, breakIt := range brokenRoots(t) {
		p := cast(t)
		env := sign(t, bundle.ReleaseType, payload(t, release(7)), p.author, p.approver)
		breakIt(p.trust)
		if _, err := p.trust.OpenRelease(env, now); !errors.Is(err, bundle.ErrTrustRoot) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExpiredRootOpensNothingNew(t *testing.T) {
	p := cast(t)
	env := sign(t, bundle.ReleaseType, payload(t, release(7)), p.author, p.approver)
	late := now.AddDate(1, 0, 0)
	if _, err := p.trust.OpenRelease(env, late); !errors.Is(err, bundle.ErrRootExpired) {
		t.Errorf("on the day of expiry: %v", err)
	}
	if _, err := p.trust.ReopenRelease(env); err != nil {
		t.Errorf("what is in force: %v", err)
	}
}

func TestReleaseValidate(t *testing.T) {
	deep := any(int64(1))
	for range policy.MaxDepth {
		deep = []any{deep}
	}
	for name, change := range map[string]func(*bundle.Release){
		"no tenant":             func(r *bundle.Release) { r.Tenant = "" },
		"tenant with a dot":     func(r *bundle.Release) { r.Tenant = "a.b" },
		"epoch 0":               func(r *bundle.Release) { r.Epoch = 0 },
		"no fallback":           func(r *bundle.Release) { r.Fallback = "" },
		"unknown fallback":      func(r *bundle.Release) { r.Fallback = "oldest" },
		"time before 1970":      func(r *bundle.Release) { r.NotBefore = -1 },
		"expires before start":  func(r *bundle.Release) { r.NotBefore, r.Expires = now.Unix()+20, now.Unix()+10 },
		"expires when created":  func(r *bundle.Release) { r.Expires = r.Created },
		"long note":             func(r *bundle.Release) { r.Note = strings.Repeat("x", bundle.MaxText+1) },
		"no point":              func(r *bundle.Release) { r.Points = nil },
		"too many points":       func(r *bundle.Release) { r.Points = make([]bundle.Point, bundle.MaxPoints+1) },
		"point twice":           func(r *bundle.Release) { r.Points = append(r.Points, r.Points[0]) },
		"no point name":         func(r *bundle.Release) { r.Points[0].Name = "" },
		"point in capitals":     func(r *bundle.Release) { r.Points[0].Name = "Tool" },
		"point with a space":    func(r *bundle.Release) { r.Points[0].Name = "a b" },
		"point with a slash":    func(r *bundle.Release) { r.Points[0].Name = "a/b" },
		"point with a wildcard": func(r *bundle.Release) { r.Points[0].Name = "a.>" },
		"leading dot":           func(r *bundle.Release) { r.Points[0].Name = ".a" },
		"trailing dot":          func(r *bundle.Release) { r.Points[0].Name = "a." },
		"two dots":              func(r *bundle.Release) { r.Points[0].Name = "a..b" },
		"long point":            func(r *bundle.Release) { r.Points[0].Name = strings.Repeat("a", 65) },
		"durability none":       func(r *bundle.Release) { r.Points[0].Durability = policy.NotRecorded },
		"unknown durability":    func(r *bundle.Release) { r.Points[0].Durability = 9 },
		"unknown fail mode":     func(r *bundle.Release) { r.Points[0].OnStale = 9 },
		"negative lease":        func(r *bundle.Release) { r.Points[0].LeaseSeconds = -1 },
		"endless lease":         func(r *bundle.Release) { r.Points[0].LeaseSeconds = math.MaxInt64 },
		"no package":            func(r *bundle.Release) { r.Points[0].Packages = nil },
		"17 packages":           func(r *bundle.Release) { r.Points[0].Packages = make([]bundle.PackageRef, 17) },
		"package without name":  func(r *bundle.Release) { r.Points[0].Packages[0].Name = "" },
		"no digest":             func(r *bundle.Release) { r.Points[0].Packages[0].Digest = wire.Digest{} },
		"size 0":                func(r *bundle.Release) { r.Points[0].Packages[0].Size = 0 },
		"size too large":        func(r *bundle.Release) { r.Points[0].Packages[0].Size = bundle.MaxPackage + 1 },
		"too much fuel":         func(r *bundle.Release) { r.Points[0].Packages[0].Fuel = abi.MaxFuel + 1 },
		"params not UTF-8":      func(r *bundle.Release) { r.Points[0].Packages[0].Params = map[string]any{"a": "\xff"} },
		"params too deep":       func(r *bundle.Release) { r.Points[0].Packages[0].Params = map[string]any{"a": deep} },
		"params of other types": func(r *bundle.Release) { r.Points[0].Packages[0].Params = map[string]any{"a": 1} },
		"params not a number":   func(r *bundle.Release) { r.Points[0].Packages[0].Params = map[string]any{"a": math.NaN()} },
	} {
		r := release(1)
		change(r)
		if err := r.Validate(); !errors.Is(err, bundle.ErrRelease) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := r.Encode(); !errors.Is(err, bundle.ErrRelease) {
			t.Errorf("%s: encoded (%v)", name, err)
		}
	}
	for _, d := range []policy.Durability{policy.Written, policy.Synced, policy.Region, policy.Regions} {
		r := release(1)
		r.Points[0].Durability = d
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// What was signed is checked like what is to be signed.
func TestSignedNonsenseIsRefused(t *testing.T) {
	p := cast(t)
	r := release(1)
	r.Points[0].Packages[0].Size = 1 << 40
	body, err := wire.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.trust.OpenRelease(sign(t, bundle.ReleaseType, body, p.author, p.approver), now); !errors.Is(err, bundle.ErrRelease) {
		t.Error(err)
	}
}

// flip changes one bit of what s encodes.
func flip(t testing.TB, s string) string {
	b := unbase64(t, s)
	b[len(b)/2] ^= 1
	return base64.StdEncoding.EncodeToString(b)
}

func swapIDs(d *dsse) {
	d.Signatures[0].KeyID, d.Signatures[1].KeyID = d.Signatures[1].KeyID, d.Signatures[0].KeyID
}
