# Run by `holdfast test`, in OPA's own runner.
package tools_test

import data.tools

call(role, tool, amount) := {
	"subject": {"type": "agent", "id": "a", "properties": {"role": role}},
	"action": {"name": "tools/call"},
	"resource": {"type": "tool", "id": tool},
	"context": {"arguments": {"amount": amount}},
}

test_granted if tools.decision.verdict == "allow" with input as call("clerk", "payments.send", 10)

test_another_role if tools.decision.verdict == "deny" with input as call("guest", "payments.send", 10)

test_no_role if tools.decision.verdict == "deny" with input as {}

test_large_amounts_wait if {
	tools.decision.verdict == "require_approval" with input as call("clerk", "payments.send", 501)
}

test_the_limit_is_a_parameter if {
	tools.decision.verdict == "allow" with input as call("clerk", "payments.send", 501) with data.params.most as 1000
}
