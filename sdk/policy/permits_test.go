package policy_test

import (
	"testing"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// AuthZEN's boolean: only allow and transform let the workload go on.
func TestPermits(t *testing.T) {
	for _, v := range policy.Verdicts() {
		if want := v == policy.Allow || v == policy.Transform; v.Permits() != want {
			t.Errorf("%v permits: %t", v, v.Permits())
		}
	}
	if policy.Verdict(9).Permits() {
		t.Error("a verdict that does not exist permits")
	}
}
