package tool_authz_test

import data.tool_authz

params := {
	"roles": {"clerk": {"allow": ["payments.*", "fetch"], "deny": ["payments.refund"]}},
	"limits": {
		"amounts": {"amount": 1000},
		"paths": {"arguments": ["path"], "prefixes": ["/srv/data"]},
		"hosts": {"arguments": ["url"], "allow": ["api.example.org"]},
	},
}

declaration := {
	"type": "dict",
	"required": ["to"],
	"properties": {"to": {"type": "string"}, "amount": {"type": "number"}, "path": {"type": "string"}, "url": {"type": "string"}},
}

request(tool, arguments) := {
	"subject": {"type": "agent", "id": "a", "properties": {"role": "clerk"}},
	"action": {"name": "tools/call"},
	"resource": {"type": "tool", "id": tool, "properties": {"declaration": declaration}},
	"context": {"arguments": arguments},
}

codes(decision) := [reason.code | some reason in decision.reasons]

test_granted if {
	d := tool_authz.decision with input as request("payments.send", {"to": "Ada"}) with data.params as params
	d == {"verdict": "allow", "reasons": []}
}

test_denied_by_default if {
	d := tool_authz.decision with input as {} with data.params as {}
	d.verdict == "deny"
	count(d.reasons) > 0
}

test_deny_list_wins if {
	d := tool_authz.decision with input as request("payments.refund", {"to": "Ada"}) with data.params as params
	codes(d) == ["tool_denied"]
}

test_reason_points_at_the_argument if {
	d := tool_authz.decision with input as request("fetch", {"to": 7}) with data.params as params
	d.reasons == [{"code": "argument_type", "text": "/context/arguments/to: must be of type string, not number"}]
}

test_pointer_is_escaped if {
	tool_authz.pointer(["a/b", 0, "c~d"]) == "/context/arguments/a~1b/0/c~0d"
}

test_limits if {
	arguments := {"to": "Ada", "amount": 1001, "path": "/srv/data/../x", "url": "https://evil.example.net"}
	d := tool_authz.decision with input as request("fetch", arguments) with data.params as params
	codes(d) == ["amount_over_limit", "host_not_allowed", "path_climbs"]
}
