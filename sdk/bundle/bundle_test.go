package bundle_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// people are the keys of one tenant.
type people struct {
	root, author, approver *bundle.PrivateKey
	trust                  *bundle.TrustRoot
}

// key makes a key whose bytes depend on seed alone.
func key(t testing.TB, role bundle.Role, person string, seed byte) *bundle.PrivateKey {
	t.Helper()
	k, err := bundle.NewPrivateKey(role, person, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func cast(t testing.TB) people {
	t.Helper()
	p := people{
		root:     key(t, bundle.RoleRoot, "rosa", 1),
		author:   key(t, bundle.RoleAuthor, "ann", 2),
		approver: key(t, bundle.RoleApprover, "bob", 3),
	}
	p.trust = bundle.NewTrustRoot("acme", now.AddDate(1, 0, 0), p.root.Key, p.author.Key, p.approver.Key)
	return p
}

func release(epoch uint64) *bundle.Release {
	return &bundle.Release{
		Tenant: "acme", Epoch: epoch, Fallback: bundle.FallbackPrevious, Created: now.Unix(),
		Points: []bundle.Point{{
			Name: policy.PointPreCall, Durability: policy.Synced, OnFuel: policy.FailEscalate,
			Packages: []bundle.PackageRef{{Name: "p", Digest: wire.Sum([]byte("p")), Size: 1000, Params: map[string]any{"limit": int64(3)}}},
		}},
	}
}

func payload(t testing.TB, r *bundle.Release) []byte {
	t.Helper()
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sign(t testing.TB, payloadType string, payload []byte, keys ...*bundle.PrivateKey) []byte {
	t.Helper()
	env, err := bundle.Sign(payloadType, payload, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// dsse is the envelope as a stranger sees it.
type dsse struct {
	PayloadType string     `json:"payloadType"`
	Payload     string     `json:"payload"`
	Signatures  []dsseSign `json:"signatures"`
}

type dsseSign struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// tamper returns the envelope after change.
func tamper(t testing.TB, env []byte, change func(*dsse)) []byte {
	t.Helper()
	var d dsse
	if err := json.Unmarshal(env, &d); err != nil {
		t.Fatal(err)
	}
	change(&d)
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
