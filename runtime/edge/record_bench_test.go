package edge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-policy/holdfast/runtime/decide"
	"github.com/holdfast-policy/holdfast/runtime/mask"
	"github.com/holdfast-policy/holdfast/sdk/bundle"
	"github.com/holdfast-policy/holdfast/sdk/policy"
)

// BenchmarkRecord makes the record of a decision on 1 KB, without what a journal
// does: with nothing to mask, with masks that meet nothing, with three that do,
// and for a request that repeats no declaration or is itself repeated.
func BenchmarkRecord(b *testing.B) {
	declaration := `{"type":"object","properties":{`
	for i := range 9 {
		declaration += fmt.Sprintf(`"amount%d":{"type":"integer","description":"how much is paid"},`, i)
	}
	declaration += `"iban":{"type":"string"}}}`
	body := func(n int) string {
		return `{"id":"r-1","subject":{"type":"agent","id":"agent-7","properties":{"role":"finance"}},"action":{"name":"tools/call"},` +
			`"resource":{"type":"tool","id":"pay","properties":{"declaration":` + declaration + `}},` +
			`"context":{"arguments":{"iban":"DE89370400440532013000","amount":4711,"n":"` + strings.Repeat(string(rune('a'+n%26)), 1+n%60) + `"},"user":"please pay what I owe to Bob, and do it today"}}`
	}
	for _, c := range []struct {
		name   string
		masks  []bundle.Mask
		repeat bool // the very same request
	}{
		{name: "declaration repeats"},
		{name: "request repeats", repeat: true},
		{name: "masks meet nothing", masks: []bundle.Mask{{Path: "/context/nobody", Action: bundle.MaskHash}}},
		{name: "three masks", masks: []bundle.Mask{{Path: "/subject/id", Action: bundle.MaskHash}, {Path: "/context/user", Action: bundle.MaskDrop}, {Path: "/context/arguments/iban", Action: bundle.MaskTokenise}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			n := &Node{cfg: Config{Name: "n1"}, secret: newSecret(make([]byte, secretBytes)), repeats: newRepeats()}
			p := &decide.Point{Name: policy.PointPreCall, Durability: policy.Synced, Masks: mask.Compile(c.masks)}
			l := &live{activation: 2}
			outcome := decide.Outcome{Decision: policy.Decision{Verdict: policy.Deny, Epoch: 1, Reasons: []policy.Reason{{Code: "not_granted", Text: "agent-7 may not call pay"}}}}
			var asks []*asked
			for i := range 1000 {
				if c.repeat {
					i = 0
				}
				req, err := policy.ParseRequest(policy.PointPreCall, []byte(body(i)))
				if err != nil {
					b.Fatal(err)
				}
				asks = append(asks, &asked{req: req, start: time.Unix(1, 2), outcome: outcome})
			}
			b.SetBytes(int64(len(body(0))))
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if _, err := n.newRecord(l, p, asks[i%len(asks)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSlots looks for what a request of 1 KB repeats.
func BenchmarkSlots(b *testing.B) {
	small := []byte(`{"point":"custom","document":{"user":"ada"}}`)
	part := strings.Repeat(`"amount":{"type":"integer","description":"how much is paid"},`, 9)
	large := []byte(`{"resource":{"properties":{"declaration":{` + part[:len(part)-1] + `}}},"context":{"arguments":{"n":0000,"iban":"DE89370400440532013000"},"user":"please pay what I owe to Bob, and do it today"}}`)
	for name, doc := range map[string][]byte{"small": small, "1KB": large} {
		b.Run(name, func(b *testing.B) {
			r := newRepeats()
			at := strings.Index(string(doc), "0000")
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if i++; at > 0 { // the arguments are new ones, the declaration is not
					copy(doc[at:], []byte{'1' + byte(i%9), '0' + byte(i/9%10), '0' + byte(i/90%10), '0' + byte(i/900%10)})
				}
				r.slots(doc)
			}
		})
	}
}
