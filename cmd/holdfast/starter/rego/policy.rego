# Which role may call which tool, and up to which amount.
package tools

import data.tools.roles

# METADATA
# title: May this call be made?
# entrypoint: true
default decision := {"verdict": "deny", "reasons": [{"code": "not_granted", "text": "the role may not call this tool"}]}

decision := {"verdict": "allow"} if {
	granted
	not too_much
}

decision := {"verdict": "require_approval", "reasons": [{"code": "amount", "text": "a person must approve this amount"}]} if {
	granted
	too_much
}

granted if {
	some pattern in roles[input.subject.properties.role].tools
	glob.match(pattern, ["."], input.resource.id)
}

too_much if input.context.arguments.amount > data.params.most
