// Spendcap is the measuring guests' policy with the Go SDK.
package main

import (
	"errors"
	"strconv"

	guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
)

func init() { guest.Register(guest.Policy{Configure: configure, Decide: decide}) }

func main() {}

// Set once, by configure, before the first decision.
var (
	tools = map[string]bool{}
	limit int64
)

func configure(params, _ guest.Value) error {
	for _, tool := range params.Get("tools").Items() {
		tools[string([]byte(tool.Text()))] = tool.Kind() == guest.String // a copy: the document does not last
	}
	limit = params.Get("cap").Int()
	if params.Get("tools").Kind() != guest.List || !whole(params.Get("cap")) {
		return errors.New("tools must be a list, cap a whole number from 0")
	}
	return nil
}

func decide(r guest.Request) guest.Decision {
	tool, amount, spent := r.Resource().ID(), r.Context().Path("arguments", "amount"), r.Context().Get("spent")
	switch {
	case !tools[tool]:
		return guest.Denied("tool_denied", tool+" is not an allowed tool")
	case !whole(amount):
		return guest.Denied("amount_invalid", "the amount is not a whole number from 0")
	case spent.Exists() && !whole(spent):
		return guest.Denied("spent_invalid", "what was spent is not a whole number from 0")
	case amount.Int() <= limit-spent.Int():
		return says(guest.Allow, "within_cap", amount, spent, " is within ")
	default:
		return says(guest.RequireApproval, "over_cap", amount, spent, " is more than ")
	}
}

func whole(v guest.Value) bool { return v.Kind() == guest.Int && v.Int() >= 0 }

func says(v guest.Verdict, code string, amount, spent guest.Value, is string) guest.Decision {
	text := strconv.FormatInt(amount.Int(), 10) + " on top of " + strconv.FormatInt(spent.Int(), 10) + is + strconv.FormatInt(limit, 10)
	return guest.Decision{Verdict: v, Reasons: []guest.Reason{{Code: code, Text: text}}}
}
