package guard_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

func killOf(scope string) *bundle.SignedKill {
	k := &bundle.SignedKill{Kill: bundle.Kill{Scope: bundle.Scope(scope), Reason: "why"}}
	k.Digest = wire.Sum([]byte(scope))
	return k
}

func TestKillsStop(t *testing.T) {
	pkg := wire.Sum([]byte("package"))
	req := &policy.Request{Point: policy.PointPreCall, Subject: policy.Entity{Type: "agent", ID: "a:7"}, Resource: policy.Entity{Type: "tool", ID: "pay"}}
	for scope, stops := range map[string]bool{
		"all": true, "point:tool.pre_call": true, "point:tool.post_call": false,
		"subject:a:7": true, "subject:agent:a:7": true, "subject:agent": false, "subject:7": false, "subject:pay": false,
		"resource:pay": true, "resource:tool:pay": true, "resource:agent:a:7": false, "resource:tool": false,
		"policy:" + pkg.Hex(): true, "policy:" + pkg.String(): true, "policy:" + wire.Sum(nil).Hex(): false,
	} {
		kills := guard.NewKills([]*bundle.SignedKill{killOf("subject:nobody"), killOf(scope)})
		hit := kills.Stops(req, []wire.Digest{wire.Sum([]byte("other")), pkg})
		if (hit != nil) != stops {
			t.Errorf("%s: %+v", scope, hit)
		}
		if hit == nil {
			continue
		}
		if d := hit.Decision(); d.Verdict != policy.Deny || d.Reasons[0].Code != guard.CodeKilled || hit.Digest != wire.Sum([]byte(scope)) {
			t.Errorf("%s: %+v", scope, d)
		}
		stop := *req
		if stop.Point = policy.PointAgentStop; kills.Stops(&stop, []wire.Digest{pkg}) != nil {
			t.Errorf("%s stops agent.stop", scope)
		}
	}
	if guard.NewKills(nil) != nil || guard.NewKills(nil).Stops(req, nil) != nil {
		t.Error("no kills stop something")
	}
}

// An entity without a name is not the subject that a kill names.
func TestKillsAndDocuments(t *testing.T) {
	kills := guard.NewKills([]*bundle.SignedKill{killOf("subject:x"), killOf("resource:data:p/allow")})
	bare := &policy.Request{Point: policy.PointCustom}
	if hit := kills.Stops(bare, nil); hit != nil {
		t.Errorf("%+v", hit)
	}
	bare.Resource = policy.Entity{Type: "data", ID: "p/allow"}
	if kills.Stops(bare, nil) == nil {
		t.Error("OPA's path is the resource")
	}
}

// BenchmarkGuard is what stands before every decision.
func BenchmarkGuard(b *testing.B) {
	now := guard.Instant{Mono: int64(time.Hour), Wall: int64(400_000 * time.Hour)}
	lease := &guard.Lease{Expected: true, Regions: []guard.Region{{Name: "eu", Time: now.Wall, Mono: now.Mono}, {Name: "us", Time: now.Wall, Mono: now.Mono}}}
	req := &policy.Request{Point: policy.PointPreCall, Subject: policy.Entity{Type: "agent", ID: "agent-70041"}, Resource: policy.Entity{Type: "tool", ID: "payments.transfer"}}
	packages := []wire.Digest{wire.Sum([]byte("a")), wire.Sum([]byte("b"))}
	for _, n := range []int{0, 1000} {
		var active []*bundle.SignedKill
		for i := range n {
			kind := []string{"subject:s%d", "resource:r%d", "point:p%d", "policy:%064x"}[i%4]
			active = append(active, killOf(fmt.Sprintf(kind, i)))
		}
		kills := guard.NewKills(active)
		b.Run(fmt.Sprintf("kills=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if state, _ := lease.Judge(now, bundle.Staleness{}, time.Hour); state != guard.Fresh || kills.Stops(req, packages) != nil {
					b.Fatal("stopped")
				}
			}
		})
	}
}
