package bundle_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// fleet is a tenant with every role that a fleet needs.
type fleet struct {
	people
	eu, us, kim, kay, enrol *bundle.PrivateKey
	dana, dora              *bundle.PrivateKey // data
	logKey                  string             // of node edge-1
}

func newFleet(t testing.TB) fleet {
	t.Helper()
	f := fleet{
		people: cast(t), eu: key(t, bundle.RoleHeartbeat, "eu", 10), us: key(t, bundle.RoleHeartbeat, "us", 11),
		kim: key(t, bundle.RoleKill, "kim", 12), kay: key(t, bundle.RoleKill, "kay", 13), enrol: key(t, bundle.RoleEnrol, "olga", 14),
		dana: key(t, bundle.RoleData, "dana", 16), dora: key(t, bundle.RoleData, "dora", 17),
		logKey: logKey(t, "holdfast/acme/edge-1"),
	}
	f.trust = bundle.NewTrustRoot("acme", now.AddDate(1, 0, 0), f.root.Key, f.author.Key, f.approver.Key, f.eu.Key, f.us.Key, f.kim.Key, f.kay.Key, f.enrol.Key, f.dana.Key, f.dora.Key)
	return f
}

func logKey(t testing.TB, name string) string {
	t.Helper()
	vkey, err := note.NewEd25519VerifierKey(name, key(t, bundle.RoleLog, "edge", 15).Public)
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

func heartbeat() *bundle.Heartbeat {
	return &bundle.Heartbeat{
		Tenant: "acme", Region: "eu", Serial: 9, Time: now.UnixNano(), Expires: now.Add(time.Minute).UnixNano(),
		RootVersion: 1, Epoch: 7, Release: wire.Sum([]byte("r")), Order: 2, Kills: wire.Sum(nil), KillCount: 3,
	}
}

func kill(scope bundle.Scope) *bundle.Kill {
	return &bundle.Kill{Tenant: "acme", Scope: scope, Reason: "INC-7", Created: now.UnixNano()}
}

func lift(kills ...wire.Digest) *bundle.Lift {
	return &bundle.Lift{Tenant: "acme", Kills: kills, Reason: "INC-7 is over", Created: now.UnixNano()}
}

func order() *bundle.Order {
	return &bundle.Order{
		Tenant: "acme", Region: "eu", Epoch: 7, Release: wire.Sum([]byte("r")), Serial: 3, State: bundle.RolloutRunning,
		Rings: []string{bundle.PhaseActive, bundle.PhaseShadow, bundle.PhaseWaiting}, Reason: "canary held", Created: now.UnixNano(), Leader: "eu-1",
	}
}

func (f *fleet) enrolment() *bundle.Enrolment {
	return &bundle.Enrolment{
		Tenant: "acme", Node: "edge-1", Serial: 1, LogKey: f.logKey, Labels: map[string]string{"ring": "canary"},
		User: "UABC", MinEpoch: 4, Created: now.UnixNano(),
	}
}

// kindOf is one kind of signed document with all that the tests ask of it.
type kindOf struct {
	payloadType string
	good        any // as *T
	signers     []*bundle.PrivateKey
	sign        func(doc any, keys []*bundle.PrivateKey) ([]byte, error)
	open        func(env []byte) (doc any, signed bundle.Signed, err error)
}

func (f *fleet) kinds() map[string]kindOf {
	r := f.trust
	return map[string]kindOf{
		"heartbeat": {bundle.HeartbeatType, heartbeat(), []*bundle.PrivateKey{f.eu},
			func(d any, k []*bundle.PrivateKey) ([]byte, error) {
				return bundle.SignHeartbeat(d.(*bundle.Heartbeat), k[0])
			},
			func(env []byte) (any, bundle.Signed, error) {
				s, err := r.OpenHeartbeat(env)
				if err != nil {
					return nil, bundle.Signed{}, err
				}
				return &s.Heartbeat, s.Signed, nil
			}},
		"kill": {bundle.KillType, kill("point:tool.pre_call"), []*bundle.PrivateKey{f.kim},
			func(d any, k []*bundle.PrivateKey) ([]byte, error) { return bundle.SignKill(d.(*bundle.Kill), k...) },
			func(env []byte) (any, bundle.Signed, error) {
				s, err := r.OpenKill(env)
				if err != nil {
					return nil, bundle.Signed{}, err
				}
				return &s.Kill, s.Signed, nil
			}},
		"lift": {bundle.LiftType, lift(wire.Sum([]byte("k"))), []*bundle.PrivateKey{f.kim, f.kay},
			func(d any, k []*bundle.PrivateKey) ([]byte, error) { return bundle.SignLift(d.(*bundle.Lift), k...) },
			func(env []byte) (any, bundle.Signed, error) {
				s, err := r.OpenLift(env)
				if err != nil {
					return nil, bundle.Signed{}, err
				}
				return &s.Lift, s.Signed, nil
			}},
		"order": {bundle.OrderType, order(), []*bundle.PrivateKey{f.eu},
			func(d any, k []*bundle.PrivateKey) ([]byte, error) { return bundle.SignOrder(d.(*bundle.Order), k[0]) },
			func(env []byte) (any, bundle.Signed, error) {
				s, err := r.OpenOrder(env)
				if err != nil {
					return nil, bundle.Signed{}, err
				}
				return &s.Order, s.Signed, nil
			}},
		"enrolment": {bundle.EnrolmentType, f.enrolment(), []*bundle.PrivateKey{f.enrol},
			func(d any, k []*bundle.PrivateKey) ([]byte, error) {
				return bundle.SignEnrolment(d.(*bundle.Enrolment), k...)
			},
			func(env []byte) (any, bundle.Signed, error) {
				s, err := r.OpenEnrolment(env)
				if err != nil {
					return nil, bundle.Signed{}, err
				}
				return &s.Enrolment, s.Signed, nil
			}},
		"erasure": {bundle.ErasureType, erasure(), []*bundle.PrivateKey{f.dana},
			func(d any, k []*bundle.PrivateKey) ([]byte, error) {
				return bundle.SignErasure(d.(*bundle.Erasure), k...)
			},
			func(env []byte) (any, bundle.Signed, error) {
				s, err := r.OpenErasure(env)
				if err != nil {
					return nil, bundle.Signed{}, err
				}
				return &s.Erasure, s.Signed, nil
			}},
		"hold": {bundle.HoldType, hold(), []*bundle.PrivateKey{f.dana},
			func(d any, k []*bundle.PrivateKey) ([]byte, error) { return bundle.SignHold(d.(*bundle.Hold), k...) },
			func(env []byte) (any, bundle.Signed, error) {
				s, err := r.OpenHold(env)
				if err != nil {
					return nil, bundle.Signed{}, err
				}
				return &s.Hold, s.Signed, nil
			}},
		"hold-release": {bundle.HoldReleaseType, holdRelease(wire.Sum([]byte("h"))), []*bundle.PrivateKey{f.dana, f.dora},
			func(d any, k []*bundle.PrivateKey) ([]byte, error) {
				return bundle.SignHoldRelease(d.(*bundle.HoldRelease), k...)
			},
			func(env []byte) (any, bundle.Signed, error) {
				s, err := r.OpenHoldRelease(env)
				if err != nil {
					return nil, bundle.Signed{}, err
				}
				return &s.HoldRelease, s.Signed, nil
			}},
		"retirement": {bundle.RetirementType, retirement(), []*bundle.PrivateKey{f.dana, f.dora},
			func(d any, k []*bundle.PrivateKey) ([]byte, error) {
				return bundle.SignRetirement(d.(*bundle.Retirement), k...)
			},
			func(env []byte) (any, bundle.Signed, error) {
				s, err := r.OpenRetirement(env)
				if err != nil {
					return nil, bundle.Signed{}, err
				}
				return &s.Retirement, s.Signed, nil
			}},
	}
}

func marshal(t testing.TB, doc any) []byte {
	t.Helper()
	b, err := wire.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Each kind opens as what was signed, and says who signed it.
func TestDocuments(t *testing.T) {
	f := newFleet(t)
	for name, k := range f.kinds() {
		env, err := k.sign(k.good, k.signers)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, signed, err := k.open(env)
		if err != nil || !reflect.DeepEqual(got, k.good) {
			t.Errorf("%s: %+v, %v", name, got, err)
			continue
		}
		var who []string
		for _, s := range k.signers {
			who = append(who, s.Person)
		}
		if !slices.Equal(signed.Persons, who) || signed.Digest != wire.Sum(marshal(t, k.good)) || !bytes.Equal(signed.Envelope, env) {
			t.Errorf("%s: %+v", name, signed)
		}
		if bundle.Type(env) != k.payloadType {
			t.Errorf("%s: type %q", name, bundle.Type(env))
		}
	}
}

// Whatever is wrong with the envelope or with who signed it, for every kind.
func TestDocumentsRefuseSignatures(t *testing.T) {
	f := newFleet(t)
	stranger := key(t, bundle.RoleKill, "mallory", 99)
	posing := *f.author
	for name, k := range f.kinds() {
		body := marshal(t, k.good)
		good := sign(t, k.payloadType, body, k.signers...)
		posing.ID = k.signers[0].ID
		for what, c := range map[string]struct {
			env  []byte
			want error
		}{
			"empty":                 {nil, bundle.ErrEnvelope},
			"unsigned":              {sign(t, k.payloadType, body), bundle.ErrThreshold},
			"unknown key":           {sign(t, k.payloadType, body, stranger), bundle.ErrUnknownKey},
			"root key":              {sign(t, k.payloadType, body, f.root), bundle.ErrThreshold},
			"author and approver":   {sign(t, k.payloadType, body, f.author, f.approver), bundle.ErrThreshold},
			"key id of A, key of B": {sign(t, k.payloadType, body, &posing), bundle.ErrSignature},
			"payload altered":       {tamper(t, good, func(d *dsse) { d.Payload = flip(t, d.Payload) }), bundle.ErrSignature},
			"other payload type":    {sign(t, bundle.ReleaseType, body, k.signers...), bundle.ErrPayloadType},
			"type changed":          {tamper(t, sign(t, bundle.ReleaseType, body, k.signers...), func(d *dsse) { d.PayloadType = k.payloadType }), bundle.ErrSignature},
			"trailing bytes":        {append(bytes.Clone(good), "{}"...), bundle.ErrEnvelope},
			"trailing payload byte": {sign(t, k.payloadType, append(bytes.Clone(body), 0), k.signers...), bundle.ErrDocument},
			"not CBOR":              {sign(t, k.payloadType, []byte(name), k.signers...), bundle.ErrDocument},
		} {
			if got, _, err := k.open(c.env); got != nil || !errors.Is(err, c.want) {
				t.Errorf("%s, %s: want %q, got %v", name, what, c.want, err)
			}
		}
	}
}

// A payload that nobody vouches for is not parsed: of two faults, the signature's
// is told.
func TestVerifiedBeforeParsed(t *testing.T) {
	f := newFleet(t)
	for name, k := range f.kinds() {
		forged := tamper(t, sign(t, k.payloadType, []byte("x"), k.signers...), func(d *dsse) { d.Payload = "eHg=" })
		if _, _, err := k.open(forged); !errors.Is(err, bundle.ErrSignature) || errors.Is(err, bundle.ErrDocument) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := k.open(sign(t, k.payloadType, []byte("x"))); !errors.Is(err, bundle.ErrThreshold) {
			t.Errorf("%s, unsigned: %v", name, err)
		}
	}
	if _, err := f.trust.OpenRelease(sign(t, bundle.ReleaseType, []byte("x"), f.author), now); !errors.Is(err, bundle.ErrThreshold) {
		t.Errorf("release by one: %v", err)
	}
	forged := tamper(t, sign(t, bundle.ReleaseType, []byte("x"), f.author, f.approver), func(d *dsse) { d.Payload = "eHg=" })
	if _, err := f.trust.OpenRelease(forged, now); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("release: %v", err)
	}
	next := tamper(t, sign(t, bundle.TrustRootType, []byte("x"), f.root), func(d *dsse) { d.Payload = "eHg=" })
	if _, err := f.trust.OpenNext(next); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("trust root: %v", err)
	}
}

// A document that breaks a rule is neither signed nor opened.
func TestDocumentRules(t *testing.T) {
	f := newFleet(t)
	kinds := f.kinds()
	check := func(kind, rule string, doc any) {
		t.Helper()
		k := kinds[kind]
		if _, err := k.sign(doc, k.signers); !errors.Is(err, bundle.ErrDocument) {
			t.Errorf("%s, %s: signed (%v)", kind, rule, err)
		}
		if got, _, err := k.open(sign(t, k.payloadType, marshal(t, doc), k.signers...)); got != nil || !errors.Is(err, bundle.ErrDocument) {
			t.Errorf("%s, %s: %v", kind, rule, err)
		}
	}
	long, seconds := strings.Repeat("x", bundle.MaxText+1), now.Unix()
	for rule, breakIt := range map[string]func(*bundle.Heartbeat){
		"no tenant":             func(h *bundle.Heartbeat) { h.Tenant = "" },
		"serial 0":              func(h *bundle.Heartbeat) { h.Serial = 0 },
		"time in seconds":       func(h *bundle.Heartbeat) { h.Time, h.Expires = seconds, seconds+10 },
		"time in microseconds":  func(h *bundle.Heartbeat) { h.Time, h.Expires = now.UnixMicro(), now.UnixMicro()+10 },
		"negative time":         func(h *bundle.Heartbeat) { h.Time = math.MinInt64 },
		"expired when it began": func(h *bundle.Heartbeat) { h.Expires = h.Time },
		"lives too long":        func(h *bundle.Heartbeat) { h.Expires = h.Time + int64(bundle.MaxHeartbeatLife) + 1 },
		"epoch without release": func(h *bundle.Heartbeat) { h.Release = wire.Digest{} },
		"release without epoch": func(h *bundle.Heartbeat) { h.Epoch = 0 },
		"too many kills":        func(h *bundle.Heartbeat) { h.KillCount = bundle.MaxKills + 1 },
		"region with a dot":     func(h *bundle.Heartbeat) { h.Region = "e.u" },
	} {
		h := heartbeat()
		breakIt(h)
		check("heartbeat", rule, h)
	}
	for rule, breakIt := range map[string]func(*bundle.Kill){
		"no tenant":    func(k *bundle.Kill) { k.Tenant = "" },
		"no scope":     func(k *bundle.Kill) { k.Scope = "" },
		"no reason":    func(k *bundle.Kill) { k.Reason = "" },
		"long reason":  func(k *bundle.Kill) { k.Reason = long },
		"two lines":    func(k *bundle.Kill) { k.Reason = "a\nb" },
		"moves cursor": func(k *bundle.Kill) { k.Reason = "\x1b[2J" },
		"no time":      func(k *bundle.Kill) { k.Created = 0 },
	} {
		k := kill("all")
		breakIt(k)
		check("kill", rule, k)
	}
	for rule, breakIt := range map[string]func(*bundle.Lift){
		"no tenant":   func(l *bundle.Lift) { l.Tenant = "" },
		"nothing":     func(l *bundle.Lift) { l.Kills = nil },
		"too many":    func(l *bundle.Lift) { l.Kills = make([]wire.Digest, bundle.MaxLifted+1) },
		"no reason":   func(l *bundle.Lift) { l.Reason = "" },
		"long reason": func(l *bundle.Lift) { l.Reason = long },
		"no time":     func(l *bundle.Lift) { l.Created = seconds },
	} {
		l := lift(wire.Sum(nil))
		breakIt(l)
		check("lift", rule, l)
	}
	for rule, breakIt := range map[string]func(*bundle.Order){
		"no tenant":      func(o *bundle.Order) { o.Tenant = "" },
		"epoch 0":        func(o *bundle.Order) { o.Epoch = 0 },
		"no release":     func(o *bundle.Order) { o.Release = wire.Digest{} },
		"serial 0":       func(o *bundle.Order) { o.Serial = 0 },
		"unknown state":  func(o *bundle.Order) { o.State = "paused" },
		"unknown phase":  func(o *bundle.Order) { o.Rings[0] = "on" },
		"too many rings": func(o *bundle.Order) { o.Rings = slices.Repeat([]string{bundle.PhaseWaiting}, bundle.MaxRings+1) },
		"long reason":    func(o *bundle.Order) { o.Reason = long },
		"long leader":    func(o *bundle.Order) { o.Leader = long },
		"no time":        func(o *bundle.Order) { o.Created = 0 },
	} {
		o := order()
		breakIt(o)
		check("order", rule, o)
	}
	for rule, breakIt := range map[string]func(*bundle.Enrolment){
		"no tenant":           func(e *bundle.Enrolment) { e.Tenant = "" },
		"node with a dot":     func(e *bundle.Enrolment) { e.Node = "edge.1" },
		"serial 0":            func(e *bundle.Enrolment) { e.Serial = 0 },
		"no log key":          func(e *bundle.Enrolment) { e.LogKey = "" },
		"log key of another":  func(e *bundle.Enrolment) { e.LogKey = logKey(t, "holdfast/acme/edge-2") },
		"log key of a region": func(e *bundle.Enrolment) { e.LogKey = logKey(t, "holdfast/acme/region/eu") },
		"too many labels": func(e *bundle.Enrolment) {
			for i := range bundle.MaxLabels {
				e.Labels[fmt.Sprint("l", i)] = "x"
			}
		},
		"label without a name":  func(e *bundle.Enrolment) { e.Labels[""] = "x" },
		"label without a value": func(e *bundle.Enrolment) { e.Labels["x"] = "" },
		"long user":             func(e *bundle.Enrolment) { e.User = strings.Repeat("U", 129) },
		"user of two lines":     func(e *bundle.Enrolment) { e.User = "U\nU" },
		"no time":               func(e *bundle.Enrolment) { e.Created = 0 },
	} {
		e := f.enrolment()
		breakIt(e)
		check("enrolment", rule, e)
	}
}

// What belongs to another tenant is none of ours, whoever signed it.
func TestDocumentsOfAnotherTenant(t *testing.T) {
	f := newFleet(t)
	h, k, l, o, e := heartbeat(), kill("all"), lift(wire.Sum(nil)), order(), f.enrolment()
	h.Tenant, k.Tenant, l.Tenant, o.Tenant, e.Tenant = "umbrella", "umbrella", "umbrella", "umbrella", "umbrella"
	e.LogKey = logKey(t, "holdfast/umbrella/edge-1")
	for name, doc := range map[string]any{"heartbeat": h, "kill": k, "lift": l, "order": o, "enrolment": e} {
		kind := f.kinds()[name]
		if _, _, err := kind.open(sign(t, kind.payloadType, marshal(t, doc), kind.signers...)); !errors.Is(err, bundle.ErrTenant) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A region's key speaks for its region alone.
func TestRegionKeys(t *testing.T) {
	f := newFleet(t)
	for name, keys := range map[string][]*bundle.PrivateKey{"the other region's": {f.us}, "both": {f.us, f.eu}, "both, own first": {f.eu, f.us}} {
		if _, err := f.trust.OpenHeartbeat(sign(t, bundle.HeartbeatType, marshal(t, heartbeat()), keys...)); !errors.Is(err, bundle.ErrSignature) {
			t.Errorf("heartbeat, %s: %v", name, err)
		}
		if _, err := f.trust.OpenOrder(sign(t, bundle.OrderType, marshal(t, order()), keys...)); !errors.Is(err, bundle.ErrSignature) {
			t.Errorf("order, %s: %v", name, err)
		}
	}
}

// Any one may stop; two persons must agree to let go, whatever they sign with.
func TestKillAndLiftSigners(t *testing.T) {
	f := newFleet(t)
	again, upper := key(t, bundle.RoleKill, "kim", 20), key(t, bundle.RoleKill, "KIM", 21)
	f.trust.Keys = append(f.trust.Keys, again.Key, upper.Key)
	for name, keys := range map[string][]*bundle.PrivateKey{
		"one": {f.kim}, "one twice": {f.kim, f.kim}, "two keys of one person": {f.kim, again}, "one person in two cases": {f.kim, upper},
		"one and an author": {f.kim, f.author},
	} {
		if _, err := f.trust.OpenLift(sign(t, bundle.LiftType, marshal(t, lift(wire.Sum(nil))), keys...)); !errors.Is(err, bundle.ErrThreshold) {
			t.Errorf("lift by %s: %v", name, err)
		}
		if _, err := f.trust.OpenKill(sign(t, bundle.KillType, marshal(t, kill("all")), keys...)); err != nil {
			t.Errorf("kill by %s: %v", name, err)
		}
	}
	first, err := bundle.SignLift(lift(wire.Sum(nil)), f.kim)
	if err != nil {
		t.Fatal(err)
	}
	both, err := bundle.AddSignature(first, bundle.LiftType, f.kay)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := f.trust.OpenLift(both); err != nil || !slices.Equal(s.Persons, []string{"kim", "kay"}) {
		t.Errorf("%+v, %v", s, err)
	}
}

// A trust root that is expired still stops, and still hears its regions: expiry
// gates what is new, and nothing here loosens anything.
func TestExpiredRootStillStops(t *testing.T) {
	f := newFleet(t)
	f.trust.Expires = now.AddDate(-1, 0, 0).Unix()
	for name, k := range f.kinds() {
		if _, _, err := k.open(sign(t, k.payloadType, marshal(t, k.good), k.signers...)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.trust.OpenRelease(sign(t, bundle.ReleaseType, payload(t, release(7)), f.author, f.approver), now); !errors.Is(err, bundle.ErrRootExpired) {
		t.Errorf("release: %v", err)
	}
}

// A trust root that was broken in memory opens nothing.
func TestBrokenRootOpensNothing(t *testing.T) {
	for _, n := range []int{0, -1} {
		f := newFleet(t)
		for role := range maps.Clone(f.trust.Thresholds) {
			f.trust.Thresholds[role] = n
		}
		for name, k := range f.kinds() {
			if _, _, err := k.open(sign(t, k.payloadType, marshal(t, k.good))); !errors.Is(err, bundle.ErrTrustRoot) {
				t.Errorf("%s, thresholds %d: %v", name, n, err)
			}
		}
	}
}

func TestScope(t *testing.T) {
	d := wire.Sum(nil).Hex()
	for s, want := range map[bundle.Scope][2]string{
		"all": {"all", ""}, "point:tool.pre_call": {"point", "tool.pre_call"}, "subject:user:alice": {"subject", "user:alice"},
		"resource:x": {"resource", "x"}, bundle.Scope("policy:" + d): {"policy", d}, bundle.Scope("policy:sha256:" + d): {"policy", d},
	} {
		if kind, name, err := s.Split(); err != nil || kind != want[0] || name != want[1] {
			t.Errorf("%s: %s %s %v", s, kind, name, err)
		}
	}
	for _, s := range []bundle.Scope{
		"", "All", "all:", "all:x", "point", "point:", "point:a b", "point:a..b", "subject:", "subject", "resource:\x00", "subject:a\xff",
		"policy:", "policy:x", "policy:" + bundle.Scope(d[:62]), "node:x", bundle.Scope("subject:" + strings.Repeat("x", 513)),
	} {
		if kind, name, err := s.Split(); err == nil {
			t.Errorf("%q: %s %s", s, kind, name)
		}
	}
}

func TestType(t *testing.T) {
	f := newFleet(t)
	for _, want := range []string{bundle.ReleaseType, bundle.TrustRootType} {
		if got := bundle.Type(sign(t, want, []byte("x"), f.root)); got != want {
			t.Errorf("%s: %q", want, got)
		}
	}
	for name, env := range map[string][]byte{
		"nothing": nil, "not JSON": []byte("x"), "another's": sign(t, "application/vnd.in-toto+json", []byte("x"), f.root),
		"no payload": tamper(t, sign(t, bundle.KillType, []byte("x"), f.kim), func(d *dsse) { d.Payload = "" }),
		"too large":  append(sign(t, bundle.KillType, []byte("x"), f.kim), bytes.Repeat([]byte(" "), bundle.MaxEnvelope)...),
	} {
		if got := bundle.Type(env); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A phase is never more than the order gives.
func TestPhase(t *testing.T) {
	o := order()
	for ring, want := range map[int]string{-1: bundle.PhaseWaiting, 0: bundle.PhaseActive, 1: bundle.PhaseShadow, 2: bundle.PhaseWaiting, 3: bundle.PhaseWaiting, math.MinInt: bundle.PhaseWaiting} {
		if got := o.Phase(ring); got != want {
			t.Errorf("ring %d: %s", ring, got)
		}
	}
	o.State = bundle.RolloutHalted
	for ring := -1; ring < 4; ring++ {
		if got := o.Phase(ring); got != bundle.PhaseWaiting {
			t.Errorf("halted, ring %d: %s", ring, got)
		}
	}
	o.State = bundle.RolloutComplete
	for ring := -1; ring < 4; ring++ {
		if got := o.Phase(ring); got != bundle.PhaseActive {
			t.Errorf("complete, ring %d: %s", ring, got)
		}
	}
}

func TestRings(t *testing.T) {
	r := release(7)
	if r.RingOf("n", nil) != 0 {
		t.Error("without rings there is one for everybody")
	}
	r.Rings = []bundle.Ring{
		{Name: "canary", Labels: map[string]string{"ring": "canary"}, Percent: 100},
		{Name: "some", Percent: 30}, {Name: "eu", Labels: map[string]string{"region": "eu", "kind": "atm"}, Percent: 100},
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	some, none := 0, 0
	for i := range 1000 {
		node := fmt.Sprint("edge-", i)
		if got := r.RingOf(node, map[string]string{"ring": "canary"}); got != 0 {
			t.Fatalf("%s: ring %d", node, got)
		}
		got := r.RingOf(node, map[string]string{"region": "eu"})
		if later := *r; later.RingOf(node, map[string]string{"region": "eu"}) != got {
			t.Fatalf("%s moved", node)
		}
		switch got {
		case 1:
			some++
		case -1:
			none++
		default:
			t.Fatalf("%s: ring %d", node, got)
		}
		if all := r.RingOf(node, map[string]string{"region": "eu", "kind": "atm"}); all != 1 && all != 2 {
			t.Fatalf("%s: ring %d", node, all)
		}
	}
	if some < 250 || some > 350 || some+none != 1000 {
		t.Errorf("30%% of 1000 nodes are %d", some)
	}
}

func TestReleaseRules(t *testing.T) {
	ring := func(change func(*bundle.Ring)) func(*bundle.Release) {
		return func(r *bundle.Release) {
			r.Rings = []bundle.Ring{{Name: "all", Percent: 100}}
			change(&r.Rings[0])
		}
	}
	for name, breakIt := range map[string]func(*bundle.Release){
		"ring without a name":   ring(func(g *bundle.Ring) { g.Name = "" }),
		"ring of 0 percent":     ring(func(g *bundle.Ring) { g.Percent = 0 }),
		"ring of 101 percent":   ring(func(g *bundle.Ring) { g.Percent = 101 }),
		"negative bake":         ring(func(g *bundle.Ring) { g.Bake.Seconds = -1 }),
		"a bake without an end": ring(func(g *bundle.Ring) { g.Bake.Seconds = bundle.MaxLease + 1 }),
		"endless shadow":        ring(func(g *bundle.Ring) { g.Shadow.Decisions = 1<<40 + 1 }),
		"ring twice":            func(r *bundle.Release) { r.Rings = []bundle.Ring{{Name: "a", Percent: 1}, {Name: "a", Percent: 1}} },
		"too many rings":        func(r *bundle.Release) { r.Rings = make([]bundle.Ring, bundle.MaxRings+1) },
		"halt without rings":    func(r *bundle.Release) { r.Halt.TrapsPerMillion = 1 },
		"more than all traps": func(r *bundle.Release) {
			r.Rings, r.Halt.TrapsPerMillion = []bundle.Ring{{Name: "a", Percent: 1}}, 1_000_001
		},
		"more than all live":  func(r *bundle.Release) { r.LivePerMillion = 1_000_001 },
		"negative aging":      func(r *bundle.Release) { r.Staleness.AgingSeconds = -1 },
		"seventeen regions":   func(r *bundle.Release) { r.Staleness.Regions = 17 },
		"too much fuel":       func(r *bundle.Release) { r.Limits.MaxFuel = math.MaxUint64 },
		"too much in flight":  func(r *bundle.Release) { r.Points[0].Limits.MaxInFlight = 1<<20 + 1 },
		"mask of everything":  func(r *bundle.Release) { r.Points[0].Masks = []bundle.Mask{{Path: "/", Action: bundle.MaskDrop}} },
		"mask with no action": func(r *bundle.Release) { r.Points[0].Masks = []bundle.Mask{{Path: "/id"}} },
		"mask of the point":   func(r *bundle.Release) { r.Points[0].Masks = []bundle.Mask{{Path: "/point", Action: bundle.MaskDrop}} },
		"mask of nothing": func(r *bundle.Release) {
			r.Points[0].Masks = []bundle.Mask{{Path: "/user/id", Action: bundle.MaskDrop}}
		},
		"mask with a bad escape": func(r *bundle.Release) {
			r.Points[0].Masks = []bundle.Mask{{Path: "/context/~2", Action: bundle.MaskDrop}}
		},
		"too many masks":         func(r *bundle.Release) { r.Points[0].Masks = make([]bundle.Mask, 65) },
		"audience without value": func(r *bundle.Release) { r.Audience = map[string]string{"a": ""} },
	} {
		r := release(7)
		breakIt(r)
		if err := r.Validate(); !errors.Is(err, bundle.ErrRelease) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAudience(t *testing.T) {
	r := release(7)
	if err := r.For(nil); err != nil {
		t.Error(err)
	}
	r.Audience = map[string]string{"kind": "atm", "zone": "eu"}
	for _, c := range []struct {
		labels map[string]string
		want   error
	}{
		{map[string]string{"kind": "atm", "zone": "eu", "more": "x"}, nil},
		{map[string]string{"kind": "atm"}, bundle.ErrAudience},
		{map[string]string{"kind": "desk", "zone": "eu"}, bundle.ErrAudience},
		{nil, bundle.ErrAudience},
	} {
		if err := r.For(c.labels); !errors.Is(err, c.want) {
			t.Errorf("%v: %v", c.labels, err)
		}
	}
}
