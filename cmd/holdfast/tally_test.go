package main

import (
	"errors"
	"testing"

	"github.com/holdfast-policy/holdfast/internal/demo"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// Every claim of the result is one that can fail.
func TestEachFaultIsAFault(t *testing.T) {
	whole := func() *result {
		return &result{
			Regions: 2, Edges: 3, Verified: true, Enforced: enforcedResult{Nodes: 3, Of: 3},
			Decisions: decisionResult{Total: 2000}, Cut: cutResult{Decisions: 1000},
			Records: recordsResult{Answered: 2000, Journal: 2000, Regions: map[string]uint64{"eu": 2000, "us": 2000}},
		}
	}
	if faults := whole().faults(); len(faults) != 0 {
		t.Errorf("nothing is wrong, but %q", faults)
	}
	for name, damage := range map[string]func(*result){
		"failed":         func(r *result) { r.Decisions.Failed = 1 },
		"failed in cut":  func(r *result) { r.Cut.Failed = 1 },
		"lost":           func(r *result) { r.Records.Lost = 1 },
		"doubled":        func(r *result) { r.Records.Doubled = 1 },
		"gaps":           func(r *result) { r.Records.Gaps = 1 },
		"altered":        func(r *result) { r.Records.Altered = 1 },
		"not everywhere": func(r *result) { r.Enforced.Nodes = 2 },
		"not verified":   func(r *result) { r.Verified = false },
		"nothing asked":  func(r *result) { r.Decisions.Total = 0 },
		"none answered":  func(r *result) { r.Records.Answered = 0 },
		"a node missing": func(r *result) { r.Edges = 4 },
		"no cut":         func(r *result) { r.Cut.Decisions = 0 },
		"a region short": func(r *result) { r.Records.Regions["us"] = 1999 },
		"one region":     func(r *result) { delete(r.Records.Regions, "us") },
	} {
		r := whole()
		damage(r)
		if len(r.faults()) != 1 {
			t.Errorf("%s: %q", name, r.faults())
		}
	}
}

// Whatever was answered is looked for later, expected or not, and whatever is
// not as it should be has failed.
func TestTally(t *testing.T) {
	call := demo.Call{ID: "c", Want: policy.Deny, Code: "limit"}
	answer := func(seq uint64, v policy.Verdict, code string) policy.Answer {
		return policy.Answer{Decision: policy.Decision{Verdict: v, Reasons: []policy.Reason{{Code: code}}},
			Recorded: true, Durability: policy.Synced, Node: "n", Boot: "b", Seq: seq, Leaf: "l"}
	}
	unrecorded := answer(0, policy.Deny, "limit")
	unrecorded.Recorded = false
	tl := newTally()
	for _, c := range []struct {
		name           string
		a              policy.Answer
		err            error
		failed, stored int
	}{
		{"as expected", answer(1, policy.Deny, "limit"), nil, 0, 1},
		{"another verdict", answer(2, policy.Allow, "limit"), nil, 1, 2},
		{"another reason", answer(3, policy.Deny, "other"), nil, 2, 3},
		{"without a record", unrecorded, nil, 3, 3},
		{"no answer", policy.Answer{}, errors.New("refused"), 4, 3},
		{"a name given twice", answer(1, policy.Deny, "limit"), nil, 4, 3},
	} {
		tl.add(call, c.a, c.err)
		if tl.failed != c.failed || len(tl.answered) != c.stored {
			t.Errorf("%s: %d failed, %d answered", c.name, tl.failed, len(tl.answered))
		}
	}
	if tl.twice != 1 || tl.decisions != 6 {
		t.Errorf("%d twice, %d decisions", tl.twice, tl.decisions)
	}
	tl.tolerant = true
	if tl.add(call, policy.Answer{}, errors.New("killed")); tl.failed != 4 || tl.unanswered != 1 || tl.decisions != 6 {
		t.Errorf("while a node is killed: %+v", tl)
	}
}
