package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-policy/holdfast/sdk/abi"
	"github.com/holdfast-policy/holdfast/sdk/codec"
	"github.com/holdfast-policy/holdfast/sdk/policy"
	"github.com/holdfast-policy/holdfast/sdk/wasm"
)

// repetitions is how often the same request must give the same bytes and fuel.
const repetitions = 1_000

// frozen is what the clock shows in all calls, in nanoseconds since 1970.
const frozen = 1_767_225_600_000_000_000

// CheckGuest checks a guest on hosts that keep the contract. With several, all
// must get the same bytes and the same fuel of it; one is enough. No host is an
// error of the caller's: the report says that nothing was run.
func CheckGuest(ctx context.Context, hosts []Host, g Guest) Report {
	c := guestCheck{guest: g}
	if !c.admitted() || !c.load(ctx, hosts) {
		return c.report
	}
	c.requests()
	c.malformed()
	c.deterministic()
	c.isolated()
	return c.report
}

type guestCheck struct {
	report  Report
	guest   Guest
	codec   codec.Codec
	modules []abi.Module // the guest on each host
	asked   []answered   // the well-formed requests that were answered
}

// answered is a request and what it came to.
type answered struct {
	name   string
	input  []byte
	result abi.Result
}

func (c *guestCheck) admitted() bool {
	_, err := wasm.Scan(c.guest.Wasm, c.guest.Class)
	c.report.add("contract", "the exports, imports and limits of "+string(c.guest.ABI)+" in class "+c.guest.Class.String(), reason(err))
	return err == nil
}

// reason is the text of an error, "" for none.
func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (c *guestCheck) load(ctx context.Context, hosts []Host) bool {
	var err error
	if c.codec, err = codec.For(c.guest.ABI); err == nil && len(hosts) == 0 {
		err = errors.New("no host to run it on")
	}
	for _, h := range hosts {
		if err != nil {
			break
		}
		var m abi.Module
		if m, err = h.Load(ctx, c.guest); err == nil {
			c.modules = append(c.modules, m)
		}
	}
	c.report.add("initialise", "a guest that initialises with its parameters and data", reason(err))
	return err == nil
}

func (c *guestCheck) call(host int, input []byte) (abi.Result, error) {
	return c.modules[host].Call(abi.Call{Input: input, Now: frozen, Fuel: abi.MaxFuel})
}

// requests asks all well-formed requests: each must be answered.
func (c *guestCheck) requests() {
	for _, r := range requests() {
		input, err := c.encode(r.json())
		if err != nil {
			c.report.add("request/"+r.name, r.expected, "the kit's own request: "+err.Error())
			continue
		}
		result, err := c.call(0, input)
		if missing := c.undecided(result, err); missing != "" {
			c.report.add("request/"+r.name, r.expected, missing)
			continue
		}
		c.asked = append(c.asked, answered{r.name, input, result})
		c.report.add("request/"+r.name, r.expected, noisy(result.Logs))
	}
}

func (c *guestCheck) encode(body []byte) ([]byte, error) {
	r, err := policy.ParseRequest(policy.PointPreCall, body)
	if err != nil {
		return nil, err
	}
	return c.codec.Encode(r)
}

// undecided says why a result is no decision, "" when it is one.
func (c *guestCheck) undecided(result abi.Result, err error) string {
	if err != nil {
		return "the call ended with " + err.Error()
	}
	if _, err := c.codec.Decode(result.Output); err != nil {
		return err.Error()
	}
	return ""
}

// noisy says that messages were probably dropped.
func noisy(logs []abi.Log) string {
	total := 0
	for _, l := range logs {
		total += len(l.Text)
	}
	if len(logs) >= abi.MaxLogMessages || total >= abi.MaxLogBytes {
		return fmt.Sprintf("%d messages of %d bytes: the host keeps %d of %d bytes", len(logs), total, abi.MaxLogMessages, abi.MaxLogBytes)
	}
	return ""
}

// malformed asks what is no request: the guest decides or refuses, but does not trap.
func (c *guestCheck) malformed() {
	const expected = "a decision, or the guest's own refusal: no trap, and no use of all fuel"
	for _, m := range malformed(c.guest.ABI) {
		result, err := c.call(0, m.input)
		code, isTrap := trapOf(err)
		missing := ""
		switch {
		case !isTrap:
			missing = "an error that is no trap: " + err.Error()
		case code == abi.TrapRefused, code == abi.TrapInput, code == abi.TrapAbort && c.guest.ABI == abi.OPA1:
		case err != nil:
			missing = "the call ended with " + err.Error()
		default:
			missing = c.undecided(result, nil)
		}
		c.report.add("malformed/"+m.name, expected, missing)
	}
}

// deterministic asks the first request again and again, and every request of
// the other hosts.
func (c *guestCheck) deterministic() {
	if len(c.asked) == 0 {
		return
	}
	first := c.asked[0]
	missing := ""
	for n := 0; n < repetitions && missing == ""; n++ {
		missing = c.differs(0, first)
	}
	c.report.add("determinism/again", fmt.Sprintf("the same bytes and the same fuel %d times", repetitions), missing)
	for host := 1; host < len(c.modules); host++ {
		missing = ""
		for n := 0; n < len(c.asked) && missing == ""; n++ {
			missing = c.differs(host, c.asked[n])
		}
		c.report.add(fmt.Sprintf("determinism/host %d", host+1), "the same bytes and the same fuel as on the first host", missing)
	}
}

// isolated asks all requests in the other order, with malformed ones in between.
func (c *guestCheck) isolated() {
	missing := ""
	junk := malformed(c.guest.ABI)
	for n, a := range slices.Backward(c.asked) {
		c.call(0, junk[n%len(junk)].input)
		if missing = c.differs(0, a); missing != "" {
			break
		}
	}
	c.report.add("isolation/order", "the same bytes and the same fuel, whatever was asked before", missing)
}

// differs asks again and says what is not as before.
func (c *guestCheck) differs(host int, before answered) string {
	result, err := c.call(host, before.input)
	switch {
	case err != nil:
		return fmt.Sprintf("request %s ended with %v", before.name, err)
	case !bytes.Equal(result.Output, before.result.Output):
		return fmt.Sprintf("request %s: %.80x, before %.80x", before.name, result.Output, before.result.Output)
	case result.Fuel != before.result.Fuel:
		return fmt.Sprintf("request %s used %d units, before %d", before.name, result.Fuel, before.result.Fuel)
	}
	return ""
}
