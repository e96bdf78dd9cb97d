package shop

import data.shop.limits

default allow := false

allow if {
	some role in data.shop.roles[input.user]
	role == "buyer"
	input.amount <= limits.most
}

allow if input.user == "root"

seen := input

reply := {"allow": true, "reasons": ["of any shape"], "obligations": "too"}

list := ["a", {"b": [1, 2.50, 9223372036854775809]}]

huge if input.n == 9223372036854775809

keys contains k if some k, _ in input.object

text := "<&> \u2028 ü"

nothing if false

number := input.a + input.b

none := null

deep.er.rule := 7

conflict := 1 if input.conflict

conflict := 2 if input.conflict

divided := 1 / input.zero
