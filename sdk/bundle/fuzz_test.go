package bundle_test

import (
	"bytes"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// What OpenPackage accepts, Encode writes again, with the same digest.
func FuzzOpenPackage(f *testing.F) {
	file, _ := encode(f, pkg())
	raw, err := wire.Decompress(file, bundle.MaxPackage)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, true)
	f.Add(file, false)
	for _, hostile := range hostileFiles(file) {
		if len(hostile) < 10_000 {
			f.Add(hostile, false)
		}
	}
	exactly, _ := encode(f, exact())
	f.Add(exactly, false)
	f.Fuzz(func(t *testing.T, b []byte, compress bool) {
		if compress { // so that the fuzzer gets behind the compression
			b = wire.Compress(b)
		}
		p, digest, err := bundle.OpenPackage(b, 1<<20)
		if err != nil {
			return
		}
		if _, again, err := p.Encode(); err != nil || again != digest {
			t.Fatalf("opened %s, encodes as %s (%v)", digest, again, err)
		}
	})
}

// Nothing but the release that was signed opens, whatever is around it.
func FuzzOpenRelease(f *testing.F) {
	p := cast(f)
	body := payload(f, release(7))
	good := sign(f, bundle.ReleaseType, body, p.author, p.approver)
	f.Add(good)
	f.Add(sign(f, bundle.ReleaseType, body, p.author))
	f.Add([]byte(`{"payloadType":"","payload":"","signatures":[{"keyid":"","sig":""}]}`))
	f.Fuzz(func(t *testing.T, env []byte) {
		bundle.UnverifiedEpoch(env)
		s, err := p.trust.OpenRelease(env, now)
		if err == nil && s.Digest != wire.Sum(body) {
			t.Fatalf("opened %s", env)
		}
	})
}

// FuzzRelease signs whatever comes, so that the fuzzer gets behind the signatures.
func FuzzRelease(f *testing.F) {
	p := cast(f)
	f.Add(payload(f, release(7)))
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > bundle.MaxPayload {
			return
		}
		s, err := p.trust.OpenRelease(sign(t, bundle.ReleaseType, body, p.author, p.approver), now)
		if err != nil {
			return
		}
		if again, err := s.Release.Encode(); err != nil || !bytes.Equal(again, body) {
			t.Fatalf("%x encodes as %x (%v)", body, again, err)
		}
	})
}

func FuzzTrustRoot(f *testing.F) {
	p := cast(f)
	body, err := wire.Marshal(p.trust)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body, true)
	f.Add(sign(f, bundle.TrustRootType, body, p.root), false)
	f.Fuzz(func(t *testing.T, b []byte, signIt bool) {
		if signIt && len(b) <= bundle.MaxPayload {
			b = sign(t, bundle.TrustRootType, b, p.root)
		}
		r, err := bundle.OpenTrustRoot(b, now)
		if err != nil {
			return
		}
		if _, err := bundle.SignTrustRoot(r, p.root); err != nil {
			t.Fatalf("opened, but not to be signed: %v", err)
		}
	})
}

func FuzzRatchet(f *testing.F) {
	b, err := bundle.Ratchet{Epoch: 1}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := bundle.DecodeRatchet(b)
		if err != nil {
			return
		}
		if again, err := r.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x encodes as %x (%v)", b, again, err)
		}
	})
}

// fuzzDocument signs whatever comes when asked to, so that the fuzzer gets behind
// the signatures. What opens is what its own kind signs again; without the keys
// nothing opens but the seed.
func fuzzDocument(f *testing.F, kind string) {
	fl := newFleet(f)
	k := fl.kinds()[kind]
	body := marshal(f, k.good)
	f.Add(body, true)
	f.Add(sign(f, k.payloadType, body, k.signers...), false)
	f.Add(sign(f, k.payloadType, body), false)
	f.Fuzz(func(t *testing.T, b []byte, signIt bool) {
		env := b
		if signIt {
			if len(b) > bundle.MaxPayload {
				return
			}
			env = sign(t, k.payloadType, b, k.signers...)
		}
		bundle.Type(env)
		doc, signed, err := k.open(env)
		switch {
		case err != nil:
		case !signIt && signed.Digest != wire.Sum(body):
			t.Fatalf("forged: %s", env)
		default:
			if again, err := k.sign(doc, k.signers); err != nil || signIt && !bytes.Equal(again, env) {
				t.Fatalf("opened, but not what would be signed: %v", err)
			}
		}
	})
}

func FuzzOpenHeartbeat(f *testing.F) { fuzzDocument(f, "heartbeat") }
func FuzzOpenKill(f *testing.F)      { fuzzDocument(f, "kill") }
func FuzzOpenLift(f *testing.F)      { fuzzDocument(f, "lift") }
func FuzzOpenOrder(f *testing.F)     { fuzzDocument(f, "order") }
func FuzzOpenEnrolment(f *testing.F) { fuzzDocument(f, "enrolment") }

func FuzzOpenErasure(f *testing.F)     { fuzzDocument(f, "erasure") }
func FuzzOpenHold(f *testing.F)        { fuzzDocument(f, "hold") }
func FuzzOpenHoldRelease(f *testing.F) { fuzzDocument(f, "hold-release") }
func FuzzOpenRetirement(f *testing.F)  { fuzzDocument(f, "retirement") }

// A chain of trust roots never ends with keys that the chain did not sign.
func FuzzOpenChain(f *testing.F) {
	p := cast(f)
	e := succession(f, p, 2)
	f.Add(e[0], e[1])
	f.Add(e[1], e[0])
	f.Add([]byte("x"), e[0])
	f.Fuzz(func(t *testing.T, a, b []byte) {
		chain, _ := p.trust.OpenChain([][]byte{a, b})
		for i, r := range chain {
			env := [][]byte{a, b}
			if r.Version != uint64(i+2) || !same(t, r, e[i]) {
				t.Fatalf("version %d from %q", r.Version, env)
			}
		}
	})
}

func same(t *testing.T, r *bundle.TrustRoot, env []byte) bool {
	t.Helper()
	want, err := bundle.ReopenTrustRoot(env)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(marshal(t, r), marshal(t, want))
}

func FuzzScope(f *testing.F) {
	for _, s := range []string{"all", "point:tool.pre_call", "subject:user:alice", "policy:" + wire.Sum(nil).Hex()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		kind, name, err := bundle.Scope(s).Split()
		if err != nil {
			return
		}
		again := kind
		if kind != bundle.ScopeAll {
			again += ":" + name
		}
		if k, n, err := bundle.Scope(again).Split(); err != nil || k != kind || n != name {
			t.Fatalf("%q is %q, which is %q %q (%v)", s, again, k, n, err)
		}
	})
}
