// Spend-cap lets the tools of a list spend up to a cap in a window of time, and
// asks for approval of larger payments.
package main

import (
	"errors"
	"slices"

	guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
)

func init() { guest.Register(guest.Policy{Configure: configure, Decide: decide}) }

func main() {}

// rules are the policy's parameters.
type rules struct {
	cap, approvalOver, windowHours int64
	currency                       string
	tools                          []string
}

// limits is set once, by configure, before the first decision.
var limits rules

func configure(params, _ guest.Value) error {
	var r rules
	var ok [5]bool
	r.cap, ok[0] = params.Get("cap").Whole()
	r.approvalOver, ok[1] = params.Get("approval_over").Whole()
	r.windowHours, ok[2] = params.Get("window_hours").Whole()
	r.tools, ok[3] = params.Get("tools").CopyTexts()
	currency := params.Get("currency")
	r.currency, ok[4] = currency.CopyText(), currency.Kind() == guest.String
	if slices.Contains(ok[:], false) || r.windowHours < 1 || r.windowHours > 8760 {
		return errors.New("want cap, approval_over and window_hours (1 to 8760) as whole numbers, currency as a text, tools as a list of texts")
	}
	limits = r
	return nil
}

func decide(r guest.Request) guest.Decision {
	tool, arguments := r.Resource().ID(), r.Context().Get("arguments")
	if !slices.Contains(limits.tools, tool) {
		return answer(guest.Allow, "not_a_payment", tool+" moves no money")
	}
	amount, ok := arguments.Get("amount").Whole()
	if !ok {
		return guest.Denied("amount_invalid", "the amount is not a whole number from 0")
	}
	if currency := arguments.Get("currency"); currency.Kind() != guest.String || !guest.EqualFold(currency.Text(), limits.currency) {
		return guest.Denied("currency_unknown", "the cap is in "+limits.currency)
	}
	spent, ok := r.Context().Get("spent").Whole()
	if !ok && r.Context().Get("spent").Exists() {
		return guest.Denied("spent_invalid", "what was spent is not a whole number from 0")
	}
	w, refusal := windowOf(r.Context().Get("window_start"))
	if refusal != "" {
		return guest.Denied("window_invalid", refusal)
	}
	if w.over {
		spent = 0
	}
	return limits.weigh(amount, spent, w)
}

// weigh holds a payment against the cap.
func (r *rules) weigh(amount, spent int64, w window) guest.Decision {
	left := r.cap - spent
	switch {
	case amount > left:
		d := guest.Denied("over_cap", guest.Decimal(amount)+" on top of "+guest.Decimal(spent)+" is more than "+r.money(r.cap))
		if w.started {
			d.Verdict = guest.Throttle
			d.Obligations = []guest.Obligation{{Type: "retry", Properties: map[string]any{"after_seconds": w.secondsLeft}}}
		}
		return d
	case amount > r.approvalOver:
		return answer(guest.RequireApproval, "needs_approval", guest.Decimal(amount)+" is more than "+r.money(r.approvalOver))
	default:
		d := answer(guest.Allow, "within_cap", guest.Decimal(amount)+" on top of "+guest.Decimal(spent)+" is within "+r.money(r.cap))
		d.Value = map[string]any{"remaining": left - amount}
		return d
	}
}

func (r *rules) money(n int64) string { return guest.Decimal(n) + " " + r.currency }

// A window is the time in which the cap counts.
type window struct {
	started, over bool
	secondsLeft   int64
}

// windowOf reads where the window begins; it says why it cannot.
func windowOf(start guest.Value) (w window, refusal string) {
	if !start.Exists() {
		return w, ""
	}
	from, ok := start.Time()
	now := guest.Now()
	switch {
	case !ok:
		return w, "the start of the window is not a time"
	case from > now:
		return w, "the window begins in the future"
	}
	w = window{started: true, secondsLeft: limits.windowHours * 3600}
	if left := w.secondsLeft*guest.Second - (now - from); left > 0 {
		w.secondsLeft = (left + guest.Second - 1) / guest.Second
	} else {
		w.over = true // and a new one begins now
	}
	return w, ""
}

func answer(v guest.Verdict, code, text string) guest.Decision {
	return guest.Decision{Verdict: v, Reasons: []guest.Reason{{Code: code, Text: text}}}
}
