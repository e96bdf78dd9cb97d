// Package guard holds what stands before and after the evaluation of a
// decision point: kills, the lease that heartbeats renew, and the check of
// obligations. It is pure: clocks and documents come in as arguments.
package guard

import (
	"fmt"

	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// CodeObligation is the reason code of a denial for an obligation that the
// asker cannot perform.
const CodeObligation = "obligation_unsupported"

// Obligations returns d, or a denial when d permits but carries an obligation
// of a type that the asker did not say it can perform (AuthZEN's obligations
// profile). The denial keeps the obligations, so that the record and the asker
// see which one it was.
func Obligations(req *policy.Request, d policy.Decision) policy.Decision {
	if !d.Verdict.Permits() {
		return d
	}
	for _, o := range d.Obligations {
		if req.Performs(o.Type) {
			continue
		}
		d.Verdict = policy.Deny
		d.Value = nil
		d.Reasons = append(d.Reasons[:len(d.Reasons):len(d.Reasons)], policy.Reason{
			Code: CodeObligation,
			Text: fmt.Sprintf("the asker did not list %q in supported_obligations", o.Type),
		})
		return d
	}
	return d
}
