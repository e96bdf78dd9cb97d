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
