package policyinput

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
	"github.com/holdfast-policy/holdfast/testdata/hostile"
)

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// maker makes the corpus: everything in it depends on fixed seeds alone.
type maker struct {
	t                           testing.TB
	root, author, approver      *bundle.PrivateKey
	eu, us, kim, kay, enrol     *bundle.PrivateKey
	stranger                    *bundle.PrivateKey
	trust                       *bundle.TrustRoot
	good, failing               bundle.PackageRef
	missing, cut, bomb, foreign bundle.PackageRef
	packages                    map[string][]byte // files by name
	cases                       []Case
	documents                   map[string][]byte
}

func newMaker(t testing.TB) *maker {
	m := &maker{t: t, packages: map[string][]byte{}, documents: map[string][]byte{}}
	m.root, m.author, m.approver = m.key(bundle.RoleRoot, "rosa", 1), m.key(bundle.RoleAuthor, "ann", 2), m.key(bundle.RoleApprover, "bob", 3)
	m.eu, m.us = m.key(bundle.RoleHeartbeat, "eu", 4), m.key(bundle.RoleHeartbeat, "us", 5)
	m.kim, m.kay, m.enrol = m.key(bundle.RoleKill, "kim", 6), m.key(bundle.RoleKill, "kay", 7), m.key(bundle.RoleEnrol, "olga", 8)
	m.stranger = m.key(bundle.RoleApprover, "mallory", 9)
	m.trust = m.rootOf(m.root, m.author, m.approver, m.eu, m.us, m.kim, m.kay, m.enrol)
	m.makePackages()
	return m
}

func (m *maker) key(role bundle.Role, person string, seed byte) *bundle.PrivateKey {
	k, err := bundle.NewPrivateKey(role, person, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	m.must(err)
	return k
}

func (m *maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *maker) rootOf(keys ...*bundle.PrivateKey) *bundle.TrustRoot {
	var public []bundle.Key
	for _, k := range keys {
		public = append(public, k.Key)
	}
	return bundle.NewTrustRoot("acme", now.AddDate(1, 0, 0), public...)
}

func (m *maker) pkg(name string, expect policy.Verdict) (file []byte, ref bundle.PackageRef) {
	module, err := hostile.FS.ReadFile("honest.wasm")
	m.must(err)
	p := &bundle.Package{
		Manifest: bundle.Manifest{Name: name, ABI: string(abi.HoldfastV1), Class: bundle.ClassPolicy}, Module: module,
		Vectors: []bundle.Vector{{Name: "v", Point: policy.PointCustom, Request: []byte(`{"document":1}`), Expect: bundle.Expect{Verdict: expect}}},
	}
	file, d, err := p.Encode()
	m.must(err)
	raw, err := wire.Decompress(file, bundle.MaxPackage)
	m.must(err)
	return file, bundle.PackageRef{Name: name, Digest: d, Size: uint64(len(raw))}
}

func (m *maker) makePackages() {
	store := func(ref bundle.PackageRef, file []byte) { m.packages[ref.Digest.Hex()+".hfp"] = file }
	file, ref := m.pkg("honest", policy.Allow)
	m.good = ref
	store(ref, file)
	other, ref := m.pkg("other", policy.Allow)
	m.foreign = ref
	m.foreign.Size = m.good.Size // so that only the digest tells
	store(ref, file)             // the honest one under another's digest
	_, m.missing = m.pkg("missing", policy.Allow)
	_, m.cut = m.pkg("cut", policy.Allow)
	m.cut.Size = ref.Size
	store(m.cut, other[:len(other)/2])
	_, m.bomb = m.pkg("bomb", policy.Allow)
	store(m.bomb, wire.Compress(make([]byte, 8<<20)))
	file, m.failing = m.pkg("failing", policy.Deny)
	store(m.failing, file)
}

func (m *maker) release(epoch uint64, change func(*bundle.Release)) *bundle.Release {
	r := &bundle.Release{
		Tenant: "acme", Epoch: epoch, Fallback: bundle.FallbackPrevious, Created: now.Unix() - 60,
		Points: []bundle.Point{{Name: policy.PointCustom, Durability: policy.Synced, Packages: []bundle.PackageRef{m.good}}},
	}
	if change != nil {
		change(r)
	}
	return r
}

func (m *maker) marshal(doc any) []byte {
	b, err := wire.Marshal(doc)
	m.must(err)
	return b
}

func (m *maker) sign(payloadType string, doc any, keys ...*bundle.PrivateKey) []byte {
	payload, ok := doc.([]byte)
	if !ok {
		payload = m.marshal(doc)
	}
	env, err := bundle.Sign(payloadType, payload, keys...)
	m.must(err)
	return env
}

// both signs as author and approver.
func (m *maker) both(doc any) []byte { return m.sign(bundle.ReleaseType, doc, m.author, m.approver) }

// envelope is a DSSE envelope as a stranger sees it.
type envelope struct {
	PayloadType string           `json:"payloadType"`
	Payload     string           `json:"payload"`
	Signatures  []map[string]any `json:"signatures"`
}

func (m *maker) tamper(env []byte, change func(*envelope)) []byte {
	var e envelope
	m.must(json.Unmarshal(env, &e))
	change(&e)
	b, err := json.Marshal(e)
	m.must(err)
	return append(b, '\n')
}

func flip(s string, at int) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err) // of our own making
	}
	b[at] ^= 1
	return base64.StdEncoding.EncodeToString(b)
}

func (m *maker) add(asks, name, tries string, document []byte) {
	if m.documents[name] != nil {
		m.t.Fatalf("case %s twice", name)
	}
	m.documents[name] = document
	m.cases = append(m.cases, Case{Name: name, Tries: tries, Asks: asks})
}

// make makes every case.
func (m *maker) make() {
	m.signatures()
	m.encodings()
	m.releases()
	m.packageFaults()
	m.roots()
	m.others()
}

func (m *maker) signatures() {
	next := m.release(6, nil)
	good := m.both(next)
	posing := *m.author
	posing.ID = m.approver.ID
	node := func(name, tries string, doc []byte) { m.add("node", name, tries, doc) }
	node("unsigned", "an empty list of signatures", m.tamper(good, func(e *envelope) { e.Signatures = []map[string]any{} }))
	node("unsigned-null", "null for the signatures", m.tamper(good, func(e *envelope) { e.Signatures = nil }))
	node("unsigned-no-member", "no signatures at all", m.without(good, "signatures"))
	node("signature-empty", "signatures of no bytes", m.tamper(good, func(e *envelope) { e.Signatures[0]["sig"], e.Signatures[1]["sig"] = "", "" }))
	node("signature-zero", "signatures of 64 zeros", m.tamper(good, func(e *envelope) {
		zero := base64.StdEncoding.EncodeToString(make([]byte, 64))
		e.Signatures[0]["sig"], e.Signatures[1]["sig"] = zero, zero
	}))
	node("signature-without-key-id", "the approver's signature without a key id", m.tamper(good, func(e *envelope) { delete(e.Signatures[1], "keyid") }))
	node("signature-key-ids-swapped", "each signature under the other's key id", m.tamper(good, func(e *envelope) {
		e.Signatures[0]["keyid"], e.Signatures[1]["keyid"] = e.Signatures[1]["keyid"], e.Signatures[0]["keyid"]
	}))
	node("signature-altered", "one bit of a signature turned", m.tamper(good, func(e *envelope) { e.Signatures[1]["sig"] = flip(e.Signatures[1]["sig"].(string), 10) }))
	node("signature-of-another-release", "the signatures of another release", m.tamper(good, func(e *envelope) { e.Payload = base64.StdEncoding.EncodeToString(m.marshal(m.release(7, nil))) }))
	node("author-alone", "the author's signature alone", m.sign(bundle.ReleaseType, next, m.author))
	node("approver-alone", "the approver's signature alone", m.sign(bundle.ReleaseType, next, m.approver))
	node("author-twice", "one signer counted twice", m.sign(bundle.ReleaseType, next, m.author, m.author))
	node("author-and-root", "a root key in the place of the approver's", m.sign(bundle.ReleaseType, next, m.author, m.root))
	node("author-and-kill", "a kill key in the place of the approver's", m.sign(bundle.ReleaseType, next, m.author, m.kim))
	node("unknown-approver", "an approver whom nobody knows", m.sign(bundle.ReleaseType, next, m.author, m.stranger))
	node("unknown-keys", "only keys that nobody knows", m.sign(bundle.ReleaseType, next, m.stranger))
	node("key-id-of-a-key-of-b", "the author's key under the approver's key id", m.sign(bundle.ReleaseType, next, m.author, &posing))
	node("payload-altered", "one bit of the payload turned", m.tamper(good, func(e *envelope) { e.Payload = flip(e.Payload, 20) }))
	node("too-many-signatures", "33 signatures", m.tamper(good, func(e *envelope) {
		for len(e.Signatures) < bundle.MaxSignatures+1 {
			e.Signatures = append(e.Signatures, e.Signatures[0])
		}
	}))
}

// without removes a member of an envelope.
func (m *maker) without(env []byte, member string) []byte {
	var e map[string]any
	m.must(json.Unmarshal(env, &e))
	delete(e, member)
	b, err := json.Marshal(e)
	m.must(err)
	return b
}

func (m *maker) encodings() {
	// A note that makes the base64 differ from base64url.
	next := m.release(6, func(r *bundle.Release) { r.Note = strings.Repeat("?>~", 20) })
	good := m.both(next)
	body := m.marshal(next)
	node := func(name, tries string, doc []byte) { m.add("node", name, tries, doc) }
	node("empty", "no bytes", []byte{})
	node("not-json", "text that is not JSON", []byte("release"))
	node("array", "an array around the envelope", append(append([]byte("["), bytes.TrimSpace(good)...), ']'))
	node("byte-order-mark", "a byte order mark before the envelope", append([]byte("\xef\xbb\xbf"), good...))
	node("type-of-a-trust-root", "a release, signed as a trust root", m.sign(bundle.TrustRootType, next, m.author, m.approver))
	node("type-changed", "signed as a trust root, then called a release", m.tamper(m.sign(bundle.TrustRootType, next, m.author, m.approver), func(e *envelope) { e.PayloadType = bundle.ReleaseType }))
	node("type-of-others", "signed as an in-toto statement", m.sign("application/vnd.in-toto+json", next, m.author, m.approver))
	node("type-in-capitals", "the payload type in capitals", m.sign(strings.ToUpper(bundle.ReleaseType), next, m.author, m.approver))
	node("base64url", "the payload in base64url", m.tamper(good, func(e *envelope) { e.Payload = base64.URLEncoding.EncodeToString(body) }))
	node("base64-unpadded", "a signature without its padding", m.tamper(good, func(e *envelope) { e.Signatures[0]["sig"] = strings.TrimRight(e.Signatures[0]["sig"].(string), "=") }))
	node("base64-line-feed", "a line feed in the payload", m.tamper(good, func(e *envelope) { e.Payload = e.Payload[:8] + "\n" + e.Payload[8:] }))
	node("trailing-bytes", "a second envelope behind the first", append(bytes.Clone(good), good...))
	node("trailing-zero", "a zero behind the envelope", append(bytes.Clone(good), 0))
	node("trailing-payload-byte", "a byte behind the payload, signed", m.both(append(bytes.Clone(body), 0)))
	node("payload-empty", "no payload, signed", m.both([]byte{}))
	node("payload-not-cbor", "a payload that is JSON, signed", m.both([]byte(`{"tenant":"acme","epoch":6}`)))
	node("payload-unsorted", "a payload whose members are in another order, signed", m.both(unsorted(body)))
	node("payload-unknown-member", "a payload with a member that nobody knows, signed", m.both(map[string]any{"tenant": "acme", "epoch": 6, "bypass": true}))
	node("payload-a-trust-root", "a trust root called a release, signed", m.both(m.trust))
	node("member-twice", "two payloads in one envelope", bytes.Replace(good, []byte(`{"payloadType"`), []byte(`{"payload":"","payloadType"`), 1))
	node("member-unknown", "an envelope that brings its own keys", bytes.Replace(good, []byte(`{"payloadType"`), []byte(`{"keys":[],"payloadType"`), 1))
	node("member-in-capitals", "a member of the envelope in another case", bytes.Replace(good, []byte(`"signatures"`), []byte(`"Signatures"`), 1))
}

// unsorted moves the first member of a CBOR map of less than 24 members to its
// end: the same value, and not how we would write it.
func unsorted(body []byte) []byte {
	var all map[string]wire.RawMessage
	if wire.Unmarshal(body, &all) != nil {
		panic("not a map")
	}
	first := body[1 : 1+1+int(body[1]&0x1f)]
	value := all[string(first[1:])]
	rest := body[1+len(first)+len(value):]
	return bytes.Join([][]byte{body[:1], rest, first, value}, nil)
}

func (m *maker) releases() {
	sec := now.Unix()
	add := func(name, tries string, epoch uint64, change func(*bundle.Release)) {
		m.add("node", name, tries, m.both(m.release(epoch, change)))
	}
	add("expired", "a release that expired a second ago", 6, func(r *bundle.Release) { r.Created, r.Expires = sec-100, sec-1 })
	add("expires-now", "a release that expires now", 6, func(r *bundle.Release) { r.Expires = sec })
	add("not-yet-valid", "a release of tomorrow", 6, func(r *bundle.Release) { r.NotBefore = sec + 86_400 })
	add("epoch-lower", "the epoch before, validly signed", 4, nil)
	add("epoch-first", "the first epoch again", 1, nil)
	add("epoch-zero", "epoch 0", 0, nil)
	add("epoch-equal-other-bytes", "another release with the epoch in force", 5, func(r *bundle.Release) { r.Note = "other" })
	add("epoch-billion", "a jump of a billion", 1_000_000_005, nil)
	add("epoch-jump-and-one", "one more than a release may rise", 5+bundle.MaxEpochJump+1, nil)
	add("epoch-last", "the last epoch there can be", math.MaxUint64, nil)
	add("tenant-other", "another tenant's release, signed by our people", 6, func(r *bundle.Release) { r.Tenant = "umbrella" })
	add("tenant-in-capitals", "our tenant in capitals", 6, func(r *bundle.Release) { r.Tenant = "ACME" })
	add("points-none", "nothing in force", 6, func(r *bundle.Release) { r.Points = nil })
	add("point-twice", "a point twice", 6, func(r *bundle.Release) { r.Points = append(r.Points, r.Points[0]) })
	add("packages-none", "a point where nobody decides", 6, func(r *bundle.Release) { r.Points[0].Packages = nil })
	add("package-without-digest", "a package of digest zero", 6, func(r *bundle.Release) { r.Points[0].Packages[0].Digest = wire.Digest{} })
	add("package-of-4-gib", "a package of 4 GiB", 6, func(r *bundle.Release) { r.Points[0].Packages[0].Size = 4 << 30 })
	add("package-fuel-endless", "fuel without an end", 6, func(r *bundle.Release) { r.Points[0].Packages[0].Fuel = math.MaxUint64 })
	add("lease-endless", "a lease without an end", 6, func(r *bundle.Release) { r.Points[0].LeaseSeconds = math.MaxInt64 })
	add("lease-negative", "a lease below zero", 6, func(r *bundle.Release) { r.Points[0].LeaseSeconds = -1 })
	add("fallback-unknown", "a fallback that nobody knows", 6, func(r *bundle.Release) { r.Fallback = "anything" })
	add("durability-none", "decisions that leave no record", 6, func(r *bundle.Release) { r.Points[0].Durability = policy.NotRecorded })
	add("rings-endless", "more rings than there may be", 6, func(r *bundle.Release) { r.Rings = make([]bundle.Ring, bundle.MaxRings+1) })
	add("ring-of-nobody", "a ring of no percent", 6, func(r *bundle.Release) { r.Rings = []bundle.Ring{{Name: "a"}} })
	doc := map[string]any{}
	m.must(wire.Unmarshal(m.marshal(m.release(6, nil)), &doc))
	doc["points"].([]any)[0].(map[string]any)["on_error"] = "allow"
	m.add("node", "fail-mode-unknown", "a fail mode that nobody knows", m.both(doc))
	m.add("audience", "audience-other", "a release for other nodes", m.both(m.release(6, func(r *bundle.Release) { r.Audience = map[string]string{"site": "frankfurt"} })))
	m.add("publish", "previous-other", "a release that replaces another than the newest, at publish", m.both(m.release(6, func(r *bundle.Release) { r.Previous = wire.Sum([]byte("another")) })))
}

func (m *maker) packageFaults() {
	add := func(name, tries string, ref bundle.PackageRef) {
		m.add("node", name, tries, m.both(m.release(6, func(r *bundle.Release) { r.Points[0].Packages[0] = ref })))
	}
	add("blob-missing", "a package that is nowhere", m.missing)
	add("blob-of-another-digest", "another package under the digest", m.foreign)
	add("blob-cut", "half a package", m.cut)
	add("blob-bomb", "8 MiB of zeros under a small size", m.bomb)
	add("blob-vectors-fail", "a package whose golden vector fails", m.failing)
	small, turned := m.good, m.good
	small.Size--
	add("blob-longer-than-signed", "a package of a byte more than was signed", small)
	turned.Digest[0] ^= 1
	m.packages[turned.Digest.Hex()+".hfp"] = m.packages[m.good.Digest.Hex()+".hfp"]
	add("blob-digest-mismatch", "a digest with one bit turned", turned)
}

func (m *maker) roots() {
	broken := func(name, tries string, change func(*bundle.TrustRoot)) {
		r := m.rootOf(m.root, m.author, m.approver)
		change(r)
		m.add("trust-root", name, tries, m.sign(bundle.TrustRootType, r, m.root))
	}
	broken("root-threshold-zero", "no approver needed", func(r *bundle.TrustRoot) { r.Thresholds[bundle.RoleApprover] = 0 })
	broken("root-threshold-negative", "less than no author needed", func(r *bundle.TrustRoot) { r.Thresholds[bundle.RoleAuthor] = -1 })
	broken("root-thresholds-none", "no thresholds", func(r *bundle.TrustRoot) { r.Thresholds = nil })
	broken("root-threshold-out-of-reach", "more approvers than there are", func(r *bundle.TrustRoot) { r.Thresholds[bundle.RoleApprover] = 2 })
	broken("root-author-is-approver-key", "one key as author and approver", func(r *bundle.TrustRoot) {
		k := m.author.Key
		k.Role, k.Person = bundle.RoleApprover, "bob"
		r.Keys[2] = k
	})
	broken("root-author-is-approver-person", "one person as author and approver", func(r *bundle.TrustRoot) { r.Keys[2].Person = "ann" })
	broken("root-author-is-approver-case", "one person as author and approver, in capitals", func(r *bundle.TrustRoot) { r.Keys[2].Person = "ANN" })
	broken("root-author-is-approver-unicode", "one person as author and approver, with a Turkish letter", func(r *bundle.TrustRoot) { r.Keys[1].Person, r.Keys[2].Person = "ivan", "\u0130van" })
	broken("root-key-id-of-another", "a key under another's id", func(r *bundle.TrustRoot) { r.Keys[1].ID = r.Keys[2].ID })
	broken("root-key-short", "a public key of 31 bytes", func(r *bundle.TrustRoot) { r.Keys[1].Public = r.Keys[1].Public[:31] })
	broken("root-role-unknown", "a role that nobody knows", func(r *bundle.TrustRoot) { r.Keys[1].Role = "king" })
	broken("root-version-zero", "version 0", func(r *bundle.TrustRoot) { r.Version = 0 })
	broken("root-expired", "a trust root that expired", func(r *bundle.TrustRoot) { r.Expires = now.Unix() - 1 })
	m.add("trust-root", "root-unsigned", "nobody signed it", m.sign(bundle.TrustRootType, m.trust))
	m.add("trust-root", "root-by-author", "an author signed it", m.sign(bundle.TrustRootType, m.trust, m.author))

	successor := func(version uint64, by ...*bundle.PrivateKey) []byte {
		r := m.rootOf(m.key(bundle.RoleRoot, "rosa", 20), m.author, m.approver)
		r.Version = version
		return m.sign(bundle.TrustRootType, r, by...)
	}
	newRoot := m.key(bundle.RoleRoot, "rosa", 20)
	m.add("next", "next-not-by-the-old", "only the new root signed", successor(2, newRoot))
	m.add("next", "next-not-by-the-new", "only the old root signed", successor(2, m.root))
	m.add("next", "next-skips-a-version", "version 3 after version 1", successor(3, m.root, newRoot))
	m.add("next", "next-same-version", "another version 1", successor(1, m.root, newRoot))
}

func (m *maker) others() {
	ns := now.UnixNano()
	h := bundle.Heartbeat{Tenant: "acme", Region: "eu", Serial: 1, Time: ns, Expires: ns + int64(time.Minute), Kills: wire.Sum(nil)}
	beat := func(name, tries string, by *bundle.PrivateKey, change func(*bundle.Heartbeat)) {
		c := h
		if change != nil {
			change(&c)
		}
		m.add("heartbeat", name, tries, m.sign(bundle.HeartbeatType, c, by))
	}
	beat("heartbeat-of-another-region", "one region speaks for another", m.us, nil)
	beat("heartbeat-by-author", "an author speaks for a region", m.author, nil)
	beat("heartbeat-endless", "a heartbeat that lives for a year", m.eu, func(h *bundle.Heartbeat) { h.Expires = ns + int64(365*24*time.Hour) })
	beat("heartbeat-in-seconds", "times in seconds", m.eu, func(h *bundle.Heartbeat) { h.Time, h.Expires = now.Unix(), now.Unix()+60 })
	beat("heartbeat-of-another-tenant", "another tenant's heartbeat", m.eu, func(h *bundle.Heartbeat) { h.Tenant = "umbrella" })
	m.add("heartbeat", "heartbeat-by-two", "both regions sign one heartbeat", m.sign(bundle.HeartbeatType, h, m.eu, m.us))

	k := bundle.Kill{Tenant: "acme", Scope: "all", Reason: "INC-7", Created: ns}
	m.add("kill", "kill-by-approver", "an approver stops everything", m.sign(bundle.KillType, k, m.approver))
	m.add("kill", "kill-unsigned", "nobody stops everything", m.sign(bundle.KillType, k))
	wild := k
	wild.Scope = "point:*"
	m.add("kill", "kill-wildcard", "a scope that is no name", m.sign(bundle.KillType, wild, m.kim))
	screen := k
	screen.Reason = "\x1b[2J all is well"
	m.add("kill", "kill-reason-escapes", "a reason that clears the operator's screen", m.sign(bundle.KillType, screen, m.kim))
	l := bundle.Lift{Tenant: "acme", Kills: []wire.Digest{wire.Sum([]byte("kill"))}, Reason: "over", Created: ns}
	m.add("lift", "lift-by-one", "one person lifts", m.sign(bundle.LiftType, l, m.kim))
	m.add("lift", "lift-by-one-twice", "one person lifts, twice", m.sign(bundle.LiftType, l, m.kim, m.kim))
	m.add("lift", "lift-by-kill-and-approver", "the second person has another role", m.sign(bundle.LiftType, l, m.kim, m.approver))
	m.add("lift", "lift-that-is-a-kill", "a kill called a lift", m.tamper(m.sign(bundle.KillType, l, m.kim, m.kay), func(e *envelope) { e.PayloadType = bundle.LiftType }))

	o := bundle.Order{Tenant: "acme", Region: "eu", Epoch: 6, Release: wire.Sum([]byte("r")), Serial: 1, State: bundle.RolloutComplete, Created: ns}
	m.add("order", "order-of-another-region", "one region orders for another", m.sign(bundle.OrderType, o, m.us))
	m.add("order", "order-by-author-and-approver", "people order what hubs order", m.sign(bundle.OrderType, o, m.author, m.approver))
	skip := o
	skip.State = "forced"
	m.add("order", "order-state-unknown", "a state that nobody knows", m.sign(bundle.OrderType, skip, m.eu))

	vkey, err := note.NewEd25519VerifierKey("holdfast/acme/edge-2", m.stranger.Public)
	m.must(err)
	e := bundle.Enrolment{Tenant: "acme", Node: "edge-1", Serial: 1, LogKey: vkey, Created: ns}
	m.add("enrolment", "enrolment-key-of-another", "a node with another node's log key", m.sign(bundle.EnrolmentType, e, m.enrol))
	e.Node = "edge-2"
	m.add("enrolment", "enrolment-by-author", "an author enrols a node", m.sign(bundle.EnrolmentType, e, m.author))
}
