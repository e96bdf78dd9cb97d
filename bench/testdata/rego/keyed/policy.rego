# RBAC with the bindings keyed by user.
package keyed

# METADATA
# entrypoint: true
default allow := false

allow if {
	some role in data.bindings[input.user]
	some grant in data.roles[role]
	grant.action == input.action
	grant.type == input.type
}
