package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/internal/assembly"
	"github.com/holdfast-policy/holdfast/internal/fleetkit"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wire"
)

// The keys of who enrols and who kills are rotated: what is stopped stays
// stopped, on a node that comes later as well; that node can be retired; who
// begins with the newest trust root is told what he does not see; and a lift of
// nothing is refused.
func TestAfterARotation(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*timeout)
	defer cancel()
	f := newFleet(t, 1, "eu")
	configure(t, f, "heartbeat: 200ms\n")
	if err := f.StartHubs(ctx); err != nil {
		t.Fatal(err)
	}
	admin, err := f.Admin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	startEdge(t, ctx, f, "one", "eu", nil)
	publish(t, ctx, f, nil, allow(t, "ada"))
	kill, err := bundle.SignKill(&bundle.Kill{Tenant: "bank", Scope: bundle.ScopeAll, Reason: "drill", Created: time.Now().UnixNano()}, f.Keys[fleetkit.Killer])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Kill(ctx, kill); err != nil {
		t.Fatal(err)
	}

	next := *f.Root
	next.Version++
	next.Keys = slices.DeleteFunc(slices.Clone(f.Root.Keys), func(k bundle.Key) bool {
		return k.Person == fleetkit.Enroller || k.Person == fleetkit.Killer
	})
	for person, role := range map[string]bundle.Role{"emil": bundle.RoleEnrol, "kay": bundle.RoleKill} {
		k, err := bundle.GenerateKey(role, person)
		if err != nil {
			t.Fatal(err)
		}
		f.Keys[person], next.Keys = k, append(next.Keys, k.Key)
	}
	slices.SortFunc(next.Keys, func(a, b bundle.Key) int { return bytes.Compare(a.Public, b.Public) })
	root, err := bundle.SignTrustRoot(&next, f.Keys[fleetkit.Root])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.PutRoot(ctx, root); err != nil {
		t.Fatal(err)
	}
	f.Keys[fleetkit.Enroller] = f.Keys["emil"]
	two := startEdge(t, ctx, f, "two", "eu", nil)
	decideUntil(t, two, "ada", policy.Deny)
	until(t, ctx, f, "the new node obeys the kill of before", func(s *assembly.State) bool {
		v := s.View()
		return v.InForce.Nodes == 2 && len(v.Kills) == 1 && v.Kills[0].Confirmed == 2 && s.Foreign == 0
	})

	cfg, err := assembly.AdminOf(f.Layout)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Root = &next
	late, err := assembly.OpenAdmin(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if s, err := late.Read(ctx); err != nil || s.Foreign != 2 { // an enrolment and a kill
		t.Errorf("from the newest trust root: %+v, %v", s, err)
	}
	lift, err := bundle.SignLift(&bundle.Lift{Tenant: "bank", Kills: []wire.Digest{wire.Sum([]byte("mistyped"))}, Reason: "fixed", Created: time.Now().UnixNano()},
		f.Keys["kay"], f.Keys[fleetkit.Killer2])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Kill(ctx, lift); err == nil || !strings.Contains(err.Error(), "nothing would be lifted") {
		t.Errorf("a lift of nothing: %v", err)
	}
	retired, _, err := assembly.RetireNode(f.Layout, "two", f.Keys["emil"])
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Enrol(ctx, retired); err != nil {
		t.Fatal(err)
	}
	counted(t, ctx, f, 1, 1)
}
