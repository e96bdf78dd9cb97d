// Argument-guard is a policy that looks at the bytes of a tool call: the texts
// in its arguments and what the user said. It denies forbidden substrings,
// control characters, characters that hide or reorder text, oversize strings
// and deep nesting. README.md says what it does not do.
//
//go:generate go run ../../cmd/holdfast build . --wasm-out argument-guard.wasm
package main

import guest "github.com/holdfast-policy/holdfast/sdk/guest/go"

func init() { guest.Register(guest.Policy{Configure: configure, Decide: decide}) }

func main() {}

// limits is set once, by configure, before the first decision.
var limits = defaults()

func configure(params, _ guest.Value) (err error) {
	limits, err = parseRules(params)
	return err
}

func decide(r guest.Request) guest.Decision { return limits.check(r) }
