package audit

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func attestation() *Attestation {
	release := wire.Sum([]byte("release"))
	return &Attestation{
		Tenant: "acme", Node: "edge-1", Boot: boot1, Serial: 7, Time: 1_763_825_600_123_456_789,
		Epoch: 3, Release: release, Enforced: release, Activated: 1_763_825_600_000_000_000,
		Packages: []wire.Digest{{1}, {2}}, Timing: ActivationTiming{Received: 1, Fetch: 2, Admit: 3, Swap: 4}, RootVersion: 1,
		Ring: "canary", Candidate: wire.Sum([]byte("candidate")), Shadow: Observed{Decisions: 10, Differ: 1}, Live: Observed{Decisions: 99, Denied: 3, P99: 40_000},
		Order: 2, OrderEpoch: 4, Vectors: VectorRun{Passed: 12, At: 5}, Second: SecondRun{Samples: 9}, Kills: wire.Sum(nil), KillCount: 0,
		Staleness: Fresh, HeartbeatAge: 1_000_000, Journal: 1234, Binary: wire.Sum([]byte("binary")), Refused: "epoch 4: too far",
	}
}

func TestAttestation(t *testing.T) {
	node := newSigner(t, NodeKeyName("acme", "edge-1"))
	first := &Attestation{Tenant: "acme", Node: "edge-1", Boot: boot1, Serial: 1, Time: 1, Staleness: Stale, HeartbeatAge: -1}
	back := attestation()
	back.Fallback, back.Enforced = true, wire.Sum([]byte("previous"))
	for _, want := range []*Attestation{attestation(), first, back} {
		msg, err := SignAttestation(want, node)
		if err != nil {
			t.Fatal(err)
		}
		got, err := OpenAttestation(msg, node)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// What a node cannot truly say is neither signed nor opened.
func TestAttestationRefuses(t *testing.T) {
	node := newSigner(t, NodeKeyName("acme", "edge-1"))
	for name, breakIt := range map[string]func(*Attestation){
		"a path for a tenant":   func(a *Attestation) { a.Tenant = "acme/region" },
		"no node":               func(a *Attestation) { a.Node = "" },
		"no boot":               func(a *Attestation) { a.Boot = "" },
		"serial 0":              func(a *Attestation) { a.Serial = 0 },
		"no time":               func(a *Attestation) { a.Time = 0 },
		"epoch without release": func(a *Attestation) { a.Release = wire.Digest{} },
		"release without epoch": func(a *Attestation) { a.Epoch = 0 },
		"nothing enforced":      func(a *Attestation) { a.Enforced = wire.Digest{} },
		"another enforced":      func(a *Attestation) { a.Enforced = wire.Sum([]byte("other")) },
		"fallback to itself":    func(a *Attestation) { a.Fallback = true },
		"packages unsorted":     func(a *Attestation) { slices.Reverse(a.Packages) },
		"too many packages":     func(a *Attestation) { a.Packages = make([]wire.Digest, MaxAttestedPackages+1) },
		"no staleness":          func(a *Attestation) { a.Staleness = "" },
		"unknown staleness":     func(a *Attestation) { a.Staleness = "young" },
		"negative age":          func(a *Attestation) { a.HeartbeatAge = -2 },
		"ring of two words":     func(a *Attestation) { a.Ring = "a b" },
	} {
		a := attestation()
		breakIt(a)
		if _, err := SignAttestation(a, node); err == nil {
			t.Errorf("%s: signed", name)
		}
		if got, err := OpenAttestation(attest(t, a, node), node); err == nil {
			t.Errorf("%s: opened %+v", name, got)
		}
	}
	long := attestation()
	long.Refused = strings.Repeat("x", MaxRefused+1)
	if _, err := OpenAttestation(attest(t, long, node), node); err == nil {
		t.Error("a refusal that is too long was opened")
	}
}

// Only the bytes that the node signed as an attestation are one.
func TestAttestationSignature(t *testing.T) {
	node, other := newSigner(t, NodeKeyName("acme", "edge-1")), newSigner(t, NodeKeyName("acme", "edge-1"))
	good := attest(t, attestation(), node)
	body, err := wire.Marshal(attestation())
	if err != nil {
		t.Fatal(err)
	}
	bare, err := node.Sign(body) // without the context that says what it is
	if err != nil {
		t.Fatal(err)
	}
	for name, msg := range map[string][]byte{
		"nothing":        nil,
		"key swapped":    attest(t, attestation(), other),
		"trailing byte":  append(slices.Clone(good), 0),
		"no context":     pair(t, body, bare),
		"no signature":   pair(t, body, nil),
		"body altered":   bytes.Replace(good, []byte("canary"), []byte("stable"), 1),
		"too large":      pair(t, make([]byte, MaxAttestation), bare),
		"not CBOR":       signBody(t, []byte("attestation"), node),
		"trailing body":  signBody(t, append(slices.Clone(body), 0), node),
		"another's name": attest(t, attestation(), newSigner(t, NodeKeyName("acme", "edge-2"))),
	} {
		if got, err := OpenAttestation(msg, node); err == nil {
			t.Errorf("%s: opened %+v", name, got)
		}
	}
	neighbour, umbrella := attestation(), attestation()
	neighbour.Node, umbrella.Tenant = "edge-2", "umbrella"
	for _, a := range []*Attestation{neighbour, umbrella} {
		if got, err := OpenAttestation(attest(t, a, node), node); err == nil {
			t.Errorf("spoke for %s/%s", got.Tenant, got.Node)
		}
	}
	region := newSigner(t, RegionKeyName("acme", "eu")) // its name is that of a node "eu" of "acme/region"
	a := attestation()
	a.Tenant, a.Node = "acme/region", "eu"
	if _, err := OpenAttestation(attest(t, a, region), region); err == nil {
		t.Error("a region spoke as a node")
	}
}

// A node with much to say of a refusal still attests; the largest release fits.
func TestAttestationBounds(t *testing.T) {
	node := newSigner(t, NodeKeyName("acme", "edge-1"))
	a := attestation()
	a.Refused = strings.Repeat("ä", MaxRefused)
	a.Packages = make([]wire.Digest, MaxAttestedPackages)
	for i := range a.Packages {
		a.Packages[i] = wire.Digest{byte(i >> 8), byte(i)}
	}
	msg, err := SignAttestation(a, node)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenAttestation(msg, node)
	if err != nil || len(got.Refused) != MaxRefused || !utf8.ValidString(got.Refused) || len(got.Packages) != MaxAttestedPackages {
		t.Errorf("%v, %d bytes", err, len(msg))
	}
	if len(a.Refused) == MaxRefused {
		t.Error("the caller's attestation was changed")
	}
}

// attest signs without asking whether the attestation holds.
func attest(t testing.TB, a *Attestation, key signer) []byte {
	t.Helper()
	body, err := wire.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return signBody(t, body, key)
}

func signBody(t testing.TB, body []byte, key signer) []byte {
	t.Helper()
	sig, err := key.Sign(append([]byte(attestationContext), body...))
	if err != nil {
		t.Fatal(err)
	}
	return pair(t, body, sig)
}

func pair(t testing.TB, body, sig []byte) []byte {
	t.Helper()
	msg, err := wire.Marshal(signedAttestation{body, sig})
	if err != nil {
		t.Fatal(err)
	}
	return msg
}
