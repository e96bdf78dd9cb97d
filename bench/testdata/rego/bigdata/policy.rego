# An account's limits, out of 5 MB of them.
package bigdata

# METADATA
# entrypoint: true
default allow := false

allow if {
	account := data.accounts[input.account]
	input.model in account.models
	input.tokens <= account.tokens
}
