// Large is a guest in Go about as large as the class language-runtime admits: the
// targets of its br_table instructions are nearly as many as may be.
package main

import (
	"regexp"
	"time"
	_ "time/tzdata"

	guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
)

func init() { guest.Register(guest.Policy{Decide: decide}) }

func main() {}

// decide uses each of them, so that the linker keeps them.
func decide(r guest.Request) guest.Decision {
	pattern, err := regexp.Compile(r.Subject().ID())
	if err == nil && pattern.MatchString(r.Action()) {
		_, err = time.LoadLocation(r.ID())
	}
	if err != nil {
		return guest.Denied("unread", err.Error())
	}
	return guest.Decision{Verdict: guest.Allow}
}
