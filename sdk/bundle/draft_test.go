package bundle_test

import (
	"errors"
	"maps"
	"reflect"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// Who is asked to sign sees what is there, and who signed already.
func TestPeek(t *testing.T) {
	p := cast(t)
	stranger := key(t, bundle.RoleApprover, "mallory", 9)
	env := sign(t, bundle.ReleaseType, payload(t, release(7)), p.author, p.author, stranger)
	got, err := bundle.PeekRelease(env)
	if err != nil || !reflect.DeepEqual(got.Release, *release(7)) || got.Digest != wire.Sum(payload(t, release(7))) || got.Author != "" {
		t.Errorf("%+v, %v", got, err)
	}
	signers, unknown, err := bundle.Signers(env, bundle.ReleaseType, p.trust.Keys)
	if err != nil || len(signers) != 1 || signers[0].Person != "ann" || len(unknown) != 1 || unknown[0] != stranger.ID {
		t.Errorf("%v %v, %v", signers, unknown, err)
	}
	if m := p.trust.Missing(signers, bundle.RoleAuthor, bundle.RoleApprover); !maps.Equal(m, map[bundle.Role]int{bundle.RoleApprover: 1}) {
		t.Errorf("missing %v", m)
	}
	forged := tamper(t, env, func(d *dsse) { d.Signatures[0].Sig = flip(t, d.Signatures[0].Sig) })
	if _, _, err := bundle.Signers(forged, bundle.ReleaseType, p.trust.Keys); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("forged: %v", err)
	}
	if _, err := bundle.PeekRelease(sign(t, bundle.ReleaseType, []byte("x"))); !errors.Is(err, bundle.ErrRelease) {
		t.Errorf("not a release: %v", err)
	}
	if _, err := bundle.PeekTrustRoot(env); !errors.Is(err, bundle.ErrPayloadType) {
		t.Errorf("not a trust root: %v", err)
	}
	root, err := bundle.PeekTrustRoot(sign(t, bundle.TrustRootType, marshal(t, p.trust)))
	if err != nil || !reflect.DeepEqual(root, p.trust) {
		t.Errorf("%+v, %v", root, err)
	}
	p.trust.Version = 0
	if _, err := bundle.PeekTrustRoot(sign(t, bundle.TrustRootType, marshal(t, p.trust))); !errors.Is(err, bundle.ErrTrustRoot) {
		t.Errorf("broken trust root: %v", err)
	}
}
