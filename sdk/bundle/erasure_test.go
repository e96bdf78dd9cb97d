package bundle_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

const aBoot, laterBoot = "00000001-00000000000000aa", "00000002-00000000000000bb"

func erasure() *bundle.Erasure {
	return &bundle.Erasure{
		Tenant: "acme", Reason: "Art. 17", RequestedBy: "DSR-7", Created: now.UnixNano(),
		Records: []bundle.ErasedRecords{
			{Node: "edge-1", Boot: aBoot, Ranges: [][2]uint64{{3, 5}, {9, 9}}},
			{Node: "edge-1", Boot: laterBoot, Ranges: [][2]uint64{{1, 1}}},
			{Node: "edge-2", Boot: aBoot, Ranges: [][2]uint64{{1, 1 << 40}}},
		},
	}
}

func hold() *bundle.Hold {
	return &bundle.Hold{Tenant: "acme", ID: "Case-2026.7", Reason: "litigation", Created: now.UnixNano(),
		Scope: bundle.HoldScope{Node: "edge-1", Point: "tool.pre_call", Subject: wire.Sum([]byte("user:ada")), From: 1, To: now.UnixNano()}}
}

func holdRelease(holds ...wire.Digest) *bundle.HoldRelease {
	return &bundle.HoldRelease{Tenant: "acme", Holds: holds, Reason: "case closed", Created: now.UnixNano()}
}

func retirement() *bundle.Retirement {
	return &bundle.Retirement{Tenant: "acme", Region: "us", Reason: "site closed", Created: now.UnixNano()}
}

// A document about data that breaks a rule is neither signed nor opened.
func TestDataDocumentRules(t *testing.T) {
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
	long := strings.Repeat("x", bundle.MaxText+1)
	for rule, breakIt := range map[string]func(*bundle.Erasure){
		"no tenant":         func(e *bundle.Erasure) { e.Tenant = "" },
		"nothing":           func(e *bundle.Erasure) { e.Records = nil },
		"too many boots":    func(e *bundle.Erasure) { e.Records = make([]bundle.ErasedRecords, bundle.MaxErasedBoots+1) },
		"no reason":         func(e *bundle.Erasure) { e.Reason = "" },
		"long requester":    func(e *bundle.Erasure) { e.RequestedBy = long },
		"no time":           func(e *bundle.Erasure) { e.Created = 0 },
		"node with a dot":   func(e *bundle.Erasure) { e.Records[0].Node = "e.1" },
		"node with a slash": func(e *bundle.Erasure) { e.Records[0].Node = "../e" },
		"no boot":           func(e *bundle.Erasure) { e.Records[0].Boot = "" },
		"boot of a path":    func(e *bundle.Erasure) { e.Records[0].Boot = "../../etc" },
		"no ranges":         func(e *bundle.Erasure) { e.Records[0].Ranges = nil },
		"record 0":          func(e *bundle.Erasure) { e.Records[0].Ranges[0][0] = 0 },
		"backwards":         func(e *bundle.Erasure) { e.Records[0].Ranges[0] = [2]uint64{5, 3} },
		"ranges touch":      func(e *bundle.Erasure) { e.Records[0].Ranges[1][0] = 6 },
		"ranges overlap":    func(e *bundle.Erasure) { e.Records[0].Ranges[1][0] = 4 },
		"range without end": func(e *bundle.Erasure) { e.Records[0].Ranges[1][1] = 1<<62 + 1 },
		"a boot twice":      func(e *bundle.Erasure) { e.Records[1].Boot = aBoot },
		"boots unordered":   func(e *bundle.Erasure) { e.Records[0], e.Records[1] = e.Records[1], e.Records[0] },
		"too many ranges": func(e *bundle.Erasure) {
			e.Records[2].Ranges = nil
			for i := range uint64(bundle.MaxErasedRanges) {
				e.Records[2].Ranges = append(e.Records[2].Ranges, [2]uint64{2*i + 1, 2*i + 1})
			}
		},
	} {
		e := erasure()
		breakIt(e)
		check("erasure", rule, e)
	}
	for rule, breakIt := range map[string]func(*bundle.Hold){
		"no tenant":   func(h *bundle.Hold) { h.Tenant = "" },
		"no id":       func(h *bundle.Hold) { h.ID = "" },
		"id of words": func(h *bundle.Hold) { h.ID = "case 7" },
		"no reason":   func(h *bundle.Hold) { h.Reason = "" },
		"backwards":   func(h *bundle.Hold) { h.Scope.From = h.Scope.To + 1 },
		"before 1970": func(h *bundle.Hold) { h.Scope.From = -1 },
		"bad node":    func(h *bundle.Hold) { h.Scope.Node = "*" },
		"bad point":   func(h *bundle.Hold) { h.Scope.Point = "a..b" },
		"no time":     func(h *bundle.Hold) { h.Created = 0 },
	} {
		h := hold()
		breakIt(h)
		check("hold", rule, h)
	}
	for rule, breakIt := range map[string]func(*bundle.HoldRelease){
		"nothing":   func(h *bundle.HoldRelease) { h.Holds = nil },
		"too many":  func(h *bundle.HoldRelease) { h.Holds = make([]wire.Digest, bundle.MaxLifted+1) },
		"no reason": func(h *bundle.HoldRelease) { h.Reason = "" },
		"no tenant": func(h *bundle.HoldRelease) { h.Tenant = "" },
	} {
		h := holdRelease(wire.Sum(nil))
		breakIt(h)
		check("hold-release", rule, h)
	}
	for rule, breakIt := range map[string]func(*bundle.Retirement){
		"no region": func(r *bundle.Retirement) { r.Region = "" },
		"no reason": func(r *bundle.Retirement) { r.Reason = "" },
		"no tenant": func(r *bundle.Retirement) { r.Tenant = "" },
	} {
		r := retirement()
		breakIt(r)
		check("retirement", rule, r)
	}
}

// One person ends neither a hold nor a region, whichever keys he has.
func TestTwoPersonsForData(t *testing.T) {
	f := newFleet(t)
	second := key(t, bundle.RoleData, "dana", 18)
	f.trust.Keys = append(f.trust.Keys, second.Key)
	for _, kind := range []string{"hold-release", "retirement"} {
		k := f.kinds()[kind]
		for _, signers := range [][]*bundle.PrivateKey{{f.dana}, {f.dana, second}, {f.dana, f.root}, {f.dana, f.kim}} {
			if got, _, err := k.open(sign(t, k.payloadType, marshal(t, k.good), signers...)); got != nil || !errors.Is(err, bundle.ErrThreshold) {
				t.Errorf("%s by %d: %v", kind, len(signers), err)
			}
		}
	}
	rhea := key(t, bundle.RoleRoot, "rhea", 19)
	f.trust.Keys = append(f.trust.Keys, rhea.Key)
	env := sign(t, bundle.RetirementType, marshal(t, retirement()), f.root, rhea)
	if r, err := f.trust.OpenRetirement(env); err != nil || len(r.Persons) != 2 || r.Region != "us" {
		t.Errorf("by two of role root: %v", err)
	}
}

// An erasure of another tenant, or by a key that was taken out of the trust root,
// is not believed.
func TestForeignErasure(t *testing.T) {
	f := newFleet(t)
	env, err := bundle.SignErasure(erasure(), f.dana)
	if err != nil {
		t.Fatal(err)
	}
	other := *f.trust
	other.Tenant = "umbrella"
	if _, err := other.OpenErasure(env); !errors.Is(err, bundle.ErrTenant) {
		t.Errorf("of another tenant: %v", err)
	}
	without := bundle.NewTrustRoot("acme", now.AddDate(1, 0, 0), f.root.Key, f.author.Key, f.approver.Key, f.dora.Key)
	if _, err := without.OpenErasure(env); !errors.Is(err, bundle.ErrUnknownKey) {
		t.Errorf("by a revoked key: %v", err)
	}
	if n := erasure().Count(); n != 3+1+1+1<<40 {
		t.Errorf("names %d records", n)
	}
}

func TestHoldScopeWords(t *testing.T) {
	if s := (bundle.HoldScope{}).String(); s != "all" {
		t.Errorf("everything is %q", s)
	}
	s := bundle.HoldScope{Node: "edge-1", To: 1_800_000_000_000_000_000}
	if got := s.String(); got != "node:edge-1 time:..2027-01-15T08:00:00Z" {
		t.Errorf("%q", got)
	}
}

// A class is the same everywhere in a release, keeps records for six months at
// least, and parts no longer than records.
func TestRetentionRules(t *testing.T) {
	good := bundle.Retention{Class: "standard", RecordsDays: 183, PartsDays: 30}
	for name, c := range map[string]struct {
		one, other bundle.Retention
		ok         bool
	}{
		"none":                    {bundle.Retention{}, bundle.Retention{}, true},
		"one":                     {good, bundle.Retention{}, true},
		"both":                    {good, good, true},
		"for ever":                {bundle.Retention{Class: "legal"}, good, true},
		"parts for a while":       {bundle.Retention{Class: "legal", PartsDays: 30}, good, true},
		"one class, other days":   {good, bundle.Retention{Class: "standard", RecordsDays: 200, PartsDays: 30}, false},
		"less than six months":    {bundle.Retention{Class: "short", RecordsDays: 182}, good, false},
		"parts longer than their": {bundle.Retention{Class: "odd", RecordsDays: 183, PartsDays: 184}, good, false},
		"days without a class":    {bundle.Retention{PartsDays: 30}, good, false},
		"class with a space":      {bundle.Retention{Class: "a b", PartsDays: 30}, good, false},
		"a thousand years":        {bundle.Retention{Class: "a", RecordsDays: 365_000}, good, false},
	} {
		r := release(7)
		r.Points = append(r.Points, r.Points[0])
		r.Points[1].Name = "custom.other"
		r.Points[0].Retention, r.Points[1].Retention = c.one, c.other
		if err := r.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
