package guard_test

import (
	"testing"

	"github.com/holdfast-policy/holdfast/runtime/guard"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

func TestObligations(t *testing.T) {
	redact := []policy.Obligation{{Type: "redact"}}
	both := []policy.Obligation{{Type: "redact"}, {Type: "notify"}}
	for name, c := range map[string]struct {
		supported []string
		in        policy.Decision
		want      policy.Verdict
	}{
		"none asked":       {nil, policy.Decision{Verdict: policy.Allow}, policy.Allow},
		"supported":        {[]string{"redact"}, policy.Decision{Verdict: policy.Transform, Obligations: redact}, policy.Transform},
		"not supported":    {nil, policy.Decision{Verdict: policy.Transform, Obligations: redact}, policy.Deny},
		"one of two":       {[]string{"redact"}, policy.Decision{Verdict: policy.Allow, Obligations: both}, policy.Deny},
		"a denial's own":   {nil, policy.Decision{Verdict: policy.Deny, Obligations: redact}, policy.Deny},
		"approval instead": {nil, policy.Decision{Verdict: policy.RequireApproval, Obligations: redact}, policy.RequireApproval},
	} {
		c.in.Value = "rewritten"
		got := guard.Obligations(&policy.Request{Supported: c.supported}, c.in)
		if got.Verdict != c.want {
			t.Errorf("%s: %v, want %v", name, got.Verdict, c.want)
		}
		if got.Verdict != c.in.Verdict && got.Reasons[len(got.Reasons)-1].Code != guard.CodeObligation {
			t.Errorf("%s: no reason: %+v", name, got)
		}
		if kept := got.Value != nil; kept != (got.Verdict == c.in.Verdict) {
			t.Errorf("%s: value %v with %v", name, got.Value, got.Verdict)
		}
	}
}
