// Keeper is the Go SDK's turn: it tries to keep a counter, a random pool and a
// secret across calls, and answers what it found of the calls before, and some
// random bytes, which are the same in every call.
package main

import (
	"fmt"
	"math/rand/v2"
	"sync"

	guest "github.com/holdfast-policy/holdfast/sdk/guest/go"
)

func init() { guest.Register(guest.Policy{Decide: decide}) }

func main() {}

var (
	calls  int
	pool   = map[uint64][]byte{}
	once   sync.Once
	secret string
)

func decide(r guest.Request) guest.Decision {
	id := string([]byte(r.Subject().ID())) // a copy: the request's memory is the host's
	before := secret
	once.Do(func() { secret = id })
	random := rand.Uint64()
	text := fmt.Sprintf("calls %d, pages 0, pool %d, secret %s, random %x", calls, len(pool), before, random)
	calls++
	pool[random] = make([]byte, 1024)
	return guest.Denied("kept", text)
}
