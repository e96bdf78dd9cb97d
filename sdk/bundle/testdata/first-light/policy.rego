package first

default decision := {"verdict": "deny", "reasons": [{"code": "no_rule", "text": "no rule for this"}]}

decision := {"verdict": "allow", "value": {"limit": data.params.limit, "half": data.params.share, "role": data.roles[input.subject.id]}} if {
	input.action.name == "read"
	data.roles[input.subject.id]
}

decision := {"verdict": "transform", "obligations": [{"type": "redact", "properties": {"paths": ["/a"]}}, {"type": "label"}], "reasons": [{"code": "masked", "text": "x"}, {"code": "labelled", "text": "y"}]} if {
	input.action.name == "write"
}

decision := "nonsense" if input.action.name == "both"

decision := "other" if input.action.name == "both"
