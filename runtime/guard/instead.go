package guard

import "github.com/holdfast-policy/holdfast/sdk/policy"

// CodeNotDurable is the reason code of an answer whose record was not in the
// regions in time that its point demands.
const CodeNotDurable = "durability_not_met"

// Instead is what on_log_failure makes of a decision: never more than was decided.
func Instead(mode policy.FailMode, d policy.Decision, why policy.Reason) policy.Decision {
	if mode == policy.FailAllowFlagged {
		d.Reasons = append(d.Reasons[:len(d.Reasons):len(d.Reasons)], why)
		return d
	}
	return policy.Decision{Verdict: min(d.Verdict, mode.Verdict()), Reasons: []policy.Reason{why}, Epoch: d.Epoch}
}
