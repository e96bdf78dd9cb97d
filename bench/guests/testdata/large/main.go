// Large is a guest in Go of about 4 MiB.
package main

import (
	"encoding/json"
	"encoding/xml"
	"math/big"
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
	var document any
	if err == nil {
		err = json.Unmarshal([]byte(r.ID()), &document)
	}
	if err == nil {
		err = xml.Unmarshal([]byte(r.ID()), new(struct{ A string }))
	}
	if n, ok := new(big.Int).SetString(r.ID(), 10); ok {
		_ = n.ProbablyPrime(1)
	}
	if err != nil {
		return guest.Denied("unread", err.Error())
	}
	return guest.Decision{Verdict: guest.Allow}
}
