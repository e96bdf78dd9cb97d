# Role-based access control over a list of bindings: the policy of OPA's own
# documentation, with the data in data.json.
package rbac

default allow := false

allow if {
	some binding in data.bindings
	binding.user == input.user
	some grant in data.roles[binding.role]
	grant.action == input.action
	grant.type == input.type
}
